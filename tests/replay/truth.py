"""A queue that is simulated job by job, against which replays are held.

Producers offer by chance, and are told what the latest reading of the queue means; loops wait for one job before they
offer the next; a part of what is shed comes back. It is written down as a recording has it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from backpressure._engine.sample import Sample
from backpressure._recording.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.laws.law import Law

BEGIN_MS = 1_800_000_000_000
LOW, MEDIUM, HIGH = range(3)
#: Seconds between two readings of the queue, as the policy of the tests has them.
POLL = 5


class Scenario(NamedTuple):
    """What happens, whatever the policy.

    Attributes:
        seconds: how long it lasts.
        offers: jobs a second that open producers offer at a second, LOW first.
        drain: jobs a second that workers take.
        returns: part of shed jobs that come back after the time that they were told.
        loops: producers of MEDIUM jobs that wait for one before they offer the next, a second later.
    """

    seconds: int
    offers: Callable[[int], tuple[float, float, float]]
    drain: Callable[[int], float]
    returns: float = 0.0
    loops: int = 0


class Truth:
    """What comes of a scenario under a law, whose advice is done or only observed."""

    def __init__(self, scenario: Scenario, law: Law, *, enforces: bool, every: int = 1, seed: int = 1) -> None:
        self._scenario, self._law, self._enforces, self._every = scenario, law, enforces, every
        self._draw = random.Random(seed)
        self._events: list[tuple[float, int, str, int]] = []  # due, a number, what, priority
        self._number = 0
        self._queue: deque[float] = deque()  # when each job came
        # Since the last row: offers, delays, sheds of HIGH, MEDIUM, LOW.
        self._counts = [0] * 9
        self.offers, self.delays, self.sheds = [0] * 3, [0] * 3, [0] * 3
        self.peak, self.longest_wait = 0, 0.0
        self.rows = [Row(BEGIN_MS, 0, circuit=0, policy=1)]
        self._read()
        for _ in range(scenario.loops):
            self._at(self._draw.random(), "loop", MEDIUM)
        for second in range(scenario.seconds):
            self._pass_by(second)

    def _at(self, due: float, what: str, priority: int) -> None:
        self._number += 1
        heapq.heappush(self._events, (due, self._number, what, priority))

    def _read(self) -> None:
        sample = Sample(len(self._queue), 0, None)
        self._advice = [self._law.advise(sample, priority, self._law.new_state()) for priority in range(3)]

    def _pass_by(self, second: int) -> None:
        if second % POLL == 0:
            self._read()
        for priority, rate in enumerate(self._scenario.offers(second)):
            for _ in range(self._poisson(rate)):
                self._at(second + self._draw.random(), "offer", priority)
        while self._events and self._events[0][0] < second + 1:
            now, _, what, priority = heapq.heappop(self._events)
            if what == "enter":
                self._queue.append(now)
            else:
                self._offer(now, priority, what)
        for _ in range(min(self._poisson(self._scenario.drain(second)), len(self._queue))):
            self.longest_wait = max(self.longest_wait, second + 1 - self._queue.popleft())
        self.peak = max(self.peak, len(self._queue))
        if (second + 1) % self._every == 0:
            at_ms = BEGIN_MS + 1_000 * (second + 1)
            self.rows.append(Row._make((at_ms, len(self._queue), *[None] * 4, *self._counts, 0, 1)))
            self._counts = [0] * 9

    def _offer(self, now: float, priority: int, what: str) -> None:
        advice = self._advice[priority]
        seconds = advice.delay_ns / 1e9
        self._count(0, self.offers, priority)
        if advice.shed and self._enforces:
            self._count(2, self.sheds, priority)
            if self._draw.random() < self._scenario.returns:
                self._at(now + seconds, "offer", priority)
            return
        if seconds and not advice.shed:
            self._count(1, self.delays, priority)
        enters = now + seconds * (1 + self._draw.random() / 10) if self._enforces else now
        self._at(enters, "enter", priority)
        if what == "loop":
            self._at(enters + 1, "loop", priority)

    def _count(self, place: int, totals: list[int], priority: int) -> None:
        totals[priority] += 1
        self._counts[3 * (HIGH - priority) + place] += 1

    def _poisson(self, mean: float) -> int:
        if mean > 30:
            return max(0, round(self._draw.gauss(mean, math.sqrt(mean))))
        limit, count, product = math.exp(-mean), 0, self._draw.random()
        while product > limit:
            count += 1
            product *= self._draw.random()
        return count
