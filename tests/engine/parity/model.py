"""The whole decision told a second time, from the specification alone: slow, plain, with no answer kept ready.

It takes the public values and their checks from the package, and nothing from the engines: what all agree on is not one
mistake made once. Where the specification is silent it follows the engines' choice, and a comment says so.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar, cast

from backpressure._engine.laws.age import AgeLaw
from backpressure._model.arguments import validate_queue_name
from backpressure._model.errors import ControllerNotStartedError
from backpressure._model.vocabulary import Priority, Reason, Zone
from engine.parity.budget import FakeBudget, ModelLease
from support.breaker_model import CLOSED, OPEN, BreakerModel, ModelTicket

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._age.lease import AnyLease
    from backpressure._engine.laws.age import Judged
    from backpressure._engine.laws.three_zone import ThreeZoneLaw
    from backpressure._engine.settings import EngineSettings

T = TypeVar("T")

OTHERS = "__other__"
REFUSALS = (Reason.BACKLOG_RED_SHED, Reason.CIRCUIT_OPEN, Reason.CIRCUIT_HALF_OPEN, Reason.AGE_SHED, Reason.MEMORY)
SECOND = 1_000_000_000
BUCKETS = tuple(Fraction(bound) * SECOND for bound in ("0.001", "0.01", "0.1", "0.5", "1", "2.5", "5", "10"))
BY_LAW = {Reason.BACKLOG_GREEN, Reason.BACKLOG_YELLOW, Reason.BACKLOG_RED, Reason.BACKLOG_RED_SHED, Reason.MEMORY}


@dataclass(frozen=True)
class Answer:
    """A decision in integers. `retry_at_ns` is an instant, `retry_ns` a duration; one of them at most is told."""

    priority: Priority
    queue_name: str
    reason: Reason
    delay_ns: int = 0
    shed: bool = False
    backlog: int | None = None
    zone: Zone | None = None
    retry_at_ns: int | None = None
    retry_ns: int | None = None
    computed: bool = False
    ticket: ModelTicket | None = None
    advised: Answer | None = None

    def seen(self, now_ns: int) -> tuple[object, ...]:
        """Return what a producer sees, in seconds, and the ticket."""
        retry_ns = self.retry_ns if self.retry_at_ns is None else max(0, self.retry_at_ns - now_ns)
        return (
            self.priority,
            self.queue_name,
            math.inf if self.shed else self.delay_ns / SECOND,
            self.shed,
            self.reason,
            self.backlog,
            self.zone,
            None if retry_ns is None else retry_ns / SECOND,
            self.ticket and (self.ticket.generation, self.ticket.probe),
            self.advised and self.advised.seen(now_ns),
        )


@dataclass(eq=False)
class Sample:
    """What a queue was at an instant; each one is another, whatever it says."""

    backlog: int
    as_of_ns: int
    oldest_age_ns: int | None
    memory_permille: int | None = None


@dataclass(frozen=True)
class Lent:
    """What a lease may tell further jobs, while nothing of what it was told on has changed."""

    answer: Answer
    refusal: Answer | None
    lease: AnyLease
    renewal: int
    by_line: bool
    until_ns: int
    told_on: tuple[object, ...]


@dataclass(eq=False)
class Queue:
    """What is known of one queue."""

    breaker: BreakerModel
    used_ns: int
    sample: Sample | None = None
    failed_ns: int | None = None  # the last read on a caller's path, while it is the last news
    computed_on: dict[Priority, tuple[Sample, EngineSettings]] = field(default_factory=dict)
    zones: dict[Priority, Zone] = field(default_factory=dict)
    # By what was computed, when it was; ``None`` where that lets none in.
    let_in_before: dict[Priority, tuple[Reason, int] | None] = field(default_factory=dict)
    hurry_at_ns: dict[Priority, int] = field(default_factory=dict)
    lent: dict[Priority, Lent] = field(default_factory=dict)


@dataclass(eq=False)
class Counts:
    """What was decided of one (queue, priority)."""

    reasons: Counter[Reason] = field(default_factory=Counter)
    computed: int = 0
    delays: Counter[int] = field(default_factory=Counter)  # by bucket
    delay_sum_ns: int = 0
    let_go: Counter[Reason] = field(default_factory=Counter)
    late: int = 0

    def totals(self) -> tuple[object, ...]:
        reasons = tuple(self.reasons[reason] for reason in Reason)
        delays = tuple(self.delays[bucket] for bucket in range(len(BUCKETS) + 1))
        let_go = tuple(self.let_go[reason] for reason in REFUSALS)
        return reasons, self.computed, delays, self.delay_sum_ns, let_go, self.late

    def add(self, other: Counts) -> None:
        self.reasons += other.reasons
        self.computed += other.computed
        self.delays += other.delays
        self.delay_sum_ns += other.delay_sum_ns
        self.let_go += other.let_go
        self.late += other.late


class DecisionModel:
    """An engine and its host in one. `gone` are the evicted queues; what else a host would be told stands in `told`."""

    def __init__(self, settings: EngineSettings, now_ns: Callable[[], int]) -> None:
        self.settings = settings
        self.now_ns = now_ns
        self.origin_ns = now_ns()
        self.running = False
        self.override_until_ns: float | None = None  # None while it is off, infinite without an end
        self.emergency_until_ns: float | None = None  # likewise
        self.queues: dict[str, Queue] = {}
        self.checked_ns: int | None = None
        self.counts: dict[tuple[str, Priority], Counts] = {}
        self.next_read: tuple[str, int] = ("fail", 0)
        self.read_first = False  # what the next look after the poller comes to
        self.reads_first = False  # and what the last one came to
        self.results = 0  # of decisions, that counted
        self.looked_ns: float = -math.inf  # for idle queues
        self.evicted_by_engines: set[str] = set()
        self.foreseen_by_engines: Reason | None = None
        self.told_to_engines: list[tuple[object, ...]] | None = None
        self.told: list[tuple[object, ...]] = []
        self.gone: set[str] = set()
        self.budget = FakeBudget(ModelLease, now_ns)
        self.let_go = self.refused = 0  # by leases, without asking
        self.impatient = False  # the caller of now
        self.epoch = 0  # of all that voids what is lent

    # Deciding.

    def suggest_throttle(self, priority: Priority | str, queue_name: str) -> Answer:
        self.impatient = True
        answer, queue = self._look(priority, queue_name)
        return self._give(self._admitted(answer, queue))

    def peek(self, priority: Priority | str, queue_name: str) -> Answer:
        """Foresee; nothing of the model changes, so whatever an engine changed here is seen by the next comparison."""
        priority = Priority.parse(priority)
        if not self.running:
            raise ControllerNotStartedError("start it")
        queue_name = validate_queue_name(queue_name)
        queue = self.queues.get(queue_name)
        answer = self._foreseen(priority, queue_name, queue)
        held_open = answer.reason is Reason.CIRCUIT_OPEN and queue is not None and queue.breaker.forced
        return self._observed(answer) if self._of(queue_name, "observe") and not held_open else answer

    def _foreseen(self, priority: Priority, name: str, queue: Queue | None) -> Answer:
        breaker = None if queue is None or queue.breaker.is_over() else queue.breaker
        answer = self._by_switch_or_breaker(priority, name, breaker)
        if answer is not None:
            return answer
        if queue is None:
            return self._foreseen_of_newcomer(priority, name)
        if self._holds_age(name):
            return self._told(priority, name, queue, self.budget.foresee(name, priority))
        if queue.sample is not None:
            return self._judged(priority, name, queue.sample)
        if self._rests(queue):
            return self._fallback(priority, name, self.settings.fallback_reason)
        return Answer(priority, name, Reason.COLD_START)

    def _foreseen_of_newcomer(self, priority: Priority, name: str) -> Answer:
        if len(self.queues) >= self.settings.max_queues:
            closed = [queue for queue in self.queues.values() if queue.breaker.state == CLOSED]
            idle_ns = max((self.now_ns() - queue.used_ns for queue in closed), default=0)
            # As for evictions: when somebody is idle enough is the engines' choice.
            if not (self.foreseen_by_engines is Reason.COLD_START and idle_ns > 9 * self.settings.cache_ttl_ns):
                return self._fallback(priority, name, Reason.UNTRACKED)
        return Answer(priority, name, Reason.COLD_START)

    def plan(self, priority: Priority | str, queue_name: str, impatient: bool = False) -> Answer:
        self.impatient = impatient
        answer, queue = self._look(priority, queue_name)
        if answer.delay_ns > 0 and queue is not None and not self._of(answer.queue_name, "observe"):
            return answer
        return self._give(self._admitted(answer, queue))

    def admit(self, planned: Answer) -> Answer:
        self._start()
        if planned.reason is Reason.UNTRACKED:
            return planned  # counted when it was planned
        queue = self._queue(planned.queue_name)
        # Who lost the queue's state while sleeping, and finds no room for another, goes as planned; a choice.
        if queue is None:
            if planned.delay_ns:
                self._count(planned)
            return planned
        queue.used_ns = self.now_ns()
        if planned.delay_ns == 0:
            return self._admit_again(planned, queue)
        answer = self._before_the_law(planned.priority, planned.queue_name, queue)
        if answer is not None:
            return self._give(answer)
        self._count(planned)
        return self._admitted(planned, queue)

    def _admit_again(self, planned: Answer, queue: Queue) -> Answer:
        """Ask the breaker again for a go, which was admitted and counted when it was planned."""
        queue.breaker.look()
        if not queue.breaker.forced:
            kept = planned.ticket is not None and queue.breaker.honours(planned.ticket)
            if kept or planned.reason is Reason.OBSERVE_ONLY or self.override() or self.emergency():
                return planned
        answer = self._before_the_law(planned.priority, planned.queue_name, queue)
        return replace(planned, ticket=queue.breaker.try_acquire()) if answer is None else self._give(answer)

    def refuse_late(self, planned: Answer) -> None:
        if planned.reason is not Reason.UNTRACKED:
            self._count(planned)
        self._counts_of(planned).late += 1

    def run(self, priority: Priority | str, queue_name: str, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a job without sleeping."""
        answer = self.plan(priority, queue_name)
        if answer.delay_ns > 0:
            answer = self.admit(answer)
        if answer.shed:
            raise RuntimeError(answer.reason)
        began_ns = self.now_ns()
        try:
            value = work(*args, **kwargs)
        except Exception as error:
            self.record(answer, False, began_ns, type(error).__name__)
            raise
        self.record(answer, True)
        return value

    # What a decision is, in the order of the specification.

    def _look(self, priority: Priority | str, queue_name: str) -> tuple[Answer, Queue | None]:
        priority = Priority.parse(priority)
        self._start()
        queue_name = validate_queue_name(queue_name)
        queue = self._queue(queue_name)
        if queue is not None:
            queue.used_ns = self.now_ns()
        answer = self._before_the_law(priority, queue_name, queue)
        if answer is not None:
            return answer, queue
        if queue is None:
            return self._fallback(priority, queue_name, Reason.UNTRACKED), None
        by = self._by_budget if self._holds_age(queue_name) else self._by_backlog
        return by(priority, queue_name, queue), queue

    def _before_the_law(self, priority: Priority, name: str, queue: Queue | None) -> Answer | None:
        breaker = queue.breaker if queue else None
        if breaker:
            breaker.look()
        return self._by_switch_or_breaker(priority, name, breaker)

    def _by_switch_or_breaker(self, priority: Priority, name: str, breaker: BreakerModel | None) -> Answer | None:
        if breaker and breaker.forced:
            return self._rejected(priority, name, breaker)
        if self.override():  # of both switches the one that ends; a choice
            return Answer(priority, name, Reason.MANUAL_OVERRIDE)
        if self.emergency():
            return Answer(priority, name, Reason.EMERGENCY_MODE)
        if breaker is None or breaker.would_admit() or self._attempts(priority, breaker):
            return None
        return self._rejected(priority, name, breaker)

    @staticmethod
    def _rejected(priority: Priority, name: str, breaker: BreakerModel) -> Answer:
        reason = Reason.CIRCUIT_OPEN if breaker.state == OPEN else Reason.CIRCUIT_HALF_OPEN
        return Answer(priority, name, reason, shed=True, retry_at_ns=breaker.retry_at_ns())

    @staticmethod
    def _attempts(priority: Priority, breaker: BreakerModel) -> bool:
        return breaker.circuit.high_attempts and priority is Priority.HIGH

    def _holds_age(self, name: str) -> bool:
        return isinstance(self._of(name, "law"), AgeLaw)

    def _by_budget(self, priority: Priority, name: str, queue: Queue) -> Answer:
        """Ask the budget, or go by what it lent: when jobs do so by themselves is the engines' choice, not how many."""
        told_on = (queue.sample, queue.breaker.word(), self.epoch)
        asked = ("judge", name, priority)
        if (self.told_to_engines or [])[len(self.told) : len(self.told) + 1] == [asked]:
            self.told.append(asked)
            judged = self.budget.judge(name, priority)
            answer = self._told(priority, name, queue, judged)
            if judged.lease is not None and queue.breaker.state == CLOSED:
                # No longer than a sample is believed: the queue's use is noted when the budget is asked.
                until_ns = min(judged.until_ns, self.now_ns() + self.settings.cache_ttl_ns)
                other = None if judged.other is None else self._told(priority, name, queue, judged.other)
                go, refusal = (other, answer) if judged.shed else (answer, other)
                assert go is not None
                lent = Lent(go, refusal, judged.lease, judged.renewal, judged.patient, until_ns, told_on)
                queue.lent[priority] = lent
            return answer
        lent = queue.lent[priority]
        now_ns = self.now_ns()
        assert now_ns <= lent.until_ns
        assert lent.told_on == told_on
        if lent.lease.take_saved(now_ns // 1_000) if lent.by_line else lent.lease.take_share():
            self.let_go += 1
            return lent.answer
        # To jobs that others decide about it may tell nothing: only who would be refused now, and cannot wait.
        assert self.impatient
        assert lent.refusal is not None
        assert lent.lease.refuse_share(lent.renewal)
        self.refused += 1
        return lent.refusal

    @staticmethod
    def _told(priority: Priority, name: str, queue: Queue, judged: Judged) -> Answer:
        backlog = None if queue.sample is None else queue.sample.backlog
        answer = Answer(priority, name, judged.reason, shed=judged.shed, backlog=backlog, zone=judged.zone)
        return throttled(answer, judged.delay_ns)

    def _by_backlog(self, priority: Priority, name: str, queue: Queue) -> Answer:
        reason = self._refresh(name, queue)
        if reason is not None:
            return Answer(priority, name, reason)
        sample, settings = queue.sample, self.settings
        if sample is None:
            return self._fallback(priority, name, settings.fallback_reason)
        answer = self._judged(priority, name, sample)
        if answer.reason not in BY_LAW or answer.zone is None:
            return answer
        computed = queue.computed_on.get(priority) != (sample, settings)
        queue.computed_on[priority] = sample, settings
        if computed:
            refuses = answer.reason in REFUSALS and not self._of(name, "observe")
            before = None if refuses else (answer.reason, self._let_in(name, priority, answer.reason))
            queue.let_in_before[priority] = before
        self._tell_zone(queue, priority, name, answer.zone)
        if self._is_pressed(priority, name, queue, sample) and self._hurries(priority, name, queue, computed=computed):
            self._read(name, queue, wait=False)
            if queue.sample is not sample:
                return self._by_backlog(priority, name, queue)
        return replace(answer, computed=computed)

    def _is_pressed(self, priority: Priority, name: str, queue: Queue, sample: Sample) -> bool:
        """Tell whether more jobs were let in since the sample than the advice is good for."""
        if queue.let_in_before[priority] is None:
            return False
        return self._all_let_in(name, queue) > room(self._law(name), priority, sample)

    def _all_let_in(self, name: str, queue: Queue) -> int:
        """Return how many jobs the advice on a queue's sample let in, at all priorities."""
        let_in = 0
        for each, (on, _) in queue.computed_on.items():
            counted = queue.let_in_before[each]
            if on is queue.sample and counted is not None:
                reason, before = counted
                let_in += max(0, self._let_in(name, each, reason) - before)
        return let_in

    def _hurries(self, priority: Priority, name: str, queue: Queue, *, computed: bool) -> bool:
        """Have the queue read soon; tell whether the caller is to read it."""
        polling, now_ns = self.settings.polling, self.now_ns()
        told = ("hurry", name) if polling else ("read", name, False)
        # Answers that lie ready count for their own priority: where there are several, when all are summed up is the
        # engines' choice.
        by_choice = self.told_to_engines is not None and len(queue.computed_on) > 1
        if by_choice and told not in (self.told_to_engines or ()):
            return False
        if now_ns < queue.hurry_at_ns.get(priority, -math.inf):
            return False
        if not polling and (computed or self._rests(queue)):
            return False
        queue.hurry_at_ns[priority] = now_ns + SECOND // 20
        if polling:
            self.told.append(told)
        return not polling

    def _let_in(self, name: str, priority: Priority, reason: Reason) -> int:
        counts = self._counts(name, priority)
        return (counts.let_go if reason in REFUSALS else counts.reasons)[reason] - counts.late

    def _judged(self, priority: Priority, name: str, sample: Sample) -> Answer:
        settings = self.settings
        law = self._law(name)
        zone, delay_ns, shed = advise(law, priority, sample)
        expired_ns = self.now_ns() - sample.as_of_ns - settings.cache_ttl_ns
        if expired_ns > settings.degrade_ns:
            return self._fallback(priority, name, settings.fallback_reason)
        if expired_ns > 0:
            share = Fraction(expired_ns, settings.degrade_ns)
            delay_ns = math.floor(delay_ns * (1 - share) + settings.fallback_ns[priority.value] * share)
            return throttled(Answer(priority, name, Reason.STATS_STALE, backlog=sample.backlog, zone=zone), delay_ns)
        reason = Reason.BACKLOG_RED_SHED if shed else Reason(f"backlog_{zone}")
        if lacks_memory(law, priority, sample):
            reason = Reason.MEMORY
        return throttled(Answer(priority, name, reason, shed=shed, backlog=sample.backlog, zone=zone), delay_ns)

    def _fallback(self, priority: Priority, name: str, reason: Reason) -> Answer:
        return throttled(Answer(priority, name, reason), self.settings.fallback_ns[priority.value])

    def _admitted(self, answer: Answer, queue: Queue | None) -> Answer:
        """Take the breaker's ticket for a go; a switch's go and a queue without state have none.

        Nor has what the load sheds, though in observe mode it goes; a choice.
        """
        passing = answer.reason in {Reason.MANUAL_OVERRIDE, Reason.EMERGENCY_MODE}
        if answer.shed or passing or queue is None:
            return answer
        return replace(answer, ticket=queue.breaker.try_acquire())

    def _give(self, answer: Answer) -> Answer:
        """Count the decision and, where it is only observed, hand out a go with the decision beside it."""
        self._count(answer)
        queue = self.queues.get(answer.queue_name)
        held_open = answer.reason is Reason.CIRCUIT_OPEN and queue is not None and queue.breaker.forced
        if held_open or not self._of(answer.queue_name, "observe"):
            return answer
        self._counts_of(answer).let_go[answer.reason] += answer.reason in REFUSALS
        return self._observed(answer)

    def _of(self, name: str, part: str) -> Any:
        """Return a part of a queue's settings: its own, that of the first pattern that matches, or the shared one."""
        own: Any = {"law": self.settings.laws, "circuit": self.settings.circuits, "observe": self.settings.observed}[
            part
        ]
        expressions = ((of, ".*".join(map(re.escape, of.pattern.split("*")))) for of in self.settings.patterns)
        found = next((of for of, expression in expressions if re.fullmatch(expression, name, re.DOTALL)), None)
        candidates = (own.get(name), getattr(found, part, None), getattr(self.settings, part))
        return next(candidate for candidate in candidates if candidate is not None)

    @staticmethod
    def _observed(answer: Answer) -> Answer:
        about = Answer(
            answer.priority, answer.queue_name, Reason.OBSERVE_ONLY, backlog=answer.backlog, zone=answer.zone
        )
        return replace(about, ticket=answer.ticket, advised=answer)

    # Outcomes.

    def record(self, answer: Answer, ok: bool | None, began_ns: int | None = None, failure: str | None = None) -> None:
        queue = self.queues.get(answer.queue_name)
        if queue is not None and answer.ticket is not None:
            self.results += queue.breaker.record(ok, answer.ticket, began_ns, failure)

    def record_queue(self, name: str, ok: bool, failure: str | None = None) -> None:
        queue = self._queue(validate_queue_name(name))
        if queue is not None:
            queue.breaker.record(ok, failure=failure)

    def hasten(self, name: str) -> None:
        if name in self.queues:
            self.queues[name].breaker.hasten()

    # Statistics.

    def put_sample(
        self,
        name: str,
        backlog: int,
        as_of_ns: int,
        oldest_age_ns: int | None = None,
        memory_permille: int | None = None,
    ) -> bool:
        queue = self._queue(name, evict=False)
        if queue is None:
            return False
        queue.sample, queue.failed_ns = Sample(backlog, as_of_ns, oldest_age_ns, memory_permille), None
        return True

    def forget_samples(self) -> None:
        for queue in self.queues.values():
            queue.sample = queue.failed_ns = None
        self.epoch += 1

    def _refresh(self, name: str, queue: Queue) -> Reason | None:
        """Read on the caller's path where nobody else does, and look after a poller that seems to be dead."""
        settings, now_ns = self.settings, self.now_ns()
        age_ns = math.inf if queue.sample is None else now_ns - queue.sample.as_of_ns
        if queue.sample is None or (not settings.polling and age_ns > settings.cache_ttl_ns):
            if not self._rests(queue):
                return self._read(name, queue, wait=queue.sample is None)
            if settings.polling and self._is_to_read(queue):
                return self._read(name, queue, wait=True)
        elif settings.polling and age_ns > settings.check_after_ns and self._is_to_read(queue):
            return self._read(name, queue, wait=True)
        return None

    def _rests(self, queue: Queue) -> bool:
        """Tell whether callers leave a queue alone whose read failed: a poller reads it, or they try again later."""
        settings, failed_ns = self.settings, queue.failed_ns
        if failed_ns is None:
            return False
        return settings.polling or self.now_ns() < failed_ns + settings.check_every_ns

    def _read(self, name: str, queue: Queue, *, wait: bool) -> Reason | None:
        self.told.append(("read", name, wait))
        outcome, backlog = self.next_read
        if outcome == "sample":
            self.put_sample(name, backlog, self.now_ns())
        elif outcome == "fail":
            queue.failed_ns = self.now_ns()
        return Reason.COLD_START if outcome == "cold" and wait else None

    def _is_to_read(self, queue: Queue) -> bool:
        """Look after the poller, now and then; tell whether the caller is to read first."""
        now_ns = self.now_ns()
        if self.checked_ns is None or now_ns - self.checked_ns >= self.settings.check_every_ns:
            self.checked_ns = now_ns
            self.told.append(("check_poller",))
            self.reads_first = self.read_first
        return self.reads_first and (queue.failed_ns is None or queue.failed_ns < self.checked_ns)

    def _tell_zone(self, queue: Queue, priority: Priority, name: str, zone: Zone) -> None:
        old = queue.zones.get(priority, Zone.GREEN)
        if zone != old:
            self.told.append((f"{priority}: {old} to {zone}", name))
        queue.zones[priority] = zone

    # Switches.

    def configure(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.epoch += 1

    def set_running(self, running: bool) -> None:
        self.running = running
        self.epoch += 1

    def set_override(self, enabled: bool, until_ns: int | None = None) -> None:
        self.override_until_ns = None if not enabled else math.inf if until_ns is None else until_ns
        self.epoch += 1

    def set_emergency(self, enabled: bool, until_ns: int | None = None) -> None:
        self.emergency_until_ns = None if not enabled else math.inf if until_ns is None else until_ns
        self.epoch += 1

    def emergency(self) -> bool:
        return self.emergency_until_ns is not None and self.now_ns() < self.emergency_until_ns

    def override(self) -> bool:
        return self.override_until_ns is not None and self.now_ns() < self.override_until_ns

    def _start(self) -> None:
        if not self.running:
            raise ControllerNotStartedError("start it")
        if self.override_until_ns is not None and not self.override():
            self.override_until_ns = None
            self.epoch += 1
            self.told.append(("override ended",))
        if self.emergency_until_ns is not None and not self.emergency():
            self.emergency_until_ns = None
            self.epoch += 1

    # Queues.

    def breaker(self, name: str, create: bool) -> BreakerModel | None:
        name = validate_queue_name(name)
        queue = self._queue(name) if create else self.queues.get(name)
        return None if queue is None else queue.breaker

    def _queue(self, name: str, *, evict: bool = True) -> Queue | None:
        """Return a queue's state, made if there is room for it. A sample makes no room for its queue; a choice."""
        queue = self.queues.get(name)
        if queue is None and evict and len(self.queues) >= self.settings.max_queues:
            self._evict()
        if queue is None and len(self.queues) < self.settings.max_queues:
            breaker = BreakerModel(
                self._of(name, "circuit"),
                self.now_ns,
                origin_ns=self.origin_ns,
                on_change=lambda old, new: self.told.append((f"{old} to {new}", name)),
            )
            queue = self.queues[name] = Queue(breaker, self.now_ns())
        return queue

    def _evict(self) -> None:
        # Engines note the use of an answer that lay ready when they made it, and look for idle queues again only when
        # one can have become idle or after a `cache_ttl`: near those limits the choice is theirs.
        now_ns, ttl_ns = self.now_ns(), self.settings.cache_ttl_ns
        surely, self.looked_ns = now_ns - self.looked_ns > ttl_ns, now_ns
        for name, queue in list(self.queues.items()):
            ttls = Fraction(now_ns - queue.used_ns, ttl_ns)
            chosen = name in self.evicted_by_engines
            if queue.breaker.state == CLOSED and ((chosen and ttls > 9) or (surely and ttls > 10)):
                del self.queues[name]
                for priority in Priority:
                    self._counts(OTHERS, priority).add(self.counts.pop((name, priority), Counts()))
                self.gone.add(name)
                self.epoch += 1

    def queue_names(self) -> list[str]:
        return list(self.queues)

    def sample(self, name: str) -> tuple[int, int, int | None, int, int | None] | None:
        queue = self.queues.get(name)
        if queue is None or queue.sample is None:
            return None
        sample = queue.sample
        return (
            sample.backlog,
            sample.as_of_ns,
            sample.oldest_age_ns,
            self._all_let_in(name, queue),
            sample.memory_permille,
        )

    def busy_queues(self, ttls: int) -> list[str]:
        now_ns, idle_ns = self.now_ns(), ttls * self.settings.cache_ttl_ns
        return [
            name
            for name, queue in self.queues.items()
            if queue.sample is not None
            and not self._holds_age(name)
            and now_ns - queue.used_ns <= idle_ns
            and {advise(self._law(name), each, queue.sample)[0] for each in queue.computed_on} - {Zone.GREEN}
        ]

    def cache_size(self) -> int:
        return sum(len(queue.computed_on) for queue in self.queues.values())

    def edges(self) -> list[int]:
        """Return the instants to come at which an answer may change."""
        settings = self.settings
        ages = (settings.check_after_ns, settings.cache_ttl_ns, settings.cache_ttl_ns + settings.degrade_ns)
        found = [
            self.override_until_ns,
            self.emergency_until_ns,
            self.checked_ns and self.checked_ns + settings.check_every_ns,
        ]
        for queue in self.queues.values():
            found += [queue.sample.as_of_ns + age_ns for age_ns in ages] if queue.sample else []
            found += [queue.breaker.retry_at_ns(), queue.used_ns + 10 * settings.cache_ttl_ns]
            found += [lent.until_ns for lent in queue.lent.values()]
        return sorted({int(edge) for edge in found if edge is not None and self.now_ns() < edge < math.inf})

    def _law(self, name: str) -> ThreeZoneLaw:
        return cast("ThreeZoneLaw", self._of(name, "law"))

    # Counts.

    def totals(self) -> dict[tuple[str, int], tuple[object, ...]]:
        """Return the counts in the engines' layout."""
        return {
            (name, priority.value): counts.totals()
            for (name, priority), counts in self.counts.items()
            if counts.reasons
        }

    def _counts(self, name: str, priority: Priority) -> Counts:
        return self.counts.setdefault((name, priority), Counts())

    def _counts_of(self, answer: Answer) -> Counts:
        return self._counts(answer.queue_name if answer.queue_name in self.queues else OTHERS, answer.priority)

    def _count(self, answer: Answer) -> None:
        counts = self._counts_of(answer)
        counts.reasons[answer.reason] += 1
        counts.computed += answer.computed
        if answer.delay_ns > 0 and not answer.shed:
            counts.delays[sum(answer.delay_ns > bound for bound in BUCKETS)] += 1
            counts.delay_sum_ns += answer.delay_ns


def throttled(answer: Answer, delay_ns: int) -> Answer:
    """Tell the delay: as such, or of a shed job as the time after which to try again."""
    return replace(answer, delay_ns=0 if answer.shed else delay_ns, retry_ns=delay_ns or None)


def room(law: ThreeZoneLaw, priority: Priority, sample: Sample) -> float:
    """Return how many jobs may come before the advice is of another zone, sheds, or stays what it is for ever."""
    zone, _, shed = advise(law, priority, sample)
    backlog = sample.backlog
    green_max, yellow_max, red_max = law.windows[priority.value]
    if zone is not Zone.RED:
        last: int = green_max if zone is Zone.GREEN else yellow_max
        return last - backlog
    if shed or backlog >= red_max:
        return math.inf
    last = red_max
    if priority is Priority.LOW:  # the last backlog that is not shed
        last = yellow_max + math.floor(Fraction(law.shed_permille, 1_000) * (red_max - yellow_max))
    return last - backlog


def lacks_memory(law: ThreeZoneLaw, priority: Priority, sample: Sample) -> bool:
    if law.memory_permille is None or sample.memory_permille is None or priority is Priority.HIGH:
        return False
    return (
        sample.memory_permille >= dict(zip((Priority.LOW, Priority.MEDIUM), law.memory_permille, strict=True))[priority]
    )


def advise(law: ThreeZoneLaw, priority: Priority, sample: Sample) -> tuple[Zone, int, bool]:
    """Return zone, delay in nanoseconds and whether to shed."""
    if lacks_memory(law, priority, sample):
        return Zone.RED, math.floor(law.red_max_ns * Fraction(*law.scales[priority.value])), True
    backlog = sample.backlog
    green_max, yellow_max, red_max = law.windows[priority.value]
    scale = Fraction(*law.scales[priority.value])
    if backlog <= green_max:
        return Zone.GREEN, 0, False
    if backlog <= yellow_max:
        share = Fraction(backlog - green_max, yellow_max - green_max)
        base = math.floor(law.yellow_min_ns + (law.yellow_max_ns - law.yellow_min_ns) * share)
        return Zone.YELLOW, math.floor(base * scale) if law.scale_yellow else base, False
    share = Fraction(min(backlog, red_max) - yellow_max, red_max - yellow_max)
    base = math.floor(law.yellow_max_ns + (law.red_max_ns - law.yellow_max_ns) * share)
    shed = priority is Priority.LOW and share > Fraction(law.shed_permille, 1_000)
    return Zone.RED, math.floor(base * scale), shed
