"""Threads for our own work: daemons that start in an empty context, and not while the interpreter ends."""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["spawn"]


def spawn(work: Callable[[], object], name: str) -> threading.Thread:
    """Run `work` on a daemon thread, and return the thread once it runs.

    Raises:
        RuntimeError: no more threads can be started, or the interpreter is ending.
    """
    if sys.is_finalizing():  # Python 3.11 would then wait for ever for the thread to start
        raise RuntimeError("can't start new thread: the interpreter is ending")
    # A thread may inherit the context of its starter: reads would belong to the trace of one request for ever.
    thread = threading.Thread(target=contextvars.Context().run, args=(work,), name=name, daemon=True)
    thread.start()
    return thread
