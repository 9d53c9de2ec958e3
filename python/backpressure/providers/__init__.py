"""Where controllers read their queues: in-memory samples, Redis or Valkey, and what else holds jobs.

`InMemoryStatsProvider` needs nothing. Each of the others loads its client library when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from backpressure.providers.memory import InMemoryStatsProvider

if TYPE_CHECKING:
    from backpressure.providers.kafka.provider import ConsumerLag, KafkaStatsProvider
    from backpressure.providers.postgres.provider import PGQUEUER, PROCRASTINATE, PostgresQuery, PostgresStatsProvider
    from backpressure.providers.prometheus.provider import PrometheusStatsProvider
    from backpressure.providers.rabbitmq.provider import RabbitMQStatsProvider
    from backpressure.providers.redis.async_provider import AsyncRedisStatsProvider
    from backpressure.providers.redis.provider import ListKey, RedisStatsProvider, StreamKey, ZSetKey
    from backpressure.providers.sqs.provider import SQSStatsProvider

__all__ = [
    "PGQUEUER",
    "PROCRASTINATE",
    "AsyncRedisStatsProvider",
    "ConsumerLag",
    "InMemoryStatsProvider",
    "KafkaStatsProvider",
    "ListKey",
    "PostgresQuery",
    "PostgresStatsProvider",
    "PrometheusStatsProvider",
    "RabbitMQStatsProvider",
    "RedisStatsProvider",
    "SQSStatsProvider",
    "StreamKey",
    "ZSetKey",
]

_MODULES = {
    "PGQUEUER": "postgres",
    "PROCRASTINATE": "postgres",
    "AsyncRedisStatsProvider": "async_redis",
    "ConsumerLag": "kafka",
    "KafkaStatsProvider": "kafka",
    "ListKey": "redis",
    "PostgresQuery": "postgres",
    "PostgresStatsProvider": "postgres",
    "PrometheusStatsProvider": "prometheus",
    "RabbitMQStatsProvider": "rabbitmq",
    "RedisStatsProvider": "redis",
    "SQSStatsProvider": "sqs",
    "StreamKey": "redis",
    "ZSetKey": "redis",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"backpressure.providers.{module}"), name)
