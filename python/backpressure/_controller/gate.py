"""Gates: handles of a controller for jobs of one priority and queue."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, TypeVar, overload

from backpressure._controller.entrances import Entrance, Entrances, per_entrance
from backpressure._engine.choice import load
from backpressure._model.arguments import check_patient, longest_wait, parse_priority, validate_queue_name
from backpressure._model.decision import ThrottleDecision  # noqa: TC001 - for typing.get_type_hints
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.tenant import check_tenant
from backpressure._model.vocabulary import Priority  # noqa: TC001 - likewise
from backpressure._runtime.uncopied import Uncopied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from backpressure._controller.async_jobs import AsyncHost
    from backpressure._controller.callbacks import ControllerHost
    from backpressure._controller.jobs import BlockingHost
    from backpressure._engine.border import Engine
    from backpressure._model.tenant import AnyTenant

__all__ = ["AsyncGate", "Gate", "checked", "gate_class"]

T = TypeVar("T")


def checked(
    priority: object, queue_name: object, max_wait: object, patient: bool
) -> tuple[Priority, str, float | None, bool]:
    """Return legal arguments of a gate, or raise."""
    return (
        parse_priority(priority),
        validate_queue_name(queue_name),
        longest_wait(max_wait, parse_priority(priority), patient=check_patient(patient)),
        patient,
    )


def tenant_of(
    tenant: AnyTenant | Callable[..., AnyTenant | None] | None,
) -> Callable[..., AnyTenant | None] | None:
    """Return what tells of a call's arguments on whose behalf it is; ``None``: no call is on anybody's."""
    if tenant is None or callable(tenant):
        return tenant
    known = check_tenant(tenant)
    return lambda *_, **__: known


@repr_when_half_built
class _Gate(Uncopied):
    _instead = "take one by controller.gate() in the process that uses it, or hand on its priority and queue_name"

    def __init__(
        self, host: ControllerHost, priority: Priority, queue_name: str, max_wait: float | None, patient: bool
    ) -> None:
        self.priority = priority
        self.queue_name = queue_name
        self.max_wait = max_wait
        self.patient = patient
        self._engine = host.engine
        self._admission = host.admission
        self._entrances = Entrances()

    def peek(self) -> ThrottleDecision:
        """Tell what would be decided for one job now, without any effect, as the controller's ``peek``.

        Raises:
            ControllerNotStartedError, ControllerStoppedError: the controller is not running.
        """
        return self._engine.peek(self.priority, self.queue_name)

    def _leave(self, entrance: Entrance, error: BaseException | None) -> None:
        entered = entrance.take() or self._entrances.take()
        if entered is not None:
            self._admission.report(entered.decision, error, entered.began_ns)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.priority} jobs for queue {self.queue_name!r}>"


class Gate(_Gate):
    """A `BackpressureController`'s handle for jobs of one priority and queue. Made by ``controller.gate(…)``.

    Attributes:
        priority: of its jobs.
        queue_name: what they are enqueued to.
        max_wait: longest sleep accepted, in seconds; ``None`` for any.
        patient: whether a refused job waits and asks again.

    Thread-safe; one gate may be shared, and entered by several threads at once. A ``with`` may end in another thread,
    task or context than it began in. The body has no value: work that it only starts counts as a success when it ends.

    Example:
        >>> with BackpressureController(None, InMemoryStatsProvider({"clicks": 0})) as controller:
        ...     gate = controller.gate("low", "clicks")
        ...     gate.suggest().delay
        ...     with gate as decision:
        ...         print(decision.reason)
        0.0
        backlog_green
    """

    def __init__(
        self,
        engine: Engine,  # noqa: ARG002 - taken by the engine's part of the class
        host: BlockingHost,
        priority: Priority,
        queue_name: str,
        max_wait: float | None,
        patient: bool,
    ) -> None:
        super().__init__(host, priority, queue_name, max_wait, patient)
        self._host = host

    def suggest(self) -> ThrottleDecision:
        """Decide for one job now, as `BackpressureController.suggest_throttle`; raises the same."""
        raise NotImplementedError  # the engine's method is found before this one, see `gate_class`

    def run(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Wait as advised, call ``work(*args, **kwargs)``, report its outcome and return its value.

        As `BackpressureController.run`, which raises the same; all keyword arguments are for `work`.
        """
        raise NotImplementedError  # likewise

    def suggest_for(self, tenant: AnyTenant) -> ThrottleDecision:
        """As `suggest`, on behalf of a tenant: a name, or a pair of a name and a class of weights."""
        raise NotImplementedError  # likewise

    def run_for(self, tenant: AnyTenant, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """As `run`, on behalf of a tenant."""
        raise NotImplementedError  # likewise

    def __enter__(self) -> ThrottleDecision:
        entrance = self._entrances.loaded_in(sys._getframe(1))  # noqa: SLF001 - the frame with the `with`
        decision = self._host.turn(self.priority, self.queue_name, self.max_wait, self.patient)
        self._entrances.fill(entrance, decision, self._admission.now_ns())
        return decision

    def _exit(
        self,
        entrance: Entrance,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._leave(entrance, error)

    __exit__ = per_entrance(_exit)


@functools.cache
def gate_class(engine: str) -> type[Gate]:
    """Return `Gate` with an engine's calls, inherited: to find a method on the instance would take 50 % longer."""
    base: Any = load(engine).Gate
    return type("Gate", (base, Gate), {"__module__": Gate.__module__, "__doc__": Gate.__doc__})


class AsyncGate(_Gate):
    """An `AsyncBackpressureController`'s handle for jobs of one priority and queue. Made by ``controller.gate(…)``.

    Attributes:
        priority: of its jobs.
        queue_name: what they are enqueued to.
        max_wait: longest sleep accepted, in seconds; ``None`` for any.
        patient: whether a refused job waits and asks again.

    One gate may be shared, and entered by several tasks at once. An ``async with`` may end in another task or context
    than it began in. The body has no value: work that it only starts counts as a success when the body ends.

    Example:
        >>> async def main():
        ...     async with AsyncBackpressureController(None, InMemoryStatsProvider({"clicks": 0})) as controller:
        ...         async with controller.gate("low", "clicks") as decision:
        ...             print(decision.reason)
        >>> asyncio.run(main())
        backlog_green
    """

    def __init__(
        self, host: AsyncHost, priority: Priority, queue_name: str, max_wait: float | None, patient: bool
    ) -> None:
        super().__init__(host, priority, queue_name, max_wait, patient)
        self._host = host

    async def suggest(self) -> ThrottleDecision:
        """Decide for one job now, as `AsyncBackpressureController.suggest_throttle`; raises the same."""
        return await self._host.suggest(self.priority, self.queue_name)

    @overload
    async def run(self, work: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T: ...

    @overload
    async def run(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T: ...

    async def run(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Wait as advised, call ``work(*args, **kwargs)``, await its value if it is awaitable, and report its outcome.

        As `AsyncBackpressureController.run`, which raises the same; all keyword arguments are for `work`.
        """
        return await self._host.perform(await self._turn(), work, *args, **kwargs)

    async def suggest_for(self, tenant: AnyTenant) -> ThrottleDecision:
        """As `suggest`, on behalf of a tenant: a name, or a pair of a name and a class of weights."""
        return await self._host.suggest(self.priority, self.queue_name, tenant)

    async def run_for(self, tenant: AnyTenant, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `run`, on behalf of a tenant."""
        return await self._host.perform(await self._turn(tenant), work, *args, **kwargs)

    def __aenter__(self) -> Coroutine[Any, Any, ThrottleDecision]:
        return self._enter(self._entrances.loaded_in(sys._getframe(1)))  # noqa: SLF001 - the frame with the `with`

    async def _enter(self, entrance: Entrance | None) -> ThrottleDecision:
        decision = await self._turn()
        self._entrances.fill(entrance, decision, self._admission.now_ns())
        return decision

    async def _aexit(
        self,
        entrance: Entrance,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._leave(entrance, error)

    __aexit__ = per_entrance(_aexit)

    async def _turn(self, tenant: AnyTenant | None = None) -> ThrottleDecision:
        return await self._host.turn(self.priority, self.queue_name, self.max_wait, self.patient, tenant=tenant)
