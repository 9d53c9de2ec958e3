"""Live counts of every (queue, priority): exact on any number of threads."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from backpressure._engine.sync import ForkLock, Tally
from backpressure._engine.totals import DELAY_BUCKETS_NS, REASONS, Totals
from backpressure._model.vocabulary import REFUSALS

if TYPE_CHECKING:
    from backpressure._model.vocabulary import Reason

_MOST_RECENT = 100
_PLACES: dict[object, int] = {reason: place for place, reason in enumerate(REASONS)}


class Counters:
    """Live counts of one (queue, priority)."""

    __slots__ = ("_computed", "_delay_sum_ns", "_delays", "_lock", "_recent", "_rows")

    def __init__(self) -> None:
        # By reason; what observe mode let go, by ``("let go", reason)``; and ``"late"``.
        self._rows: dict[object, Tally] = {}
        self._computed = Tally()
        # Delays that are not in their buckets yet: a lock for each would take longer than all else of a decision.
        self._recent: list[int] = []
        self._lock = ForkLock()  # of taking from them, and of the two below
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
            self.count_delay(delay_ns)

    def count_delay(self, delay_ns: int) -> None:
        """Count the delay of a decision, beside its own count."""
        self._recent.append(delay_ns)
        if len(self._recent) >= _MOST_RECENT:
            self._sort()

    def _sort(self) -> None:
        """Put the recent delays into their buckets."""
        recent = self._recent
        with self._lock():
            for _ in range(len(recent)):
                # A signal handler may take them meanwhile, but none runs between question and call.
                delay_ns = recent.pop() if recent else None
                if delay_ns is None:
                    break
                self._delays[bisect.bisect_left(DELAY_BUCKETS_NS, delay_ns)] += 1
                self._delay_sum_ns += delay_ns

    def totals(self) -> Totals:
        """Return what was counted so far."""
        with self._lock():
            self._sort()
            delays, delay_sum_ns = tuple(self._delays), self._delay_sum_ns
        # Few of all the reasons occur.
        reasons, let_go, late = [0] * len(REASONS), [0] * len(REFUSALS), 0
        for key, tally in self._rows.copy().items():
            if key == "late":
                late = tally.value
            elif isinstance(key, tuple):
                count, reason = tally.value, key[1]
                let_go[REFUSALS.index(reason)] = count
                reasons[_PLACES[reason]] += count
            else:
                reasons[_PLACES[key]] += tally.value
        return Totals(tuple(reasons), self._computed.value, delays, delay_sum_ns, tuple(let_go), late)

    def _row(self, key: object) -> Tally:
        return self._rows.get(key) or self._rows.setdefault(key, Tally())
