"""Threads for our own work: daemons that start in nobody's context, and not while the interpreter ends."""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["spawn"]


def spawn(work: Callable[[], object], name: str) -> threading.Thread:
    """Run `work` on a daemon thread, and return that once it runs.

    Raises:
        RuntimeError: no more threads are to be had, or the interpreter is ending.
    """
    if sys.is_finalizing():  # where Python 3.11 would wait for ever for the thread to show itself
        raise RuntimeError("can't start new thread: the interpreter is ending")
    # A thread may inherit its starter's context: reads would belong to the trace of some request for ever.
    thread = threading.Thread(target=contextvars.Context().run, args=(work,), name=name, daemon=True)
    thread.start()
    return thread
