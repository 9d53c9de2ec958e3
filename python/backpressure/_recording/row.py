"""What a recording holds of one queue at one moment."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COLUMNS", "HOUR_MS", "Row"]

HOUR_MS = 3_600_000


class Row(NamedTuple):
    """A queue when it was read. ``None`` is not known: who only watches queues knows nothing of offers.

    Attributes:
        at_ms: when the numbers were true, in milliseconds of Unix time.
        backlog: waiting jobs.
        oldest_age_ms: since the oldest job was enqueued.
        entered, left: jobs that ever came into the queue, and that ever left it, as its source counts them.
        memory_permille: thousandths of its limit of memory that the queue's server uses.
        high_offers, medium_offers, low_offers: decisions since the row before, of the one process that recorded.
        high_delays, medium_delays, low_delays: those of them that advised a delay.
        high_sheds, medium_sheds, low_sheds: those of them that shed the job because of the load.
        circuit: value of its `CircuitState`.
        policy: number of the policy that was in force, see `Recording.policies`.
    """

    at_ms: int
    backlog: int
    oldest_age_ms: int | None = None
    entered: int | None = None
    left: int | None = None
    memory_permille: int | None = None
    high_offers: int | None = None
    high_delays: int | None = None
    high_sheds: int | None = None
    medium_offers: int | None = None
    medium_delays: int | None = None
    medium_sheds: int | None = None
    low_offers: int | None = None
    low_delays: int | None = None
    low_sheds: int | None = None
    circuit: int | None = None
    policy: int | None = None


#: Names of the columns of a block, in their order in the file.
COLUMNS = Row._fields
