"""Jobs that come later, by the second in which they do."""

from __future__ import annotations

from backpressure._replay.jobs import MOST

__all__ = ["Later"]

#: Seconds; nobody waits longer in a replay than the last but one of them.
_SECONDS = 4_096
_LONGEST_US = (_SECONDS - 2) * 1_000_000


class Later:
    """A ring of seconds. What comes between two of them is parted between both, in proportion."""

    def __init__(self) -> None:
        self.clear(0)

    def clear(self, now_ms: int) -> None:
        """Forget all."""
        self._cells = [0] * _SECONDS
        self._next = now_ms // 1_000

    def take(self, now_ms: int) -> int:
        """Return the jobs that have come by now."""
        come, second = 0, now_ms // 1_000
        if second - self._next >= _SECONDS:
            come, self._cells = min(sum(self._cells), MOST), [0] * _SECONDS
        else:
            while self._next <= second:
                cell = self._next % _SECONDS
                come = min(come + self._cells[cell], MOST)
                self._cells[cell] = 0
                self._next += 1
        self._next = max(self._next, second + 1)
        return come

    def put(self, jobs: int, after_us: int) -> int:
        """Add jobs that come after a time, counted from the last `take`; return those of them that come at once."""
        whole, part = divmod(min(after_us, _LONGEST_US), 1_000_000)
        late = jobs * part // 1_000_000
        self._add(self._next + whole, late)
        if whole == 0:
            return jobs - late
        self._add(self._next - 1 + whole, jobs - late)
        return 0

    def put_later(self, jobs: int, after_us: int) -> None:
        """As `put`; none of them comes before the next second."""
        self._add(self._next, self.put(jobs, after_us))

    def _add(self, second: int, jobs: int) -> None:
        cell = second % _SECONDS
        self._cells[cell] = min(self._cells[cell] + jobs, MOST)
