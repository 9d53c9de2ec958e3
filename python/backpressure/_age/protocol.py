"""What a producer and the script tell each other: a report as the script's arguments, its reply as an answer.

Triples are ordered HIGH, MEDIUM, LOW here: the order in which the budget is shared. docs/reference/age-protocol.md says
the same for producers in other languages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._model.budget import BudgetSettings

__all__ = [
    "HIGH",
    "LEVELS",
    "LIMIT_NONE",
    "MILLION",
    "NO_SAMPLER",
    "VERSION",
    "Answer",
    "BacklogSeen",
    "Demand",
    "Report",
    "Terms",
    "Triple",
    "arguments",
    "decode",
]

LEVELS = HIGH, _, _ = (0, 1, 2)
#: Of arguments, reply and state together. Programs of two versions take each other's state for none.
VERSION = 2
#: The id of who cannot read the queue, and so never becomes the sampler.
NO_SAMPLER = "-"
#: All of the budget; the memory of the queue's server may leave less.
LIMIT_NONE = 1_000
MILLION = 1_000_000

_MOST = 1_000_000_000
_HEAD, _TERMS = 16, 7


@attrs.frozen
class Demand:
    """One priority's part of a report. Immutable.

    Attributes:
        decided: offers since the last call whose callers would not wait, decided by the lease.
        gone: jobs since the last call whose callers would wait, let go by the lease.
        waiting: callers who wait now for their turn; at least 1 if any had to since the last call.
        held: offers that are held for this answer, and whose callers will not wait beyond it.
        held_patient: held offers whose callers will.
        remainder_ppm: what the last answer's dealing left, in millionths of a job; at first random.
    """

    decided: int = 0
    gone: int = 0
    waiting: int = 0
    held: int = 0
    held_patient: int = 0
    remainder_ppm: int = 0


Triple = tuple[Demand, Demand, Demand]
NO_DEMAND = Demand()


@attrs.frozen
class BacklogSeen:
    """What the sampler read of the queue. Immutable.

    Attributes:
        jobs: that wait in the queue.
        oldest_age_ms: since when the oldest of them waits; ``None`` where the queue cannot tell.
        ago_ms: how long ago that was true.
    """

    jobs: int
    oldest_age_ms: int | None
    ago_ms: int


@attrs.frozen(kw_only=True)
class Report:
    """What one producer tells of one queue. Immutable.

    Attributes:
        producer_id: random, of 64 bits in hexadecimal digits; `NO_SAMPLER` from who cannot read the queue.
        since_ms: since its last call; 0 from a new process, or one woken from idleness: then no offer is `decided`.
        demands: of HIGH, MEDIUM, LOW.
        enqueued: jobs enqueued by the lease since the last call. Dealt ones are counted already.
        seen: from the sampler.
        seed_drain_mjobs_per_s, seed_processes: of its last answer, from which a lost state begins again.
        limit_permille: part of the budget that the memory of the queue's server leaves.
    """

    producer_id: str
    since_ms: int
    demands: Triple = (NO_DEMAND, NO_DEMAND, NO_DEMAND)
    enqueued: int = 0
    seen: BacklogSeen | None = None
    seed_drain_mjobs_per_s: int = 0
    seed_processes: int = 1
    limit_permille: int = LIMIT_NONE


@attrs.frozen
class Terms:
    """What one process may do for one priority until its next call. Immutable.

    Attributes:
        share_ppm: part of the offers of callers who will not wait that may go.
        cap_jobs: how many of these may go at most.
        rate_ujobs_per_s: at which rate callers who wait may go.
        burst_ujobs: how many of these may go at once after a pause.
        fill: whether that burst is there from the beginning, as nobody waits anywhere.
        go_jobs: jobs that may go at once, of those held and waiting. They are counted as enqueued.
        remainder_ppm: for the next report.
    """

    share_ppm: int
    cap_jobs: int
    rate_ujobs_per_s: int
    burst_ujobs: int
    fill: int
    go_jobs: int
    remainder_ppm: int


@attrs.frozen(kw_only=True)
class Answer:
    """What the script answers one producer. Immutable.

    Attributes:
        now_ms: the server's clock.
        ticks: since the state began.
        drain_mjobs_per_s: jobs that leave and may be replaced by those who report.
        budget_mjobs_per_s: jobs that all of them may enqueue.
        age_ms: how long a job that is enqueued now will wait.
        backlog_jobs: last seen; -1: never.
        processes: calls a tick.
        spare_mjobs_per_s: what is left of the budget when all that is asked for goes.
        is_sampler: whether the next report is to carry the backlog.
        wait_ms: for how long these terms are fresh.
        terms: of HIGH, MEDIUM, LOW, for this producer.
        demand_mjobs_per_s: jobs that all who report ask for, admitted or not; of HIGH, MEDIUM, LOW.
        shares_ppm: part of that demand that fits; of HIGH, MEDIUM, LOW.
    """

    now_ms: int
    ticks: int
    drain_mjobs_per_s: int
    budget_mjobs_per_s: int
    age_ms: int
    backlog_jobs: int
    processes: int
    spare_mjobs_per_s: int
    is_sampler: bool
    wait_ms: int
    terms: tuple[Terms, Terms, Terms]
    demand_mjobs_per_s: tuple[int, int, int] = (0, 0, 0)
    shares_ppm: tuple[int, int, int] = (MILLION, MILLION, MILLION)


def arguments(settings: BudgetSettings, report: Report) -> list[int | str]:
    """Return the script's arguments. Counts beyond what it takes are sent as the largest that it does."""
    seen = report.seen
    demands = report.demands
    return [
        VERSION,
        settings.target_ms,
        settings.tick_ms,
        settings.gain_most_permille,
        settings.drain_window_ms,
        int(settings.trims),
        settings.least_budget_permille,
        settings.medium_floor_permille,
        settings.low_floor_permille,
        settings.burst_jobs,
        settings.calls_per_second,
        report.limit_permille,
        report.producer_id,
        _bounded(report.since_ms),
        *[_bounded(demand.decided) for demand in demands],
        *[_bounded(demand.gone) for demand in demands],
        *[_bounded(demand.waiting) for demand in demands],
        *[_bounded(demand.held) for demand in demands],
        *[_bounded(demand.held_patient) for demand in demands],
        *[demand.remainder_ppm for demand in demands],
        _bounded(report.enqueued),
        -1 if seen is None else _bounded(seen.jobs),
        -1 if seen is None or seen.oldest_age_ms is None else _bounded(seen.oldest_age_ms),
        0 if seen is None else _bounded(seen.ago_ms),
        _bounded(report.seed_drain_mjobs_per_s),
        min(report.seed_processes, MILLION),
    ]


def decode(reply: Sequence[Any]) -> Answer:
    """Return the script's reply as an answer.

    Raises:
        ValueError: it is no reply of this version.
    """
    if len(reply) != _HEAD + 3 * _TERMS:
        raise ValueError(f"the script of the budget answered {len(reply)} numbers, expected {_HEAD + 3 * _TERMS}")
    numbers = [int(number) for number in reply]
    high, medium, low = (Terms(*numbers[at : at + _TERMS]) for at in range(_HEAD, len(numbers), _TERMS))
    return Answer(
        now_ms=numbers[0],
        ticks=numbers[1],
        drain_mjobs_per_s=numbers[2],
        budget_mjobs_per_s=numbers[3],
        age_ms=numbers[4],
        backlog_jobs=numbers[5],
        processes=numbers[6],
        spare_mjobs_per_s=numbers[7],
        is_sampler=numbers[8] == 1,
        wait_ms=numbers[9],
        terms=(high, medium, low),
        demand_mjobs_per_s=(numbers[10], numbers[11], numbers[12]),
        shares_ppm=(numbers[13], numbers[14], numbers[15]),
    )


def _bounded(count: int) -> int:
    return min(count, _MOST)
