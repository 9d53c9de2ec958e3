"""Other people's code that a job runs through: listeners, log handlers, predicates, clocks. Its errors end here."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from datetime import UTC, datetime
from opcode import opmap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable
    from types import FrameType, TracebackType

    from backpressure._model.clock import Clock

__all__ = ["Foreign", "GuardedClock", "raised_by_signal", "unless_by_signal"]

_VARARGS = 0x04  # inspect.CO_VARARGS, without importing inspect
_RAISE = opmap["RAISE_VARARGS"]


def raised_by_signal(error: BaseException) -> bool:
    """Tell whether a signal handler raised `error`, which is then meant for the code that was interrupted.

    Handlers run in the main thread and are called with a number and the frame that they interrupt; nothing else is.
    Python's own handler for Ctrl-C has no frame, but its ``KeyboardInterrupt`` comes from no ``raise`` statement.
    """
    trace = error.__traceback__
    if trace is None or threading.current_thread() is not threading.main_thread():
        return False
    while trace.tb_next is not None:
        pairs = itertools.pairwise(_arguments(trace.tb_next.tb_frame))
        if any(frame is trace.tb_frame and isinstance(number, int) for number, frame in pairs):
            return True
        trace = trace.tb_next
    return isinstance(error, KeyboardInterrupt) and not _at_raise(trace)


def unless_by_signal(error: Exception) -> Exception:
    """Return `error`, which was caught; if a signal handler raised it, raise it on."""
    if raised_by_signal(error):
        raise error
    return error


def _arguments(frame: FrameType) -> list[object]:
    code, values = frame.f_code, frame.f_locals
    arguments = [values.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & _VARARGS:
        more = values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        arguments += more if isinstance(more, tuple) else ()
    return arguments


def _at_raise(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


class Foreign:
    """Logs what other people's code raises, once, and keeps it away from the jobs that run through it. Thread-safe.

    Errors of any class: a timeout or a cancellation that such code raises is its own, and does not concern a job. Only
    what a signal handler raised while the code ran is raised again, for the code that was interrupted.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("backpressure")
        self._told: dict[Hashable, object] = {}

    def log(self, level: int, message: str, *args: object, kind: str, **options: Any) -> None:
        """Log a line. If handlers or filters raise, that is told on stderr, once for each `kind` of line."""
        try:
            self._logger.log(level, message, *args, **options)
        except BaseException as error:
            if raised_by_signal(error):
                raise
            if self._is_first(("log", kind)) and not _print(error):
                self._told.pop(("log", kind), None)  # it could not be printed

    def raised(self, error: BaseException, key: Hashable, message: str, *args: object, **fields: object) -> None:
        """Log what was raised, once for each `key`. Raises it again if a signal handler raised it."""
        if raised_by_signal(error):
            raise error
        if self._is_first(key):
            fields = {"change": None, "queue_name": None, **fields}
            self.log(logging.ERROR, message, *args, kind="error", exc_info=error, extra=fields)

    def _is_first(self, key: Hashable) -> bool:
        mine = object()
        return self._told.setdefault(key, mine) is mine  # atomic, which a test followed by a store is not


def _print(error: BaseException) -> bool:
    """Print what a log handler raised, as logging itself does: `logging.raiseExceptions` decides.

    Tell whether that was possible: a full stack leaves no room for it.
    """
    if not logging.raiseExceptions or sys.stderr is None:
        return True
    import traceback  # noqa: PLC0415 - rarely needed

    try:
        sys.stderr.write("".join(["--- Logging error ---\n", *traceback.format_exception(error)]))
    except BaseException as worse:
        if raised_by_signal(worse):
            raise
        return False
    return True


class GuardedClock:
    """A user's clock that can always be read: if it raises, the last reading is used.

    Only readings are guarded. A sleep that raises ends the wait of its caller, as a cancellation does.
    """

    def __init__(self, clock: Clock, foreign: Foreign) -> None:
        self._clock = clock
        self._foreign = foreign
        self._last_ns = clock.monotonic_ns()
        self.sleep = clock.sleep
        self.async_sleep = clock.async_sleep

    def monotonic_ns(self) -> int:
        """See `Clock`."""
        try:
            self._last_ns = int(self._clock.monotonic_ns())
        except BaseException as error:  # noqa: BLE001 - whatever its class, see `Foreign`
            self._foreign.raised(error, "monotonic_ns", "the clock's monotonic_ns() raised; its last reading holds")
        return self._last_ns

    def utc_now(self) -> datetime:
        """See `Clock`."""
        try:
            return self._clock.utc_now()
        except BaseException as error:  # noqa: BLE001 - whatever its class, see `Foreign`
            self._foreign.raised(error, "utc_now", "the clock's utc_now() raised; the machine's is shown")
        return datetime.now(UTC)

    def __getattr__(self, name: str) -> Any:
        """Return what else a clock may have, such as ``wait``."""
        return getattr(self._clock, name)
