"""What runs in a worker, a scheduler or a consumer, all of whose jobs pass: to refuse them loses them.

Frameworks' hooks mark these where the framework starts them, not the job or the thread of the moment: callbacks, signal
handlers, boot hooks, threads and pools of tasks, and the worker's own loop enqueue too. A worker that runs on the main
thread has the process for itself; one on another thread, or on an event loop that it shares, is that thread or task and
what these start, so that a worker within a producer opens nothing of the producer's.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import sys
import threading
from typing import TYPE_CHECKING, Any

from backpressure.integrations._context import setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["in_worker", "mark_if_run_by", "mark_process", "marked", "marking", "running", "serving", "worker"]

# On threads that belong to a worker.
_MARK = "_backpressure_in_worker"

_coroutine: contextvars.ContextVar[bool] = contextvars.ContextVar("_in_worker", default=False)
# What runs now on the main thread; a forked child inherits it, as it does the threads' marks. Adding to and taking from
# a list cannot be torn.
_process: list[None] = []
_start_lock = threading.Lock()
# Whether threads are followed. Not asked of what was wrapped, which others may wrap in turn.
_following = threading.Event()


class _Local(threading.local):
    submitting = False


_local = _Local()


def in_worker() -> bool:
    """Tell whether this code runs in a worker. Thread-safe."""
    return bool(_process) or _coroutine.get() or hasattr(threading.current_thread(), _MARK)


def mark_process() -> None:
    """Note that this process, and what it forks, is a worker's from now on."""
    if not _process:
        _process.append(None)


def mark_if_run_by(*functions: str) -> None:
    """Mark this process if its main thread is in one of these, a framework's main functions as ``"module:name"``.

    For hooks, as they are imported: a framework that is started by a command imports afterwards what it is to run.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - no other way to another's
    while frame is not None:
        if f"{frame.f_globals.get('__name__')}:{frame.f_code.co_name}" in functions:
            mark_process()
            return
        frame = frame.f_back


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
            with setting(_coroutine, True):  # for what it has another thread's event loop run
                yield
        finally:
            delattr(thread, _MARK)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Mark what the body runs on an event loop that it shares: this task, and what it starts and submits."""
    _follow_threads()
    with setting(_coroutine, True):
        yield


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """Mark what the body runs, a worker's main coroutine.

    As `worker` if an event loop runs for it alone, as in ``asyncio.run(worker.start())``; else as `running`.
    """
    with worker() if _has_a_loop_for_itself() else running():
        yield


def _has_a_loop_for_itself() -> bool:
    import asyncio  # noqa: PLC0415 - a quarter of the time that importing this package takes

    if len(asyncio.all_tasks()) > 1:
        return False
    # A loop that runs for ever may be a server's, whose requests have not come yet.
    until_complete = {asyncio.Runner.run.__code__, asyncio.BaseEventLoop.run_until_complete.__code__}
    frame = inspect.currentframe()
    while frame is not None and frame.f_code not in until_complete:
        frame = frame.f_back
    return frame is not None


def marked(
    worker_class: type[Any], *methods: str, by: Callable[[], AbstractContextManager[None]] | None = None
) -> None:
    """Have methods of a worker's class mark what they run.

    Args:
        by: what marks; without it `running` does for coroutine functions, `worker` for others.

    Raises:
        AttributeError: a method is not there, so that jobs of this release would be taken for a producer's.
    """
    for name in methods:
        setattr(worker_class, name, marking(getattr(worker_class, name), by))


def marking(method: Any, by: Callable[[], AbstractContextManager[None]] | None = None) -> Any:
    """Return a function like `method` that marks what it runs, see `marked`."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def mark_and_await(*args: Any, **kwargs: Any) -> Any:
            with (by or running)():
                return await method(*args, **kwargs)

        return mark_and_await

    @functools.wraps(method)
    def mark(*args: Any, **kwargs: Any) -> Any:
        with (by or worker)():
            return method(*args, **kwargs)

    return mark


def _follow_threads() -> None:
    """Have threads that a worker starts, and what it submits to pools of threads, belong to the worker, from now on.

    Neither contexts nor thread-locals reach them, so `threading.Thread.start` and ``ThreadPoolExecutor.submit`` are
    wrapped; only once a worker runs beside a producer, with which it may share a pool.
    """
    if _following.is_set():
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - few need it

    with _start_lock:
        if _following.is_set():
            return
        start: Any = threading.Thread.start
        submit: Any = ThreadPoolExecutor.submit

        @functools.wraps(start)
        def follow(thread: Any) -> None:
            belongs = hasattr(threading.current_thread(), _MARK)
            if belongs and not _local.submitting:
                setattr(thread, _MARK, True)
            if (belongs or _coroutine.get()) and not _local.submitting:
                thread.run = functools.partial(_run_marked, thread.run)
            start(thread)

        @functools.wraps(submit)
        def carry(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            if not (_coroutine.get() or hasattr(threading.current_thread(), _MARK)):
                return submit(pool, function, *args, **kwargs)
            _local.submitting = True
            try:
                # The pool's threads serve producers too, and where threads inherit contexts they would keep the mark.
                with setting(_coroutine, False):
                    return submit(pool, _run_marked, function, *args, **kwargs)
            finally:
                _local.submitting = False

        patched: Any = threading.Thread
        patched.start = follow
        patched = ThreadPoolExecutor
        patched.submit = carry
        _following.set()


def _run_marked(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    with setting(_coroutine, True):
        return function(*args, **kwargs)
