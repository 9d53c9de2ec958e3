"""What came into a queue and left it between two rows, as far as they tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from backpressure._recording.row import Row
    from backpressure._replay.judge import Verdict

from backpressure._replay.jobs import FLOW, JOB, MOST
from backpressure._replay.later import Later

__all__ = ["Flow", "Flows"]

#: The capacity of workers that have nothing to do is their latest when they had, over some milliseconds.
_SMOOTHED_MS = 60_000
_OPEN = 1


def _divided(dividend: int, divisor: int) -> int:
    """Divide towards nought."""
    return dividend // divisor if dividend >= 0 else -(-dividend // divisor)


class Flow(NamedTuple):
    """Millionths of jobs between two rows; triples are LOW, MEDIUM, HIGH.

    Attributes:
        offers: those of producers; ``None``: nothing is known of them.
        delays, sheds: of these, as was decided then.
        told: whether `delays` and `sheds` were recorded.
        refused: offers, in the place of all others, that an open circuit refused whatever the backlog.
        let_in: jobs of the producers that came in.
        others: jobs that came from elsewhere, past any policy.
        capacity: what workers took, or would have taken.
        drains: whether it is known what left.
        busy: whether the workers had jobs all the time.
    """

    offers: tuple[int, int, int] | None
    delays: tuple[int, int, int]
    sheds: tuple[int, int, int]
    told: bool
    refused: int
    let_in: int
    others: int
    capacity: int
    drains: bool
    busy: bool


class Flows:
    """Reads the flow off row after row, and remembers how fast workers are."""

    def __init__(self, mix_ppm: tuple[int, int, int] | None) -> None:
        self._mix_ppm = mix_ppm
        self._rate = -1  # a second
        # Jobs that came in less those whose offers were let in.
        self._balance = 0
        # Offers that were delayed while the recording was made.
        self._late = Later()

    def forget(self) -> None:
        """Forget what is to come, before a gap."""
        self._late.clear(0)

    def between(self, before: Row, row: Row, span_ms: int, in_force: tuple[Verdict, ...] | None) -> Flow:
        """Return what came and went in the time before a row.

        Args:
            before: the row before it.
            row: the row.
            span_ms: the time.
            in_force: what producers were told then, and did; ``None``: nothing, or it is not known.
        """
        told = (row.low_offers, row.medium_offers, row.high_offers)
        knows_offers = any(count is not None for count in told)
        offers = _low, _medium, _high = _flow(told[0]), _flow(told[1]), _flow(told[2])
        sheds = (
            min(_flow(row.low_sheds), _low),
            min(_flow(row.medium_sheds), _medium),
            min(_flow(row.high_sheds), _high),
        )
        delays = (_flow(row.low_delays), _flow(row.medium_delays), _flow(row.high_delays))
        refused = 0
        if before.circuit == row.circuit == _OPEN:
            refused, offers, sheds, delays = sum(offers), (0, 0, 0), (0, 0, 0), (0, 0, 0)
        own = self._let_in(offers, delays, sheds, before.at_ms, span_ms, in_force)
        growth = (_backlog(row.backlog) - _backlog(before.backlog)) * JOB
        entered, left = _since(before.entered, row.entered), _since(before.left, row.left)
        drains = entered is not None or left is not None
        if entered is not None:
            inflow = entered
        elif left is not None:
            inflow = min(max(0, left + growth), FLOW)
        else:
            inflow = own
        if left is None:
            left = inflow - growth
        else:
            left += min(0, inflow - left - growth)  # what vanished
        left = max(0, left)
        others = max(0, growth - (inflow - left))  # what came from nowhere: others offer too
        left = min(left, FLOW)
        if not knows_offers and self._mix_ppm is not None and drains:
            low, medium, high = self._mix_ppm
            offers = (inflow * low // JOB, inflow * medium // JOB, inflow * high // JOB)
            own = inflow
        elif drains:
            self._balance = max(self._balance + inflow - own, -MOST)
            more = max(0, self._balance)
            self._balance -= more
            others += more
        known = knows_offers or (drains and self._mix_ppm is not None)
        capacity, busy = self._capacity(before, row, left, span_ms) if known else (0, False)
        return Flow(
            offers if known else None,
            delays,
            sheds,
            knows_offers,
            refused,
            own,
            min(others, FLOW),
            capacity,
            drains,
            busy,
        )

    def _let_in(
        self,
        offers: tuple[int, int, int],
        delays: tuple[int, int, int],
        sheds: tuple[int, int, int],
        now_ms: int,
        span_ms: int,
        in_force: tuple[Verdict, ...] | None,
    ) -> int:
        """Return how many jobs came in whose offers were recorded: those that were delayed come later."""
        come = self._late.take(now_ms)
        for priority in range(3):
            let_in = offers[priority] - sheds[priority]
            come += let_in
            if in_force is not None:
                delayed, held_us = min(delays[priority], let_in), in_force[priority].held_us
                within_us = max(0, 1_000 * span_ms - held_us)
                late = delayed - delayed * within_us // (1_000 * span_ms)
                self._late.put_later(late, max(held_us, 1_000 * span_ms))
                come -= late
        return min(come, FLOW)

    def _capacity(self, before: Row, row: Row, left: int, span_ms: int) -> tuple[int, bool]:
        """Return what workers could take, and whether they took it.

        They did if at both ends there were jobs for a quarter of the time.
        """
        least = min(_backlog(before.backlog), _backlog(row.backlog))
        if least >= 1 and 4 * least * JOB >= left:
            rate = left * 1_000 // span_ms
            if self._rate < 0:
                self._rate = rate
            else:
                self._rate += _divided((rate - self._rate) * span_ms, span_ms + _SMOOTHED_MS)
            return left, True
        return min(max(left, self._rate * span_ms // 1_000), FLOW), False


def _flow(jobs: int | None) -> int:
    return 0 if jobs is None else min(max(jobs, 0) * JOB, FLOW)


def _backlog(jobs: int) -> int:
    return min(max(jobs, 0), MOST // JOB)


def _since(before: int | None, now: int | None) -> int | None:
    """Return how far a count has gone on; ``None`` where that is not known, or it began anew."""
    return None if before is None or now is None or now < before else min((now - before) * JOB, FLOW)
