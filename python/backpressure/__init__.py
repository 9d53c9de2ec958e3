"""Tell job producers to go, wait or shed, by priority, from the queue's real backlog.

Nothing here loads redis-py or prometheus-client before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from backpressure._controller.blocking import BackpressureController
from backpressure._controller.circuit import CircuitBreaker
from backpressure._controller.file_control import FileControl
from backpressure._controller.gate import AsyncGate, Gate
from backpressure._engine.choice import ENGINE
from backpressure._model.batch import BatchError, BatchJob, BatchResult, JobOutcome, batch_result
from backpressure._model.clock import Clock
from backpressure._model.config.age import AgeConfig
from backpressure._model.config.circuit import CircuitConfig
from backpressure._model.config.fleet import FleetConfig
from backpressure._model.config.polling import PollingConfig
from backpressure._model.config.recovery import FallbackMode, RecoveryStrategy
from backpressure._model.config.root import BackpressureConfig, QueueConfig
from backpressure._model.config.three_zone import BacklogThresholds, BacklogWindow, CurveConfig
from backpressure._model.decision import ThrottleDecision
from backpressure._model.errors import (
    BackpressureError,
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    RecordingError,
    StatsUnavailableError,
    ThrottledError,
    is_circuit_open_error,
    is_retryable,
    is_shed_error,
)
from backpressure._model.stats import AsyncStatsProvider, QueueStats, StatsProvider
from backpressure._model.tenant import Tenant
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM, CircuitState, Priority, Reason, Zone
from backpressure._telemetry.events import StateChange
from backpressure.providers.memory import InMemoryStatsProvider

if TYPE_CHECKING:
    from backpressure._controller.asynchronous import AsyncBackpressureController
    from backpressure._recording.recorder import Recorder
    from backpressure._recording.recording import Recording
    from backpressure._telemetry.metrics import MetricsCollector
    from backpressure.providers.redis.async_provider import AsyncRedisStatsProvider
    from backpressure.providers.redis.provider import RedisStatsProvider

__version__: str

__all__ = [
    "ENGINE",
    "HIGH",
    "LOW",
    "MEDIUM",
    "AgeConfig",
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
    "Clock",
    "ConfigurationError",
    "ControllerNotStartedError",
    "ControllerStoppedError",
    "CurveConfig",
    "FallbackMode",
    "FileControl",
    "FleetConfig",
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
    "Recorder",
    "Recording",
    "RecordingError",
    "RecoveryStrategy",
    "RedisStatsProvider",
    "StateChange",
    "StatsProvider",
    "StatsUnavailableError",
    "Tenant",
    "ThrottleDecision",
    "ThrottledError",
    "Zone",
    "__version__",
    "batch_result",
    "is_circuit_open_error",
    "is_retryable",
    "is_shed_error",
]

_LAZY = {
    "MetricsCollector": "backpressure._telemetry.metrics",
    "AsyncBackpressureController": "backpressure._controller.asynchronous",
    "AsyncRedisStatsProvider": "backpressure.providers.redis.async_provider",
    "RedisStatsProvider": "backpressure.providers.redis.provider",
    "Recorder": "backpressure._recording.recorder",
    "Recording": "backpressure._recording.recording",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("backpressure._runtime.version").version()
    elif name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


# Tracebacks, pickles and pages name what is public by where users import it from, not by its file. What is loaded late
# says so in its class, since others may load it first. Whoever resolves the annotations of a class, such as
# typing.get_type_hints and cattrs, then looks its names up here and not in its file. Files with public attrs classes
# therefore have no `from __future__ import annotations`: their annotations are the types themselves.
for _name in set(__all__) & set(globals()):
    if callable(globals()[_name]):  # values, such as HIGH, have the module of their class
        globals()[_name].__module__ = __name__
