"""Where time comes from: monotonic nanoseconds for decisions, wall time for display.

asyncio would take a quarter of the time that importing this package takes, so it is imported where it is needed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from backpressure._model.errors import BackpressureError
from backpressure._model.notebook import runs_cells
from backpressure._model.tasks import start_task

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = [
    "Clock",
    "SystemClock",
    "TaskWake",
    "Wake",
    "in_event_loop",
    "limit",
    "other_thread",
    "own_time",
    "require_asyncio",
    "wait",
    "wait_async",
]

_SLICE = 0.1


def _own_time() -> Any:
    """Return a second copy of the module time: freezegun and its like patch the first, and whoever imports from it.

    Monotonic time measures how old a sample is and how long a circuit stays open. It must go on, for the native engine
    reads the system's clock itself, and threads wait on that.
    """
    spec = importlib.util.find_spec("time")
    if spec is None or spec.loader is None:
        return time
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


#: The machine's clocks, which nobody patches. Sleeps are not taken from it: gevent and eventlet replace them for good.
own_time = _own_time()


@runtime_checkable
class Clock(Protocol):
    """What a controller needs from a clock. All methods must be safe to call from any thread.

    A clock may add ``wait(event, seconds, *, background)``: block until `event` is set or the time has passed;
    `background` is true for the poller's waits and false for producers' sleeps. Without it, sleeps are cut into slices
    of 0.1 s so that ``stop()`` still ends them. A clock that treats producers' sleeps specially may add
    ``async_wait(seconds)``, which the background then uses instead of ``async_sleep``.

    Example:
        >>> isinstance(ManualClock(), Clock)
        True
    """

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back."""
        ...

    def utc_now(self) -> datetime:
        """Aware UTC wall time."""
        ...

    def sleep(self, s: float) -> None:
        """Block the calling thread for `s` seconds."""
        ...

    async def async_sleep(self, s: float) -> None:
        """Suspend the calling task for `s` seconds."""
        ...


class SystemClock:
    """The machine's clocks. Monotonic time goes on where freezegun stops the wall time, which is for display."""

    monotonic_ns = staticmethod(own_time.monotonic_ns)
    sleep = staticmethod(time.sleep)

    @staticmethod
    async def async_sleep(s: float) -> None:
        """Suspend the calling task for `s` seconds."""
        import asyncio  # noqa: PLC0415 - see the head of this file

        await asyncio.sleep(s)

    @staticmethod
    def utc_now() -> datetime:
        """Aware UTC wall time."""
        return datetime.now(UTC)

    @staticmethod
    def wait(event: threading.Event, seconds: float, *, background: bool) -> None:  # noqa: ARG004 - see `Clock`
        """Block until `event` is set or `seconds` have passed."""
        event.wait(seconds)


class Wake(threading.Event):
    """An event that one thread waits for, and that may be set at any moment, also by a signal handler.

    If the handler interrupts a `wait` or `set` of the same thread, the lock of a plain event is already held, for ever.
    """

    def __init__(self) -> None:
        self._flag = False  # named as in the base class, for its repr
        self._shut = threading.Lock()
        self._shut.acquire()

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._flag

    def set(self) -> None:
        """Wake the waiting thread; if it does not wait yet, it will not."""
        self._flag = True
        with contextlib.suppress(RuntimeError):  # not shut
            self._shut.release()

    def clear(self) -> None:
        """Make the next `wait` block again."""
        self._flag = False
        self._shut.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until set, for at most `timeout` seconds; tell whether it is set. A `clear` may end it early."""
        if not self._flag:
            self._shut.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        return self._flag


class TaskWake:
    """What a task waits for, and any thread may set."""

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - see the head of this file

        require_asyncio()
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def set(self) -> None:
        """Wake the waiting task; if it does not wait yet, it will not."""
        with contextlib.suppress(RuntimeError):  # its loop was closed, so no task waits
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, limit: Coroutine[Any, Any, object] | None = None) -> None:
        """Suspend the calling task until it is set or `limit` has ended."""
        if limit is None:
            await self._event.wait()
            return
        import asyncio  # noqa: PLC0415 - see the head of this file

        timer = start_task(limit, "backpressure-timer")
        woken = start_task(self._event.wait(), "backpressure-wake")
        try:
            await asyncio.wait({timer, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            woken.cancel()
        await asyncio.sleep(0)  # until they end, so that no task is left behind


def wait(clock: Clock, event: threading.Event, seconds: float, *, background: bool) -> None:
    """Block on `clock` until `event` is set or `seconds` have passed.

    `event` must belong to this caller alone: a clock may set it to end the wait.
    """
    clock_wait = getattr(clock, "wait", None)
    if clock_wait is not None:
        clock_wait(event, seconds, background=background)
        return
    end = clock.monotonic_ns() + round(seconds * 1e9)
    while not event.is_set() and (left := end - clock.monotonic_ns()) > 0:
        clock.sleep(min(left / 1e9, _SLICE))


def limit(clock: Clock, event: threading.Event, seconds: float) -> None:
    """Block until `event` is set, by a read that is under way, for `seconds` at most.

    Unlike a `wait`, it is expected to end early: a clock for tests may tell a thread that waits for the time from one
    that waits for an answer.
    """
    clock_limit = getattr(clock, "limit", None)
    if clock_limit is None:
        wait(clock, event, seconds, background=True)
    else:
        clock_limit(event, seconds)


async def wait_async(clock: Clock, seconds: float) -> None:
    """Suspend the calling task on `clock` for `seconds`, as a wait in the background."""
    clock_wait = getattr(clock, "async_wait", None)
    await (clock.async_sleep(seconds) if clock_wait is None else clock_wait(seconds))


def running_loop() -> str | None:
    """Return which library runs an event loop on the calling thread: ``"asyncio"``, ``"trio"`` or ``None``."""
    # What was never imported, or is being imported right now, runs nothing.
    asyncio: Any = sys.modules.get("asyncio")
    trio: Any = sys.modules.get("trio.lowlevel")
    loop = getattr(asyncio, "_get_running_loop", _none)()
    if hasattr(trio, "current_task"):
        with contextlib.suppress(RuntimeError):  # no task of trio runs here
            trio.current_task()
            # Each of them can run inside of the other.
            return "trio" if loop is None or asyncio.current_task(loop) is None else "asyncio"
    return None if loop is None else "asyncio"


def _none() -> None:
    """Stand for a function that is not there yet."""


def in_event_loop() -> bool:
    """Tell whether the calling thread runs an event loop that must not be blocked; a notebook's may be."""
    library = running_loop()
    if library != "asyncio":
        return library is not None
    asyncio: Any = sys.modules["asyncio"]
    return not runs_cells(asyncio._get_running_loop())  # noqa: SLF001 - see `running_loop`


def other_thread() -> str:
    """Return the name of the function that runs blocking calls elsewhere, for code on the calling thread's loop."""
    return "trio.to_thread.run_sync" if running_loop() == "trio" else "asyncio.to_thread"


def require_asyncio() -> None:
    """Refuse to await what needs asyncio on an event loop of trio.

    Raises:
        BackpressureError: trio runs on the calling thread.
    """
    if running_loop() == "trio":
        raise BackpressureError(
            "AsyncBackpressureController needs asyncio, and trio runs here: make a BackpressureController, and call it "
            "by trio.to_thread.run_sync"
        )
