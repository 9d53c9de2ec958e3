"""A backlog over time: its peak in each stretch of time, and the highest of all."""

from __future__ import annotations

__all__ = ["MOST_STRETCHES", "Trail"]

#: A clock that jumps by years makes no more; what comes later is all of the last.
MOST_STRETCHES = 10_000


class Trail:
    """Peaks of stretches of the same length, the first of which begins with `begin`."""

    def __init__(self, stretch_ms: int) -> None:
        self._stretch_ms = stretch_ms
        self._ends_ms = 0
        self._peaks: list[int] = []
        self._highest = 0
        self.peak = self.peak_at_ms = 0

    def begin(self, now_ms: int) -> None:
        """Begin the first stretch."""
        self._ends_ms = now_ms + self._stretch_ms

    def note(self, now_ms: int, backlog: int) -> None:
        """Note a backlog, at an instant that is not before the last one."""
        while now_ms >= self._ends_ms and len(self._peaks) < MOST_STRETCHES:
            self._peaks.append(self._highest)
            self._highest = 0
            self._ends_ms += self._stretch_ms
        self._highest = max(self._highest, backlog)
        if backlog > self.peak:
            self.peak, self.peak_at_ms = backlog, now_ms

    def told(self) -> list[int]:
        """Return the peaks, that of the stretch which has not ended among them."""
        return [*self._peaks, self._highest]
