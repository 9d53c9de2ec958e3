"""Threads for our own work: daemons that start in an empty context, and not while the interpreter ends."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["await_ours", "spawn"]

# Seconds between two looks.
_MOMENT = 0.0001
_PREFIX = "backpressure-"
# The last ones, also if nobody holds them any more: the system may still have them.
_latest: deque[threading.Thread] = deque(maxlen=8)


def spawn(work: Callable[[], object], name: str) -> threading.Thread:
    """Run `work` on a daemon thread, and return the thread once it runs; what we are is put before its `name`.

    Raises:
        RuntimeError: no more threads can be started, or the interpreter is ending.
    """
    if sys.is_finalizing():  # Python 3.11 would then wait for ever for the thread to start
        raise RuntimeError("can't start new thread: the interpreter is ending")
    # A thread may inherit the context of its starter: reads would belong to the trace of one request for ever.
    thread = threading.Thread(target=contextvars.Context().run, args=(work,), name=_PREFIX + name, daemon=True)
    _start(thread)
    _latest.append(thread)
    return thread


def _start(thread: threading.Thread) -> None:
    """Start a thread; what a signal handler raises meanwhile gets through.

    CPython tidies up after such an error as if the thread had not begun. If it has, that fails by a KeyError, which
    hides the handler's error from its `except`.
    """
    interrupted: BaseException | None = None
    try:
        thread.start()
    except KeyError as error:
        interrupted = error.__context__ or error
    if interrupted is not None:
        raise interrupted


def await_ours(seconds: float) -> None:
    """Wait for the end of all threads that were spawned, for at most `seconds` together."""
    end = time.monotonic() + seconds
    for thread in (*filter(_is_ours, threading.enumerate()), *list(_latest)):
        if thread is threading.current_thread():
            continue
        if thread.is_alive():  # and has started
            thread.join(max(0.0, end - time.monotonic()))
        # Before Python 3.13 the system may still have a thread that was joined.
        while os.path.exists(f"/proc/self/task/{thread.native_id}") and time.monotonic() < end:  # noqa: PTH110 - quick
            time.sleep(_MOMENT)


def _is_ours(thread: threading.Thread) -> bool:
    return thread.name.startswith(_PREFIX)
