"""What a recording tells of a queue by itself: how high it was, how fast its workers are, and how sure that is."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice, pairwise
from statistics import median_high, median_low
from typing import TYPE_CHECKING

import attrs

from backpressure._replay.flow import Flows
from backpressure._replay.jobs import JOB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from backpressure._recording.row import Row

__all__ = ["BUSY_MINUTES", "DAY_MS", "WEEK_MS", "Measured", "measured"]

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
MINUTE_MS = 60_000
#: So many minutes of busy workers, and no less, show how fast they are.
BUSY_MINUTES = 120
#: A rate is told of a stretch of busy time with so many jobs, or of one that is so long.
_JOBS, _LONG_MS = 20 * JOB, 10 * MINUTE_MS
#: Workers that take less than this part of what they usually take are away.
_AWAY = 0.1
#: Rows are apart as usual; so many times that, and at least a minute, is a gap.
_FIRST, _USUAL = 600, 5


@attrs.frozen(kw_only=True)
class Measured:
    """What a recording tells of one queue.

    Attributes:
        began_ms, ended_ms: its first and its last row.
        peak: the most jobs that waited.
        usual_peak: the most of a usual day: the median of all days.
        busy_minutes: in which workers had jobs all along, and took some.
        drain: jobs a second that they take then; ``None``: that was never seen.
        slow, quick: the same when they are slow or quick: a tenth of the busy time is slower or quicker.
        away_seconds: the longest time in which they had jobs and took none.
        offers: whether it is known what producers offered.
        drains: whether it is known what came in or left.
    """

    began_ms: int
    ended_ms: int
    peak: int
    usual_peak: int
    busy_minutes: float
    drain: float | None
    slow: float
    quick: float
    away_seconds: float
    offers: bool
    drains: bool

    @property
    def varies(self) -> float:
        """How many times the age that a backlog means at its best it means at its worst."""
        return self.quick / self.slow if self.slow else 1.0


def measured(rows: Iterable[Row], mix_ppm: tuple[int, int, int] | None) -> Measured:
    """Read the rows of a queue, of which there is at least one."""
    every = iter(rows)
    first = list(islice(every, _FIRST))
    apart = [later.at_ms - row.at_ms for row, later in pairwise(first) if later.at_ms > row.at_ms]
    gap_ms = max(MINUTE_MS, _USUAL * (median_low(apart) if apart else 0))
    flows, pace, peaks = Flows(mix_ppm), _Pace(), defaultdict[int, int](int)
    offers = drains = False
    before = first[0]
    for row in _chained(first, every):
        day = (row.at_ms - first[0].at_ms) // DAY_MS
        peaks[day] = max(peaks[day], row.backlog)
        span_ms = row.at_ms - before.at_ms
        if 0 < span_ms <= gap_ms:
            flow = flows.between(before, row, span_ms, None)
            offers |= flow.told
            drains |= flow.drains
            pace.note(flow.capacity, span_ms, is_busy=flow.busy)
        elif span_ms:
            flows.forget()
            pace.note(0, 0, is_busy=False)
        before = row if span_ms >= 0 else before
    return Measured(
        began_ms=first[0].at_ms,
        ended_ms=before.at_ms,
        peak=max(peaks.values()),
        usual_peak=median_high(peaks.values()),
        busy_minutes=pace.busy_minutes(),
        drain=pace.rate(0.5),
        slow=pace.rate(0.1) or 0.0,
        quick=pace.rate(0.9) or 0.0,
        away_seconds=pace.away_ms / 1_000,
        offers=offers,
        drains=drains,
    )


def _chained(first: list[Row], every: Iterator[Row]) -> Iterator[Row]:
    yield from first
    yield from every


class _Pace:
    """How many jobs workers take, stretch by stretch of the time in which they have some."""

    def __init__(self) -> None:
        self._jobs = self._span_ms = 0
        self._away_now_ms = self.away_ms = 0
        self._stretches: list[tuple[float, int]] = []  # jobs a second, milliseconds

    def note(self, jobs: int, span_ms: int, *, is_busy: bool) -> None:
        """Note what was taken in a time."""
        self._away_now_ms = self._away_now_ms + span_ms if is_busy and not jobs else 0
        self.away_ms = max(self.away_ms, self._away_now_ms)
        if not is_busy:
            self._jobs = self._span_ms = 0
            return
        self._jobs += jobs
        self._span_ms += span_ms
        if self._span_ms >= MINUTE_MS and (not self._jobs or self._jobs >= _JOBS or self._span_ms >= _LONG_MS):
            self._stretches.append((self._jobs / JOB * 1_000 / self._span_ms, self._span_ms))
            self._jobs = self._span_ms = 0

    def busy_minutes(self) -> float:
        """Return in how many minutes they took some."""
        return sum(span_ms for _, span_ms in self._at_work()) / MINUTE_MS

    def rate(self, part: float) -> float | None:
        """Return the jobs a second that they do not take more of for a part of that time; ``None``: not known."""
        left = part * MINUTE_MS * self.busy_minutes()
        for rate, span_ms in sorted(self._at_work()):
            left -= span_ms
            if left <= 0:
                return rate
        return None

    def _at_work(self) -> list[tuple[float, int]]:
        """Return the stretches in which they were not away."""
        usual = median_low([rate for rate, _ in self._stretches]) if self._stretches else 0.0
        return [it for it in self._stretches if it[0] >= _AWAY * usual and it[0] > 0]
