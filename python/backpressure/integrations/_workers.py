"""What runs in a worker, a scheduler or a consumer, all of whose jobs pass: to refuse them loses them.

Frameworks' hooks mark these where the framework starts them, not the job or the thread of the moment: callbacks, signal
handlers, boot hooks, threads and pools of tasks, and the worker's own loop enqueue too. A worker that runs on the main
thread has the process for itself; one on another thread is that thread and those that it starts, so that a worker
within a producer opens nothing of the producer's.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any

from backpressure.integrations._context import setting

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["in_worker", "mark_process", "marked", "marking", "running", "worker"]

# On threads that belong to a worker.
_MARK = "_backpressure_in_worker"

_coroutine: contextvars.ContextVar[bool] = contextvars.ContextVar("_in_worker", default=False)
# What runs now on the main thread; a forked child inherits it, as it does the threads' marks. Adding to and taking from
# a list cannot be torn.
_process: list[None] = []
_start_lock = threading.Lock()


def in_worker() -> bool:
    """Tell whether this code runs in a worker. Thread-safe."""
    return bool(_process) or _coroutine.get() or hasattr(threading.current_thread(), _MARK)


def mark_process() -> None:
    """Note that this process, and what it forks, is a worker's from now on."""
    if not _process:
        _process.append(None)


@contextlib.contextmanager
def worker() -> Iterator[None]:
    """Mark what the body runs, a worker's main function: the process if this is its main thread, else this thread."""
    thread = threading.current_thread()
    if thread is threading.main_thread():
        _process.append(None)
        try:
            yield
        finally:
            _process.pop()
    elif hasattr(thread, _MARK):
        yield
    else:
        _follow_threads()
        setattr(thread, _MARK, True)
        try:
            yield
        finally:
            delattr(thread, _MARK)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Mark what the body runs on an event loop that it shares with others: this task and those that it starts.

    Threads see it as far as their context was copied, as by ``asyncio.to_thread``.
    """
    with setting(_coroutine, True):
        yield


def marked(worker_class: type[Any], *methods: str) -> None:
    """Have methods of a worker's class mark what they run: coroutine functions by `running`, others by `worker`.

    Raises:
        AttributeError: a method is not there, so that jobs of this release would be taken for a producer's.
    """
    for name in methods:
        setattr(worker_class, name, marking(getattr(worker_class, name)))


def marking(method: Any) -> Any:
    """Return a function like `method` that marks what it runs."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def mark_and_await(*args: Any, **kwargs: Any) -> Any:
            with running():
                return await method(*args, **kwargs)

        return mark_and_await

    @functools.wraps(method)
    def mark(*args: Any, **kwargs: Any) -> Any:
        with worker():
            return method(*args, **kwargs)

    return mark


def _follow_threads() -> None:
    """Have threads that a worker's thread starts belong to the worker, from now on.

    Neither contexts nor thread-locals reach them, so `threading.Thread.start` is wrapped; only once a worker runs
    beside a producer.
    """
    with _start_lock:
        start: Any = threading.Thread.start
        if hasattr(start, _MARK):
            return

        @functools.wraps(start)
        def follow(thread: threading.Thread) -> None:
            if hasattr(threading.current_thread(), _MARK):
                setattr(thread, _MARK, True)
            start(thread)

        setattr(follow, _MARK, True)
        threading.Thread.start = follow  # type: ignore[assignment,method-assign]
