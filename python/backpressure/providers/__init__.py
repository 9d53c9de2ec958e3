"""Where controllers read their queues: in-memory samples, Redis, Valkey and other systems that hold jobs.

`InMemoryStatsProvider` needs nothing. Each of the others loads its client library when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from backpressure.providers.memory import InMemoryStatsProvider

if TYPE_CHECKING:
    from backpressure.providers.configured import from_config
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
    "from_config",
]

_MODULES = {
    "PGQUEUER": "postgres.provider",
    "PROCRASTINATE": "postgres.provider",
    "AsyncRedisStatsProvider": "redis.async_provider",
    "ConsumerLag": "kafka.provider",
    "KafkaStatsProvider": "kafka.provider",
    "ListKey": "redis.provider",
    "PostgresQuery": "postgres.provider",
    "PostgresStatsProvider": "postgres.provider",
    "PrometheusStatsProvider": "prometheus.provider",
    "RabbitMQStatsProvider": "rabbitmq.provider",
    "RedisStatsProvider": "redis.provider",
    "SQSStatsProvider": "sqs.provider",
    "StreamKey": "redis.provider",
    "ZSetKey": "redis.provider",
    "from_config": "configured",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"backpressure.providers.{module}"), name)
