"""One face for blocking and for asynchronous providers, and what a process holds because of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backpressure._model.errors import StatsUnavailableError
from providers.checks import failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


class Face(Protocol):
    """A provider behind blocking methods."""

    def get_queue_stats(self, queue_name: Any) -> Any: ...
    def get_all_queue_stats(self) -> Any: ...
    def get_many(self, queue_names: Any) -> Any: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


def reading(provider: Any) -> Face:
    """Return a provider's blocking face."""
    face: Face = OnALoop(provider) if hasattr(provider, "aclose") else provider
    return face


def held_by(face: Face) -> Any:
    """Return the provider behind a face."""
    return face.provider if isinstance(face, OnALoop) else face


class OnALoop:
    """An asynchronous provider, read on an event loop of this process's own, on a thread of its own.

    `interrupt` cancels its reads. A read fails with "deadline" then, when it has ended, as controllers tell it.
    """

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self._loops: dict[int, asyncio.AbstractEventLoop] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._loop()  # before threads could make several

    def get_queue_stats(self, queue_name: Any) -> Any:
        return self._read(self.provider.get_queue_stats(queue_name))

    def get_all_queue_stats(self) -> Any:
        return self._read(self.provider.get_all_queue_stats())

    def get_many(self, queue_names: Any) -> Any:
        return self._read(self.provider.get_many(queue_names))

    def interrupt(self) -> None:
        if loop := self._loops.get(os.getpid()):
            for task in self._reads.copy():
                loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        self._read(self.provider.aclose())
        loop = self._loops.pop(os.getpid())
        loop.call_soon_threadsafe(loop.stop)
        self._threads.pop(os.getpid()).join()
        loop.close()
        if self.provider._target.tls:
            # Where the other side does not say farewell, asyncio would wait for it longer than the loop lives.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del loop
                gc.collect()

    def _read(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(self._noted(work), self._loop()).result()
        except KeyboardInterrupt:  # as asyncio.run has it
            self.interrupt()
            raise

    async def _noted(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._reads.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            pass
        finally:
            self._reads.discard(task)
        raise StatsUnavailableError("the read was cancelled", error_type="deadline")

    def _loop(self) -> asyncio.AbstractEventLoop:
        if (loop := self._loops.get(os.getpid())) is None:
            self._reads: set[asyncio.Task[Any]] = set()
            loop = self._loops[os.getpid()] = asyncio.new_event_loop()
            thread = self._threads[os.getpid()] = threading.Thread(target=loop.run_forever, daemon=True)
            thread.start()
        return loop


def ways_to_read(provider: Face, name: str = "q") -> Iterator[Callable[[], Any]]:
    """Give what reads all queues, one, and some."""
    yield provider.get_all_queue_stats
    yield lambda: provider.get_queue_stats(name)
    yield lambda: provider.get_many([name])


def reads_fail(provider: Face) -> Iterator[StatsUnavailableError]:
    """Give how a read of all queues fails, and one of a single one."""
    yield failure(provider.get_all_queue_stats)
    yield failure(lambda: provider.get_queue_stats("q"))


def in_a_child(work: Callable[[], bool]) -> int:
    """Return 0 if `work` is true in a forked child."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def connections(port: int) -> set[str]:
    """Return this process's open connections to a port of this machine, by their own ends."""
    mine = files()
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return {
        line[1]
        for line in lines
        if int(line[2].rpartition(":")[2], 16) == port and line[3] == "01" and f"socket:[{line[9]}]" in mine
    }


def files() -> set[str]:
    """Return what this process holds open."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


def belongings() -> set[object]:
    """Return this process's files and threads."""
    return {*files(), *threading.enumerate()}
