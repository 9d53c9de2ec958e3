"""taskiq-redis: list and stream brokers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

import attrs

from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure.providers.layouts.plain import ListKey
from backpressure.providers.layouts.stream import StreamKey

if TYPE_CHECKING:
    from datetime import datetime

    from backpressure.providers.layouts._steps import Steps

__all__ = ["TaskiqLayout"]


@repr_when_half_built
@attrs.frozen
class TaskiqLayout:
    """Queues of `taskiq-redis <https://github.com/taskiq-python/taskiq-redis>`_.

    Args:
        group: ``None`` for a ``ListQueueBroker``; for a ``RedisStreamBroker`` its ``consumer_group_name``, which is
            ``"taskiq"`` by default.

    A queue's name is its key, ``taskiq`` by default; the brokers for clusters and sentinels keep the same keys. A list
    tells only the waiting tasks. In a stream, tasks that workers have taken and not acknowledged are running, and the
    age is the next task's. Delayed is ``None``: schedules are not in the queue. A ``PubSubBroker`` keeps no backlog.

    Immutable.

    Example:
        >>> TaskiqLayout(group="taskiq")
        TaskiqLayout(group='taskiq')
    """

    group: str | None = None

    @classmethod
    def from_broker(cls, broker: Any) -> Self:
        """Return the layout of a list or stream broker of taskiq-redis.

        Raises:
            ConfigurationError: it is another broker.
        """
        name = type(broker).__name__
        names = {base.__name__ for base in type(broker).__mro__}
        if any(re.fullmatch(r"ListQueue\w*Broker", each) for each in names):
            return cls()
        if any(re.fullmatch(r"RedisStream\w*Broker", each) for each in names):
            return cls(group=broker.consumer_group_name)
        raise ConfigurationError(
            f"broker is a {name}: give a list or stream broker of taskiq-redis, for others keep no backlog in Redis",
            field="broker",
        )

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Read the list, or the stream by its group."""
        queue = ListKey(queue_name) if self.group is None else StreamKey(queue_name, self.group)
        return queue.read(queue_name, now)
