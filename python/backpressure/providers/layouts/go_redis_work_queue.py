"""go-redis-work-queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Rounds, Steps, ask
from backpressure.providers.layouts._times import age, field, iso_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["GoRedisWorkQueueLayout"]

_DEFAULT = {"high": "jobqueue:high_priority", "low": "jobqueue:low_priority"}


@repr_when_half_built
@attrs.frozen
class GoRedisWorkQueueLayout:
    """Queues of `go-redis-work-queue <https://github.com/flyingrobots/go-redis-work-queue>`_.

    Args:
        queues: ``worker.queues`` of its configuration: name -> key. Any other name is a key itself.

    The jobs of the list are waiting. The age is the time since the next job was created; a retry does not change it.
    Running is ``None``: each worker has a list of its own. The framework has no delayed jobs. Jobs with an ordering key
    are not counted: each key has a list of its own, which all queues share. The configured queues are discovered.

    Immutable.

    Example:
        >>> GoRedisWorkQueueLayout({"video": "jobqueue:video"})
        GoRedisWorkQueueLayout(queues={'video': 'jobqueue:video'})
    """

    queues: Mapping[str, str] = attrs.field(factory=_DEFAULT.copy, converter=dict, hash=False)

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the list and find the next job's age."""
        key = self.queues.get(queue_name, queue_name)
        waiting, job = yield from ask(Command("llen", key), Command("lindex", key, (-1,)))
        created = iso_seconds(field(job, "creation_time"))
        return QueueStats(queue_name, waiting, oldest_age=age(now, created), last_updated=now)

    def discover(self) -> Rounds[list[str]]:
        """Name the configured queues."""
        yield from ()
        return list(self.queues)
