"""Gates: handles of a controller for jobs of one priority and queue."""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING, Any, TypeVar, overload

from backpressure._engine import load
from backpressure.arguments import check_seconds
from backpressure.types import Priority, ThrottleDecision, validate_queue_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from backpressure._engine import Engine
    from backpressure.async_host import AsyncHost
    from backpressure.host import BlockingHost

__all__ = ["AsyncGate", "Gate", "checked", "gate_class"]

T = TypeVar("T")


def checked(priority: object, queue_name: object, max_wait: object) -> tuple[Priority, str, float | None]:
    """Return legal arguments of a gate, or raise."""
    return (
        Priority.parse(priority),
        validate_queue_name(queue_name),
        None if max_wait is None else check_seconds(max_wait),
    )


class _Gate:
    def __init__(self, priority: Priority, queue_name: str, max_wait: float | None) -> None:
        self.priority = priority
        self.queue_name = queue_name
        self.max_wait = max_wait

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.priority} jobs for queue {self.queue_name!r}>"


# The gates that the running thread or task is inside of, innermost last, each with the decision that let it in.
# Gates are shared, so what belongs to one entrance cannot lie in the gate; a tuple, so that tasks do not share it.
_inside: contextvars.ContextVar[tuple[tuple[_Gate, ThrottleDecision], ...]] = contextvars.ContextVar(
    "_inside", default=()
)


def _enter(gate: _Gate, decision: ThrottleDecision) -> ThrottleDecision:
    _inside.set((*_inside.get(), (gate, decision)))
    return decision


def _leave(gate: _Gate) -> ThrottleDecision:
    entered = _inside.get()
    index = max(index for index, (other, _) in enumerate(entered) if other is gate)
    _inside.set(entered[:index] + entered[index + 1 :])
    return entered[index][1]


class Gate(_Gate):
    """A `BackpressureController`'s handle for jobs of one priority and queue. Made by ``controller.gate(…)``.

    Attributes:
        priority: of its jobs.
        queue_name: what they are enqueued to.
        max_wait: longest sleep accepted, in seconds; ``None`` for any.

    Thread-safe; one gate may be shared, and entered by several threads at once.

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
    ) -> None:
        super().__init__(priority, queue_name, max_wait)
        self._host = host

    def suggest(self) -> ThrottleDecision:
        """Decide for one job now, as `BackpressureController.suggest_throttle`; raises the same."""
        raise NotImplementedError  # the engine's comes before this one, see `gate_class`

    def run(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Wait as advised, call ``work(*args, **kwargs)``, report its outcome and return its value.

        As `BackpressureController.run`, which raises the same; all keyword arguments are for `work`.
        """
        raise NotImplementedError  # likewise

    def __enter__(self) -> ThrottleDecision:
        return _enter(self, self._host.turn(self.priority, self.queue_name, self.max_wait))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        decision = _leave(self)
        self._host.desk.report(decision, error, decision._issued_ns)  # noqa: SLF001


@functools.cache
def gate_class(engine: str) -> type[Gate]:
    """Return `Gate` with an engine's calls: inherited, because a look-up on the instance costs half as much again."""
    base: Any = load(engine).Gate
    return type("Gate", (base, Gate), {"__module__": Gate.__module__, "__doc__": Gate.__doc__})


class AsyncGate(_Gate):
    """An `AsyncBackpressureController`'s handle for jobs of one priority and queue. Made by ``controller.gate(…)``.

    Attributes:
        priority: of its jobs.
        queue_name: what they are enqueued to.
        max_wait: longest sleep accepted, in seconds; ``None`` for any.

    One gate may be shared, and entered by several tasks at once.

    Example:
        >>> async def main():
        ...     async with AsyncBackpressureController(None, InMemoryStatsProvider({"clicks": 0})) as controller:
        ...         async with controller.gate("low", "clicks") as decision:
        ...             print(decision.reason)
        >>> asyncio.run(main())
        backlog_green
    """

    def __init__(self, host: AsyncHost, priority: Priority, queue_name: str, max_wait: float | None) -> None:
        super().__init__(priority, queue_name, max_wait)
        self._host = host

    async def suggest(self) -> ThrottleDecision:
        """Decide for one job now, as `AsyncBackpressureController.suggest_throttle`; raises the same."""
        return await self._host.suggest(self.priority, self.queue_name)

    @overload
    async def run(self, work: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T: ...

    @overload
    async def run(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T: ...

    async def run(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Wait as advised, call ``work(*args, **kwargs)``, await what it returns if need be, and report its outcome.

        As `AsyncBackpressureController.run`, which raises the same; all keyword arguments are for `work`.
        """
        return await self._host.perform(await self._turn(), work, *args, **kwargs)

    async def __aenter__(self) -> ThrottleDecision:
        return _enter(self, await self._turn())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        decision = _leave(self)
        self._host.desk.report(decision, error, decision._issued_ns)  # noqa: SLF001

    async def _turn(self) -> ThrottleDecision:
        return await self._host.turn(self.priority, self.queue_name, self.max_wait)
