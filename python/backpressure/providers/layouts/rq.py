"""RQ, releases 1.16 to 3."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Rounds, Steps, ask, members, text
from backpressure.providers.layouts._times import age, iso_seconds

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["RQLayout"]


def _default_prefix() -> str:
    return os.environ.get("RQ_KEY_PREFIX", "rq")


@repr_when_half_built
@attrs.frozen
class RQLayout:
    """Queues of `RQ <https://python-rq.org>`_ 1.16 to 3.

    Args:
        prefix: what all keys begin with; default ``RQ_KEY_PREFIX`` of the environment, as in RQ 3, else ``"rq"``.

    The jobs of the queue are waiting. Jobs with a valid lease are running, so jobs of crashed workers do not count. The
    scheduled ones (``enqueue_in``, ``enqueue_at``, retries with an interval) are delayed. Deferred jobs, which wait for
    others to finish, are not counted. The age is the next job's. Every queue that was ever used is discovered.

    Immutable.

    Example:
        >>> RQLayout(prefix="{rq}")
        RQLayout(prefix='{rq}')
    """

    prefix: str = attrs.field(factory=_default_prefix)

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the queue and its registries, then find the next job's age."""
        queue = f"{self.prefix}:queue:{queue_name}"
        waiting, running, taken, delayed, next_id = yield from ask(
            Command("llen", queue),
            Command("zcount", f"{self.prefix}:wip:{queue_name}", (int(now.timestamp()), "+inf")),
            Command("llen", f"{queue}:intermediate"),
            Command("zcard", f"{self.prefix}:scheduled:{queue_name}"),
            Command("lindex", queue, (0,)),
        )
        enqueued = None
        if next_id is not None:
            (enqueued,) = yield from ask(Command("hget", f"{self.prefix}:job:{text(next_id)}", ("enqueued_at",)))
        return QueueStats(queue_name, waiting, running + taken, delayed, age(now, iso_seconds(enqueued)), now)

    def discover(self) -> Rounds[list[str]]:
        """Name every queue that a job was ever put into."""
        keys = yield from members(f"{self.prefix}:queues")
        return [key.removeprefix(f"{self.prefix}:queue:") for key in keys]
