"""One simulated process: callers around a `QueueLease`, as an engine has tasks or threads around it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from backpressure._age.lease import NEVER_US, QueueLease
from backpressure._age.protocol import LEVELS, MILLION, BacklogSeen

if TYPE_CHECKING:
    from benches.control.simulation import Simulation

    from backpressure._age.protocol import Answer

__all__ = ["SECOND_US", "Caller", "Process"]


SECOND_US = 1_000_000


@attrs.define(eq=False)
class Caller:
    """Who wants to enqueue a job: of a loop in the process, or from outside."""

    level: int
    patient: bool
    loop: int | None = None
    since_us: int = 0
    tenant: int | None = None


class Process:
    """A process with its callers: held, waiting in line, or gone on."""

    def __init__(self, simulation: Simulation, name: str, loops: int) -> None:
        draw = simulation.draw
        self.simulation = simulation
        self.lease = QueueLease(simulation.settings, name, [draw.randrange(MILLION) for _ in LEVELS])
        self.loops = [0] * loops  # jobs that each has enqueued
        self.salt = draw.getrandbits(64) if simulation.scenario.tenants else 0
        self.dealt: set[int] = set()
        self.alive = True
        self.held: list[Caller] = []
        self.asked: list[Caller] = []
        self.lines: tuple[deque[tuple[int, Caller]], ...] = (deque(), deque(), deque())
        self._looks_at_us: int | None = None
        self._alarms_us: list[int | None] = [None, None, None]

    # Callers.

    def offer(self, caller: Caller) -> None:
        """A caller comes, or comes again after a call during which it was held."""
        if not self.alive:
            return
        now, lease = self.simulation.now_us, self.lease
        if not lease.is_stale(caller.level, now, patient=caller.patient):
            if caller.patient:
                self._line_up(caller)
            else:
                self._end(caller, goes=lease.decide(caller.level, now, place=self._place(caller)))
        elif self.simulation.scenario.never_held and not caller.patient:
            self._end(caller, goes=lease.decide_stale(caller.level, now, place=self._place(caller)))
        else:
            lease.hold(caller.level, now, patient=caller.patient)
            self.held.append(caller)
            patience = self.simulation.scenario.held_for
            if patience is not None and not caller.patient:
                self.simulation.at(now + int(patience * SECOND_US), self._stop_holding, caller)
        self._look()

    def _place(self, caller: Caller) -> int | None:
        """Return the place of a caller's tenant; ``None`` without one."""
        if caller.tenant is None:
            return None
        tenants = self.lease.levels[caller.level].deal(self.salt)
        if caller.level not in self.dealt:
            self.dealt.add(caller.level)
            tenants.weigh({"heavy": 4})
        return tenants.place_of(hash((caller.tenant, 7)), int(caller.tenant < self.simulation.scenario.heavy))

    def _fairly(self, held: list[Caller]) -> list[Caller]:
        """See `backpressure._controller.age.budget.Budget`."""
        waits = {}
        for caller in held:
            place = None if caller.patient else self._place(caller)
            waits[caller] = place is not None and not self.lease.prefers(caller.level, place)
        return sorted(held, key=waits.__getitem__)

    def _stop_holding(self, caller: Caller) -> None:
        if not self.alive:
            return
        for callers, asked in ((self.held, False), (self.asked, True)):
            if caller in callers:
                callers.remove(caller)
                self.lease.unhold(caller.level, patient=False, asked=asked)
                now, place = self.simulation.now_us, self._place(caller)
                goes = self.lease.decide_stale(caller.level, now, asked=asked, place=place)
                self._end(caller, goes=goes)
        self._look()

    def _line_up(self, caller: Caller) -> None:
        now = self.simulation.now_us
        ticket = self.lease.take_ticket(caller.level, now)
        if ticket is None:
            self._end(caller, goes=True)
        else:
            caller.since_us = now
            self.lines[caller.level].append((ticket, caller))
            self._serve_line(caller.level)

    def _serve_line(self, level: int) -> None:
        now, line = self.simulation.now_us, self.lines[level]
        while line:
            ticket, caller = line[0]
            due = self.lease.due_in_us(level, ticket, now - caller.since_us, now)
            if due:
                if due < NEVER_US and self._alarms_us[level] != now + due:
                    self._alarms_us[level] = now + due
                    self.simulation.at(now + due, self._alarm, level, now + due)
                return
            line.popleft()
            self.lease.go_from_line(level)
            self._end(caller, goes=True)

    def _alarm(self, level: int, set_for_us: int) -> None:
        if self.alive and self._alarms_us[level] == set_for_us:
            self._alarms_us[level] = None
            self._serve_line(level)
            self._look()

    def _end(self, caller: Caller, *, goes: bool) -> None:
        simulation = self.simulation
        if not goes:
            simulation.refuse(caller)
            return
        simulation.enqueue(caller)
        if caller.loop is not None:
            self.loops[caller.loop] += 1
            simulation.at(simulation.now_us + simulation.loop_pause_us(), self.next_of_loop, caller)

    def next_of_loop(self, caller: Caller) -> None:
        self.simulation.offered[caller.level] += 1
        self.offer(caller)

    # Calls.

    def start(self) -> None:
        self._call()

    def _look(self) -> None:
        """Call when the lease says so: now, or by an alarm."""
        wanted, now = self.lease.call_at_us, self.simulation.now_us
        if wanted is None or self.lease.in_flight:
            return
        if wanted <= now:
            if self.lease.is_due(now):
                self._call()
            else:
                self._look()
        elif wanted != self._looks_at_us:
            self._looks_at_us = wanted
            self.simulation.at(wanted, self._look_again, wanted)

    def _look_again(self, set_for_us: int) -> None:
        if self._looks_at_us == set_for_us:
            self._looks_at_us = None
        if self.alive:
            self._look()

    def _call(self) -> None:
        simulation = self.simulation
        now, lease = simulation.now_us, self.lease
        seen: BacklogSeen | None = simulation.read() if lease.is_sampler else None
        report = lease.report(now, seen)
        self.asked, self.held = self.held, []
        answer = simulation.call(report)
        if answer is None:
            self._fail()
        else:
            simulation.at(now + simulation.latency_us(), self._take, answer)

    def _take(self, answer: Answer) -> None:
        if not self.alive:
            return
        dealt = self.lease.renew(self.simulation.now_us, answer, self.simulation.spread_ppm())
        asked, self.asked = self._fairly(self.asked) if self.dealt else self.asked, []
        came, self.held = self.held, []
        late: list[Caller] = []
        for level, went in zip(LEVELS, dealt, strict=True):
            left, left_patient = went.held, went.held_patient
            for caller in asked:
                if caller.level != level:
                    continue
                if not caller.patient:
                    self._end(caller, goes=left > 0)
                    left -= 1
                elif left_patient > 0:
                    self._end(caller, goes=True)
                    left_patient -= 1
                else:
                    late.append(caller)
            for _ in range(went.waiting):
                self._end(self.lines[level].popleft()[1], goes=True)
        for caller in late:
            self._line_up(caller)
        for level in LEVELS:
            self._serve_line(level)
        for caller in came:
            self.offer(caller)
        self._look()

    def _fail(self) -> None:
        now = self.simulation.now_us
        self.lease.fail(now)
        asked, self.asked = self.asked, []
        for caller in asked:
            if caller.patient:
                self._line_up(caller)
            else:
                self._end(caller, goes=self.lease.decide_stale(caller.level, now, place=self._place(caller)))
        for level in LEVELS:
            self._serve_line(level)
        self._look()
