"""A host that builds answers, answers reads as told, and writes down all that its engine asks of it."""

from __future__ import annotations

import contextlib
import itertools
import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from backpressure._controller.outcome import is_plain
from backpressure._model.decision import Answer, ThrottleDecision
from backpressure._model.errors import ControllerNotStartedError
from backpressure._model.tenant import check_tenant
from backpressure._model.vocabulary import Priority, Reason, Zone
from engine.parity.budget import FakeBudget
from support.breaker_model import shown_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure._engine.border import Engine
    from backpressure._engine.laws.age import Judged


def plain(value: object) -> object:
    """Return what of `value` must not differ between the engines."""
    if isinstance(value, Answer):
        return tuple(plain(part) for name, part in zip(value._fields, value, strict=True) if name != "sleeper")
    if isinstance(value, ThrottleDecision):
        parts = (value._answer, value._issued_ns, value._ticket, value._computed)
        return ("decision", *map(plain, parts), value.retry_after)
    if hasattr(value, "generation") and hasattr(value, "probe"):
        return ("ticket", value.generation, value.probe, repr(value))
    return value


class FakeHost:
    """See `border.Host`. `built` is what answers were made of, `gone` the evicted, `told` the rest.

    `tenant` is whose job is decided about, `spares` whether a table is to spare it.

    `make_lease` is the engine's, where it is to hold ages.
    """

    engine: Engine

    def __init__(self, now_ns: Callable[[], int], make_lease: Callable[..., Any] | None = None) -> None:
        self.now_ns: Callable[[], int] | None = now_ns
        self.next_read: tuple[str, int] = ("fail", 0)
        self.read_first = False
        self.built: list[tuple[object, ...]] = []
        self.told: list[tuple[object, ...]] = []
        self.gone: set[str] = set()
        self.long_ways = 0
        self.tenant: object = None
        self.spares = False
        self.budget = FakeBudget(make_lease, now_ns) if make_lease is not None else None
        self._clock = now_ns
        self._sleeper: Any = SimpleNamespace(now_ns=now_ns)
        self._ticks = itertools.count()

    def judge(self, queue_name: str, priority: Priority) -> Judged:
        self.told.append(("judge", queue_name, priority))
        assert self.budget is not None
        return self.budget.judge(queue_name, priority, self.tenant)

    def foresee(self, queue_name: str, priority: Priority) -> Judged:
        self.built.append(("foresee", queue_name, priority))
        assert self.budget is not None
        return self.budget.foresee(queue_name, priority)

    def forget(self) -> None:
        """Clear what was written down."""
        self.built.clear()
        self.told.clear()
        self.gone.clear()

    def utc_now(self) -> datetime:
        # Another instant each time: so an answer kept where the other engine asks anew is seen.
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self._ticks))

    def answer(self, *given: Any) -> Answer:
        self.built.append(("answer", *map(plain, given)))
        return self._answer(*given)

    def peeked(self, *given: Any) -> Answer:
        self.built.append(("peeked", *map(plain, given)))
        return self._answer(*given)

    def outlined(
        self, zone: Zone | None, delay_ns: int, shed: bool, reason: Reason, probe_ns: int | None
    ) -> dict[str, Any]:
        return {"zone": zone, "delay_ns": delay_ns, "shed": shed, "reason": reason, "probe_ns": probe_ns}

    def _answer(
        self,
        priority: Priority,
        queue_name: str,
        delay_ns: int,
        shed: bool,
        reason: Reason,
        backlog: int | None,
        zone: Zone | None,
        retry_at_ns: int | None,
    ) -> Answer:
        delay, retry_delay = math.inf if shed else delay_ns / 1e9, delay_ns / 1e9 if delay_ns else None
        fields = (priority, queue_name, delay, shed, reason, self.utc_now(), backlog, zone)
        return Answer(*fields, None, self._sleeper, retry_at_ns, retry_delay, None)

    def observed(self, answer: Answer) -> Answer:
        self.built.append(("observed", plain(answer)))
        go = answer._replace(delay=0.0, should_shed=False, reason=Reason.OBSERVE_ONLY, advised=answer)
        return go._replace(retry_at_ns=None, retry_delay=None)

    def not_running(self) -> Exception:
        return ControllerNotStartedError("start it")

    def run(
        self,
        priority: Any,
        queue_name: str,
        work: Any,
        /,
        *args: Any,
        max_wait: Any = None,
        patient: bool = False,
        tenant: Any = None,
        **kwargs: Any,
    ) -> Any:
        if tenant is not None:
            return self.run_for(priority, queue_name, max_wait, patient, tenant, work, *args, **kwargs)
        return self.run_within(priority, queue_name, max_wait, patient, work, *args, **kwargs)

    def suggest_for(self, priority: Any, queue_name: str, tenant: Any) -> ThrottleDecision:
        self.told.append(("suggest_for", priority, queue_name, tenant))
        with self._asking_for(tenant):
            return self.engine.decide_for(priority, queue_name, True, self.spares)

    def run_for(
        self,
        priority: Any,
        queue_name: str,
        max_wait: Any,
        patient: bool,
        tenant: Any,
        work: Any,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        self.long_ways += 1
        with self._asking_for(tenant):
            decision = self.engine.decide_for(priority, queue_name, False, self.spares)
        return self._perform(decision, work, args, kwargs)

    @contextlib.contextmanager
    def _asking_for(self, tenant: object) -> Iterator[None]:
        self.tenant = check_tenant(tenant)
        try:
            yield
        finally:
            self.tenant = None

    def run_within(
        self, priority: Any, queue_name: str, max_wait: Any, patient: bool, work: Any, /, *args: Any, **kwargs: Any
    ) -> Any:
        self.long_ways += 1
        return self._perform(self.engine.plan(priority, queue_name), work, args, kwargs)

    def _perform(self, decision: ThrottleDecision, work: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if 0 < decision.delay < math.inf:
            decision = self.engine.admit(decision)
        if decision.should_shed:
            raise RuntimeError(decision.reason)
        began_ns = self._clock()
        try:
            value = work(*args, **kwargs)
        except Exception as error:
            self.report_error(decision, error, began_ns)
            raise
        self.report_success(decision, value)
        return value

    is_plain = staticmethod(is_plain)

    def report_success(self, decision: ThrottleDecision, value: object) -> None:
        self.engine.record(decision, True)

    def report_error(self, decision: ThrottleDecision, error: BaseException, began_ns: int) -> None:
        self.engine.record(decision, False, began_ns, type(error).__name__)

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        self.told.append(("read", queue_name, wait))
        outcome, backlog = self.next_read
        if outcome == "sample":
            self.engine.put_sample(queue_name, backlog, self._clock())
        elif outcome == "fail":
            self.engine.read_failed(queue_name)
        return Reason.COLD_START if outcome == "cold" and wait else None

    def check_poller(self) -> bool:
        self.told.append(("check_poller",))
        return self.read_first

    def hurry(self, queue_name: str) -> None:
        self.told.append(("hurry", queue_name))

    def circuit_changed(self, queue_name: str, old: int, new: int) -> None:
        self.told.append((f"{shown_word(old)} to {shown_word(new)}", queue_name))

    def zone_changed(self, queue_name: str, priority: Priority, old: Zone, new: Zone) -> None:
        self.told.append((f"{priority}: {old} to {new}", queue_name))

    def override_ended(self) -> None:
        self.told.append(("override ended",))

    def evicted(self, queue_name: str) -> None:
        self.gone.add(queue_name)
