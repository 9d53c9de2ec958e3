"""The engine: its public calls, from a name to what the caller sees, and what becomes of it afterwards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from backpressure._engine.pure.breaker import Ticket
from backpressure._engine.pure.call import Ask, Call, Checks
from backpressure._engine.pure.draft import Draft
from backpressure._engine.pure.mode import Switches
from backpressure._engine.pure.queue import Leased
from backpressure._engine.pure.table import Table, without_state
from backpressure._engine.sample import Sample
from backpressure._engine.word import generation_of, is_pristine
from backpressure._model.arguments import MAX_NAME_BYTES, parse_priority, validate_queue_name
from backpressure._model.clock import SystemClock
from backpressure._model.decision import issued
from backpressure._model.tenant import is_tenant
from backpressure._model.vocabulary import Priority, Reason
from backpressure._runtime.called import called
from backpressure._runtime.uncopied import Uncopied

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.border import Host
    from backpressure._engine.pure.breaker import Breaker
    from backpressure._engine.pure.mode import Mode
    from backpressure._engine.pure.queue import Delay, Queue, Ready
    from backpressure._engine.settings import EngineSettings
    from backpressure._engine.totals import Totals
    from backpressure._model.arguments import MaxWait
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.tenant import AnyTenant

_SUGGEST = Ask(admit=True, impatient=True)
_PLAN = Ask(admit=False)
_PLAN_IMPATIENTLY = Ask(admit=False, impatient=True)


class Engine(Switches, Uncopied):
    """What `Engine` of the border promises, where the calls are described.

    It is its own switches, so that an answer that lies ready is held against the mode in one step.
    """

    _instead = "make a controller in the process that uses it, from the same BackpressureConfig, which does pickle"

    def __init__(self, settings: EngineSettings, host: Host) -> None:
        super().__init__(settings)
        self._host = host
        self._is_plain = host.is_plain
        self.now_ns = host.now_ns or SystemClock.monotonic_ns
        self.origin_ns = self.now_ns()
        self._checks = Checks(host)
        self._table = Table(host, self, self.now_ns, self.origin_ns)
        # The table's own, here because every job passes them.
        self._queues = self._table.queues
        self._ready = self._table.ready

    def suggest_throttle(
        self, priority: Priority | str, queue_name: str, *, tenant: AnyTenant | None = None
    ) -> ThrottleDecision:
        if tenant is not None:
            return self.suggest_for(priority, queue_name, tenant)
        # As `_find_ready` does: its call would take a seventh of the time.
        if (
            type(queue_name) is str
            and len(queue_name) <= MAX_NAME_BYTES
            and (type(priority) is Priority or (type(priority) is str and len(priority) <= MAX_NAME_BYTES))
        ):
            try:
                ready = self._ready[priority][queue_name]
            except KeyError:
                return self._decide(priority, queue_name, _SUGGEST)
            if (
                ready.epoch is self.mode
                and ready.word == ready.breaker.word
                and ready.sample is ready.queue.sample
                and self.now_ns() <= ready.until_ns
            ):
                if ready.delay is not None:
                    return self._issue(ready, ready.delay, priority, queue_name, _SUGGEST)
                if next(ready.count) >= ready.last_count:
                    ready.until_ns = -math.inf
                return ready.decision
        return self._decide(priority, queue_name, _SUGGEST)

    def peek(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        parsed = parse_priority(priority)
        if not self.mode.running:
            raise self._host.not_running()
        now_ns = self.now_ns()
        mode = self.mode_due(now_ns)
        name = validate_queue_name(queue_name)
        draft, retry_at_ns = self._foresee(mode, parsed, name, now_ns)
        observes = mode.settings.observes(name)
        return draft.peeked(self._host, parsed, name, observes=observes, retry_at_ns=retry_at_ns)

    def outlook(self, queue_name: str) -> tuple[dict[str, Any], ...]:
        if not self.mode.running:
            raise self._host.not_running()
        now_ns = self.now_ns()
        mode = self.mode_due(now_ns)
        seen = (self._foresee(mode, priority, queue_name, now_ns) for priority in Priority)
        return tuple(draft.outlined(self._host, now_ns, retry_at_ns) for draft, retry_at_ns in seen)

    def _foresee(self, mode: Mode, priority: Priority, name: str, now_ns: int) -> tuple[Draft, int | None]:
        """Return what would be decided, and the instant of the next probe of a circuit that refuses, if it is known."""
        queue = self._queues.get(name)
        if queue is not None:
            return self._call(mode, priority, queue, now_ns).peek()
        draft = without_state(mode, priority)
        if draft.reason is Reason.UNTRACKED and self._table.has_room(now_ns):
            draft = Draft(Reason.COLD_START)
        return draft, None

    def plan(self, priority: Priority | str, queue_name: str, impatient: bool = False) -> ThrottleDecision:
        ready, ask = self._find_ready(priority, queue_name), _PLAN_IMPATIENTLY if impatient else _PLAN
        if ready is None:
            return self._decide(priority, queue_name, ask)
        if ready.delay is not None:
            return self._issue(ready, ready.delay, priority, queue_name, ask)
        if next(ready.count) >= ready.last_count:
            ready.until_ns = -math.inf
        return ready.decision

    def suggest_for(self, priority: Priority | str, queue_name: str, tenant: AnyTenant) -> ThrottleDecision:
        """As `suggest_throttle`, for a gate, on behalf of a tenant."""
        found = self.ready_for(priority, queue_name, tenant, admit=True, impatient=True)
        return self._host.suggest_for(priority, queue_name, tenant) if found is None else found

    def ready_for(
        self, priority: Priority | str, queue_name: str, tenant: AnyTenant, *, admit: bool, impatient: bool
    ) -> ThrottleDecision | None:
        ready = self._find_ready(priority, queue_name)
        if ready is None:
            return None
        delay = ready.delay
        if isinstance(delay, Leased) and not delay.patient:
            place = delay.place(tenant)
            if place is None:
                return None
            goes = delay.decide_for(place, impatient=impatient)
            if goes:
                next(ready.count)
                return ready.decision
            if goes is None or delay.refusal is None:
                return None
            next(delay.refusal.tally)
            return delay.refusal.decision
        if not is_tenant(tenant):
            return None
        if delay is not None:
            if isinstance(delay, Leased) and not delay.goes(self.now_ns()):
                return None
            if not isinstance(delay, Leased):
                return self._issue(ready, delay, priority, queue_name, Ask(admit, impatient))
        elif not ready.goes:
            return None
        if next(ready.count) >= ready.last_count:
            ready.until_ns = -math.inf
        return ready.decision

    def decide_for(self, priority: Priority | str, queue_name: str, admit: bool, spared: bool) -> ThrottleDecision:
        return self._decide(priority, queue_name, Ask(admit, spared=spared))

    @called("BackpressureController.run")
    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., Any],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | None = None,
        **kwargs: Any,
    ) -> Any:
        if tenant is not None:
            if max_wait is None and not patient and not kwargs:
                return self.run_for(priority, queue_name, max_wait, patient, tenant, work, *args)
            kwargs["tenant"] = tenant
            return self._host.run(priority, queue_name, work, *args, max_wait=max_wait, patient=patient, **kwargs)
        ready = None if max_wait is not None else self._find_ready(priority, queue_name)
        if ready is None or not (ready.goes or self._is_let_go(ready)):
            return self._host.run(priority, queue_name, work, *args, max_wait=max_wait, patient=patient, **kwargs)
        return self._perform(ready, work, args, kwargs)

    @called("Gate.run")
    def run_within(
        self,
        priority: Priority,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool,
        work: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As `run`, for a gate, with every keyword argument for the work."""
        ready = self._find_ready(priority, queue_name)
        if ready is None or not (ready.goes or self._is_let_go(ready)):
            return self._host.run_within(priority, queue_name, max_wait, patient, work, *args, **kwargs)
        return self._perform(ready, work, args, kwargs)

    @called("Gate.run_for")
    def run_for(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool,
        tenant: AnyTenant,
        work: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As `run_within`, on behalf of a tenant."""
        ready = self._find_ready(priority, queue_name)
        if ready is not None and is_tenant(tenant) and self._is_let_go_for(ready, tenant):
            return self._perform(ready, work, args, kwargs)
        return self._host.run_for(priority, queue_name, max_wait, patient, tenant, work, *args, **kwargs)

    def _is_let_go_for(self, ready: Ready, tenant: AnyTenant) -> bool:
        """Tell whether what lies ready lets the next job of a tenant go, and at once."""
        delay = ready.delay
        if not isinstance(delay, Leased) or delay.patient:
            return ready.goes or self._is_let_go(ready)
        place = delay.place(tenant)
        return place is not None and delay.decide_for(place, impatient=False) is True

    def _is_let_go(self, ready: Ready) -> bool:
        """Tell whether the lease that lies ready, if it is one, lets the next job go."""
        return isinstance(ready.delay, Leased) and ready.delay.goes(self.now_ns())

    def _issue(
        self, ready: Ready, delay: Delay | Leased, priority: Priority | str, queue_name: str, ask: Ask
    ) -> ThrottleDecision:
        """Make a decision of a delay that lies ready, or hand out that of a lease, if this decides by itself."""
        now_ns = self.now_ns()
        if now_ns > ready.until_ns:
            return self._decide(priority, queue_name, ask)
        if isinstance(delay, Leased):
            if ask.impatient and (refused := delay.refuses()) is not None:
                return refused
            if not delay.goes(now_ns):
                return self._decide(priority, queue_name, ask)
            next(ready.count)
            return ready.decision
        if not (ask.admit or delay.lets_go):
            return issued(delay.answer, now_ns)
        if next(ready.count) >= ready.last_count:
            ready.until_ns = -math.inf
        delay.counters.count_delay(delay.delay_ns)
        return issued(delay.answer, now_ns, Ticket(generation_of(ready.word), now_ns, probe=False))

    def _perform(self, ready: Ready, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the work of a job whose answer lies ready."""
        if next(ready.count) >= ready.last_count:
            ready.until_ns = -math.inf
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
        # Only what is short is hashed, and nobody's own hash is asked.
        if type(queue_name) is not str or len(queue_name) > MAX_NAME_BYTES:
            return None
        if type(priority) is not Priority and (type(priority) is not str or len(priority) > MAX_NAME_BYTES):
            return None
        try:
            ready = self._ready[priority][queue_name]
        except KeyError:
            return None
        if (
            ready.epoch is self.mode
            and ready.word == ready.breaker.word
            and ready.sample is ready.queue.sample
            and self.now_ns() <= ready.until_ns
        ):
            return ready
        return None

    def _decide(self, given: object, queue_name: str, ask: Ask) -> ThrottleDecision:
        priority = parse_priority(given)
        mode, now_ns = self._look()
        queue = self._find_queue(queue_name)
        if queue is None:
            name = validate_queue_name(queue_name)
            queue = self._table.track(name, now_ns, evict=True)
            if queue is None:
                return self._decide_untracked(mode, priority, name, now_ns)
        decision = self._call(mode, priority, queue, now_ns).decide(ask)
        if decision is None:
            # Where there is a poller, only who must not go by what there is gets here.
            cold = self._host.read(queue.name, queue.sample is None or mode.settings.polling)
            mode, now_ns = self._look()
            decision = self._call(mode, priority, queue, now_ns).decide(ask._replace(may_read=False, cold=cold))
            assert decision is not None  # noqa: S101 - only a caller that may read is asked to
        return decision

    def _find_queue(self, name: object) -> Queue | None:
        """Return the queue of a name, if it has state. Whatever is no exact string names none."""
        return self._queues.get(name) if type(name) is str and len(name) <= MAX_NAME_BYTES else None

    def _decide_untracked(self, mode: Mode, priority: Priority, name: str, now_ns: int) -> ThrottleDecision:
        draft, observes = self._table.untracked(mode, priority), mode.settings.observes(name)
        return issued(draft.answer(self._host, priority, name, observes=observes), now_ns)

    def _look(self) -> tuple[Mode, int]:
        """Return the mode that holds now, and now."""
        mode = self.mode
        if not mode.running:
            raise self._host.not_running()
        now_ns = self.now_ns()
        if mode.override_until_ns is not None or mode.emergency_until_ns is not None:
            mode, ended = self.mode_at(now_ns)
            if ended:
                self._host.override_ended()
        return mode, now_ns

    def _call(self, mode: Mode, priority: Priority, queue: Queue, now_ns: int) -> Call:
        return Call(self._host, self._checks, self._table, mode, priority, queue, now_ns)

    def admit(self, planned: ThrottleDecision) -> ThrottleDecision:
        mode, now_ns = self._look()
        answer = planned._answer  # noqa: SLF001 - engines make decisions, and know what of
        if answer.reason is Reason.UNTRACKED:
            return planned  # it was counted when made, and has no breaker
        name = answer.queue_name
        queue = self._queues.get(name) or self._table.track(name, now_ns, evict=True)
        if queue is not None:
            return self._call(mode, answer.priority, queue, now_ns).admit(planned)
        if answer.delay > 0:
            self._table.count(planned)
        return planned

    def refuse_late(self, planned: ThrottleDecision) -> None:
        self._table.count(planned).count_late()

    def record(
        self, decision: ThrottleDecision, ok: bool | None, began_ns: int | None = None, failure: str | None = None
    ) -> None:
        ticket = decision._ticket  # noqa: SLF001 - tickets are the engine's own
        queue = self._queues.get(decision.queue_name)
        if ticket is not None and queue is not None:
            queue.breaker.record(ok, ticket, began_ns, failure)

    def record_queue(self, queue_name: str, ok: bool, failure: str | None = None) -> None:
        breaker = self.breaker(queue_name, True)
        if breaker is not None:
            breaker.record(ok, failure=failure)

    def hasten(self, queue_name: str) -> None:
        breaker = self.breaker(queue_name, False)
        if breaker is not None:
            breaker.hasten()

    def put_sample(
        self,
        queue_name: str,
        backlog: int,
        as_of_ns: int,
        oldest_age_ns: int | None = None,
        memory_permille: int | None = None,
    ) -> bool:
        queue = self._queues.get(queue_name) or self._table.track(queue_name, self.now_ns(), evict=False)
        if queue is None:
            return False
        queue.sample = Sample(backlog, as_of_ns, oldest_age_ns, memory_permille)
        queue.failed_ns = None
        return True

    def read_failed(self, queue_name: str) -> None:
        queue = self._queues.get(queue_name)
        if queue is not None:
            queue.failed_ns = self.now_ns()

    def forget_samples(self) -> None:
        for queue in self._table.all():
            queue.sample = queue.failed_ns = None
        self.void_ready()

    def breaker(self, queue_name: object, create: bool) -> Breaker | None:
        queue = self._find_queue(queue_name)
        if queue is None and create:
            queue = self._table.track(validate_queue_name(queue_name), self.now_ns(), evict=True)
        return None if queue is None else queue.breaker

    def override(self) -> bool:
        """Tell whether the override is on."""
        until_ns = self.mode.override_until_ns
        return until_ns is not None and self.now_ns() < until_ns

    def emergency(self) -> bool:
        """Tell whether emergency mode is on."""
        until_ns = self.mode.emergency_until_ns
        return until_ns is not None and self.now_ns() < until_ns

    def queue_names(self) -> list[str]:
        """Return the names of the queues that have state."""
        return list(self._queues)

    def busy_queues(self) -> list[str]:
        settings = self.mode.settings
        return [queue.name for queue in self._table.awake(self.now_ns()) if queue.is_busy(settings)]

    def cache_size(self) -> int:
        """Return how many computed answers are kept."""
        return sum(computed is not None for queue in self._table.all() for computed in queue.computed)

    def sample(self, queue_name: str) -> tuple[int, int, int | None, int, int | None] | None:
        queue = self._queues.get(queue_name)
        sample = None if queue is None else queue.sample
        if queue is None or sample is None:
            return None
        return sample.backlog, sample.as_of_ns, sample.oldest_age_ns, queue.let_in(sample)[0], sample.memory_permille

    def totals(self) -> dict[tuple[str, int], Totals]:
        """Return all counts by (queue, priority), those without a queue of their own under ``__other__``."""
        return self._table.totals()
