"""A lock that a forked child never finds held."""

from __future__ import annotations

import os
import threading


class ForkLock:
    """Call it to get this process's lock: ``with self._lock(): ...``.

    Fork hooks do not run under every server, so the process id decides; `dict.setdefault` is atomic.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def __call__(self) -> threading.Lock:
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.Lock())
