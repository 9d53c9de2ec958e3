"""Where the fleet of a configuration meets, for those who look at it or operate it and are no members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.cluster import RedisCluster

from backpressure._controller.fleet.link import key_of
from backpressure._engine.sync import ForkLock
from backpressure._fleet.operator import Operator
from backpressure._fleet.texts import MAX_AUTHOR, check_text
from backpressure._model.errors import ConfigurationError, StatsUnavailableError
from backpressure.providers.configured import resolved
from backpressure.providers.redis.client import RedisTarget, describe, disconnect, parse_target, redactor_for
from backpressure.providers.redis.errors import unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backpressure._model.config.root import BackpressureConfig

__all__ = ["Meeting"]


class Meeting:
    """Opens connections when they are needed first.

    Args:
        config: with the name of a fleet.
        provider: whose server it is if the configuration names none.
        names: queues that the provider reads.
        by: who is named as the author of switches; ``None``: user and host.

    Raises:
        ConfigurationError: the author, or the fleet's URL or key, is impossible, or nothing says where the fleet meets.
    """

    def __init__(self, config: BackpressureConfig, provider: object, names: Sequence[str], by: str | None) -> None:
        assert config.fleet.name is not None  # noqa: S101 - whoever asks has looked
        self.name = config.fleet.name
        self._by = None if by is None else check_text(by, "by", MAX_AUTHOR)
        self._key = key_of(config)
        self._where: Any = None
        self._client: Any = None
        self._lock = ForkLock()
        if config.fleet.url is not None:
            self._where = parse_target(resolved(config.fleet.url, "fleet.url"), config.polling.timeout)
            return
        stores = list(_stores(provider, names))
        if len(stores) != 1:
            raise ConfigurationError(
                f"fleet.url is missing: {type(provider).__name__} does not read one Redis alone: give the URL of the "
                "Redis or Valkey in which the fleet meets",
                field="fleet.url",
            )
        self._where = stores[0]

    def operator(self) -> Operator:
        """Return one, with connections of its own unless the provider was given a client.

        Thread-safe. Raises what redis-py raises.
        """
        with self._lock():
            if self._client is None:
                self._client = self._where.connect() if isinstance(self._where, RedisTarget) else self._where
            client = self._client
        return Operator(client, self.name, by=self._by, key=self._key)

    def trouble(self, error: Exception) -> str:
        """Return why the fleet's server could not be asked, and what to do, without credentials."""
        where = self._where
        is_target = isinstance(where, RedisTarget)
        shown = str(where) if is_target else describe(where)
        redact = where.redactor() if is_target else redactor_for(where)
        return str(unavailable(error, what=f"fleet {self.name!r} at {shown}", redact=redact))

    def close(self) -> None:
        """Close the connections that were opened here; the next call opens others."""
        with self._lock():
            client, self._client = self._client, None
        if client is not None and isinstance(self._where, RedisTarget):
            disconnect(client)


def _stores(provider: Any, names: Sequence[str]) -> Iterator[Any]:
    """Yield the Redis servers that a provider reads, each once, as targets or as clients that can be used here."""
    seen: list[Any] = []
    for name in names:
        try:
            store = provider.budget_store(name)
        except (AttributeError, StatsUnavailableError):
            continue
        if isinstance(store, RedisTarget):
            known = any(isinstance(one, RedisTarget) and one.is_same(store) for one in seen)
        elif isinstance(store, Redis | RedisCluster):
            known = any(one is store for one in seen)
        else:
            continue
        if not known:
            seen.append(store)
            yield store
