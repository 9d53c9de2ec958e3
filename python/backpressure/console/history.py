"""What was read of each queue over the last hour: a bounded number of points, each the largest of its step."""

from __future__ import annotations

import array
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SPAN", "History"]

#: Seconds that are kept.
SPAN = 3_600.0
_UNKNOWN = math.nan


class History:
    """Of so many queues, by their place in the list; not thread-safe.

    Args:
        queues: how many.
        step: seconds that one point stands for.

    A queue takes 16 bytes a point: at the usual step of 10 s, 1,000 queues take 6 MB.
    """

    def __init__(self, queues: int, step: float) -> None:
        self.step = step
        self.points = math.ceil(SPAN / step)
        self.last: int | None = None
        unknown = [_UNKNOWN] * self.points
        self._backlogs = [array.array("d", unknown) for _ in range(queues)]
        self._ages = [array.array("d", unknown) for _ in range(queues)]

    def note(self, now: float, seen: Sequence[tuple[float | None, float | None]]) -> int:
        """Take backlog and oldest age of each queue at `now`, by a clock that never goes back; return that point."""
        point = int(now / self.step)
        last = point - 1 if self.last is None else self.last
        for missed in range(max(last + 1, point - self.points + 1), point + 1):
            place = missed % self.points
            for values in (*self._backlogs, *self._ages):
                values[place] = _UNKNOWN
        place = point % self.points
        for queue, (backlog, age) in enumerate(seen):
            for values, value in ((self._backlogs[queue], backlog), (self._ages[queue], age)):
                if value is not None and not values[place] >= value:  # what is unknown is not larger
                    values[place] = value
        self.last = point
        return point

    def of(self, queue: int) -> tuple[list[float | None], list[float | None]]:
        """Return its backlogs and its oldest ages, the latest point last; ``None`` was not read."""
        first = 0 if self.last is None else self.last + 1
        places = [(first + offset) % self.points for offset in range(self.points)]
        return tuple(  # type: ignore[return-value] # two lists
            [None if math.isnan(values[place]) else values[place] for place in places]
            for values in (self._backlogs[queue], self._ages[queue])
        )
