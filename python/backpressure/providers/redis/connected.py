"""What keeps something in Redis or Valkey beside the queues: its connections, and which node to ask for which key."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, ClassVar

from redis.cluster import RedisCluster

from backpressure.providers.redis.client import RedisTarget, describe, disconnect, redactor_for
from backpressure.providers.redis.errors import unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpressure._model.errors import StatsUnavailableError
    from backpressure.providers.redis.client import Client

__all__ = ["Connected"]


class Connected:
    """One Redis, Valkey, Cluster or Sentinel service. Thread-safe; a forked child opens connections of its own.

    Args:
        where: a target, whose connections are its own, or a client, which is used as it is and never closed.
    """

    #: What is kept there, for messages.
    _what: ClassVar[str]

    def __init__(self, where: RedisTarget | Client) -> None:
        self._target = where if isinstance(where, RedisTarget) else None
        self._given = None if isinstance(where, RedisTarget) else where
        self._where = str(where) if isinstance(where, RedisTarget) else describe(where)
        self._redact = where.redactor() if isinstance(where, RedisTarget) else redactor_for(where)
        # By process: a forked child must not touch what its parent's threads were using.
        self._clients: dict[int, Client] = {}
        self._stale_slots = False

    def _routes(self, keys: Mapping[str, object]) -> list[tuple[Any, list[str]]]:
        """Return each server to ask, with its keys."""
        kept = self._client()
        if not isinstance(kept, RedisCluster):
            return [(kept, list(keys))]
        client: Any = kept
        if self._stale_slots:
            client.nodes_manager.initialize()
            self._stale_slots = False
        nodes: dict[str, tuple[Any, list[str]]] = {}
        for key in keys:
            node = client.get_node_from_key(key)
            nodes.setdefault(node.name, (node, []))[1].append(key)
        return [(client.get_redis_connection(node), named) for node, named in nodes.values()]

    def _client(self) -> Client:
        if self._given is not None:
            return self._given
        pid = os.getpid()
        kept = self._clients.get(pid)
        if kept is None:
            assert self._target is not None  # noqa: S101 - one of the two was given
            made = self._target.connect()
            kept = self._clients.setdefault(pid, made)
            if kept is not made:  # another first call was faster
                disconnect(made)
        return kept

    def _forget(self) -> None:
        """Begin again with the nodes of the URL: none that is known answers."""
        if self._given is None and isinstance(self._clients.get(os.getpid()), RedisCluster):
            self.close()

    def _failure(self, error: BaseException) -> StatsUnavailableError:
        return unavailable(error, what=f"{self._what} at {self._where}", redact=self._redact)

    def interrupt(self) -> None:
        """End the calls under way, from another thread, where the connections are its own. Raises nothing."""
        client = self._clients.get(os.getpid())
        if client is not None:
            with contextlib.suppress(Exception):
                disconnect(client)

    def close(self) -> None:
        """Close the connections that it opened; the next call opens others. Raises nothing."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            with contextlib.suppress(Exception):
                disconnect(client)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where!r})"
