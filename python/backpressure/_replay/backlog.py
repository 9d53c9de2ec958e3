"""Jobs that wait in a simulated queue, by when they came, until workers take them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from backpressure._replay.jobs import JOB, MOST
from backpressure._replay.trail import Trail

if TYPE_CHECKING:
    from backpressure._recording.row import Row

__all__ = ["Backlog"]


class Backlog:
    """Millionths of jobs.

    Attributes:
        jobs: that wait.
        longest_wait_ms: age of the oldest job that ever waited.
        trail: the backlog over time.
    """

    def __init__(self, trail_ms: int) -> None:
        self.jobs = self.longest_wait_ms = 0
        self.trail = Trail(trail_ms)
        self._waiting: deque[list[int]] = deque()

    def begin(self, row: Row) -> None:
        """Begin anew with what was recorded."""
        self.jobs = min(max(row.backlog, 0) * JOB, MOST)
        self._waiting.clear()
        if self.jobs:
            self._waiting.append([self.jobs, row.at_ms - min(max(row.oldest_age_ms or 0, 0), row.at_ms)])
        self.trail.note(row.at_ms, self.jobs)

    def oldest_ms(self, now_ms: int) -> int:
        """Return how long the oldest job waits."""
        return now_ms - self._waiting[0][1] if self._waiting else 0

    def work(self, come: int, capacity: int, now_ms: int, step_ms: int) -> None:
        """Let jobs in, and workers take what they can in a step of time."""
        have = min(self.jobs + come, MOST)
        come, out = have - self.jobs, min(have, capacity)
        self.jobs = have - out
        waiting = self._waiting
        if self.jobs == 0:
            waiting.clear()
        else:
            if come:
                waiting.append([come, now_ms])
            while out >= waiting[0][0]:
                out -= waiting.popleft()[0]
            waiting[0][0] -= out
            self.longest_wait_ms = max(self.longest_wait_ms, now_ms + step_ms - waiting[0][1])
        self.trail.note(now_ms + step_ms, self.jobs)
