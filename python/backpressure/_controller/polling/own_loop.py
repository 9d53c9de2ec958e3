"""An asynchronous provider as a blocking one: its coroutines run on an event loop of our own.

So decisions need no event loop, and those of callers may begin and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from typing import TYPE_CHECKING, Any

from backpressure._controller.polling.deadline import as_failed_read
from backpressure._engine.sync import ForkLock
from backpressure._model.clock import Wake
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.tasks import start_task
from backpressure._runtime.reading import owned, owner, owning
from backpressure._runtime.threads import spawn

if TYPE_CHECKING:
    import threading
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from backpressure._model.stats import AsyncStatsProvider, QueueStats

__all__ = ["LoopReads"]

# Seconds in which a cancelled read may still end by itself, so that its loop need not be given up. No caller waits.
_GRACE = 0.2
# Loops that may hang at one time; each costs a thread.
_MAX_HUNG = 2


class _Read:
    """One coroutine of the provider, and its outcome."""

    def __init__(self, make: Callable[[], Awaitable[Any]]) -> None:
        self._make = make
        self.owner = owner()
        self._wake = Wake()
        self._value: Any = None
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self.done = False
        self.cut = False

    def begin(self) -> None:
        """Run it on the loop that calls this."""
        if self.cut:
            self.fail(_overran())
        else:
            self._task = start_task(self._run(), "backpressure-read")

    async def _run(self) -> None:
        try:
            self._value = await self._make()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
            if isinstance(error, asyncio.CancelledError):
                self._error = _overran() if self.cut else as_failed_read(error)
        self._finish()

    def cancel(self) -> None:
        """End it, on its loop."""
        if self._task is not None:
            self._task.cancel()

    def fail(self, error: Exception) -> None:
        """End it with `error`."""
        self._error = error
        self._finish()

    def _finish(self) -> None:
        self.done = True
        self._wake.set()

    def release(self) -> None:
        """Wake the thread that waits for it: to see whether it ends, or else to give it up."""
        self.cut = True
        self._wake.set()

    def outcome(self) -> Any:
        """Return or raise what it does; raise `StatsUnavailableError` if it was cut and does not end."""
        while not (self.done or self.cut):
            self._wake.wait()
        if not self.done:
            self._wake.clear()
            if not self.done:
                self._wake.wait(_GRACE)
        if not self.done:
            raise _overran()
        if self._error is not None:
            raise self._error
        return self._value


class _Loop:
    """An event loop on a thread of its own; it ends when it is told to and nothing runs on it."""

    def __init__(self, release: Callable[[], Awaitable[object]] | None) -> None:
        self._release = release
        self._loop = asyncio.new_event_loop()
        self._ending: asyncio.Event | None = None
        self._end_asked = False
        self._is_ending = False
        self.reads: set[_Read] = set()
        self.over = False
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; raises `RuntimeError` if none can be started."""
        try:
            self.thread = spawn(self._run, "loop")
        except BaseException:
            self.over = True
            self._loop.close()
            raise

    def read(self, read: _Read) -> Any:
        """Run `read`; called on another thread, which waits."""
        self.reads.add(read)
        try:
            self._call(lambda: self._begin(read))
            if self.over:  # it may have ended before it saw this read
                read.fail(_ended())
            return read.outcome()
        finally:
            self.reads.discard(read)

    def _begin(self, read: _Read) -> None:
        # A task that is made while the loop ends would never run.
        if self._is_ending:
            read.fail(_ended())
        else:
            read.begin()

    def cut(self) -> None:
        """Cancel all reads of whoever asks for that."""
        for read in owned(self.reads.copy()):
            read.release()
            self._call(read.cancel)

    def end(self) -> None:
        """Cancel what runs, free what the provider keeps for this loop, and end."""
        self._end_asked = True
        owning(None, self.cut)
        self._call(self._note_end)

    def _call(self, function: Callable[[], object]) -> None:
        # In an empty context: the handle would keep that of the caller.
        with contextlib.suppress(RuntimeError):  # it is closed: nothing runs there
            self._loop.call_soon_threadsafe(function, context=contextvars.Context())

    def _note_end(self) -> None:
        if self._ending is not None:
            self._ending.set()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        finally:
            self.over = True
            for read in self.reads.copy():
                if not read.done:
                    read.fail(_ended())
            self._loop.close()

    async def _live(self) -> None:
        self._ending = asyncio.Event()
        if not self._end_asked:
            await self._ending.wait()
        self._is_ending = True
        # A task that swallows its cancellation is waited for: its loop must not be closed while it runs.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if self._release is not None:
            with contextlib.suppress(Exception):  # whatever a provider raises
                await self._release()
        await asyncio.get_running_loop().shutdown_asyncgens()


class LoopReads:
    """A `StatsProvider` made of an `AsyncStatsProvider`. Thread-safe; a forked child gets a loop of its own.

    A read that does not end when it is cancelled, or that blocks the loop, is left behind together with the loop; at
    most two loops at a time. ``get_many`` is there if the provider has it.
    """

    def __init__(self, provider: AsyncStatsProvider) -> None:
        self._provider: Any = provider
        self.least_gap: float = getattr(provider, "least_gap", 0.0)
        self._release: Callable[[], Awaitable[object]] | None = getattr(provider, "release_loop", None)
        self._closed = False
        self._lock = ForkLock()
        # By process, and never dropped: a child must not garbage-collect the loops of its parent, which stand still.
        self._loops: dict[int, _Loop] = {}
        self._left: dict[int, list[_Loop]] = {}
        if getattr(provider, "get_many", None) is not None:
            self.get_many = self._get_many

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        """Read one queue."""
        stats: QueueStats = self._call(lambda: self._provider.get_queue_stats(queue_name))
        return stats

    def get_all_queue_stats(self) -> Mapping[str, QueueStats | StatsUnavailableError]:
        """Read what the provider lists."""
        stats: Mapping[str, QueueStats | StatsUnavailableError] = self._call(self._provider.get_all_queue_stats)
        return stats

    def _get_many(self, queue_names: Iterable[str]) -> Mapping[str, QueueStats | StatsUnavailableError]:
        """Read several queues."""
        stats: Mapping[str, QueueStats | StatsUnavailableError] = self._call(
            lambda: self._provider.get_many(queue_names)
        )
        return stats

    def interrupt(self) -> None:
        """End the reads under way."""
        pid = os.getpid()
        current = self._loops.get(pid)
        for loop in (*self._left.get(pid, ()), *(() if current is None else (current,))):
            loop.cut()

    def end(self) -> threading.Thread | None:
        """End the loop, closing what the provider opened on it, and return its thread; a later read makes another."""
        loop = self._loops.pop(os.getpid(), None)
        if loop is None:
            return None
        loop.end()
        return loop.thread

    def rest(self) -> threading.Thread | None:
        """As `end`, if nothing is read at the moment."""
        loop = self._loops.get(os.getpid())
        return None if loop is None or loop.reads else self.end()

    def close(self) -> threading.Thread | None:
        """As `end`, for good: later reads raise `StatsUnavailableError`."""
        self._closed = True
        return self.end()

    def _call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        loop, read = self._loop(), _Read(make)
        try:
            return loop.read(read)
        finally:
            if not read.done:
                self._leave(loop)

    def _loop(self) -> _Loop:
        """Return the loop of this process; make it if there is none."""
        pid = os.getpid()
        with self._lock():
            loop = self._loops.get(pid)
            if loop is not None and not loop.over:
                return loop
            left = self._left[pid] = [each for each in self._left.get(pid, ()) if not each.over]
            if len(left) >= _MAX_HUNG:
                raise StatsUnavailableError(
                    f"{_MAX_HUNG} event loops hang in reads already: the provider must neither block nor swallow "
                    "cancellations",
                    error_type="deadline",
                )
            fresh = self._loops[pid] = _Loop(self._release)
            fresh.start()
        if self._closed:  # also if close() was called meanwhile: it does not wait for the lock
            self.end()
            raise StatsUnavailableError("the controller was stopped: nothing is read any more")
        return fresh

    def _leave(self, loop: _Loop) -> None:
        """Use another loop from now on; this one ends when it can."""
        pid = os.getpid()
        with self._lock():
            if self._loops.get(pid) is loop:
                self._left.setdefault(pid, []).append(loop)
                del self._loops[pid]
        loop.end()


def _ended() -> StatsUnavailableError:
    return StatsUnavailableError("the event loop of the reads has ended: the next read makes another")


def _overran() -> StatsUnavailableError:
    return StatsUnavailableError("the read was ended: it took too long", error_type="deadline")
