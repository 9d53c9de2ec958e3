"""What runs in a worker, a scheduler or a consumer, all of whose jobs pass: to refuse them loses them.

Frameworks' hooks mark these where the framework starts them, not the job or the thread of the moment: callbacks, signal
handlers, boot hooks, threads and pools of tasks, and the worker's own loop enqueue too. A worker that runs on the main
thread has the process for itself, and what ends the program after it; one on another thread, or on an event loop that
it shares, is that thread or task and what these start, so that a worker within a producer opens nothing of the
producer's.

Where tasks are to be told apart, for those whose jobs are judged after all, the framework's calls of them are marked by
`task`.
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
    from collections.abc import Callable, Collection, Iterator
    from types import FrameType
    from typing import TypeAlias

    Mark: TypeAlias = Callable[[], contextlib.AbstractContextManager[None]]

__all__ = [
    "current_task",
    "frame_of",
    "in_worker",
    "mark_process",
    "marked",
    "marking",
    "recognise",
    "running",
    "serving",
    "task",
    "worker",
]

# On threads that belong to a worker.
_MARK = "_backpressure_in_worker"

_coroutine: contextvars.ContextVar[bool] = contextvars.ContextVar("_in_worker", default=False)
# What runs now on the main thread; a forked child inherits it, as it does the threads' marks. Adding to and taking from
# a list cannot be torn.
_process: list[None] = []
# That a worker has run on the main thread: what the end of its program runs, once that thread is done, is its own.
_ended: list[None] = []
# What ran on the main thread before it could be marked, see `recognise`.
_begun: set[str] = set()
_start_lock = threading.Lock()
# Whether threads are followed. Not asked of what was wrapped, which others may wrap in turn.
_following = threading.Event()


class _Local(threading.local):
    submitting = False


_local = _Local()


class _Run:
    """One run of a task; over for the threads that it started, too, when the task is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.over = False


_task: contextvars.ContextVar[_Run | None] = contextvars.ContextVar("_task", default=None)


def in_worker() -> bool:
    """Tell whether this code runs in a worker. Thread-safe."""
    return (
        bool(_process)
        or _is_marked()
        or (bool(_begun) and _still_runs())
        or (bool(_ended) and not threading.main_thread().is_alive())
    )


def _is_marked() -> bool:
    return _coroutine.get() or hasattr(threading.current_thread(), _MARK)


def mark_process() -> None:
    """Note that this process, and what it forks, is a worker's from now on."""
    if not _process:
        _process.append(None)


@contextlib.contextmanager
def worker(*, process: bool = True) -> Iterator[None]:
    """Mark what the body runs, a worker's main function: the process if this is its main thread, else this thread.

    Args:
        process: whether a worker on the main thread has the process for itself: one that only starts there, to run on
            other threads, has not.
    """
    thread = threading.current_thread()
    if process and thread is threading.main_thread():
        _process.append(None)
        try:
            yield
        finally:
            _process.pop()
            _ended[:] = [None]
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


@contextlib.contextmanager
def task(name: str) -> Iterator[None]:
    """Note that the body runs a task: on this thread or in this coroutine, and on or in those that it starts."""
    _follow_threads()
    run = _Run(name)
    try:
        with setting(_task, run):
            yield
    finally:
        run.over = True


def current_task() -> str | None:
    """Return the name of the task that this code runs in, if it is known. Thread-safe."""
    run = _current_run()
    return None if run is None else run.name


def _current_run() -> _Run | None:
    run = _task.get()
    return None if run is None or run.over else run


def recognise(*functions: str) -> None:
    """Mark what runs one of a worker's functions now, given as ``"module:function"``: it is too late to wrap it.

    For processes that import the program which protects its queues when they have begun, as commands do, and RQ's
    workers at each job.
    """
    thread = threading.current_thread()
    if frame_of(threading.main_thread(), functions) is not None:
        _begun.update(functions)
    elif frame_of(thread, functions) is not None:
        _follow_threads()
        setattr(thread, _MARK, True)


def frame_of(thread: threading.Thread, functions: Collection[str]) -> FrameType | None:
    """Return the innermost frame of a thread that runs one of the functions, given as ``"module:function"``."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - other threads' are not to be had otherwise
    while frame is not None:
        if f"{frame.f_globals.get('__name__')}:{frame.f_code.co_name}" in functions:
            return frame
        frame = frame.f_back
    return None


def _still_runs() -> bool:
    if frame_of(threading.main_thread(), _begun) is None:
        _begun.clear()
        _ended[:] = [None]
    return bool(_begun)


def marked(owner: Any, *functions: str, by: Mark | None = None) -> None:
    """Have functions of a worker's class, or module, mark what they run.

    Args:
        by: how; by default coroutine functions by `running`, others by `worker`.

    Raises:
        AttributeError: one is not there, so that jobs of this release would be taken for a producer's.
    """
    for name in functions:
        setattr(owner, name, marking(getattr(owner, name), by))


def marking(method: Any, by: Mark | None = None) -> Any:
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
    """Have threads that a worker or a task starts, and what it submits to pools of threads, belong to it from now on.

    Neither contexts nor thread-locals reach them, so `threading.Thread.start` and ``ThreadPoolExecutor.submit`` are
    wrapped; only once a worker runs beside a producer, with which it may share a pool, or a task is noted.
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
            inside, run = _is_marked(), _current_run()
            if (inside or run) and not _local.submitting:
                if hasattr(threading.current_thread(), _MARK):
                    setattr(thread, _MARK, True)
                thread.run = functools.partial(_run_inside, inside, run, thread.run)
            start(thread)

        @functools.wraps(submit)
        def carry(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            inside, run = _is_marked(), _current_run()
            if not (inside or run):
                return submit(pool, function, *args, **kwargs)
            _local.submitting = True
            try:
                # The pool's threads serve producers too, and where threads inherit contexts they would keep the marks.
                with setting(_coroutine, False), setting(_task, None):
                    return submit(pool, _run_inside, inside, run, function, *args, **kwargs)
            finally:
                _local.submitting = False

        patched: Any = threading.Thread
        patched.start = follow
        patched = ThreadPoolExecutor
        patched.submit = carry
        _following.set()


def _run_inside(inside: bool, run: _Run | None, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call what was started or submitted by what is `inside` of a worker, or by the `run` of a task."""
    with setting(_coroutine, inside), setting(_task, run):
        return function(*args, **kwargs)
