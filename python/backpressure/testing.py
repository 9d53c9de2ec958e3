"""For tests of code that uses this package: a clock that moves only when told to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from backpressure.providers.memory import InMemoryStatsProvider

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["InMemoryStatsProvider", "ManualClock"]


class ManualClock:
    """A `Clock` that stands still until `advance` is called; advancing wakes sleepers and the poller.

    Args:
        sleep_advances: whether a producer's sleep returns at once and moves the clock by its length, as a test with a
            single thread needs. The poller still waits for `advance`.

    Thread-safe.

    Example:
        >>> clock = ManualClock(sleep_advances=True)
        >>> before = clock.monotonic_ns()
        >>> with BackpressureController(None, InMemoryStatsProvider({"q": 5_000}), clock=clock) as controller:
        ...     controller.run("medium", "q", int)  # five simulated seconds, and up to a tenth of jitter
        0
        >>> 5.0 <= (clock.monotonic_ns() - before) / 1e9 <= 5.5
        True
    """

    def __init__(self, *, sleep_advances: bool = False) -> None:
        self._now_ns = 1_000_000_000_000
        self._utc = datetime(2025, 1, 1, tzinfo=UTC)
        self._sleep_advances = sleep_advances
        self._lock = threading.Lock()
        self._keys = itertools.count()
        self._waiting: dict[int, tuple[int, Callable[[], object]]] = {}

    def monotonic_ns(self) -> int:
        """Return the nanoseconds that `advance` moves."""
        return self._now_ns

    def utc_now(self) -> datetime:
        """Return the wall time, which moves in the same way."""
        return self._utc

    def advance(self, seconds: float) -> None:
        """Move time on by `seconds`, rounded to nanoseconds, and wake all sleepers that are due.

        Raises:
            ValueError: `seconds` is negative.
        """
        ns = round(seconds * 1e9)
        if ns < 0:
            raise ValueError(f"seconds is {seconds!r}: time does not go back")
        with self._lock:
            self._now_ns += ns
            self._utc += timedelta(microseconds=ns / 1e3)
            due = [key for key, (at_ns, _) in self._waiting.items() if at_ns <= self._now_ns]
            wakes = [self._waiting.pop(key)[1] for key in due]
        for wake in wakes:
            wake()

    def sleeping(self) -> int:
        """Return how many sleeps and waits are under way, including the poller's."""
        return len(self._waiting)

    def sleep(self, s: float) -> None:
        """Block until the clock was advanced by `s` seconds."""
        self.wait(threading.Event(), s, background=False)

    async def async_sleep(self, s: float) -> None:
        """Suspend the calling task until the clock was advanced by `s` seconds."""
        if self._sleep_advances:
            self.advance(s)
            await asyncio.sleep(0)
        else:
            await self.async_wait(s)

    async def async_wait(self, seconds: float) -> None:
        """Suspend the calling task until the clock was advanced by `seconds`, also with `sleep_advances`."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # its loop was closed
                loop.call_soon_threadsafe(woken.set)

        key = self._register(seconds, wake)
        try:
            await woken.wait()
        finally:
            self._waiting.pop(key, None)

    def wait(self, event: threading.Event, seconds: float, *, background: bool) -> None:
        """Block until `event` is set or the clock was advanced by `seconds`."""
        if self._sleep_advances and not background:
            self.advance(seconds)
            return
        key = self._register(seconds, event.set)
        try:
            event.wait()
        finally:
            self._waiting.pop(key, None)

    def _register(self, seconds: float, wake: Callable[[], object]) -> int:
        with self._lock:
            at_ns, key = self._now_ns + round(seconds * 1e9), next(self._keys)
            self._waiting[key] = (at_ns, wake)
        if at_ns <= self._now_ns:
            wake()
        return key
