"""Controllers that hooks and middlewares are given: themselves, or a function that returns one; `Restartable`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from backpressure._controller.base import ControllerBase
from backpressure._controller.not_running import not_running
from backpressure._engine.sync import ForkLock
from backpressure._model.errors import ConfigurationError
from backpressure._runtime.uncopied import Uncopied

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["C", "Restartable", "Running", "check_given", "done", "found"]

C = TypeVar("C", bound=ControllerBase)


class Restartable(Uncopied, Generic[C]):
    """A controller that may start again: each start after a stop makes a new one. Call it to get the present one.

    For programs whose lifespan runs more than once, above all tests. Made at import, it serves every hook and
    middleware as their ``controller``, because these take a function that returns one.

    Args:
        make: returns a new `BackpressureController` or `AsyncBackpressureController`, which is not started.

    As ``with``, or for asyncio ``async with``, it runs while the outermost body does. Thread-safe.

    Raises:
        ConfigurationError: `make` is no function, or, at a start, returned no controller.
        ControllerNotStartedError: on a call before the first start.

    Example:
        >>> controllers = Restartable(lambda: BackpressureController(None, InMemoryStatsProvider({"mail": 0})))
        >>> for _ in range(2):  # as two tests do
        ...     with controllers:
        ...         controllers().run("high", "mail", print, "sent")
        sent
        sent
    """

    _instead = "make one in the process that uses it"

    def __init__(self, make: Callable[[], C]) -> None:
        if not callable(make):
            raise ConfigurationError(
                f"make is a {type(make).__name__}: give a function that makes a controller", field="make", value=make
            )
        self._make = make
        self._made_in = os.getpid()
        self._current: C | None = None
        self._entered = 0
        # The outermost body has ended, and the controller is being stopped: who enters now gets another one.
        self._is_over = False
        self._lock = ForkLock()

    def __call__(self) -> C:
        """Return the present controller; after a stop the one that was stopped."""
        if self._current is None:
            raise not_running(stopped_in=None, made_in=self._made_in)
        return self._current

    def start(self) -> Any:
        """Start the present controller, or a new one if that was stopped; for asyncio, await what this returns."""
        with self._lock():
            if self._current is None or self._is_over or self._current._state == "stopped":  # noqa: SLF001 - ours
                self._current, self._is_over = check_made(self._make(), "make"), False
            current: Any = self._current
        return current.start()

    def stop(self) -> Any:
        """Stop the present controller; for asyncio, await what this returns."""
        return self().stop()  # type: ignore[attr-defined]  # both kinds have it

    def __enter__(self) -> Self:
        self._enter()
        try:
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if (ended := self._leave()) is not None:
            ended.stop()

    async def __aenter__(self) -> Self:
        self._enter()
        try:
            await done(self.start())
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if (ended := self._leave()) is not None:
            await done(ended.stop())

    def _enter(self) -> None:
        with self._lock():
            self._entered += 1

    def _leave(self) -> Any:
        """Return the controller to stop, if the outermost body has ended."""
        with self._lock():
            self._entered -= 1
            self._is_over = not self._entered
            return self._current if self._is_over else None


async def done(result: Any) -> None:
    """Await what a controller of either kind returned."""
    if hasattr(result, "__await__"):
        await result


def check_made(made: Any, field: str) -> Any:
    """Return what a user's function returned, if that is a controller."""
    if isinstance(made, ControllerBase):
        return made
    raise ConfigurationError(
        f"{field} is a function that returned a {type(made).__name__}: let it return a controller", field=field
    )


def check_given(controller: object, kind: type[ControllerBase] = ControllerBase) -> None:
    """Raise if an argument is neither a controller of a kind nor a function, which may return one later."""
    if isinstance(controller, kind) or (callable(controller) and not isinstance(controller, (ControllerBase, type))):
        return
    article = "an" if kind.__name__.startswith("A") else "a"
    wanted = "a controller" if kind is ControllerBase else f"{article} {kind.__name__}"
    given = f"class {controller.__name__}" if isinstance(controller, type) else f"of type {type(controller).__name__}"
    raise ConfigurationError(
        f"controller is {given}: give {wanted}, or a function that returns one", field="controller", value=controller
    )


def found(function: Callable[[], Any], kind: type[C]) -> C:
    """Return the controller that a user's function has now.

    Raises:
        ControllerNotStartedError: there is none yet: it returned ``None``, or did not find an attribute or a key.
        ConfigurationError: it returned anything else.
    """
    try:
        controller = function()
    except (AttributeError, LookupError) as error:
        raise not_running(stopped_in=None, made_in=os.getpid()) from error
    if controller is None:
        raise not_running(stopped_in=None, made_in=os.getpid())
    if not isinstance(controller, kind):
        raise ConfigurationError(
            f"controller is a function that returned a {type(controller).__name__}: let it return a {kind.__name__}",
            field="controller",
        )
    return controller


class Running:
    """The controller of a middleware: started for its application. Thread-safe.

    A controller that was given rests between two lifespans. One that a function returned is stopped, if it was started
    here, and so is a `Restartable`.
    """

    def __init__(self, given: Any) -> None:
        check_given(given)
        self._given = given
        self._current: Any = None
        self._lock = ForkLock()

    @property
    def is_early(self) -> bool:
        """Whether it can start before the application does, whose own start a function may need."""
        return isinstance(self._given, (ControllerBase, Restartable))

    @property
    def current(self) -> Any:
        """The controller that was started last, ``None`` before."""
        return self._current

    def ensure(self) -> Any:
        """Start the controller if it does not run, for servers without a lifespan; return it."""
        with self._lock():
            current = self._current
            if current is None or not current._poller.is_begun():  # noqa: SLF001 - a controller of ours
                result = self._start()
                if hasattr(result, "__await__"):
                    result.close()
                    raise ConfigurationError(
                        "controller is an AsyncBackpressureController: give WSGI and Django a BackpressureController",
                        field="controller",
                    )
            return self._current

    async def begin(self) -> Callable[[], Any]:
        """Start the controller for a lifespan; return what ends it, perhaps a coroutine function."""
        if isinstance(self._given, Restartable):
            await self._given.__aenter__()
            self._current = self._given()
            return lambda: self._given.__aexit__(None, None, None)
        started = self._look()
        if started._poller.is_begun():  # noqa: SLF001 - a controller of ours
            return lambda: None
        await done(started.start())
        end: Callable[[], Any] = started._rest if started is self._given else started.stop  # noqa: SLF001 - as above
        return end

    def _start(self) -> Any:
        if isinstance(self._given, Restartable):
            result = self._given.start()
            self._current = self._given()
            return result
        return self._look().start()

    def _look(self) -> Any:
        if isinstance(self._given, ControllerBase):
            self._current = self._given
        else:
            self._current = check_made(self._given(), "controller")
        return self._current
