"""What is counted of every (queue, priority), as it is read at scrape."""

from __future__ import annotations

import operator
from typing import NamedTuple

from backpressure._model.vocabulary import LAW_REASONS, MISS_REASONS, REFUSALS, SHEDS, Reason

#: Upper bounds of the delay histogram's buckets, in nanoseconds; the last bucket is unbounded.
DELAY_BUCKETS_NS = tuple(ms * 1_000_000 for ms in (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000))

REASONS = tuple(Reason)
_law = operator.itemgetter(*map(REASONS.index, LAW_REASONS))
_miss = operator.itemgetter(*map(REASONS.index, MISS_REASONS))


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
        """Return how many were refused because of the load, by the circuit, and because they would come too late."""
        refused = {
            reason: self.reasons[REASONS.index(reason)] - let_go
            for reason, let_go in zip(REFUSALS, self.let_go, strict=True)
        }
        shed = sum(count for reason, count in refused.items() if reason in SHEDS)
        return shed, sum(refused.values()) - shed, self.late

    def cache_requests(self) -> tuple[int, int]:
        """Return hits and misses. Answers of breakers and switches never asked the cache: they are neither."""
        return sum(_law(self.reasons)) - self.computed, self.computed + sum(_miss(self.reasons))
