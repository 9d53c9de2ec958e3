"""The whole decision: switches, breaker, cached or computed advice, fallback, admission, and the count of it."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from backpressure._engine.border import Answer
from backpressure._engine.pure.breaker import Breaker, Ticket
from backpressure._engine.pure.counters import Counters
from backpressure._engine.pure.laws.three_zone import ThreeZoneLaw
from backpressure._engine.pure.queue import Computed, Queue, Ready, Sample
from backpressure._engine.sync import ForkLock
from backpressure._engine.totals import Totals
from backpressure._engine.word import CLOSED, OPEN, generation_of, is_forced, is_pristine, state_of
from backpressure._model.arguments import parse_priority, validate_queue_name
from backpressure._model.vocabulary import OTHER_QUEUES, Priority, Reason, Zone

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backpressure._engine.border import Host
    from backpressure._engine.pure.laws.three_zone import Law
    from backpressure._engine.settings import EngineSettings
    from backpressure._model.arguments import MaxWait
    from backpressure._model.decision import ThrottleDecision

_HIGH = Priority.HIGH.value
_ZONES = tuple(Zone)
_ZONE_REASONS = (Reason.BACKLOG_GREEN, Reason.BACKLOG_YELLOW, Reason.BACKLOG_RED)
# Queues idle for this many cache lifetimes may be evicted when there is no room.
_IDLE_TTLS = 10


class Mode(NamedTuple):
    """Configuration and switches at one moment. Replaced whole: a new object is a new epoch, voiding all `Ready`."""

    settings: EngineSettings
    law: Law
    laws: dict[str, Law]
    running: bool = False
    override_until_ns: float | None = None  # None: off; inf: until switched off
    emergency: bool = False

    def law_of(self, queue_name: str) -> Law:
        """Return the law that holds for a queue."""
        return self.laws.get(queue_name, self.law)

    def switch(self) -> Reason | None:
        """Return the reason to let everything pass, if one of the manual switches is on."""
        if self.override_until_ns is not None:
            return Reason.MANUAL_OVERRIDE
        return Reason.EMERGENCY_MODE if self.emergency else None


class _Answer(NamedTuple):
    """Advice with where it came from; `until_ns` is how long it stays true, ``None`` where that is not known.

    `forced` is the refusal of a circuit that is held open by hand, which observe mode keeps to.
    """

    reason: Reason
    delay_ns: int = 0
    shed: bool = False
    zone: int | None = None
    backlog: int | None = None
    timestamp: datetime | None = None
    computed: bool = False
    until_ns: float | None = None
    forced: bool = False


class Engine:
    """See `backpressure._engine.border.Engine`."""

    def __init__(self, settings: EngineSettings, host: Host) -> None:
        self._host = host
        self._is_plain = host.is_plain
        self.now_ns = host.now_ns or time.monotonic_ns
        self.origin_ns = self.now_ns()
        self._mode = _mode(settings)
        self._queues: dict[str, Queue] = {}
        by_priority: list[dict[str, Ready]] = [{}, {}, {}]
        # Both spellings of a priority lead to its answers; integers and bools equal neither.
        self._ready: dict[object, dict[str, Ready]] = {
            spelling: by_priority[priority.value] for priority in Priority for spelling in (priority, str(priority))
        }
        self._lock = ForkLock()
        self._checked_ns = self._next_check_ns = 0
        self._read_first = False  # what the host said then
        self._next_eviction_ns: float = 0
        # What queues without state of their own are counted under: those beyond max_queues, and evicted ones.
        self._untracked = (Counters(), Counters(), Counters())
        self._evicted = [Totals(), Totals(), Totals()]

    # ---------------------------------------------------------------------------------------------------- decisions

    def suggest_throttle(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """See `backpressure._engine.border.Engine`."""
        ready = self._find_ready(priority, queue_name)
        if ready is None:
            return self._decide(priority, queue_name, admit=True)
        ready.count()
        return ready.decision

    def plan(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """See `backpressure._engine.border.Engine`."""
        # No answer that lies ready makes its caller wait, so it serves whoever asks.
        ready = self._find_ready(priority, queue_name)
        if ready is None:
            return self._decide(priority, queue_name, admit=False)
        ready.count()
        return ready.decision

    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., Any],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        **kwargs: Any,
    ) -> Any:
        """See `backpressure._engine.border.Engine`."""
        ready = None if max_wait is not None else self._find_ready(priority, queue_name)
        if ready is None or ready.decision.should_shed:
            return self._host.run(priority, queue_name, work, *args, max_wait=max_wait, **kwargs)
        return self._perform(ready, work, args, kwargs)

    def run_within(
        self,
        priority: Priority,
        queue_name: str,
        max_wait: MaxWait,
        work: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        ready = self._find_ready(priority, queue_name)
        if ready is None or ready.decision.should_shed:
            return self._host.run_within(priority, queue_name, max_wait, work, *args, **kwargs)
        return self._perform(ready, work, args, kwargs)

    def _perform(self, ready: Ready, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the work of a job whose answer lies ready."""
        ready.count()
        # Where there was no failure to forget, any that is found later came meanwhile.
        began_ns = self.origin_ns if is_pristine(ready.word) else self.now_ns()
        try:
            value = work(*args, **kwargs)
        except BaseException as error:
            self._host.report_error(ready.decision, error, began_ns)
            raise
        # Into a pristine circuit a success need not be reported.
        if not is_pristine(ready.breaker.word) or not (value is None or self._is_plain(type(value))):
            self._host.report_success(ready.decision, value)
        return value

    def _find_ready(self, priority: Priority | str, queue_name: str) -> Ready | None:
        """Return the answer that lies ready, if it is still true."""
        try:
            ready = self._ready[priority][queue_name]
        except (KeyError, TypeError):
            return None
        if (
            ready.epoch is self._mode
            and ready.word == ready.breaker.word
            and ready.sample is ready.queue.sample
            and self.now_ns() <= ready.until_ns
        ):
            return ready
        return None

    def _decide(self, given: object, queue_name: str, *, admit: bool) -> ThrottleDecision:
        priority = parse_priority(given)
        mode, now_ns = self._look()
        queue = self._queues.get(queue_name) if type(queue_name) is str else None
        if queue is None:
            name = validate_queue_name(queue_name)
            queue = self._track(name, now_ns, evict=True)
            if queue is None:
                return self._decide_untracked(mode, priority, name, now_ns)
        decision = self._decide_tracked(mode, priority, queue, now_ns, admit=admit, may_read=True, cold=None)
        if decision is None:
            # Where there is a poller, only who must not go by what there is gets here.
            cold = self._host.read(queue.name, queue.sample is None or mode.settings.polling)
            mode, now_ns = self._look()
            decision = self._decide_tracked(mode, priority, queue, now_ns, admit=admit, may_read=False, cold=cold)
            assert decision is not None  # noqa: S101 - only a caller that may read is asked to
        return decision

    def _look(self) -> tuple[Mode, int]:
        """Return the mode that holds now, and now."""
        mode = self._mode
        if not mode.running:
            raise self._host.not_running()
        now_ns = self.now_ns()
        if mode.override_until_ns is not None and mode.override_until_ns <= now_ns:
            mode = self._end_override(mode)
        return mode, now_ns

    def _decide_tracked(
        self,
        mode: Mode,
        priority: Priority,
        queue: Queue,
        now_ns: int,
        *,
        admit: bool,
        may_read: bool,
        cold: Reason | None,
    ) -> ThrottleDecision | None:
        """Decide for a queue that has state; ``None`` asks the caller to read the queue first."""
        queue.touched_ns = now_ns
        breaker, sample = queue.breaker, queue.sample
        word = _look_at(breaker, now_ns)
        closed, forced = state_of(word) == CLOSED, is_forced(word)
        switch = mode.switch()
        if switch is not None and not forced:
            return self._finish(mode, priority, queue, now_ns, _Answer(switch))
        attempts = priority.value == _HIGH and breaker.circuit.high_attempts and not forced
        if not (closed or attempts or breaker.admits(word, now_ns)):
            return self._reject(mode, priority, queue, now_ns, word, sample)
        answer = self._advise(mode, priority, queue, sample, now_ns, may_read=may_read, cold=cold)
        if answer is None:
            return None
        if answer.shed:
            ready = (word, sample) if closed else None
            return self._finish(mode, priority, queue, now_ns, answer, ready=ready)
        if answer.delay_ns > 0 and not (admit or mode.settings.observe):
            return self._build(priority, queue.name, now_ns, answer)
        if closed:
            ready = (word, sample) if answer.delay_ns == 0 else None
            ticket: Ticket | None = Ticket(generation_of(word), now_ns, probe=False)
            return self._finish(mode, priority, queue, now_ns, answer, ticket=ticket, ready=ready)
        ticket = breaker.try_acquire()
        if ticket is None and not attempts:
            return self._reject(mode, priority, queue, now_ns, breaker.word, sample)
        return self._finish(mode, priority, queue, now_ns, answer, ticket=ticket)

    def _advise(
        self,
        mode: Mode,
        priority: Priority,
        queue: Queue,
        sample: Sample | None,
        now_ns: int,
        *,
        may_read: bool,
        cold: Reason | None,
    ) -> _Answer | None:
        """Return what the queue's sample, or the want of one, advises; ``None`` asks the caller to read."""
        settings = mode.settings
        if cold is not None:
            return _Answer(cold)
        expired = sample is None or (not settings.polling and sample.age_ns(now_ns) > settings.cache_ttl_ns)
        if expired and may_read and queue.may_read(settings, now_ns):
            return None
        if sample is None:
            # The read that failed left it to the poller.
            if settings.polling and may_read and self._reads_first(settings, queue, now_ns):
                return None
            return self._fallback(settings, priority, settings.fallback_reason)
        age_ns = sample.age_ns(now_ns)
        overdue = settings.polling and age_ns > settings.check_after_ns
        if overdue and self._reads_first(settings, queue, now_ns) and may_read:
            return None
        if age_ns <= settings.cache_ttl_ns:
            return self._law_answer(mode, priority, queue, sample, age_ns)
        over_ns = age_ns - settings.cache_ttl_ns
        if over_ns > settings.degrade_ns:
            return self._fallback(settings, priority, settings.fallback_reason)
        zone, last_ns, _ = mode.law_of(queue.name).advise(priority.value, sample.backlog)
        fallback_ns, degrade_ns = settings.fallback_ns[priority.value], settings.degrade_ns
        delay_ns = (last_ns * (degrade_ns - over_ns) + fallback_ns * over_ns) // degrade_ns
        return _Answer(Reason.STATS_STALE, delay_ns, zone=zone, backlog=sample.backlog)

    def _law_answer(self, mode: Mode, priority: Priority, queue: Queue, sample: Sample, age_ns: int) -> _Answer:
        settings, index = mode.settings, priority.value
        cached = queue.computed[index]
        computed = cached is None or cached.sample is not sample or cached.settings is not settings
        if cached is None or computed:
            advice = mode.law_of(queue.name).advise(index, sample.backlog)
            cached = Computed(sample, settings, advice, self._host.utc_now())
            with self._lock():
                before, queue.computed[index] = queue.computed[index], cached
            self._watch_zone(priority, queue, before, cached)
        zone, delay_ns, shed = cached.advice
        until_ns: float = sample.as_of_ns + settings.cache_ttl_ns
        if settings.polling:
            fresh = age_ns <= settings.check_after_ns
            until_ns = min(until_ns, sample.as_of_ns + settings.check_after_ns if fresh else self._next_check_ns - 1)
        reason = Reason.BACKLOG_RED_SHED if shed else _ZONE_REASONS[zone]
        return _Answer(reason, delay_ns, shed, zone, sample.backlog, cached.timestamp, computed, until_ns)

    def _watch_zone(self, priority: Priority, queue: Queue, before: Computed | None, after: Computed) -> None:
        old, new = 0 if before is None else before.advice[0], after.advice[0]
        if old != new:
            self._host.zone_changed(queue.name, priority, _ZONES[old], _ZONES[new])

    @staticmethod
    def _fallback(settings: EngineSettings, priority: Priority, reason: Reason) -> _Answer:
        return _Answer(reason, settings.fallback_ns[priority.value])

    def _decide_untracked(self, mode: Mode, priority: Priority, name: str, now_ns: int) -> ThrottleDecision:
        switch = mode.switch()
        answer = _Answer(switch) if switch else self._fallback(mode.settings, priority, Reason.UNTRACKED)
        self._untracked[priority.value].count(answer.reason, goes=True, delay_ns=answer.delay_ns, computed=False)
        decision = self._build(priority, name, now_ns, answer)
        return self._host.observed(decision) if mode.settings.observe else decision

    # ---------------------------------------------------------------------------------------------------- admission

    def admit(self, planned: ThrottleDecision) -> ThrottleDecision:
        """See `backpressure._engine.border.Engine`."""
        mode, now_ns = self._look()
        if planned.reason is Reason.UNTRACKED:
            return planned  # it was counted when made, and has no breaker
        priority = planned.priority
        counted = planned.delay == 0  # when made; then only the breaker may have changed
        queue = self._queues.get(planned.queue_name) or self._track(planned.queue_name, now_ns, evict=True)
        if queue is None:
            if not counted:
                self._count(planned)
            return planned
        breaker = queue.breaker
        word = _look_at(breaker, now_ns)
        forced = is_forced(word)
        switch = mode.switch()
        if switch is not None and not forced:
            return planned if counted else self._finish(mode, priority, queue, now_ns, _Answer(switch))
        held = planned._ticket  # noqa: SLF001 - tickets are the engine's own
        if counted and not forced and (planned.reason is Reason.OBSERVE_ONLY or breaker.honours(word, held, now_ns)):
            return planned
        ticket = breaker.try_acquire()
        attempts = priority.value == _HIGH and breaker.circuit.high_attempts and not forced
        if ticket is None and not attempts:
            return self._reject(mode, priority, queue, now_ns, breaker.word, queue.sample)
        if not counted:
            self._count(planned)
        return self._host.admitted(planned, ticket)

    def refuse_late(self, planned: ThrottleDecision) -> None:
        """See `backpressure._engine.border.Engine`."""
        self._count(planned).count_late()

    def _count(self, planned: ThrottleDecision) -> Counters:
        """Count a planned decision that is acted upon; return where."""
        queue = self._queues.get(planned.queue_name)
        counters = (self._untracked if queue is None else queue.counters)[planned.priority.value]
        if planned.reason is not Reason.UNTRACKED:  # else it was counted when made
            delay_ns, computed = round(planned.delay * 1e9), planned._computed  # noqa: SLF001
            counters.count(planned.reason, goes=True, delay_ns=delay_ns, computed=computed)
        return counters

    def record(
        self, decision: ThrottleDecision, ok: bool | None, began_ns: int | None = None, failure: str | None = None
    ) -> None:
        """See `backpressure._engine.border.Engine`."""
        ticket = decision._ticket  # noqa: SLF001 - tickets are the engine's own
        queue = self._queues.get(decision.queue_name)
        if ticket is not None and queue is not None:
            queue.breaker.record(ok, ticket, began_ns, failure)

    def record_queue(self, queue_name: str, ok: bool, failure: str | None = None) -> None:
        """See `backpressure._engine.border.Engine`."""
        breaker = self.breaker(queue_name, True)
        if breaker is not None:
            breaker.record(ok, failure=failure)

    def hasten(self, queue_name: str) -> None:
        """See `backpressure._engine.border.Engine`."""
        breaker = self.breaker(queue_name, False)
        if breaker is not None:
            breaker.hasten()

    # ------------------------------------------------------------------------------------------------------ answers

    def _reject(
        self, mode: Mode, priority: Priority, queue: Queue, now_ns: int, word: int, sample: Sample | None
    ) -> ThrottleDecision:
        """Refuse on behalf of `word`, which may have closed by now: the loser of a race is still refused."""
        retry_at_ns = now_ns if state_of(word) == CLOSED else queue.breaker.retry_at_ns(word)
        reason = Reason.CIRCUIT_OPEN if state_of(word) == OPEN else Reason.CIRCUIT_HALF_OPEN
        # No longer than a sample is believed: an answer that lies ready does not note that its queue is asked for.
        until_ns = now_ns + mode.settings.cache_ttl_ns
        if retry_at_ns is not None:
            until_ns = min(until_ns, retry_at_ns - 1)
        answer = _Answer(reason, shed=True, until_ns=until_ns, forced=is_forced(word))
        return self._finish(mode, priority, queue, now_ns, answer, ready=(word, sample), retry_at_ns=retry_at_ns)

    def _finish(
        self,
        mode: Mode,
        priority: Priority,
        queue: Queue,
        now_ns: int,
        answer: _Answer,
        *,
        ticket: Ticket | None = None,
        retry_at_ns: int | None = None,
        ready: tuple[int, Sample | None] | None = None,
    ) -> ThrottleDecision:
        """Count an answer, make the decision of it, and keep that ready where it may serve other callers too."""
        counters = queue.counters[priority.value]
        observed = mode.settings.observe and not answer.forced
        goes, delay_ns = observed or not answer.shed, 0 if answer.shed else answer.delay_ns
        counters.count(answer.reason, goes=goes, delay_ns=delay_ns, computed=answer.computed)
        decision = self._build(priority, queue.name, now_ns, answer, ticket=ticket, retry_at_ns=retry_at_ns)
        if observed:
            decision = self._host.observed(decision)
        if ready is not None and answer.until_ns is not None and answer.until_ns >= now_ns and mode.switch() is None:
            word, sample = ready
            self._ready[priority][queue.name] = Ready(
                decision,
                queue,
                queue.breaker,
                epoch=mode,
                sample=sample,
                word=word,
                until_ns=answer.until_ns,
                count=counters.row(answer.reason, goes=goes).add,
            )
            if self._queues.get(queue.name) is not queue:
                self._ready[priority].pop(queue.name, None)  # evicted meanwhile
        return decision

    def _build(
        self,
        priority: Priority,
        name: str,
        now_ns: int,
        answer: _Answer,
        *,
        ticket: Ticket | None = None,
        retry_at_ns: int | None = None,
    ) -> ThrottleDecision:
        return self._host.decision(
            Answer(
                priority,
                name,
                answer.delay_ns,
                answer.shed,
                answer.reason,
                answer.timestamp or self._host.utc_now(),
                answer.backlog,
                None if answer.zone is None else _ZONES[answer.zone],
                ticket,
                now_ns,
                retry_at_ns,
                answer.computed,
            )
        )

    # ------------------------------------------------------------------------------------------------------- queues

    def _track(self, name: str, now_ns: int, *, evict: bool) -> Queue | None:
        """Return the queue's state, made if there is room for it."""
        evicted: list[str] = []
        with self._lock():
            queue = self._queues.get(name)
            if queue is None and len(self._queues) >= self._mode.settings.max_queues and evict:
                evicted = self._evict(now_ns)
            if queue is None and len(self._queues) < self._mode.settings.max_queues:
                settings = self._mode.settings
                breaker = Breaker(
                    settings.circuits.get(name, settings.circuit),
                    self.now_ns,
                    origin_ns=self.origin_ns,
                    on_change=partial(self._host.circuit_changed, name),
                )
                queue = self._queues.setdefault(name, Queue(name, breaker, now_ns))
        for gone in evicted:
            self._host.evicted(gone)
        return queue

    def _evict(self, now_ns: int) -> list[str]:
        """Forget the queues that nobody asked for in a long time, keeping their counts; return their names."""
        if now_ns < self._next_eviction_ns:
            return []  # nothing has become idle since the last look at all of them
        settings = self._mode.settings
        idle_ns = _IDLE_TTLS * settings.cache_ttl_ns
        evicted = []
        self._next_eviction_ns = now_ns + idle_ns + 1  # of the queue that takes the room
        for name, queue in list(self._queues.items()):
            if state_of(queue.breaker.word) != CLOSED:
                self._next_eviction_ns = min(self._next_eviction_ns, now_ns + settings.cache_ttl_ns)
            elif now_ns - queue.touched_ns <= idle_ns:
                self._next_eviction_ns = min(self._next_eviction_ns, queue.touched_ns + idle_ns + 1)
            else:
                self._queues.pop(name, None)
                if state_of(queue.breaker.word) != CLOSED:  # forced open meanwhile
                    self._queues.setdefault(name, queue)
                    continue
                evicted.append(name)
                for priority in Priority:
                    self._ready[priority].pop(name, None)
                    totals = queue.counters[priority.value].totals()
                    self._evicted[priority.value] = self._evicted[priority.value].plus(totals)
        if evicted:
            self._change()  # voids all ready answers, as the native engine must
        return evicted

    def put_sample(self, queue_name: str, backlog: int, as_of_ns: int, oldest_age_ns: int | None = None) -> bool:
        """See `backpressure._engine.border.Engine`."""
        queue = self._queues.get(queue_name) or self._track(queue_name, self.now_ns(), evict=False)
        if queue is None:
            return False
        queue.sample = Sample(backlog, as_of_ns, oldest_age_ns)
        queue.failed_ns = None
        return True

    def read_failed(self, queue_name: str) -> None:
        """See `backpressure._engine.border.Engine`."""
        queue = self._queues.get(queue_name)
        if queue is not None:
            queue.failed_ns = self.now_ns()

    def forget_samples(self) -> None:
        """See `backpressure._engine.border.Engine`."""
        for queue in list(self._queues.values()):
            queue.sample = queue.failed_ns = None
        self._change()  # voids all ready answers

    def _reads_first(self, settings: EngineSettings, queue: Queue, now_ns: int) -> bool:
        """Look after the poller, now and then; tell whether the queue is to be read first.

        What one caller was told holds for all until the next look, but where a read has failed since.
        """
        if now_ns >= self._next_check_ns:
            with self._lock():
                mine = now_ns >= self._next_check_ns
                if mine:
                    self._checked_ns, self._next_check_ns = now_ns, now_ns + settings.check_every_ns
            if mine:
                self._read_first = self._host.check_poller()
        return self._read_first and (queue.failed_ns is None or queue.failed_ns < self._checked_ns)

    def breaker(self, queue_name: object, create: bool) -> Breaker | None:
        """See `backpressure._engine.border.Engine`."""
        queue = self._queues.get(queue_name) if isinstance(queue_name, str) else None
        if queue is None and create:
            queue = self._track(validate_queue_name(queue_name), self.now_ns(), evict=True)
        return None if queue is None else queue.breaker

    # ----------------------------------------------------------------------------------------------------- switches

    def configure(self, settings: EngineSettings) -> None:
        """See `backpressure._engine.border.Engine`."""
        fresh = _mode(settings)
        self._change(settings=fresh.settings, law=fresh.law, laws=fresh.laws)

    def set_running(self, running: bool) -> None:
        """See `backpressure._engine.border.Engine`."""
        self._change(running=running)

    def set_override(self, enabled: bool, until_ns: int | None = None) -> None:
        """See `backpressure._engine.border.Engine`."""
        self._change(override_until_ns=(math.inf if until_ns is None else until_ns) if enabled else None)

    def set_emergency(self, enabled: bool) -> None:
        """See `backpressure._engine.border.Engine`."""
        self._change(emergency=enabled)

    def override(self) -> bool:
        """Tell whether the override is on."""
        until_ns = self._mode.override_until_ns
        return until_ns is not None and self.now_ns() < until_ns

    def emergency(self) -> bool:
        """Tell whether emergency mode is on."""
        return self._mode.emergency

    def _end_override(self, expired: Mode) -> Mode:
        while (mode := self._mode).override_until_ns == expired.override_until_ns:
            ended = mode._replace(override_until_ns=None)
            if self._swap(mode, ended):
                self._host.override_ended()
                return ended
        return mode

    def _change(self, **changes: Any) -> None:
        while True:
            mode = self._mode
            if self._swap(mode, mode._replace(**changes)):
                return

    def _swap(self, old: Mode, new: Mode) -> bool:
        """Put `new` in the place of `old`, if that is still there."""
        with self._lock():  # against other threads; signal handlers run between calls, never between these two lines
            if self._mode is not old:
                return False
            self._mode = new
        return True

    # ------------------------------------------------------------------------------------------------------ reading

    def queue_names(self) -> list[str]:
        """Return the names of the queues that have state."""
        return list(self._queues)

    def cache_size(self) -> int:
        """Return how many computed answers are kept."""
        return sum(computed is not None for queue in list(self._queues.values()) for computed in queue.computed)

    def sample(self, queue_name: str) -> tuple[int, int, int | None] | None:
        """See `backpressure._engine.border.Engine`."""
        queue = self._queues.get(queue_name)
        sample = None if queue is None else queue.sample
        return None if sample is None else (sample.backlog, sample.as_of_ns, sample.oldest_age_ns)

    def totals(self) -> dict[tuple[str, int], Totals]:
        """Return all counts by (queue, priority), those without a queue of their own under ``__other__``."""
        with self._lock():
            queues, evicted = list(self._queues.values()), list(self._evicted)
        totals = {
            (queue.name, index): counters.totals() for queue in queues for index, counters in enumerate(queue.counters)
        }
        for index, counters in enumerate(self._untracked):
            totals[OTHER_QUEUES, index] = counters.totals().plus(evicted[index])
        return {key: value for key, value in totals.items() if any(value.reasons)}


class Gate:
    """See `backpressure._engine.border.Gate`."""

    suggest: Callable[[], ThrottleDecision]
    run: Callable[..., Any]

    def __new__(cls, engine: Engine, _host: Host, priority: Priority, queue_name: str, max_wait: MaxWait) -> Self:
        """Make a gate; its calls carry its arguments."""
        gate = super().__new__(cls)
        gate.suggest = partial(engine.suggest_throttle, priority, queue_name)
        gate.run = partial(engine.run_within, priority, queue_name, max_wait)
        return gate


def _look_at(breaker: Breaker, now_ns: int) -> int:
    """Return the breaker's word; looking ends a forced opening whose time is up."""
    if is_forced(breaker.word):
        breaker.lapse(now_ns)
    return breaker.word


def _mode(settings: EngineSettings) -> Mode:
    laws: dict[str, Law] = {name: ThreeZoneLaw(law) for name, law in settings.laws.items()}
    return Mode(settings, ThreeZoneLaw(settings.law), laws)
