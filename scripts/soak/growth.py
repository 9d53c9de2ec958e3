"""Whether this process grows: its memory, file descriptors and threads, read every second, fitted by a line."""

from __future__ import annotations

import math
import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 2**20
# How much the line may rise over the second half of the run, because caches and allocators settle late. Three standard
# errors more are allowed, because the number of open things changes with each outage.
_LIMITS = {"MiB": 4.0, "file descriptors": 2.0, "threads": 2.0}
_ERRORS = 3
# Readings that may be of the same outage: they are averaged, so that they do not count as several.
_BLOCK = 5
_FEWEST_BLOCKS = 5


class Size(NamedTuple):
    """One reading, in the order of the limits."""

    mib: float
    files: int
    threads: int

    @classmethod
    def read(cls) -> Size:
        """Read this process's."""
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return cls(pages * os.sysconf("SC_PAGESIZE") / MIB, _entries("/proc/self/fd"), _entries("/proc/self/task"))


def _entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


class Rise(NamedTuple):
    """How much something has risen over the second half, and how much is allowed."""

    name: str
    by: float
    allowed: float


class Growth:
    """Readings over time."""

    def __init__(self) -> None:
        self._readings: list[Size] = []

    def note(self) -> Size:
        """Take a reading."""
        size = Size.read()
        self._readings.append(size)
        return size

    def rises(self) -> list[Rise]:
        """Return how everything has risen; nothing if the run was too short to tell."""
        half = self._readings[len(self._readings) // 2 :]
        if len(half) < _FEWEST_BLOCKS * _BLOCK:
            return []
        series = zip(*half, strict=True)
        return [_rise(name, limit, values) for (name, limit), values in zip(_LIMITS.items(), series, strict=True)]


def _rise(name: str, limit: float, values: Sequence[float]) -> Rise:
    means = [statistics.fmean(values[start : start + _BLOCK]) for start in range(0, len(values), _BLOCK)]
    count = len(means)
    slope, intercept = statistics.linear_regression(range(count), means)
    off = sum((mean - intercept - slope * place) ** 2 for place, mean in enumerate(means))
    spread = (count**3 - count) / 12  # of the places around their mean
    error = math.sqrt(off / (count - 2) / spread)
    return Rise(name, slope * count, limit + _ERRORS * error * count)
