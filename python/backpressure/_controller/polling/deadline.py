"""Calls into a provider, each on a thread of its own, so that no caller waits beyond its deadline."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from backpressure._model.clock import Wake, wait
from backpressure._model.errors import StatsUnavailableError
from backpressure._runtime.threads import spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._model.clock import Clock

__all__ = ["Reader", "as_failed_read"]

T = TypeVar("T")

# Seconds in which an interrupted call may still end by itself.
_GRACE = 0.25
# Calls that may hang at one time: a third would not end either, and each costs a thread.
_MAX_HUNG = 2


class _Call(Generic[T]):
    """One call and its outcome."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.done = False
        self.wake = Wake()  # only the caller waits for it, so a clock may set it too
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error
        finally:
            self.done = True
            self.wake.set()


class Reader:
    """Runs provider calls within a deadline.

    A call that takes too long is interrupted if the provider can do that. If it does not end then, it is abandoned, and
    what it may still return is dropped. Thread-safe; a forked child begins without the calls of its parent.
    """

    def __init__(self, provider: object, clock: Clock) -> None:
        self._interrupt: Callable[[], object] | None = getattr(provider, "interrupt", None)
        self._clock = clock
        self._hung: dict[int, set[_Call[Any]]] = {}  # by process

    def call(self, function: Callable[[], T], timeout: float) -> T:
        """Return what `function` returns, or raise what it raises, within `timeout` seconds and a short grace.

        Raises:
            StatsUnavailableError: with ``error_type="deadline"``, it took longer, or too many calls hang; or no
                thread can be started.
        """
        hung = self._hung.setdefault(os.getpid(), set())
        hung -= {call for call in hung.copy() if call.done}
        if len(hung) >= _MAX_HUNG:
            raise StatsUnavailableError(
                f"{_MAX_HUNG} reads hang already: give the provider timeouts, or an interrupt() method",
                error_type="deadline",
            )
        call = _Call(function)
        try:
            thread = spawn(call.run, "read")
        except RuntimeError as error:
            raise StatsUnavailableError(f"no thread is left to read on: {error}") from None
        try:
            wait(self._clock, call.wake, timeout, background=True)
        except BaseException:
            hung.add(
                call
            )  # a caller that is interrupted, for instance by Ctrl-C, does not wait for the end of its read
            self.interrupt()
            raise
        if not call.done:
            self.interrupt()
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

    def interrupt(self) -> None:
        """End the reads that are under way, if the provider can do that."""
        if self._interrupt is not None:
            with contextlib.suppress(Exception):
                self._interrupt()


def as_failed_read(error: BaseException) -> StatsUnavailableError:
    """Return what stands for an error that is no `Exception`, such as `SystemExit`: no provider should raise it."""
    return StatsUnavailableError(f"the provider raised {type(error).__name__}")
