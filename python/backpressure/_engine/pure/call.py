"""One call on one queue: switches, breaker, cached or computed advice, fallback, admission, and the count of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backpressure._engine.laws.age import AgeLaw, Judged
from backpressure._engine.pure.breaker import Ticket
from backpressure._engine.pure.draft import Draft
from backpressure._engine.pure.queue import Computed, Delay, Leased, Ready, Refusal
from backpressure._engine.sync import ForkLock
from backpressure._engine.word import CLOSED, OPEN, generation_of, is_forced, state_of
from backpressure._model.decision import issued
from backpressure._model.vocabulary import Priority, Reason, Zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.border import Host
    from backpressure._engine.laws.law import Advice, Law
    from backpressure._engine.pure.mode import Mode
    from backpressure._engine.pure.queue import Queue
    from backpressure._engine.pure.table import Table
    from backpressure._engine.sample import Sample
    from backpressure._engine.settings import EngineSettings
    from backpressure._model.decision import ThrottleDecision

_HIGH = Priority.HIGH
# How long a read that the jobs of one priority asked for has to come, before they ask again.
HURRY_NS = 50_000_000


class Ask(NamedTuple):
    """How a decision is asked for.

    Attributes:
        admit: whether a caller that is to wait is admitted and counted at once, before it has waited.
        impatient: whether the caller waits neither for an answer nor for its turn, so that a lease's refusal that lies
            ready is its own.
        may_read: whether the caller can read the queue where there is no good sample of it.
        cold: what such a read ended with, if the call is to be answered with that.
        spared: whether a table that sheds is to have the caller wait instead.
    """

    admit: bool
    impatient: bool = False
    may_read: bool = True
    cold: Reason | None = None
    spared: bool = False


class Checks:
    """Looks after the poller, now and then, on behalf of all callers. Thread-safe."""

    __slots__ = ("_checked_ns", "_host", "_lock", "_read_first", "next_ns")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = ForkLock()
        self._checked_ns = 0
        self._read_first = False  # what the host said then
        #: When the poller is to be looked after again.
        self.next_ns = 0

    def reads_first(self, settings: EngineSettings, queue: Queue, now_ns: int) -> bool:
        """Tell whether the queue is to be read before it is judged.

        What one caller was told holds for all until the next look, but where a read has failed since.
        """
        if now_ns >= self.next_ns:
            with self._lock():
                mine = now_ns >= self.next_ns
                if mine:
                    self._checked_ns, self.next_ns = now_ns, now_ns + settings.check_every_ns
            if mine:
                self._read_first = self._host.check_poller()
        return self._read_first and (queue.failed_ns is None or queue.failed_ns < self._checked_ns)


class Call:
    """One call on one queue that has state, at one instant and in one mode."""

    __slots__ = ("_checks", "_host", "_index", "_mode", "_now_ns", "_priority", "_queue", "_table")

    def __init__(
        self, host: Host, checks: Checks, table: Table, mode: Mode, priority: Priority, queue: Queue, now_ns: int
    ) -> None:
        self._host = host
        self._checks = checks
        self._table = table
        self._mode = mode
        self._priority = priority
        self._index: int = priority._value_  # `value` is a property, which takes time
        self._queue = queue
        self._now_ns = now_ns

    def decide(self, ask: Ask) -> ThrottleDecision | None:
        """Decide; ``None`` asks the caller to read the queue first."""
        queue = self._queue
        queue.touched_ns = self._now_ns
        breaker, sample = queue.breaker, queue.sample
        word = self._look()
        closed, forced = state_of(word) == CLOSED, is_forced(word)
        switch = self._mode.switch()
        if switch is not None and not forced:
            return self._finish(Draft(switch))
        if not (closed or self._attempts(forced=forced) or breaker.admits(word, self._now_ns)):
            return self._reject(word, sample)
        draft = self._advise(sample, ask)
        if draft is None:
            return None
        kept = (word, sample) if closed else None
        if ask.spared and draft.reason is Reason.BACKLOG_RED_SHED:
            draft = Draft(Reason.BACKLOG_RED, draft.delay_ns, False, draft.zone, draft.backlog, computed=draft.computed)
        if draft.shed:
            return self._finish(draft, kept=kept)
        if draft.delay_ns > 0 and not (ask.admit or self._mode.settings.observes(queue.name)):
            return self._plan(draft, kept=kept)
        if closed:
            ticket: Ticket | None = Ticket(generation_of(word), self._now_ns, probe=False)
            return self._finish(draft, ticket=ticket, kept=kept)
        ticket = breaker.try_acquire()
        if ticket is None and not self._attempts(forced=forced):
            return self._reject(breaker.word, sample)
        return self._finish(draft, ticket=ticket)

    def peek(self) -> tuple[Draft, int | None]:
        """Tell what `decide` would say, by what is known: nothing is taken, counted, read, kept or told.

        The instant is that of the next probe of a circuit that refuses, if it is known.
        """
        breaker, now_ns = self._queue.breaker, self._now_ns
        word = breaker.word_at(now_ns)
        closed, forced = state_of(word) == CLOSED, is_forced(word)
        switch = self._mode.switch()
        if switch is not None and not forced:
            return Draft(switch), None
        if closed or self._attempts(forced=forced) or breaker.admits(word, now_ns):
            return self._foresee(), None
        return self._refusal(word)

    def admit(self, planned: ThrottleDecision) -> ThrottleDecision:
        """Ask the breaker again for a planned decision, right before its work; one that waited is counted here."""
        queue = self._queue
        queue.touched_ns = self._now_ns
        breaker = queue.breaker
        answer, held = planned._answer, planned._ticket  # noqa: SLF001 - engines make decisions, and know what of
        counted = answer.delay == 0  # when made; then only the breaker may have changed
        word = self._look()
        forced = is_forced(word)
        switch = self._mode.switch()
        if switch is not None and not forced:
            return planned if counted else self._finish(Draft(switch))
        if counted and not forced:
            observed = answer.reason is Reason.OBSERVE_ONLY
            if observed or breaker.honours(word, held, self._now_ns):
                return planned
        ticket = breaker.try_acquire()
        if ticket is None and not self._attempts(forced=forced):
            return self._reject(breaker.word, queue.sample)
        if not counted:
            self._table.count(planned)
        return issued(answer, planned._issued_ns, ticket, planned._computed)  # noqa: SLF001 - see above

    def _attempts(self, *, forced: bool) -> bool:
        """Tell whether the call goes through an open circuit, without a ticket."""
        return self._priority is _HIGH and self._queue.breaker.circuit.high_attempts and not forced

    def _look(self) -> int:
        """Return the breaker's word; looking ends a forced opening whose time is up."""
        breaker = self._queue.breaker
        if is_forced(breaker.word):
            breaker.lapse(self._now_ns)
        return breaker.word

    def _advise(self, sample: Sample | None, ask: Ask) -> Draft | None:
        """Return what the queue's sample, or the lack of one, advises; ``None`` asks the caller to read."""
        settings, queue, now_ns = self._mode.settings, self._queue, self._now_ns
        if ask.cold is not None:
            return Draft(ask.cold)
        if settings.holds_ages and isinstance(settings.law_of(queue.name), AgeLaw):
            return self._judged(self._host.judge(queue.name, self._priority), sample)
        expired = sample is None or (not settings.polling and sample.age_ns(now_ns) > settings.cache_ttl_ns)
        if expired and ask.may_read and queue.may_read(settings, now_ns):
            return None
        if sample is None:
            # The read that failed left it to the poller.
            if settings.polling and ask.may_read and self._checks.reads_first(settings, queue, now_ns):
                return None
            return self._fallback()
        age_ns = sample.age_ns(now_ns)
        overdue = settings.polling and age_ns > settings.check_after_ns
        if overdue and self._checks.reads_first(settings, queue, now_ns) and ask.may_read:
            return None
        believed_ns = settings.cache_ttl_ns
        if not (settings.polling or ask.may_read) and queue.failed_ns is None:
            believed_ns = max(believed_ns, settings.check_every_ns)  # it was just read, which takes its time
        if age_ns <= believed_ns:
            return self._fresh(sample, age_ns, ask)
        return self._stale(sample, age_ns, self._by_law)

    def _foresee(self) -> Draft:
        """As `_advise`, for a caller that only looks: where a read would come first, its outcome is not known."""
        settings, queue, now_ns = self._mode.settings, self._queue, self._now_ns
        sample = queue.sample
        if settings.holds_ages and isinstance(settings.law_of(queue.name), AgeLaw):
            return self._judged(self._host.foresee(queue.name, self._priority), sample)
        if sample is None:
            return Draft(Reason.COLD_START) if queue.may_read(settings, now_ns) else self._fallback()
        age_ns = sample.age_ns(now_ns)
        if age_ns > settings.cache_ttl_ns:
            return self._stale(sample, age_ns, self._foreseen_by_law)
        cached = queue.computed[self._index]
        if cached is not None and cached.holds(sample, settings):
            (zone, delay_ns, shed, reason, _), finished = cached.advice, cached.finished
        else:
            (zone, delay_ns, shed, reason, _), finished = self._foreseen_by_law(sample), None
        return Draft(reason, delay_ns, shed, zone, sample.backlog, finished)

    def _judged(self, judged: Judged, sample: Sample | None) -> Draft:
        """Return what the budget of a queue whose age is held says."""
        backlog = None if sample is None else sample.backlog
        draft = Draft(judged.reason, judged.delay_ns, judged.shed, judged.zone, backlog)
        if judged.lease is None:
            return draft
        # As for a refusal: an answer that lies ready does not note that its queue is asked for.
        until_ns = min(judged.until_ns, self._now_ns + self._mode.settings.cache_ttl_ns)
        return draft._replace(until_ns=until_ns, lent=judged)

    def _stale(self, sample: Sample, age_ns: int, by_law: Callable[[Sample], Advice]) -> Draft:
        """Return what a sample that is not believed any more advises: less and less, until it is the fallback."""
        settings = self._mode.settings
        over_ns = age_ns - settings.cache_ttl_ns
        if over_ns > settings.degrade_ns:
            return self._fallback()
        last = by_law(sample)
        fallback_ns, degrade_ns = settings.fallback_ns[self._index], settings.degrade_ns
        delay_ns = (last.delay_ns * (degrade_ns - over_ns) + fallback_ns * over_ns) // degrade_ns
        return Draft(Reason.STATS_STALE, delay_ns, zone=last.zone, backlog=sample.backlog)

    def _law(self) -> Law:
        law = self._mode.settings.law_of(self._queue.name)
        assert not isinstance(law, AgeLaw)  # noqa: S101 - those that hold an age were asked before
        return law

    def _by_law(self, sample: Sample) -> Advice:
        law = self._law()
        return law.advise(sample, self._index, self._queue.state_of(law))

    def _foreseen_by_law(self, sample: Sample) -> Advice:
        law = self._law()
        return law.foresee(sample, self._index, self._queue.foreseen_by(law))

    def _fresh(self, sample: Sample, age_ns: int, ask: Ask) -> Draft | None:
        """Return what the law says of a sample that is believed, computed once for each sample and configuration.

        ``None`` asks the caller to read the queue first.
        """
        settings, queue, index = self._mode.settings, self._queue, self._index
        counters = queue.counters[index]
        cached = queue.computed[index]
        computed = cached is None or not cached.holds(sample, settings)
        if cached is None or computed:
            advice, observes = self._by_law(sample), settings.observes(queue.name)
            row = counters.row(advice.reason, goes=True) if observes or not advice.shed else None
            counted = 0 if row is None else counters.let_in(row)
            draft = Draft(advice.reason, advice.delay_ns, advice.shed, advice.zone, sample.backlog)
            finished = draft.answer(self._host, self._priority, queue.name, observes=observes)
            cached = Computed(sample, settings, advice, finished, row=row, counted=counted)
            before = queue.put_computed(index, cached)
            old = Zone.GREEN if before is None else before.advice.zone
            if old is not advice.zone:
                self._host.zone_changed(queue.name, self._priority, old, advice.zone)
        zone, delay_ns, shed, reason, room = cached.advice
        until_ns: float = sample.as_of_ns + settings.cache_ttl_ns
        if settings.polling:
            fresh = age_ns <= settings.check_after_ns
            until_ns = min(until_ns, sample.as_of_ns + settings.check_after_ns if fresh else self._checks.next_ns - 1)
        until_count = math.inf
        if cached.row is not None and room is not None:
            let_in, priorities = queue.let_in(sample)
            if let_in <= room:
                # Each priority's answers count for themselves: together they are to take no more than there is.
                share = (room - let_in + 1) // priorities
                until_count = cached.row.value + share
                if share <= 1:
                    until_ns = self._now_ns - 1  # this is the last that lets one in unseen
            elif settings.polling:
                if self._hurries():
                    self._host.hurry(queue.name)
            elif not computed and ask.may_read and queue.may_read(settings, self._now_ns) and self._hurries():
                return None
            if let_in > room:
                until_ns = min(until_ns, queue.hurry_at_ns[index] - 1)
        return Draft(reason, delay_ns, shed, zone, sample.backlog, cached.finished, computed, until_ns, until_count)

    def _hurries(self) -> bool:
        """Tell whether a read of the queue may be asked for again."""
        queue, index, now_ns = self._queue, self._index, self._now_ns
        if now_ns < queue.hurry_at_ns[index]:
            return False
        queue.hurry_at_ns[index] = now_ns + HURRY_NS  # two threads may come here at once: then both ask
        return True

    def _fallback(self) -> Draft:
        settings = self._mode.settings
        return Draft(settings.fallback_reason, settings.fallback_ns[self._index])

    def _reject(self, word: int, sample: Sample | None) -> ThrottleDecision:
        draft, retry_at_ns = self._refusal(word)
        return self._finish(draft, retry_at_ns=retry_at_ns, kept=(word, sample))

    def _refusal(self, word: int) -> tuple[Draft, int | None]:
        """Refuse on behalf of `word`, which may have closed by now: the loser of a race is still refused.

        The instant is that of the next probe, if it is known.
        """
        state, now_ns = state_of(word), self._now_ns
        retry_at_ns = now_ns if state == CLOSED else self._queue.breaker.retry_at_ns(word)
        reason = Reason.CIRCUIT_OPEN if state == OPEN else Reason.CIRCUIT_HALF_OPEN
        # No longer than a sample is believed: an answer that lies ready does not note that its queue is asked for.
        until_ns = now_ns + self._mode.settings.cache_ttl_ns
        if retry_at_ns is not None:
            until_ns = min(until_ns, retry_at_ns - 1)
        return Draft(reason, shed=True, until_ns=until_ns, forced=is_forced(word)), retry_at_ns

    def _plan(self, draft: Draft, *, kept: tuple[int, Sample | None] | None) -> ThrottleDecision:
        """Make the decision of a delay that is not counted yet, and keep it ready as `_finish` does.

        It is for one job less, as if this one were counted: it will be, after its sleep.
        """
        answer = draft.answer(self._host, self._priority, self._queue.name, observes=False)
        decision = issued(answer, self._now_ns, None, draft.computed)
        self._keep(decision, draft._replace(until_count=draft.until_count - 1), kept, observed=False)
        return decision

    def _finish(
        self,
        draft: Draft,
        *,
        ticket: Ticket | None = None,
        retry_at_ns: int | None = None,
        kept: tuple[int, Sample | None] | None = None,
    ) -> ThrottleDecision:
        """Count an answer, make the decision of it, and keep that ready where it may serve other callers too.

        It serves them while word and sample are those of `kept`.
        """
        queue, index = self._queue, self._index
        observes = self._mode.settings.observes(queue.name)
        observed = observes and not draft.forced
        goes, delay_ns = observed or not draft.shed, 0 if draft.shed else draft.delay_ns
        queue.counters[index].count(draft.reason, goes=goes, delay_ns=delay_ns, computed=draft.computed)
        answer = draft.answer(self._host, self._priority, queue.name, observes=observes, retry_at_ns=retry_at_ns)
        decision = issued(answer, self._now_ns, ticket, draft.computed)
        self._keep(decision, draft, kept, observed=observed)
        return decision

    def _keep(
        self, decision: ThrottleDecision, draft: Draft, kept: tuple[int, Sample | None] | None, *, observed: bool
    ) -> None:
        mode, queue, until_ns = self._mode, self._queue, draft.until_ns
        if kept is None or until_ns is None or until_ns < self._now_ns or mode.switch() is not None:
            self._table.look_at_count(self._priority, queue.name)
            return
        (word, sample), counters = kept, queue.counters[self._index]
        goes, reason = observed or not draft.shed, draft.reason
        delay: Delay | Leased | None = None
        if draft.lent is not None:
            leased = self._leased(decision, draft, draft.lent, word, observed=observed)
            if leased is None:
                return
            decision, reason, delay = leased
            goes = True
        row = counters.row(reason, goes=goes)
        if delay is None and draft.delay_ns > 0 and not draft.shed:
            answer = decision._answer  # noqa: SLF001 - it was just made of it
            delay = Delay(answer, draft.delay_ns, counters, row, lets_go=observed)
        ready = Ready(
            decision,
            queue,
            queue.breaker,
            delay=delay,
            goes=goes and delay is None,
            epoch=mode,
            sample=sample,
            word=word,
            until_ns=until_ns,
            count=row.count,
            last_count=draft.until_count - 1,
        )
        self._table.keep(self._priority, ready)

    def _leased(
        self, decision: ThrottleDecision, draft: Draft, lent: Judged, word: int, *, observed: bool
    ) -> tuple[ThrottleDecision, Reason, Leased] | None:
        """Return what lies ready where a lease is lent: the decision of a go, its reason, and what jobs go by.

        ``None`` if no go is known.
        """
        lease, other, queue = lent.lease, lent.other, self._queue
        if lease is None or (lent.shed and other is None):
            return None
        if other is None:
            return decision, lent.reason, Leased(lease, lent.renewal, lent.patient, None)
        told = Draft(other.reason, other.delay_ns, other.shed, other.zone, draft.backlog)
        answer = told.answer(self._host, self._priority, queue.name, observes=observed)
        ticket = None if other.shed else Ticket(generation_of(word), self._now_ns, probe=False)
        made = issued(answer, self._now_ns, ticket)
        go, goes, refused, refuses = (made, other, decision, lent) if lent.shed else (decision, lent, made, other)
        row = queue.counters[self._index].row(refuses.reason, goes=observed)
        return go, goes.reason, Leased(lease, lent.renewal, lent.patient, Refusal(refused, row.count))
