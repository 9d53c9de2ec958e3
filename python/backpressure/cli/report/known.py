"""Of which stretches of time a recording knows anything, so that a gap is shown as a gap."""

from __future__ import annotations

from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING

from backpressure._recording.book import Book
from backpressure._recording.columns import first_column_of
from backpressure._recording.row import HOUR_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._recording.recording import Recording
    from backpressure._replay.values import ReplayedQueue

__all__ = ["Trail", "known_stretches", "with_gaps"]

#: Backlogs over time; ``None``: nothing is known.
Trail = list[int | None]

_USUAL, _LEAST_GAP_MS = 5, 60_000


def known_stretches(recording: Recording, told: ReplayedQueue) -> list[bool]:
    """Return for each stretch of a trail whether rows tell of it, or lie around it closely enough."""
    book, times = Book(recording.path), list[int]()
    for hour in book.hours(told.queue_name):
        for content, rows in book.blocks(told.queue_name, hour, hour):
            times += [at_ms for at_ms in first_column_of(content, rows, rows) if at_ms is not None]
    times.sort()
    gap_ms = max(_LEAST_GAP_MS, _USUAL * median_low([b - a for a, b in pairwise(times)] or [0]))
    gap_ms = min(gap_ms, 2 * HOUR_MS)
    stretch_ms = round(1_000 * told.trail_seconds)
    known = [False] * len(told.recorded.trail)
    for at_ms, next_ms in pairwise([*times, times[-1]]):
        first = _place(at_ms - told.began_ms, stretch_ms, known)
        last = _place(next_ms - told.began_ms, stretch_ms, known) if next_ms - at_ms <= gap_ms else first
        known[first : last + 1] = [True] * (last + 1 - first)
    return known


def _place(after_ms: int, stretch_ms: int, known: Sequence[bool]) -> int:
    return min(max(after_ms // stretch_ms, 0), len(known) - 1)


def with_gaps(trail: Sequence[int], known: Sequence[bool]) -> Trail:
    """Return a trail with ``None`` where nothing is known."""
    return [value if is_known else None for value, is_known in zip(trail, known, strict=False)]
