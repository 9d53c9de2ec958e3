"""One queue's budget in this process: its lease, and the callers who are held for an answer or wait in line."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from backpressure._age.lease import QueueLease
from backpressure._age.protocol import HIGH, LEVELS, MILLION
from backpressure._controller.age.caller import Caller
from backpressure._controller.age.filling import Filling
from backpressure._controller.age.replies import SLACK_US, Replies
from backpressure._controller.age.shares import Shares
from backpressure._engine.sync import ForkLock
from backpressure._model.vocabulary import LOW, MEDIUM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backpressure._age.lease import AnyLease
    from backpressure._age.protocol import Answer, BacklogSeen, Report
    from backpressure._controller.age.replies import Fallback
    from backpressure._controller.age.shares import Asker
    from backpressure._engine.laws.age import AgeLaw, Judged
    from backpressure._model.tenant import AnyTenant

__all__ = ["Budget"]

_LOW = LEVELS[-1]
_NS = 1_000
#: A caller in line looks again after so many ticks at the latest, should nobody wake it.
_LOOK_TICKS = 10


class Budget:
    """Thread-safe: callers arrive, look and leave on any thread; one thread at a time calls the store.

    Args:
        law: what is to be held.
        producer_id: of this process.
        make_lease: the engine's.
        now_us: reads the clock, in monotonic microseconds.
        call: has the store called, where that is due before its time.
        fallback: returns what holds before the first answer.
        observes: tells whether what is decided is only observed.
        timeout_us: returns how long an answer is waited for.
        uniform: draws between two numbers.
    """

    def __init__(
        self,
        law: AgeLaw,
        producer_id: str,
        make_lease: Callable[..., AnyLease],
        now_us: Callable[[], int],
        call: Callable[[], object],
        fallback: Callable[[], Fallback],
        observes: Callable[[], bool],
        timeout_us: Callable[[], int],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._now_us = now_us
        self._call = call
        self._observes = observes
        self._timeout_us = timeout_us
        self._uniform = uniform
        self._lock = ForkLock()
        phases = [int(uniform(0, MILLION - 1)) for _ in LEVELS]
        self.lease = QueueLease(law.budget, producer_id, phases, lambda phase: make_lease(phase, self._lock))
        self._replies = Replies(law, self.lease, fallback, make_lease(0, self._lock), now_us(), uniform)
        #: Among whom the shares are dealt.
        self.shares = Shares(self.lease.levels, law.weights)
        self._filling = Filling()
        #: When the last answer came.
        self.answered_us = 0
        self._held: list[Caller] = []
        self._asked: list[Caller] = []
        self._lines: tuple[deque[Caller], ...] = tuple(deque() for _ in LEVELS)

    # Callers.

    def arrive(
        self,
        level: int,
        limit_us: int | None,
        *,
        patient: bool,
        holds: bool,
        delays: bool,
        jobs: int = 1,
        tenant: AnyTenant | None = None,
    ) -> Judged | Caller:
        """Answer a caller at once, or return what stands for it while it waits: it is to `look`, or to `leave`.

        Args:
            limit_us: how long it may wait; ``None``: for any time.
            patient: whether it waits for its turn; else only for an answer.
            holds: whether it can wait for an answer at all.
            delays: whether a turn that comes later is told as a delay, which the caller takes care of.
            jobs: how many it enqueues, all or none.
            tenant: on whose behalf.
        """
        with self._lock():
            now_us, lease = self._now_us(), self.lease
            observes = self._observes()
            place = None if tenant is None else self.shares.place(level, tenant, dealt=observes or not patient)
            if observes:
                return self._observed(level, now_us, jobs, place)
            if holds and lease.is_stale(level, now_us, patient=patient):
                return self._hold(level, limit_us, patient, now_us, jobs, place)
            if not lease.has_terms:
                return self._fall_back(level, now_us, jobs)
            if not patient:
                stale = now_us >= lease.fresh_until_us and not lease.is_safe
                decide = lease.decide_stale if stale else lease.decide
                goes = decide(level, now_us, jobs=jobs, place=place)
                self._asks()
                return self._replies.goes(level) if goes else self._replies.refuses(level, limit_us)
            return self._line_up(level, limit_us, now_us, jobs, delays=delays)

    def go_along(self, level: int, jobs: int, tenant: AnyTenant | None = None) -> None:
        """Count further jobs of a caller whom the engine let go by itself."""
        with self._lock():
            self.lease.go_along(level, jobs, None if tenant is None else self.shares.place(level, tenant))

    def look(self, caller: Caller) -> Judged | float:
        """Return what becomes of a caller, or in how many seconds it is to look again if nobody wakes it."""
        with self._lock():
            now_us = self._now_us()
            if caller.goes is None:
                self._advance(caller, now_us)
            self._note_taken(caller)
            if caller.goes is not None and not self.lease.has_terms:
                return self._replies.unknown(caller.level, now_us)
            if caller.goes is not None:
                waited = caller.ticket is not None
                limit_us = None if caller.until_us is None else caller.until_us - caller.since_us
                return (
                    self._replies.goes(caller.level, waited=waited)
                    if caller.goes
                    else self._replies.refuses(caller.level, limit_us)
                )
            return max(0, caller.looks_at_us - now_us) / MILLION

    def leave(self, caller: Caller) -> None:
        """Count off a caller who gives up; a place that it got is handed on."""
        with self._lock():
            if caller.goes is None:
                self._drop(caller)
            elif caller.goes:
                self._note_taken(caller)
                self.lease.take_back(caller.jobs)
            caller.goes = False

    def begin(self, jobs: int = 1) -> None:
        """Take note that the enqueue of jobs begins which were let go."""
        with self._lock():
            self.lease.unfinished += jobs

    def end(self, jobs: int = 1) -> None:
        """Take note that it has ended."""
        with self._lock():
            self.lease.unfinished -= jobs

    def take_back(self, jobs: int = 1) -> None:
        """Count off jobs that were let go and were not enqueued."""
        with self._lock():
            self.lease.take_back(jobs)

    def foresee(self, level: int) -> Judged:
        """Tell what a caller that does not wait would be told, without any effect."""
        with self._lock():
            now_us, lease = self._now_us(), self.lease
            if not lease.has_terms:
                return self._replies.falls_back(level)
            share = lease.levels[level]
            due_us = share.foresee_us(now_us)
            if level == HIGH or (level != _LOW and not self._replies.law.sheds_medium):
                delay_us = min(due_us, self._replies.most_us(level))
                return self._replies.goes(level, waited=delay_us > 0)._replace(delay_ns=delay_us * _NS, lease=None)
            goes = due_us == 0 if lease.is_safe else share.share_ppm > 0 and share.used < max(1, share.cap_jobs)
            return (self._replies.goes(level) if goes else self._replies.refuses(level, None))._replace(lease=None)

    @property
    def answer(self) -> Answer | None:
        """The last answer; ``None`` before the first."""
        return self._replies.answer

    @property
    def state(self) -> str:
        """Return ``new`` before the first answer, ``safe`` while the store is lost, else ``coordinated``.

        It is ``local`` while the store is lost and the queue can be read.
        """
        if not self.lease.has_terms:
            return "new"
        if self.lease.is_safe:
            return "local" if self.lease.is_local else "safe"
        return "coordinated"

    # Calls, by one thread at a time.

    @property
    def call_at_us(self) -> int | None:
        """When to ask `is_due`; ``None``: not before a caller comes."""
        return None if self.lease.in_flight else self.lease.call_at_us

    def is_due(self) -> bool:
        """Tell whether the store is to be called now."""
        with self._lock():
            return self.lease.is_due(self._now_us())

    def report(self, seen: BacklogSeen | None, memory_permille: int | None = None) -> Report:
        """Return what to tell the store; `renew` or `fail` is to follow.

        `memory_permille` are the thousandths of its limit of memory that the queue's server used when it was last read.
        """
        with self._lock():
            now_us = self._now_us()
            foreseen = self._filling.foresee(memory_permille, now_us)
            self._replies.limit_permille = self._replies.law.limit_permille(foreseen)
            report = self.lease.report(now_us, seen, self._replies.limit_permille)
            self._asked, self._held = self._held, []
            for caller in self._asked:
                caller.asked = True
        return report

    def renew(self, answer: Answer) -> None:
        """Take an answer: let go whom it lets go, and decide about those who came meanwhile."""
        with self._lock():
            now_us = self._now_us()
            self._replies.answer, self.answered_us = answer, now_us
            self.shares.keep_up(now_us)
            dealt = self.lease.renew(now_us, answer, int(self._uniform(0.9, 1.1) * MILLION))
            asked, self._asked = self._asked, []
            came, self._held = self._held, []
            for level, went in zip(LEVELS, dealt, strict=True):
                mine = [caller for caller in asked if caller.level == level]
                self._deal(self._fairly([caller for caller in mine if not caller.patient]), went.held, now_us)
                self._go_first(level, went.waiting)
                self._deal([caller for caller in mine if caller.patient], went.held_patient, now_us)
            self._decide(came, now_us)
            self._rouse_lines(now_us, answer.wait_ms * _NS)

    def fail(self, seen: BacklogSeen | None = None) -> None:
        """Take note that the store was not reached: who was held is decided by the last terms, or waits in line.

        `seen` is what could be read of the queue all the same.
        """
        with self._lock():
            now_us = self._now_us()
            self.lease.fail(now_us, seen)
            held, self._asked, self._held = self._asked + self._held, [], []
            self._decide(held, now_us, stale=True)
            self._rouse_lines(now_us, self._replies.law.budget.tick_ms * _NS)

    def release(self) -> None:
        """Have all who wait look again elsewhere: this budget is not used any more."""
        with self._lock():
            for caller in (*self._held, *self._asked, *(caller for line in self._lines for caller in line)):
                caller.settle(goes=True)

    def reconfigure(self, law: AgeLaw) -> None:
        """Hold another age from now on."""
        with self._lock():
            self._replies.law = law
            self.lease.settings = law.budget
            self.shares.weigh(law.weights)

    def waiting(self) -> tuple[int, int, int]:
        """Return how many callers wait in line, of HIGH, MEDIUM and LOW."""
        high, medium, low = (len(line) for line in self._lines)
        return high, medium, low

    def askers(self) -> dict[str, list[Asker]]:
        """Return the tenants who ask most, by priority."""
        with self._lock():
            return {str(priority): self.shares.askers(level) for level, priority in ((1, MEDIUM), (2, LOW))}

    # What is decided.

    def _asks(self) -> None:
        at_us = self.lease.call_at_us
        if at_us is not None and not self.lease.in_flight and at_us <= self._now_us():
            self._call()

    def _hold(
        self, level: int, limit_us: int | None, patient: bool, now_us: int, jobs: int, place: int | None
    ) -> Caller:
        caller = Caller(level, jobs, patient, now_us, None if limit_us is None else now_us + limit_us, place)
        self.lease.hold(level, now_us, patient=patient, jobs=jobs)
        self._held.append(caller)
        # An answer that does not come in this time is not waited for.
        answered_us = now_us + self._timeout_us()
        caller.looks_at_us = answered_us if limit_us is None else min(answered_us, now_us + limit_us)
        self._call()
        return caller

    def _line_up(self, level: int, limit_us: int | None, now_us: int, jobs: int, *, delays: bool) -> Judged | Caller:
        """Give a caller its turn, a place in the line, or a refusal if its turn comes too late."""
        lease = self.lease
        due_us = min(lease.foresee_us(level, now_us), self._replies.most_us(level) if level == HIGH else 1 << 62)
        if limit_us is not None and due_us > limit_us and level != HIGH:
            self._asks()
            return self._replies.refuses(level, limit_us)
        ticket = lease.take_ticket(level, now_us, jobs)
        if ticket is None:
            self._asks()
            return self._replies.goes(level)
        if delays:
            lease.go_from_line(level, jobs)
            self._asks()
            delay_us = min(due_us, self._replies.most_us(level))
            if limit_us is not None:
                delay_us = min(delay_us, limit_us)
            return self._replies.turn_in(delay_us)
        caller = Caller(level, jobs, True, now_us, None if limit_us is None else now_us + limit_us)
        self._enter(caller, ticket, now_us)
        self._asks()
        return caller

    def _enter(self, caller: Caller, ticket: int, now_us: int) -> None:
        caller.ticket = ticket
        self._lines[caller.level].append(caller)
        self._advance(caller, now_us)

    def _advance(self, caller: Caller, now_us: int) -> None:
        """Settle a caller if it is time, or plan when it looks again."""
        level, until_us = caller.level, caller.until_us
        if caller.ticket is None:
            if now_us < caller.looks_at_us:
                return
            self._unhold(caller)
            if not self.lease.has_terms:  # the store was never reached: the fallback holds, see `look`
                self.lease.let_go_anyway(level, caller.jobs)
                caller.goes = True
            elif not caller.patient:
                caller.goes = self.lease.decide_stale(
                    level, now_us, asked=caller.asked, jobs=caller.jobs, place=caller.place
                )
            else:
                self._take_place(caller, now_us)
            return
        waited_us = now_us - caller.since_us
        due_us = self.lease.due_in_us(level, caller.ticket, waited_us, now_us)
        if due_us == 0:
            self._serve(level, now_us)
        elif level == HIGH and until_us is not None and now_us >= until_us:
            self._lines[level].remove(caller)
            self.lease.go_from_line(level, caller.left)
            caller.goes = True
        elif until_us is not None and now_us >= until_us:
            self._drop(caller)
            caller.goes = False
        else:
            looks_at_us = now_us + min(due_us, _LOOK_TICKS * self._replies.law.budget.tick_ms * _NS)
            caller.looks_at_us = looks_at_us if until_us is None else min(looks_at_us, until_us)

    def _serve(self, level: int, now_us: int) -> None:
        """Let go of all whose turn it is, so that nobody who looks late is overtaken."""
        line = self._lines[level]
        while line:
            caller = line[0]
            assert caller.ticket is not None  # noqa: S101 - it is in line
            if self.lease.due_in_us(level, caller.ticket, now_us - caller.since_us, now_us):
                return
            line.popleft()
            self.lease.go_from_line(level, caller.left)
            self._let_go(caller)

    def _take_place(self, caller: Caller, now_us: int) -> None:
        """Have a caller that was held patiently wait in line, if its turn comes in time."""
        level = caller.level
        left_us = None if caller.until_us is None else max(0, caller.until_us - now_us)
        if left_us is not None and level != HIGH and self.lease.foresee_us(level, now_us) > left_us:
            caller.settle(goes=False)
            return
        ticket = self.lease.take_ticket(level, now_us, caller.jobs)
        if ticket is None:
            caller.settle(goes=True)
        else:
            self._enter(caller, ticket, now_us)
            caller.rouse()

    def _let_go(self, caller: Caller) -> None:
        """Let go of a caller. Its job counts as enqueued, which it is not before the caller has run."""
        self._deal_to(caller, caller.left)
        caller.settle(goes=True)

    def _deal_to(self, caller: Caller, jobs: int) -> None:
        caller.left -= jobs
        caller.dealt += jobs
        self.lease.unfinished += jobs

    def _note_taken(self, caller: Caller) -> None:
        self.lease.unfinished -= caller.dealt
        caller.dealt = 0

    def _unhold(self, caller: Caller) -> None:
        (self._asked if caller.asked else self._held).remove(caller)
        self.lease.unhold(caller.level, patient=caller.patient, asked=caller.asked, jobs=caller.jobs)

    def _drop(self, caller: Caller) -> None:
        if caller.ticket is None:
            self._unhold(caller)
        else:
            self._lines[caller.level].remove(caller)
            self._note_taken(caller)
            self.lease.take_back(caller.jobs - caller.left)  # what answers dealt it
            self.lease.give_up(caller.level, caller.left)
            self._rouse_lines(self._now_us(), 0)

    def _deal(self, callers: Iterable[Caller], places: int, now_us: int) -> None:
        """Let go of those that a call told of whom its answer lets go; refuse the others, or have them wait."""
        for caller in callers:
            if places >= caller.jobs:
                places -= caller.jobs
                self._let_go(caller)
            elif caller.patient:
                self._take_place(caller, now_us)
            else:
                caller.settle(goes=False)
        self.lease.take_back(places)  # too few for a caller of several jobs, all or none

    def _fairly(self, held: list[Caller]) -> list[Caller]:
        """Return callers so that those come first whose tenants have not had their part."""
        if all(caller.place is None for caller in held):
            return held
        waits = {
            caller: caller.place is not None and not self.lease.prefers(caller.level, caller.place) for caller in held
        }
        return sorted(held, key=waits.__getitem__)

    def _go_first(self, level: int, places: int) -> None:
        line = self._lines[level]
        while line and places >= line[0].left:
            places -= line[0].left
            self._let_go(line.popleft())
        if line and places:
            self._deal_to(line[0], places)

    def _decide(self, callers: Iterable[Caller], now_us: int, *, stale: bool = False) -> None:
        """Decide about callers that no answer is for."""
        for caller in callers:
            if caller.patient and self.lease.has_terms:
                self._take_place(caller, now_us)
            elif not self.lease.has_terms:  # the store was never reached: the fallback holds, see `look`
                self.lease.let_go_anyway(caller.level, caller.jobs)
                caller.settle(goes=True)
            elif stale:
                goes = self.lease.decide_stale(caller.level, now_us, jobs=caller.jobs, place=caller.place)
                caller.settle(goes=goes)
            else:
                caller.settle(goes=self.lease.decide(caller.level, now_us, caller.jobs, caller.place))

    def _rouse_lines(self, now_us: int, told_us: int) -> None:
        """Wake those in line whose turn comes before the next answer and earlier than they look."""
        horizon_us = told_us + self._replies.law.budget.tick_ms * _NS
        for level in LEVELS:
            for caller in list(self._lines[level]):
                assert caller.ticket is not None  # noqa: S101 - it is in line
                due_us = self.lease.due_in_us(level, caller.ticket, now_us - caller.since_us, now_us)
                if due_us > horizon_us:
                    break
                if now_us + due_us + SLACK_US < caller.looks_at_us:
                    caller.rouse()

    def _fall_back(self, level: int, now_us: int, jobs: int) -> Judged:
        """Decide about a job while the store was never reached, and have the budget know of it later."""
        self._asks()
        judged = self._replies.unknown(level, now_us)
        if not judged.shed:
            self.lease.let_go_anyway(level, jobs)
        return judged

    def _observed(self, level: int, now_us: int, jobs: int, place: int | None) -> Judged:
        """Decide about a job that goes in any case: by share and without waiting, so that all it needs is counted."""
        lease = self.lease
        decide = lease.decide_stale if now_us >= lease.fresh_until_us else lease.decide
        goes = decide(level, now_us, jobs=jobs, place=place)
        if not goes:
            lease.let_go_anyway(level, jobs)
        self._asks()
        return (self._replies.goes(level) if goes else self._replies.refuses(level, None))._replace(lease=None)
