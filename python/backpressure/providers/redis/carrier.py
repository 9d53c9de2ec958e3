"""Carries a fleet's commands where no read of queues does: the queues lie elsewhere, or on another server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import AskError, ClusterDownError, ReadOnlyError

from backpressure.providers.redis.connected import Connected
from backpressure.providers.redis.riders import commands_of

if TYPE_CHECKING:
    from backpressure._fleet.ride import Ride

__all__ = ["Carrier"]


class Carrier(Connected):
    """Connections of a fleet's own. Thread-safe."""

    _what = "fleet"

    def carry(self, ride: Ride) -> None:
        """Send the commands of `ride`, and give it the replies or the error. Raises nothing of redis-py's."""
        try:
            ((client, _),) = self._routes({ride.key: None})
            ride.take(self._exchange(client, ride), self._failure)
        except Exception as error:  # noqa: BLE001 - a socket closed under redis-py shows as anything
            self._forget()
            ride.fail(self._failure(error))
        if isinstance(ride.error, (AskError, ClusterDownError)):  # or that a key has moved, which is an AskError too
            self._stale_slots = True
        if isinstance(ride.presence_error, ReadOnlyError):  # what it knows may be old: sentinels have chosen another
            self.close()

    @staticmethod
    def _exchange(client: Any, ride: Ride) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for method, name, args in commands_of([ride]):
            getattr(pipeline, method)(name, *args)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies
