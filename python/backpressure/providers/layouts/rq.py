"""RQ, releases 1.16 to 3."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs

from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Rounds, Steps, ask, items, members, text, together
from backpressure.providers.layouts._times import age, iso_seconds

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["RQLayout"]

# Rate limits that are looked at, and of the jobs that they hold back, how many are asked for their queue.
_LIMITS = 50
_ASKED = 100


def _default_prefix() -> str:
    return os.environ.get("RQ_KEY_PREFIX", "rq")


@repr_when_half_built
@attrs.frozen
class RQLayout:
    """Queues of `RQ <https://python-rq.org>`_ 1.16 to 3.

    Args:
        prefix: what all keys begin with; default ``RQ_KEY_PREFIX`` of the environment, as in RQ 3, else ``"rq"``.

    The jobs of the queue are waiting, and so are those that a rate limit of RQ 3 holds back. A limit may hold jobs of
    several queues: of all that are held, up to 100, evenly chosen, are asked for theirs. The number is exact where each
    limit is of one queue, else an estimate. At most 50 limits are looked at; what others hold back is not counted. Jobs
    with a valid lease are running, so jobs of crashed workers do not count. The scheduled ones (``enqueue_in``,
    ``enqueue_at``, retries with an interval) are delayed. Deferred jobs, which wait for others to finish, are not
    counted. The age is that of the next job in the queue. Every queue that was ever used is discovered.

    Immutable.

    Example:
        >>> RQLayout(prefix="{rq}")
        RQLayout(prefix='{rq}')
    """

    prefix: str = attrs.field(factory=_default_prefix)

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the queue and its registries, then find the next job's age."""
        queue = f"{self.prefix}:queue:{queue_name}"
        waiting, running, taken, delayed, next_id, limits = yield from ask(
            Command("llen", queue),
            Command("zcount", f"{self.prefix}:wip:{queue_name}", (int(now.timestamp()), "+inf")),
            Command("llen", f"{queue}:intermediate"),
            Command("zcard", f"{self.prefix}:scheduled:{queue_name}"),
            Command("lindex", queue, (0,)),
            Command("smembers", f"{self.prefix}:rl-keys"),
        )
        names = sorted(map(text, limits)) if isinstance(limits, (set, frozenset, list, tuple)) else []
        enqueued, held = yield from together(self._field(next_id, "enqueued_at"), self._held(queue_name, names))
        oldest_age = age(now, iso_seconds(enqueued))
        return QueueStats(queue_name, waiting + held, running + taken, delayed, oldest_age, now)

    def _field(self, job: Any, name: str) -> Rounds[Any]:
        if not isinstance(job, (bytes, str)):
            return None
        (value,) = yield from ask(Command("hget", f"{self.prefix}:job:{text(job)}", (name,)))
        return value

    def _held(self, queue_name: str, limits: list[str]) -> Rounds[int]:
        """Return how many of the queue's jobs rate limits hold back."""
        keys = [f"{self.prefix}:rl:{limit}:rate_limited" for limit in limits[:_LIMITS]]
        if not keys:
            return 0
        counts = yield from ask(*[Command("zcard", key) for key in keys])
        holding = {key: number for key, number in zip(keys, counts, strict=True) if number}
        if not holding:
            return 0
        each = _ASKED // len(holding)
        asked = [
            Command("zrange", key, (place, place))
            for key, number in holding.items()
            for place in (n * number // min(number, each) for n in range(min(number, each)))
        ]
        found = yield from ask(*asked)
        jobs = [next(iter(items(reply)), None) for reply in found]
        origins = yield from together(*[self._field(job, "origin") for job in jobs])
        held = 0
        for key, number in holding.items():
            told = [origin for command, origin in zip(asked, origins, strict=True) if command.key == key]
            ours = sum(1 for origin in told if origin is not None and text(origin) == queue_name)
            held += -(-number * ours // len(told))
        return held

    def discover(self) -> Rounds[list[str]]:
        """Name every queue that a job was ever put into."""
        keys = yield from members(f"{self.prefix}:queues")
        return [key.removeprefix(f"{self.prefix}:queue:") for key in keys]
