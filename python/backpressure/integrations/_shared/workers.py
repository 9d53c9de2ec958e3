"""What runs in a worker, a scheduler or a consumer. All its jobs pass, because refused jobs would be lost.

Frameworks' hooks mark workers where the framework starts them. They do not mark single jobs or the current thread,
because callbacks, signal handlers, boot hooks, threads, pools of tasks and the worker's own loop enqueue too. A worker
on the main thread owns the process, and all that runs at the program's end. A worker on another thread, or on an event
loop that it shares, owns only that thread or task and what these start. So a worker inside a producer does not let the
producer's jobs pass. Processes that multiprocessing starts for a worker are the worker's, too.

Where the jobs of some tasks are judged, tasks must be told apart: the framework's calls of them are marked by `task`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import sys
import threading
from multiprocessing import process as processes
from typing import TYPE_CHECKING, Any

from backpressure.integrations._shared.context import setting

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

# Set on processes and threads that belong to a worker: to ``True``, or to functions, see `recognise`: then the mark
# holds while one of these runs there.
_MARK = "_backpressure_in_worker"

_coroutine: contextvars.ContextVar[bool] = contextvars.ContextVar("_in_worker", default=False)
# What runs now on the main thread, and whether for good; a forked child inherits it, as it inherits the threads' marks.
# To add to a list, or to take from it, is atomic.
_process: list[bool] = []
# Not empty once a worker has run on the main thread: after that thread, the end of the program is the worker's.
_ended: list[None] = []
# What ran on the main thread before that could be marked, see `recognise`.
_begun: set[str] = set()
_start_lock = threading.Lock()
# Whether threads are followed. The wrapped functions cannot tell, because others may wrap them again.
_following = threading.Event()


class _Local(threading.local):
    submitting = False


_local = _Local()


class _Run:
    """One run of a task. When the task is over, it is over for the threads that it started, too."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.over = False


_task: contextvars.ContextVar[_Run | None] = contextvars.ContextVar("_task", default=None)


def in_worker() -> bool:
    """Tell whether this code runs in a worker. Thread-safe."""
    return (
        bool(_process)
        or _is_marked()
        or hasattr(processes.current_process(), _MARK)
        or (bool(_begun) and _still_runs())
        or (bool(_ended) and not threading.main_thread().is_alive())
    )


def _is_marked() -> bool:
    return _coroutine.get() or _has_marked_thread()


def _has_marked_thread() -> bool:
    thread = threading.current_thread()
    mark = getattr(thread, _MARK, None)
    return mark is True or (mark is not None and frame_of(thread, mark) is not None)


def _follow_processes() -> None:
    """Mark the processes that a worker starts as its own: a spawned one inherits no other mark."""
    start: Any = processes.BaseProcess.start

    @functools.wraps(start)
    def follow(process: Any) -> None:
        if in_worker():
            setattr(process, _MARK, True)  # the process takes it with it
        start(process)

    patched: Any = processes.BaseProcess
    patched.start = follow


_follow_processes()


def mark_process() -> None:
    """Note that this process, and what it forks, belongs to a worker from now on."""
    if True not in _process:
        _process.append(True)


@contextlib.contextmanager
def worker(*, process: bool = True) -> Iterator[None]:
    """Mark the body as a worker's main function: the process if this is its main thread, else this thread.

    Args:
        process: whether a worker on the main thread owns the process; ``False`` for one that only starts there and
            runs on other threads.
    """
    thread = threading.current_thread()
    if process and thread is threading.main_thread():
        _process.append(False)
        try:
            yield
        finally:
            _process.remove(False)
            _ended[:] = [None]
    elif _has_marked_thread():
        yield
    else:
        _follow_threads()
        setattr(thread, _MARK, True)
        try:
            with setting(_coroutine, True):  # for coroutines that it runs on another thread's loop
                yield
        finally:
            delattr(thread, _MARK)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Mark a body on an event loop that it shares: this task, and what it starts and submits."""
    _follow_threads()
    with setting(_coroutine, True):
        yield


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """Mark the body as a worker's main coroutine.

    As `worker` if an event loop runs for it alone, as in ``asyncio.run(worker.start())``; otherwise as `running`.
    """
    with worker() if _has_a_loop_for_itself() else running():
        yield


def _has_a_loop_for_itself() -> bool:
    import asyncio  # noqa: PLC0415 - a quarter of the time that importing this package takes

    if len(asyncio.all_tasks()) > 1:
        return False
    # A loop that runs for ever may be a server's, which has no requests yet.
    until_complete = {asyncio.Runner.run.__code__, asyncio.BaseEventLoop.run_until_complete.__code__}
    frame = inspect.currentframe()
    while frame is not None and frame.f_code not in until_complete:
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def task(name: str) -> Iterator[None]:
    """Note that the body runs a task, on this thread or coroutine and those that it starts."""
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
    """Mark the code that runs now inside one of a worker's functions, named ``"module:function"``: too late to wrap it.

    For processes that are already running when they import the program that protects its queues, as commands do, and
    RQ's workers at each job.
    """
    thread = threading.current_thread()
    if frame_of(threading.main_thread(), functions) is not None:
        _begun.update(functions)
    elif frame_of(thread, functions) is not None and not _has_marked_thread():
        _follow_threads()
        setattr(thread, _MARK, functions)


def frame_of(thread: threading.Thread, functions: Collection[str]) -> FrameType | None:
    """Return the innermost frame of a thread in which one of the functions, given as ``"module:function"``, runs."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - no other way to other threads' frames
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
    """Make functions of a worker's class, or module, mark what they run.

    Args:
        by: the mark; by default `running` for coroutine functions, `worker` for others.

    Raises:
        AttributeError: one does not exist, so this release's jobs would be mistaken for a producer's.
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
    """Make threads belong to the worker or task that starts them, from now on; so also what it submits to pools of
    threads, and what futures call for it when they are done.

    Contexts and thread-locals do not reach these, so `threading.Thread.start`, ``ThreadPoolExecutor.submit`` and
    ``Future.add_done_callback`` are wrapped. This is done only once a worker runs beside a producer, with which it may
    share a pool, or once a task is noted.
    """
    if _following.is_set():
        return
    from concurrent.futures import Future, ThreadPoolExecutor  # noqa: PLC0415 - rarely needed

    with _start_lock:
        if _following.is_set():
            return
        start: Any = threading.Thread.start
        submit: Any = ThreadPoolExecutor.submit
        add_done_callback: Any = Future.add_done_callback

        @functools.wraps(start)
        def follow(thread: Any) -> None:
            inside, run = _is_marked(), _current_run()
            if (inside or run) and not _local.submitting:
                if _has_marked_thread():
                    setattr(thread, _MARK, True)
                _have_run_inside(thread, inside, run)
            start(thread)

        @functools.wraps(submit)
        def carry(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            inside, run = _is_marked(), _current_run()
            if not (inside or run):
                return submit(pool, function, *args, **kwargs)
            _local.submitting = True
            try:
                # The pool's threads serve producers too; where threads inherit contexts they would keep the marks.
                with setting(_coroutine, False), setting(_task, None):
                    return submit(pool, _run_inside, inside, run, function, *args, **kwargs)
            finally:
                _local.submitting = False

        @functools.wraps(add_done_callback)
        def follow_done(future: Any, function: Any) -> None:
            inside, run = _is_marked(), _current_run()
            if inside or run:
                function = functools.partial(_run_inside, inside, run, function)
            add_done_callback(future, function)

        patched: Any = threading.Thread
        patched.start = follow
        patched = ThreadPoolExecutor
        patched.submit = carry
        patched = Future
        patched.add_done_callback = follow_done
        _following.set()


def _have_run_inside(thread: Any, inside: bool, run: _Run | None) -> None:
    its_run = thread.run

    def run_inside() -> None:
        try:
            _run_inside(inside, run, its_run)
        finally:
            vars(thread).pop("run", None)  # otherwise it would hold the thread, in a circle

    thread.run = run_inside


def _run_inside(inside: bool, run: _Run | None, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function that code `inside` a worker, or the `run` of a task, started or submitted."""
    with setting(_coroutine, inside), setting(_task, run):
        return function(*args, **kwargs)
