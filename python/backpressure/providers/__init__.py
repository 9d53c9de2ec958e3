"""Where controllers read their queues: in-memory samples, and Redis or Valkey.

The Redis names load redis-py when first used; `InMemoryStatsProvider` needs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from backpressure.providers.memory import InMemoryStatsProvider

if TYPE_CHECKING:
    from backpressure.providers.async_redis import AsyncRedisStatsProvider
    from backpressure.providers.redis import ListKey, RedisStatsProvider, StreamKey, ZSetKey

__all__ = [
    "AsyncRedisStatsProvider",
    "InMemoryStatsProvider",
    "ListKey",
    "RedisStatsProvider",
    "StreamKey",
    "ZSetKey",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "async_redis" if name == "AsyncRedisStatsProvider" else "redis"
    return getattr(importlib.import_module(f"backpressure.providers.{module}"), name)
