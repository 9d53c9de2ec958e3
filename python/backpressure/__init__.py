"""Tell job producers to go, wait or shed, by priority, from the queue's real backlog.

Nothing here loads redis-py or prometheus-client before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from backpressure._engine import ENGINE
from backpressure.batch_values import BatchError, BatchJob, BatchResult, JobOutcome
from backpressure.circuit import CircuitBreaker
from backpressure.config import (
    BacklogThresholds,
    BacklogWindow,
    BackpressureConfig,
    CircuitConfig,
    CurveConfig,
    FallbackMode,
    PollingConfig,
    QueueConfig,
    RecoveryStrategy,
)
from backpressure.controller import BackpressureController
from backpressure.decision import ThrottleDecision
from backpressure.errors import (
    BackpressureError,
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    StatsUnavailableError,
    ThrottledError,
    is_circuit_open_error,
    is_retryable,
    is_shed_error,
)
from backpressure.events import StateChange
from backpressure.gate import AsyncGate, Gate
from backpressure.providers.memory import InMemoryStatsProvider
from backpressure.stats import AsyncStatsProvider, QueueStats, StatsProvider
from backpressure.vocabulary import HIGH, LOW, MEDIUM, CircuitState, Priority, Reason, Zone

if TYPE_CHECKING:
    from backpressure.async_controller import AsyncBackpressureController
    from backpressure.metrics import MetricsCollector
    from backpressure.providers.async_redis import AsyncRedisStatsProvider
    from backpressure.providers.redis import RedisStatsProvider

__version__: str

__all__ = [
    "ENGINE",
    "HIGH",
    "LOW",
    "MEDIUM",
    "AsyncBackpressureController",
    "AsyncGate",
    "AsyncRedisStatsProvider",
    "AsyncStatsProvider",
    "BacklogThresholds",
    "BacklogWindow",
    "BackpressureConfig",
    "BackpressureController",
    "BackpressureError",
    "BatchError",
    "BatchJob",
    "BatchResult",
    "CircuitBreaker",
    "CircuitConfig",
    "CircuitOpenError",
    "CircuitState",
    "ConfigurationError",
    "ControllerNotStartedError",
    "ControllerStoppedError",
    "CurveConfig",
    "FallbackMode",
    "Gate",
    "InMemoryStatsProvider",
    "InvalidPriorityError",
    "InvalidQueueError",
    "JobOutcome",
    "JobShedError",
    "MetricsCollector",
    "PollingConfig",
    "Priority",
    "QueueConfig",
    "QueueStats",
    "Reason",
    "RecoveryStrategy",
    "RedisStatsProvider",
    "StateChange",
    "StatsProvider",
    "StatsUnavailableError",
    "ThrottleDecision",
    "ThrottledError",
    "Zone",
    "__version__",
    "is_circuit_open_error",
    "is_retryable",
    "is_shed_error",
]

_LAZY = {
    "MetricsCollector": "backpressure.metrics",
    "AsyncBackpressureController": "backpressure.async_controller",
    "AsyncRedisStatsProvider": "backpressure.providers.async_redis",
    "RedisStatsProvider": "backpressure.providers.redis",
}


def _pin(public: Any) -> None:
    """Have tracebacks, pickles and pages name what is public by where users import it from, not by its file."""
    if getattr(public, "__module__", __name__).startswith(f"{__name__}."):
        public.__module__ = __name__


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("producer-backpressure")
    elif name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _pin(value)
    globals()[name] = value
    return value


for _name in set(__all__) & set(globals()):
    _pin(globals()[_name])
