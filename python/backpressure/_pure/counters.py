"""What is counted of every (queue, priority): exact on any number of threads, read only at scrape."""

from __future__ import annotations

import bisect
import itertools
from typing import NamedTuple

from backpressure._pure.lock import ForkLock
from backpressure.types import Reason

#: Upper bounds of the delay histogram's buckets, in nanoseconds; the last bucket is unbounded.
DELAY_BUCKETS_NS = tuple(ms * 1_000_000 for ms in (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000))

REASONS = tuple(Reason)
# Answers of the law: those that a cache can serve.
LAW_REASONS = (Reason.BACKLOG_GREEN, Reason.BACKLOG_YELLOW, Reason.BACKLOG_RED, Reason.BACKLOG_RED_SHED)
#: Reasons of refusals, which observe mode lets go.
REFUSALS = (Reason.BACKLOG_RED_SHED, Reason.CIRCUIT_OPEN, Reason.CIRCUIT_HALF_OPEN)
# Answers given for want of a usable sample: misses, never cached.
MISS_REASONS = (
    Reason.STATS_STALE,
    Reason.FALLBACK_CONSERVATIVE,
    Reason.FALLBACK_PERMISSIVE,
    Reason.FALLBACK_CIRCUIT_ONLY,
    Reason.COLD_START,
    Reason.UNTRACKED,
)
_LAW = tuple(REASONS.index(reason) for reason in LAW_REASONS)
_MISS = tuple(REASONS.index(reason) for reason in MISS_REASONS)


class Tally:
    """A counter whose increment cannot be torn: `x += 1` loses counts between threads, this does not."""

    __slots__ = ("_count", "add")

    def __init__(self) -> None:
        self._count = itertools.count()
        self.add = self._count.__next__

    @property
    def value(self) -> int:
        """How often `add` was called."""
        return int(repr(self._count)[6:-1])  # "count(5)"; its repr is the one way to read without counting


class Totals(NamedTuple):
    """The counts of one (queue, priority) at one moment; all integers, so that they add up.

    Attributes:
        reasons: decisions by reason, in the order of `Reason`.
        computed: decisions that the law had to compute; the other answers of the law were cache hits.
        delays: throttled decisions by bucket of `DELAY_BUCKETS_NS`, not cumulated.
        delay_sum_ns: the sum of their delays.
        let_go: how many of the decisions by `REFUSALS` observe mode let go.
        late: throttled decisions that were refused, for their callers would not wait so long.
    """

    reasons: tuple[int, ...] = (0,) * len(REASONS)
    computed: int = 0
    delays: tuple[int, ...] = (0,) * (len(DELAY_BUCKETS_NS) + 1)
    delay_sum_ns: int = 0
    let_go: tuple[int, ...] = (0,) * len(REFUSALS)
    late: int = 0

    def plus(self, other: Totals) -> Totals:
        """Return both added up."""
        return Totals(
            tuple(map(sum, zip(self.reasons, other.reasons, strict=True))),
            self.computed + other.computed,
            tuple(map(sum, zip(self.delays, other.delays, strict=True))),
            self.delay_sum_ns + other.delay_sum_ns,
            tuple(map(sum, zip(self.let_go, other.let_go, strict=True))),
            self.late + other.late,
        )

    def refused(self) -> tuple[int, int, int]:
        """Return how many were refused because of the backlog, by the circuit, and because they would come too late."""
        shed, *circuit = (
            self.reasons[REASONS.index(reason)] - let_go for reason, let_go in zip(REFUSALS, self.let_go, strict=True)
        )
        return shed, sum(circuit), self.late

    def cache_requests(self) -> tuple[int, int]:
        """Return hits and misses. Answers of breakers and switches never asked the cache: they are neither."""
        answered = sum(self.reasons[index] for index in _LAW)
        return answered - self.computed, self.computed + sum(self.reasons[index] for index in _MISS)


class Counters:
    """Live counts of one (queue, priority)."""

    __slots__ = ("_computed", "_delay_sum_ns", "_delays", "_lock", "_rows")

    def __init__(self) -> None:
        # By reason; what observe mode let go, by ``("let go", reason)``; and ``"late"``.
        self._rows: dict[object, Tally] = {}
        self._computed = Tally()
        self._lock = ForkLock()  # of the two below; only callers that are to sleep anyway take it
        self._delays = [0] * (len(DELAY_BUCKETS_NS) + 1)
        self._delay_sum_ns = 0

    def row(self, reason: Reason, *, goes: bool) -> Tally:
        """Return the tally of decisions with `reason`; `goes` tells whether the caller may do the job all the same."""
        return self._row(("let go", reason) if goes and reason in REFUSALS else reason)

    def count_late(self) -> None:
        """Count a throttled decision that was refused, beside its own count."""
        self._row("late").add()

    def count(self, reason: Reason, *, goes: bool, delay_ns: int, computed: bool) -> None:
        """Count one decision; `delay_ns` is 0 for a go and for a refusal."""
        self.row(reason, goes=goes).add()
        if computed:
            self._computed.add()
        if delay_ns > 0:
            bucket = bisect.bisect_left(DELAY_BUCKETS_NS, delay_ns)
            with self._lock():
                self._delays[bucket] += 1
                self._delay_sum_ns += delay_ns

    def totals(self) -> Totals:
        """Return what was counted so far."""
        with self._lock():
            delays, delay_sum_ns = tuple(self._delays), self._delay_sum_ns
        rows = {key: tally.value for key, tally in self._rows.copy().items()}
        let_go = {reason: rows.get(("let go", reason), 0) for reason in REFUSALS}
        return Totals(
            tuple(rows.get(reason, 0) + let_go.get(reason, 0) for reason in REASONS),
            self._computed.value,
            delays,
            delay_sum_ns,
            tuple(let_go.values()),
            rows.get("late", 0),
        )

    def _row(self, key: object) -> Tally:
        return self._rows.get(key) or self._rows.setdefault(key, Tally())
