"""A queue that is simulated job by job, with whom replays are held against.

Producers offer by chance, and are told what the latest reading of the queue means; loops wait for one job before they
offer the next; a part of what is shed comes back. Each second the queue is written down as a recording has it.
"""

from __future__ import annotations

import heapq
import math
import random
from typing import TYPE_CHECKING, NamedTuple

from backpressure._engine.sample import Sample
from backpressure._recording.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.laws.law import Law

BEGIN_MS = 1_800_000_000_000
LOW, MEDIUM, HIGH = range(3)


class Scenario(NamedTuple):
    """What happens, whatever the policy.

    Attributes:
        seconds: how long it lasts.
        offers: jobs a second that open producers offer at a second, LOW first.
        drain: jobs a second that workers take.
        returns: part of shed LOW jobs that come back after the time that they were told.
        loops: producers of MEDIUM jobs that wait for one before they offer the next.
        pause: seconds between the two.
    """

    seconds: int
    offers: Callable[[int], tuple[float, float, float]]
    drain: Callable[[int], float]
    returns: float = 0.0
    loops: int = 0
    pause: float = 1.0


class Truth(NamedTuple):
    """What came of it: rows as recorded, and totals by priority."""

    rows: list[Row]
    offers: list[int]
    delays: list[int]
    sheds: list[int]
    held: list[float]
    peak: int
    longest_wait: float


def run(scenario: Scenario, law: Law, *, enforces: bool, seed: int = 1, every: int = 1, poll: int = 5) -> Truth:
    """Run a scenario under a law, whose advice is done or only observed."""
    draw = random.Random(seed)
    events: list[tuple[float, int, str, int]] = []  # due, a number, what, priority
    number = 0

    def at(due: float, what: str, priority: int) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (due, number, what, priority))

    offers, delays, sheds, held = [0] * 3, [0] * 3, [0] * 3, [0.0] * 3
    row_offers, row_delays, row_sheds = [0] * 3, [0] * 3, [0] * 3
    queue: list[float] = []
    first = 0  # place of the oldest job
    peak, longest, credit = 0, 0.0, 0.0
    rows = [Row(BEGIN_MS, 0, policy=1)]
    for _ in range(scenario.loops):
        at(draw.random() * scenario.pause, "loop", MEDIUM)
    advice = [law.advise(Sample(0, 0, None), priority, law.new_state()) for priority in range(3)]

    def offer(now: float, priority: int, *, loop: bool) -> None:
        told = advice[priority]
        seconds = told.delay_ns / 1e9
        offers[priority] += 1
        row_offers[priority] += 1
        if told.shed and enforces:
            sheds[priority] += 1
            row_sheds[priority] += 1
            if draw.random() < scenario.returns:
                at(now + seconds, "offer", priority)
            return
        if told.delay_ns and not told.shed:
            delays[priority] += 1
            row_delays[priority] += 1
        wait = seconds * (1 + draw.random() / 10) if enforces else 0.0
        held[priority] += wait
        at(now + wait, "enter", priority)
        if loop:
            at(now + wait + scenario.pause, "loop", priority)

    for second in range(scenario.seconds):
        if second % poll == 0:
            sample = Sample(len(queue) - first, 0, None)
            advice = [law.advise(sample, priority, law.new_state()) for priority in range(3)]
        for priority, rate in enumerate(scenario.offers(second)):
            for _ in range(_poisson(draw, rate)):
                at(second + draw.random(), "offer", priority)
        while events and events[0][0] < second + 1:
            now, _, what, priority = heapq.heappop(events)
            if what == "enter":
                queue.append(now)
            else:
                offer(now, priority, loop=what == "loop")
        credit += _poisson(draw, scenario.drain(second))
        taken = min(int(credit), len(queue) - first)
        credit = 0.0
        for job in queue[first : first + taken]:
            longest = max(longest, second + 1 - job)
        first += taken
        backlog = len(queue) - first
        peak = max(peak, backlog)
        if (second + 1) % every == 0:
            counts = [count for level in (HIGH, MEDIUM, LOW) for count in (row_offers[level], row_delays[level], row_sheds[level])]
            rows.append(Row(BEGIN_MS + 1_000 * (second + 1), backlog, None, None, None, None, *counts, 0, 1))
            row_offers, row_delays, row_sheds = [0] * 3, [0] * 3, [0] * 3
    return Truth(rows, offers, delays, sheds, held, peak, longest)


def _poisson(draw: random.Random, mean: float) -> int:
    if mean > 30:
        return max(0, round(draw.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, draw.random()
    while product > limit:
        count += 1
        product *= draw.random()
    return count
