"""Calls into a provider, each on a thread of its own, so that no caller waits beyond its deadline."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from backpressure._model.clock import Wake, limit
from backpressure._model.errors import StatsUnavailableError
from backpressure._runtime.reading import owning
from backpressure._runtime.threads import spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._model.clock import Clock

__all__ = ["Reader", "as_failed_read"]

T = TypeVar("T")

# Seconds in which an interrupted call may still end by itself: so few that its caller is not held up.
_GRACE = 0.01
# Calls that may hang at one time: each costs a thread.
_MAX_HUNG = 8


class _Call(Generic[T]):
    """One call and its outcome."""

    def __init__(self, function: Callable[[], T], interrupt: Callable[[], object] | None) -> None:
        self._function = function
        self._interrupt = interrupt
        self.done = False
        self.wake = Wake()  # only the caller waits for it, so a clock may set it too
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = owning(self, self._function)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error
        finally:
            self.done = True
            self.wake.set()

    def interrupt(self) -> None:
        """End it, if the provider can do that: its reads, and no others of a provider that is shared."""
        if self._interrupt is not None:
            with contextlib.suppress(Exception):
                owning(self, self._interrupt)


class Reader:
    """Runs provider calls within a deadline.

    A call that takes too long is interrupted if the provider can do that. If it does not end then, it is abandoned, and
    what it may still return is dropped. Thread-safe; a forked child begins without the calls of its parent.
    """

    def __init__(self, provider: object, clock: Clock) -> None:
        self._interrupt: Callable[[], object] | None = getattr(provider, "interrupt", None)
        self._clock = clock
        # By process.
        self._hung: dict[int, set[_Call[Any]]] = {}
        self._running: dict[int, set[_Call[Any]]] = {}

    def call(self, function: Callable[[], T], timeout: float) -> T:
        """Return what `function` returns, or raise what it raises, within `timeout` seconds and a short grace.

        Raises:
            StatsUnavailableError: with ``error_type="deadline"``, it took longer, or too many calls hang; or no
                thread can be started.
        """
        hung = self._hung.setdefault(os.getpid(), set())
        if self._count_hung() >= _MAX_HUNG:
            raise StatsUnavailableError(
                f"{_MAX_HUNG} reads hang already: give the provider timeouts, or an interrupt() method",
                error_type="deadline",
            )
        call = _Call(function, self._interrupt)
        running = self._running.setdefault(os.getpid(), set())
        running -= {call for call in running.copy() if call.done}  # of callers that were interrupted
        try:
            running.add(call)
            return self._outcome(call, timeout, hung)
        finally:
            running.discard(call)

    def _outcome(self, call: _Call[T], timeout: float, hung: set[_Call[Any]]) -> T:
        try:
            thread = spawn(call.run, "read")
        except RuntimeError as error:
            raise StatsUnavailableError(f"no thread is left to read on: {error}") from None
        try:
            limit(self._clock, call.wake, timeout)
        except BaseException:
            # A caller that is interrupted, for instance by Ctrl-C, does not wait for the end of its read.
            hung.add(call)
            call.interrupt()
            raise
        if not call.done:
            call.interrupt()
            call.wake.clear()
            if not call.done:
                call.wake.wait(_GRACE)
            if not call.done:
                hung.add(call)
            # An answer that came so late is not used: newer ones may be known by now.
            raise StatsUnavailableError(
                f"reading took longer than {timeout:g} s: look at the server, or raise polling.timeout",
                error_type="deadline",
            )
        thread.join()  # it is at its last instructions; a subinterpreter that ends before these would crash the process
        if isinstance(call.error, Exception):
            raise call.error
        if call.error is not None:
            # SystemExit and the like would end the thread that waits, which they were not meant for.
            raise as_failed_read(call.error)
        return call.value  # type: ignore[return-value]

    def _count_hung(self) -> int:
        hung = self._hung.setdefault(os.getpid(), set())
        hung -= {call for call in hung.copy() if call.done}
        return len(hung)

    def is_crowded(self) -> bool:
        """Tell whether so many calls hang that none should be begun that may hang too."""
        return self._count_hung() >= _MAX_HUNG // 2

    def interrupt(self) -> None:
        """End all calls that are under way, if the provider can do that."""
        for call in self._running.get(os.getpid(), set()).copy():
            call.interrupt()


def as_failed_read(error: BaseException) -> StatsUnavailableError:
    """Return what stands for an error that is no `Exception`, such as `SystemExit`: no provider should raise it."""
    return StatsUnavailableError(f"the provider raised {type(error).__name__}")
