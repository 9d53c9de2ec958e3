"""Dramatiq with a Redis broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs

from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Steps, ask
from backpressure.providers.layouts._times import age, field, number

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["DramatiqLayout"]


@repr_when_half_built
@attrs.frozen
class DramatiqLayout:
    """Queues of `Dramatiq <https://dramatiq.io>`_.

    Args:
        namespace: the ``RedisBroker``'s.

    Messages that no worker has taken are waiting. Messages that a worker has taken are running, also prefetched ones.
    Messages whose delay has not passed are delayed. The age is the time since the next message was first sent,
    including its delays and retries; ``None`` where messages are not encoded as JSON.

    Immutable.

    Example:
        >>> DramatiqLayout(namespace="{dramatiq}")
        DramatiqLayout(namespace='{dramatiq}')
    """

    namespace: str = "dramatiq"

    @classmethod
    def from_broker(cls, broker: Any) -> Self:
        """Return the layout of a ``RedisBroker``.

        Raises:
            ConfigurationError: it is another broker.
        """
        namespace = getattr(broker, "namespace", None)
        if not isinstance(namespace, str):
            raise ConfigurationError(f"broker is a {type(broker).__name__}: give a RedisBroker", field="broker")
        return cls(namespace)

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count ids and messages, then find the next message's age."""
        queue = f"{self.namespace}:{queue_name}"
        waiting, unacknowledged, delayed, next_id = yield from ask(
            Command("llen", queue),
            Command("hlen", f"{queue}.msgs"),
            # Workers keep the ids of delayed messages in memory, so the list of ids is too short.
            Command("hlen", f"{queue}.DQ.msgs"),
            Command("lindex", queue, (0,)),
        )
        message = None
        if next_id is not None:
            (message,) = yield from ask(Command("hget", f"{queue}.msgs", (next_id,)))
        sent = number(field(message, "message_timestamp"), per_second=1000)
        return QueueStats(queue_name, waiting, max(0, unacknowledged - waiting), delayed, age(now, sent), now)
