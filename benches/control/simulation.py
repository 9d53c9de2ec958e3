"""A seeded discrete-event simulation: one queue, its workers, the shared budget, and processes of producers.

Time is whole microseconds. The budget answers at the instant of a call; the answer takes effect when it arrives.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs
from benches.control.processes import SECOND_US, Caller, Process
from benches.control.workers import Batches, Poisson, Pool, Scaled, Steady, Workers

from backpressure._age.budget import Budget
from backpressure._age.protocol import MILLION, BacklogSeen

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.control.scenario import Scenario

    from backpressure._age.protocol import Answer, Report

__all__ = ["Second", "Simulation"]

_STEP_US = 20_000
#: The server's clock when the simulation begins, so that it is not that of the processes.
_EPOCH_MS = 1_700_000_000_000


@attrs.frozen
class Second:
    """What a second brought; totals of HIGH, MEDIUM, LOW are since the beginning."""

    at: float
    backlog: int
    waited: float  # on average, those that were taken in this second
    taken: int
    capacity: float
    drain: float  # as the budget has it
    offered: tuple[int, ...]
    refused: tuple[int, ...]
    admitted: tuple[int, ...]
    calls: int


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, seed: int = 1, budget: type[Budget] = Budget) -> None:
        self.scenario = scenario
        self.settings = scenario.settings
        self.draw = random.Random(seed)
        self.budget = budget(scenario.settings)
        self.now_us = 0
        self.queue: deque[int] = deque()  # when each job came
        self.seconds: list[Second] = []
        self.offered, self.refused, self.admitted, self.calls = [0, 0, 0], [0, 0, 0], [0, 0, 0], 0
        self.went = [0] * len(scenario.tenants)
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._taken, self._waited_us, self._capacity = 0, 0, 0.0
        self._past: deque[tuple[int, BacklogSeen]] = deque(maxlen=400)
        self._told_us = -1
        self._wipes = list(scenario.wiped_at)
        self._workers = self._make_workers()
        self.processes = [self._new_process(str(number), number) for number in range(scenario.processes)]
        self._begin()

    def _make_workers(self) -> Workers:
        kind, drain = self.scenario.workers, self.scenario.drain
        if kind == "poisson":
            return Poisson(drain, self.draw)
        if kind == "batches":
            return Batches(drain, 2.0)
        if kind == "scaled":
            return Scaled(lambda: sum(self.budget.demand) / 1_000, 20.0)
        return Pool(50, 10.0, self.draw) if kind == "pool" else Steady(drain)

    def _new_process(self, name: str, number: int) -> Process:
        loops = self.scenario.loops
        if number == 0 and self.scenario.loops_in_first is not None:
            loops = self.scenario.loops_in_first
        if isinstance(loops, str):
            loops = max(1, int(self.draw.paretovariate(1.2)))
        return Process(self, name, loops)

    def _begin(self) -> None:
        tick_us = self.settings.tick_ms * 1_000
        for process in self.processes:
            self.at(int(self.draw.random() * tick_us), process.start)
            self._start_loops(process, tick_us)
        if self.scenario.offers:
            self.at(1_200_000, self._arrive)
        if self.scenario.unprotected:
            self.at(100_000, self._pass_by)
        self.at(_STEP_US, self._work)
        self.at(SECOND_US, self._note)

    def _start_loops(self, process: Process, after_us: int) -> None:
        for loop in range(len(process.loops)):
            caller = Caller(1, patient=True, loop=loop)
            at_us = self.now_us + after_us + int(self.draw.random() * SECOND_US / 2)
            self.at(at_us, process.next_of_loop, caller)

    # Events.

    def at(self, instant_us: int, do: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (instant_us, self._number, do, arguments))

    def run(self, told: Callable[[float], None] | None = None) -> Simulation:
        """Run to the end; `told` hears of each second."""
        events, end_us = self._events, int(self.scenario.seconds * SECOND_US)
        next_us = SECOND_US
        while events and events[0][0] <= end_us:
            self.now_us, _, do, arguments = heapq.heappop(events)
            if told is not None and self.now_us >= next_us:
                told(self.now_us / SECOND_US)
                next_us += SECOND_US
            do(*arguments)
        return self

    def _arrive(self) -> None:
        offers = self.scenario.offers
        assert offers is not None
        rate = offers(self.now_us / SECOND_US)
        self.at(self.now_us + int(self.draw.expovariate(max(rate, 1e-3)) * SECOND_US) + 1, self._arrive)
        if rate < 0.01:
            return
        level = self.scenario.level(self.draw.random())
        process = self.processes[int(self.draw.random() * len(self.processes))]
        if self.scenario.hot and self.draw.random() < self.scenario.hot:
            process = self.processes[0]
        self.offered[level] += 1
        tenant = None
        if self.scenario.tenants:
            (tenant,) = self.draw.choices(range(len(self.went)), self.scenario.tenants)
        process.offer(Caller(level, self.scenario.waits(level), tenant=tenant))

    def _pass_by(self) -> None:
        self.queue.append(self.now_us)
        self.at(self.now_us + int(self.draw.expovariate(self.scenario.unprotected) * SECOND_US) + 1, self._pass_by)

    def _work(self) -> None:
        self.at(self.now_us + _STEP_US, self._work)
        now, queue = self.now_us / SECOND_US, self.queue
        possible = self._workers.possible(now, _STEP_US / SECOND_US)
        jobs = min(possible, len(queue))
        self._capacity += self._workers.capacity(now, _STEP_US / SECOND_US, possible)
        for _ in range(jobs):
            self._waited_us += self.now_us - queue.popleft()
        self._taken += jobs
        self._workers.took(now, jobs)
        every_us = int(self.scenario.sample_every * SECOND_US) or (200_000 if self.scenario.sample_age else 0)
        if every_us and self.now_us % every_us == 0:
            self._past.append((self.now_us, self._see(0)))

    def _note(self) -> None:
        self.at(self.now_us + SECOND_US, self._note)
        waited = self._waited_us / self._taken / SECOND_US if self._taken else 0.0
        self.seconds.append(
            Second(
                self.now_us / SECOND_US,
                len(self.queue),
                waited,
                self._taken,
                self._capacity,
                self.budget.drain / 1_000,
                tuple(self.offered),
                tuple(self.refused),
                tuple(self.admitted),
                self.calls,
            )
        )
        self._taken, self._waited_us, self._capacity = 0, 0, 0.0
        if self.scenario.crashes[0]:
            self._crash()

    def _crash(self) -> None:
        ended, back = self.scenario.crashes
        for number, process in enumerate(self.processes):
            if process.alive:
                process.alive = self.draw.random() >= ended
            if not process.alive and self.draw.random() < back:
                anew = self._new_process(f"{number}.{self.now_us}", number)
                self.processes[number] = anew
                self.at(self.now_us + int(self.draw.random() * SECOND_US), anew.start)
                self._start_loops(anew, SECOND_US)

    # What processes ask for.

    def enqueue(self, caller: Caller) -> None:
        self.admitted[caller.level] += 1
        if caller.tenant is not None:
            self.went[caller.tenant] += 1
        self.queue.append(self.now_us)

    def refuse(self, caller: Caller) -> None:
        self.refused[caller.level] += 1

    def call(self, report: Report) -> Answer | None:
        """Answer a report; None while the store is away."""
        now, away = self.now_us / SECOND_US, self.scenario.store_away
        if away is not None and away[0] <= now < away[1]:
            return None
        if self._wipes and now >= self._wipes[0]:
            self._wipes.pop(0)
            self.budget.forget()
        self.calls += 1
        return self.budget.call(_EPOCH_MS + self.now_us // 1_000, report)

    def read(self) -> BacklogSeen | None:
        """Return what the queue's statistics say; None if that was told before."""
        age_us = int(self.scenario.sample_age * SECOND_US)
        if self.scenario.sample_every:
            return self._read_seldom(self.now_us - age_us)
        if not age_us:
            return self._see(0)
        for at_us, seen in reversed(self._past):
            if at_us <= self.now_us - age_us:
                return attrs.evolve(seen, ago_ms=age_us // 1_000)
        return BacklogSeen(0, 0 if self.scenario.tells_oldest else None, age_us // 1_000)

    def _read_seldom(self, until_us: int) -> BacklogSeen | None:
        for at_us, seen in reversed(self._past):
            if at_us <= until_us:
                if at_us == self._told_us and not self.scenario.sample_repeats:
                    return None
                self._told_us = at_us
                return attrs.evolve(seen, ago_ms=(self.now_us - at_us) // 1_000)
        return None

    def _see(self, ago_ms: int) -> BacklogSeen:
        jobs = len(self.queue)
        oldest = (self.now_us - self.queue[0]) // 1_000 if jobs else 0
        if self.scenario.sample_noise:
            jobs = max(0, int(jobs * (1 + self.draw.gauss(0, self.scenario.sample_noise))))
        return BacklogSeen(jobs, oldest if self.scenario.tells_oldest else None, ago_ms)

    def latency_us(self) -> int:
        return int(self.scenario.latency * (0.5 + self.draw.expovariate(2.0)) * SECOND_US)

    def spread_ppm(self) -> int:
        return int(MILLION * (1 + self.scenario.jitter * (2 * self.draw.random() - 1)))

    def loop_pause_us(self) -> int:
        return int(2_000 * (0.8 + 0.4 * self.draw.random()))
