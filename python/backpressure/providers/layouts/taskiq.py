"""taskiq-redis: list and stream brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure.providers.layouts.plain import ListKey
from backpressure.providers.layouts.stream import StreamKey

if TYPE_CHECKING:
    from datetime import datetime

    from backpressure.providers.layouts._steps import Steps

__all__ = ["TaskiqLayout"]


@attrs.frozen
class TaskiqLayout:
    """Queues of `taskiq-redis <https://github.com/taskiq-python/taskiq-redis>`_.

    Args:
        group: ``None`` for a ``ListQueueBroker``; for a ``RedisStreamBroker`` its ``consumer_group_name``, which is
            ``"taskiq"`` by default.

    A queue's name is its key, ``taskiq`` by default; the brokers for clusters and sentinels keep the same keys. A list
    tells what waits and nothing else. Of a stream, running is what workers have taken and not acknowledged, and the
    age is the next task's. Delayed is ``None``: schedules do not lie in the queue. A ``PubSubBroker`` keeps no backlog.

    Immutable.

    Example:
        >>> TaskiqLayout(group="taskiq")
        TaskiqLayout(group='taskiq')
    """

    group: str | None = None

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Read the list, or the stream by its group."""
        queue = ListKey(queue_name) if self.group is None else StreamKey(queue_name, self.group)
        return queue.read(queue_name, now)
