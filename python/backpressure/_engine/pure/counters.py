"""Live counts of every (queue, priority): exact on any number of threads."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from backpressure._engine.sync import ForkLock, Tally
from backpressure._engine.totals import DELAY_BUCKETS_NS, REASONS, Totals
from backpressure._model.vocabulary import REFUSALS

if TYPE_CHECKING:
    from backpressure._model.vocabulary import Reason


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

    def let_in(self, row: Tally) -> int:
        """Return how many jobs a row let in, where it is that of a go or a delay.

        Only differences mean anything: jobs that came too late are taken off together, whatever their rows.
        """
        late = self._rows.get("late")
        return row.value - (0 if late is None else late.value)

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
