"""How fast queues outside of green are drained, and so how soon their workers may have nothing to do."""

from __future__ import annotations

import math

__all__ = ["Drain"]

# Seconds after which what was seen counts for a third of what is seen now.
_MEMORY = 5.0


class Drain:
    """What is known of one queue's drain, from this process: its samples, and the jobs that it let in between them.

    What other processes let in is not known, so it is drained at least as fast as this says.
    """

    __slots__ = ("_as_of_ns", "_backlog", "_drained", "_seconds")

    def __init__(self) -> None:
        self._drained = self._seconds = 0.0
        self._backlog = 0
        self._as_of_ns = 0

    def note(self, backlog: int, as_of_ns: int, before: tuple[int, int, int | None, int, int | None] | None) -> None:
        """Take a sample; `before` is the one that it replaces, with the jobs that were let in since."""
        self._backlog, self._as_of_ns = backlog, as_of_ns
        if before is None or as_of_ns <= before[1]:
            return
        seconds = (as_of_ns - before[1]) / 1e9
        kept = math.exp(-seconds / _MEMORY)
        self._drained = self._drained * kept + max(0, before[0] + before[3] - backlog)
        self._seconds = self._seconds * kept + seconds

    def half_empty_ns(self) -> float:
        """Return the monotonic instant at which half of what was there may be drained; infinite if none is."""
        if not self._drained:
            return math.inf
        return self._as_of_ns + self._backlog / 2 * self._seconds / self._drained * 1e9
