"""Where budgets are kept: runs the script of the age law for several queues at once, in Redis or Valkey."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from redis.cluster import RedisCluster
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError

from backpressure._age.protocol import decode
from backpressure._age.script import source, source_sha1
from backpressure._age.state import State
from backpressure.providers.redis.client import RedisTarget, describe, disconnect, redactor_for
from backpressure.providers.redis.errors import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from backpressure._age.protocol import Answer
    from backpressure._model.errors import StatsUnavailableError
    from backpressure.providers.redis.client import Client

__all__ = ["BudgetStore"]

# Replies after which a cluster's client is to learn anew where keys lie.
_MOVED = (MovedError, AskError, ClusterDownError)


class BudgetStore:
    """One Redis, Valkey, Cluster or Sentinel service. Thread-safe; a forked child opens connections of its own.

    Args:
        where: a target, whose connections are its own, or a client, which is used as it is and never closed.
    """

    def __init__(self, where: RedisTarget | Client) -> None:
        self._target = where if isinstance(where, RedisTarget) else None
        self._given = None if isinstance(where, RedisTarget) else where
        self._where = str(where) if isinstance(where, RedisTarget) else describe(where)
        self._redact = where.redactor() if isinstance(where, RedisTarget) else redactor_for(where)
        # By process: a forked child must not touch what its parent's threads were using.
        self._clients: dict[int, Client] = {}
        self._stale_slots = False

    def exchange(self, calls: Mapping[str, Sequence[int | str]]) -> dict[str, Answer | StatsUnavailableError]:
        """Run the script on each key with its arguments; return an answer or an error for each key.

        One round trip for each server, and two more where a server does not know the script yet.
        """
        answers: dict[str, Answer | StatsUnavailableError] = {}
        try:
            for client, keys in self._routes(calls):
                try:
                    answers.update(self._ask(client, {key: calls[key] for key in keys}))
                except Exception as error:  # noqa: BLE001 - a socket closed under redis-py shows as anything
                    self._stale_slots = True
                    answers.update(dict.fromkeys(keys, self._failure(error)))
        except Exception as error:  # noqa: BLE001 - no node of a cluster tells where keys lie
            self._forget()
            failure = self._failure(error)
            answers.update((key, failure) for key in calls if key not in answers)
        return answers

    def look(self, keys: Iterable[str]) -> dict[str, tuple[State | None, int] | StatsUnavailableError]:
        """Read states without taking part; return each with the server's clock in milliseconds, or an error."""
        looks: dict[str, tuple[State | None, int] | StatsUnavailableError] = {}
        wanted = dict.fromkeys(keys)
        try:
            for client, named in self._routes(wanted):
                pipeline = client.pipeline(transaction=False)
                pipeline.execute_command("TIME")
                for key in named:
                    pipeline.execute_command("GET", key)
                (seconds, microseconds), *values = pipeline.execute()
                now_ms = seconds * 1_000 + microseconds // 1_000
                looks.update((key, (State.of(value), now_ms)) for key, value in zip(named, values, strict=True))
        except Exception as error:  # noqa: BLE001 - as in `exchange`
            failure = self._failure(error)
            looks.update((key, failure) for key in wanted if key not in looks)
        return looks

    def _ask(self, client: Any, calls: Mapping[str, Sequence[int | str]]) -> dict[str, Answer | StatsUnavailableError]:
        replies = self._run(client, calls)
        unknown = [key for key, reply in replies.items() if isinstance(reply, NoScriptError)]
        if unknown:
            client.execute_command("SCRIPT LOAD", source())
            replies |= self._run(client, {key: calls[key] for key in unknown})
        return {key: self._answer(reply) for key, reply in replies.items()}

    @staticmethod
    def _run(client: Any, calls: Mapping[str, Sequence[int | str]]) -> dict[str, Any]:
        pipeline = client.pipeline(transaction=False)
        for key, arguments in calls.items():
            pipeline.execute_command("EVALSHA", source_sha1(), 1, key, *arguments)
        return dict(zip(calls, pipeline.execute(raise_on_error=False), strict=True))

    def _answer(self, reply: Any) -> Answer | StatsUnavailableError:
        if isinstance(reply, _MOVED):
            self._stale_slots = True
        if isinstance(reply, Exception):
            return self._failure(reply)
        try:
            return decode(reply)
        except (ValueError, TypeError) as error:
            return self._failure(error)

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
        return unavailable(error, what=f"budget at {self._where}", redact=self._redact)

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
        return f"BudgetStore({self._where!r})"
