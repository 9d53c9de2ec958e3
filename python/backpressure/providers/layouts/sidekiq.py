"""Sidekiq."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Rounds, Steps, ask, members
from backpressure.providers.layouts._times import age, field, number

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["SidekiqLayout"]

# Sidekiq 8 writes integer milliseconds, earlier releases fractions of seconds; no job is from after the year 5000.
_FIRST_MILLISECOND = 10.0**11


@attrs.frozen
class SidekiqLayout:
    """Queues of `Sidekiq <https://sidekiq.org>`_ 6, 7 and 8.

    The jobs of the queue are waiting. The age is the time since the next job was enqueued; it stays when a stopped
    worker gives a job back. Running and delayed are ``None``: running jobs are kept per process, and all queues share
    the schedule and the retries. Every queue that was ever used is discovered.

    Immutable.

    Example:
        >>> SidekiqLayout()
        SidekiqLayout()
    """

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the queue and find the next job's age."""
        queue = f"queue:{queue_name}"
        waiting, job = yield from ask(Command("llen", queue), Command("lindex", queue, (-1,)))
        enqueued = number(field(job, "enqueued_at"))
        if enqueued is not None and enqueued >= _FIRST_MILLISECOND:
            enqueued /= 1000
        return QueueStats(queue_name, waiting, oldest_age=age(now, enqueued), last_updated=now)

    def discover(self) -> Rounds[list[str]]:
        """Name every queue that a job was ever put into."""
        return (yield from members("queues"))
