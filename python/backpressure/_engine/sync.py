"""What threads share: a lock that neither a forked child nor a signal handler finds held, and an exact counter."""

from __future__ import annotations

import itertools
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class ForkLock:
    """Call it to get this process's lock: ``with self._lock(): ...``.

    Fork hooks do not run under every server, so the process id decides; `dict.setdefault` is atomic. A signal handler
    that interrupts its holder enters too, so what is done under it must bear that: see `Breaker` and `Engine`.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    def __call__(self) -> threading.RLock:
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.RLock())


class Tally:
    """A counter whose increment cannot be torn: `x += 1` loses counts between threads, this does not."""

    __slots__ = ("add", "count")

    def __init__(self) -> None:
        #: Counts one more at each `next`, and gives the count before it; faster than the call of `add`.
        self.count = itertools.count()
        self.add = self.count.__next__

    @property
    def value(self) -> int:
        """How much was counted."""
        return value_of(self.count)


def value_of(count: Iterator[int]) -> int:
    """Return how much the `count` of a `Tally` has counted."""
    return int(repr(count)[6:-1])  # "count(5)"; its repr is the one way to read without counting
