"""For tests of code that uses this package: a clock that moves only when told to.

`advance` makes threads and tasks due, and returns once they have done what was due. It sees that by where they are:
they wait on the clock again, they have ended, or they do not move any more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread as pool
import contextlib
import itertools
import sys
import threading
import weakref
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from backpressure._model.clock import Wake, own_time
from backpressure.providers.memory import InMemoryStatsProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["InMemoryStatsProvider", "ManualClock"]

# Seconds between two looks at the threads that were woken.
_LOOK = 0.001
# Looks after which a thread that has not moved waits for something else: perhaps for the caller of `advance`.
_STILL = 200
# Seconds after which a thread that moves on and on is left to itself.
_LONGEST = 2.0
# Turns of an event loop in which a task that was woken does what needs no waiting.
_TURNS = 50


class _Wait(NamedTuple):
    """A wait on the clock: until when, who is woken, and on which thread or event loop."""

    at_ns: int
    event: threading.Event | asyncio.Event
    wake: Callable[[], object]
    place: threading.Thread | asyncio.AbstractEventLoop
    is_limit: bool  # it waits for an answer, and no longer than this


class ManualClock:
    """A `Clock` that stands still until `advance` is called, which returns when what it made due has happened.

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
        self._waiting: dict[int, _Wait] = {}
        self._pollers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._stuck: list[tuple[int, int]] | None = None

    def monotonic_ns(self) -> int:
        """Return the nanoseconds that `advance` moves."""
        return self._now_ns

    def utc_now(self) -> datetime:
        """Return the wall time, which moves in the same way."""
        return self._utc

    def advance(self, seconds: float) -> None:
        """Move time on by `seconds`, rounded to nanoseconds, wake all that is due, and wait until it has happened.

        A poll has ended; a thread that slept has ended, sleeps again, or waits for something other than the clock; a
        task on another thread's event loop has gone on as far as it could. What cannot go on before the caller does is
        waited for no longer than it takes to see that, about 0.2 s. Tasks on the calling thread's own event loop go on
        when the caller awaits next: use `advance_async` there.

        Raises:
            ValueError: `seconds` is negative.
        """
        ns = round(seconds * 1e9)
        if ns < 0:
            raise ValueError(f"seconds is {seconds!r}: time does not go back")
        caller = threading.current_thread().name
        if not caller.startswith("backpressure-"):  # a provider's own poll waits for it
            self._settle_threads(set(self._pollers), skip=self._stuck)  # each has said when it wants to poll next
        with self._lock:
            self._now_ns += ns
            self._utc += timedelta(microseconds=ns / 1e3)
            due = [key for key, wait in list(self._waiting.items()) if wait.at_ns <= self._now_ns]
            # Others are woken by what they wait for, meanwhile.
            woken = [wait for key in due if (wait := self._waiting.pop(key, None)) is not None]
        for wait in woken:
            wait.wake()
        if caller != "backpressure-loop":  # reads there could not be cut short
            self._settle({wait.place for wait in woken})

    async def advance_async(self, seconds: float) -> None:
        """As `advance` by `seconds`, also for tasks of the running event loop: they have gone on as far as they can.

        Example:
            >>> async def main():
            ...     clock = ManualClock()
            ...     sleep = asyncio.create_task(clock.async_sleep(5))
            ...     await clock.advance_async(0)  # the task begins to sleep
            ...     await clock.advance_async(5)
            ...     return sleep.done()
            >>> asyncio.run(main())
            True
        """
        loop = asyncio.get_running_loop()
        await _turns()
        self.advance(seconds)
        await _turns()
        for _ in range(_STILL):
            if not self._expects(loop):
                break
            await _pause()
            await _turns()

    def _settle(self, places: Iterable[threading.Thread | asyncio.AbstractEventLoop]) -> None:
        """Wait until what was woken has done what was due."""
        my_loop = asyncio._get_running_loop()  # noqa: SLF001 - as asyncio's own helpers
        self._settle_threads({place for place in places if isinstance(place, threading.Thread)})
        for place in places:
            if not isinstance(place, threading.Thread) and place is not my_loop and place.is_running():
                self._settle_loop(place)

    def _settle_threads(self, threads: set[threading.Thread], skip: list[tuple[int, int]] | None = None) -> None:
        threads.discard(threading.current_thread())
        end, still, last = own_time.monotonic() + _LONGEST, 0, None
        while (threads := self._busy(threads)) and own_time.monotonic() < end:
            now = _positions(threads)
            still = still + 1 if now == last else 0
            if still >= _STILL:
                self._stuck = now  # not to be waited for again before they move
            if still >= _STILL or now == skip:
                return
            last = now
            _rest()

    def _busy(self, threads: set[threading.Thread]) -> set[threading.Thread]:
        """Return those threads that have neither ended nor wait for the time, or for work."""
        waits = list(self._waiting.values())
        resting = {
            wait.place for wait in waits if not (wait.is_limit or wait.event.is_set()) and wait.at_ns > self._now_ns
        }
        frames = sys._current_frames()  # noqa: SLF001 - the only way to see it
        return {
            thread
            for thread in threads - resting
            if thread.is_alive() and thread.ident in frames and frames[thread.ident].f_code is not _IDLE
        }

    def _settle_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(_STILL):
            turned = threading.Event()

            def turn(left: int = _TURNS, turned: threading.Event = turned) -> None:
                if left:
                    loop.call_soon(turn, left - 1)
                else:
                    turned.set()

            try:
                loop.call_soon_threadsafe(turn)
            except RuntimeError:  # it was closed
                return
            if not turned.wait(_LOOK * _STILL) or not self._expects(loop):
                return
            _rest()

    def _expects(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether a task of `loop` waits for an answer that may come."""
        return any(wait.place is loop and wait.is_limit for wait in list(self._waiting.values()))

    def until_sleeping(self, count: int, *, timeout: float = 10) -> None:
        """Block until ``count`` sleeps and waits are under way, including the poller's, for `timeout` real seconds.

        For threads that a test has started: `advance` can only wake those that sleep already.

        Raises:
            TimeoutError: there are fewer.
        """
        end = own_time.monotonic() + timeout
        while self.sleeping() < count:
            if own_time.monotonic() > end:
                raise TimeoutError(f"{self.sleeping()} of {count} sleeps and waits are under way: what does not wait?")
            _rest()

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
            await self._suspend(s, is_limit=False)

    async def async_wait(self, seconds: float) -> None:
        """Suspend the calling task until the clock was advanced by `seconds`, also with `sleep_advances`."""
        await self._suspend(seconds, is_limit=True)

    async def _suspend(self, seconds: float, *, is_limit: bool) -> None:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # its loop was closed
                loop.call_soon_threadsafe(woken.set)

        key = self._register(seconds, woken, wake, loop, is_limit=is_limit)
        try:
            await woken.wait()
        finally:
            self._waiting.pop(key, None)

    def wait(self, event: threading.Event, seconds: float, *, background: bool) -> None:
        """Block until `event` is set or the clock was advanced by `seconds`."""
        if self._sleep_advances and not background:
            self.advance(seconds)
        else:
            self._block(event, seconds, is_limit=False)

    def limit(self, event: threading.Event, seconds: float) -> None:
        """Block until a read under way has set `event`, or the clock was advanced by `seconds`."""
        self._block(event, seconds, is_limit=True)

    def _block(self, event: threading.Event, seconds: float, *, is_limit: bool) -> None:
        me = threading.current_thread()
        if me.name == "backpressure-poller":
            self._pollers.add(me)
        key = self._register(seconds, event, event.set, me, is_limit=is_limit)
        try:
            event.wait()
        finally:
            self._waiting.pop(key, None)

    def _register(
        self,
        seconds: float,
        event: threading.Event | asyncio.Event,
        wake: Callable[[], object],
        place: threading.Thread | asyncio.AbstractEventLoop,
        *,
        is_limit: bool,
    ) -> int:
        with self._lock:
            at_ns, key = self._now_ns + round(seconds * 1e9), next(self._keys)
            self._waiting[key] = _Wait(at_ns, event, wake, place, is_limit)
        if at_ns <= self._now_ns:
            wake()
        return key


# Where a thread of an executor waits for work.
_IDLE = pool._worker.__code__  # noqa: SLF001 - its name is the same in all releases


def _positions(threads: set[threading.Thread]) -> list[tuple[int, int]]:
    """Return where threads are, and where our own threads are, which may read for them."""
    watched = [each for each in threading.enumerate() if each in threads or each.name.startswith("backpressure-")]
    frames = sys._current_frames()  # noqa: SLF001 - the only way to see it
    return [(id(frames[each.ident]), frames[each.ident].f_lasti) for each in watched if each.ident in frames]


def _rest() -> None:
    """Let other threads work, in real time: ``time.sleep`` is what tests patch, and gevent's threads need a switch."""
    Wake().wait(_LOOK)


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def _pause() -> None:
    """Let other threads work, in real time."""
    await asyncio.sleep(_LOOK)
