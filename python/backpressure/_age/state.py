"""What lies in a budget's key, for those who look at it and take no part. The script alone writes it."""

from __future__ import annotations

import math
import struct

import attrs

from backpressure._age.protocol import MILLION, VERSION

__all__ = ["State"]

# As `FORMAT` of the script, whose comment tells the places; they begin with the version at 0 here.
_FORMAT = struct.Struct("<H90d")
_LONGEST_ID = 64
_TICKED, _TICKS, _DRAIN, _BUDGET, _AGE, _TRIM = 1, 2, 3, 4, 5, 7
_DEMAND, _PROCESSES, _BACKLOG, _OLDEST, _READ, _SHARE = 28, 40, 41, 42, 43, 47


@attrs.frozen(kw_only=True)
class State:
    """The public numbers of a budget, as its last tick left them; units as in `backpressure._age.protocol.Answer`.

    Attributes:
        ticked_ms: when that was, by the server's clock.
        trim_ppm: what the oldest job's age makes of that which follows from backlog and drain.
        backlog_jobs, oldest_age_ms: that the sampler last told; -1: never, or not known.
        read_ms: when that was true.
    """

    ticked_ms: int
    ticks: int
    drain_mjobs_per_s: int
    budget_mjobs_per_s: int
    age_ms: int
    trim_ppm: int
    demand_mjobs_per_s: tuple[int, int, int]
    shares_ppm: tuple[int, int, int]
    processes: int
    backlog_jobs: int
    oldest_age_ms: int
    read_ms: int

    @classmethod
    def of(cls, value: bytes | None) -> State | None:
        """Return the state in a key's value; ``None`` where the script would take it for none."""
        if value is None or not _FORMAT.size <= len(value) <= _FORMAT.size + _LONGEST_ID:
            return None
        version, *_ = numbers = _FORMAT.unpack_from(value)
        if version != VERSION or not all(map(math.isfinite, numbers)):
            return None
        whole = [int(number) for number in numbers]
        high, medium, low = whole[_DEMAND : _DEMAND + 3]
        of_high, of_medium, of_low = (min(share, MILLION) for share in whole[_SHARE : _SHARE + 3])
        return cls(
            ticked_ms=whole[_TICKED],
            ticks=whole[_TICKS],
            drain_mjobs_per_s=whole[_DRAIN],
            budget_mjobs_per_s=whole[_BUDGET],
            age_ms=whole[_AGE],
            trim_ppm=whole[_TRIM],
            demand_mjobs_per_s=(high, medium, low),
            shares_ppm=(of_high, of_medium, of_low),
            processes=whole[_PROCESSES],
            backlog_jobs=whole[_BACKLOG],
            oldest_age_ms=whole[_OLDEST],
            read_ms=whole[_READ],
        )
