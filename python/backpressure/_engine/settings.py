"""The configuration as the engines take it: plain integers, so that both compute exactly the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from backpressure._engine.laws.registry import has_own_law, law_of
from backpressure._model.config.recovery import FallbackMode
from backpressure._model.units import MAX_NS, nanoseconds
from backpressure._model.vocabulary import Reason

if TYPE_CHECKING:
    from backpressure._engine.laws.law import Law
    from backpressure._model.config.circuit import CircuitConfig
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["CircuitSettings", "EngineSettings"]

_MS = 1_000_000
_NO_DELAY = (0, 0, 0)
# LOW, MEDIUM, HIGH: every triple in this file is ordered by the value of `Priority`.
_CONSERVATIVE = (1_000 * _MS, 500 * _MS, 100 * _MS)
_FALLBACKS = {
    FallbackMode.CONSERVATIVE: (_CONSERVATIVE, Reason.FALLBACK_CONSERVATIVE),
    FallbackMode.PERMISSIVE: (_NO_DELAY, Reason.FALLBACK_PERMISSIVE),
    FallbackMode.CIRCUIT_ONLY: (_NO_DELAY, Reason.FALLBACK_CIRCUIT_ONLY),
}


def _milliseconds_up(seconds: float) -> int:
    # Breaker durations round up: never early, at most 1 ms late. By way of nanoseconds, so that the nearest
    # float of 0.010 s, which lies a hair above it, does not become 11 ms.
    return math.ceil(nanoseconds(seconds) / _MS)


@attrs.frozen
class CircuitSettings:
    """One queue's breaker settings; durations in milliseconds, rounded up."""

    failure_threshold: int
    recovery_threshold: int
    trip_window_ms: int
    recovery_timeout_ms: int
    probe_interval_ms: int
    high_attempts: bool

    @classmethod
    def of(cls, circuit: CircuitConfig) -> CircuitSettings:
        """Flatten a breaker's configuration."""
        return cls(
            failure_threshold=circuit.failure_threshold,
            recovery_threshold=circuit.recovery_threshold,
            trip_window_ms=_milliseconds_up(circuit.trip_window),
            recovery_timeout_ms=_milliseconds_up(circuit.recovery_timeout),
            probe_interval_ms=_milliseconds_up(circuit.probe_interval),
            high_attempts=circuit.high_priority == "attempt",
        )


@attrs.frozen(eq=False)
class EngineSettings:
    """Everything an engine decides by. A new object is a new configuration epoch.

    Attributes:
        law, circuit: what holds for all queues but those in laws, circuits, which have their own.
        cache_ttl_ns: age up to which a sample is believed.
        check_after_ns: age of a sample beyond which its reader looks after the poller; `check_every_ns` apart.
        degrade_ns: time over which an expired sample's delay moves to the fallback's.
        fallback_ns, fallback_reason: what holds without a usable sample.
        polling: whether a poller keeps the samples fresh; else callers read on expiry.
        observe: hand out go, keep the real decision beside it.
        max_queues: queues with state of their own.
    """

    law: Law
    circuit: CircuitSettings
    laws: dict[str, Law]
    circuits: dict[str, CircuitSettings]
    cache_ttl_ns: int
    check_after_ns: int
    check_every_ns: int
    degrade_ns: int
    fallback_ns: tuple[int, int, int]
    fallback_reason: Reason
    polling: bool
    observe: bool
    max_queues: int

    def law_of(self, queue_name: str) -> Law:
        """Return the law that holds for a queue."""
        return self.laws.get(queue_name, self.law)

    def circuit_of(self, queue_name: str) -> CircuitSettings:
        """Return the breaker settings that hold for a queue."""
        return self.circuits.get(queue_name, self.circuit)

    @classmethod
    def of(cls, config: BackpressureConfig) -> EngineSettings:
        """Flatten a whole configuration."""
        polling, recovery = config.polling, config.recovery
        fallback_ns, fallback_reason = _FALLBACKS[recovery.fallback_mode]
        return cls(
            law=law_of(config),
            circuit=CircuitSettings.of(config.circuit),
            laws={name: law_of(config, name) for name in config.queues if has_own_law(config, name)},
            circuits={name: CircuitSettings.of(own.circuit) for name, own in config.queues.items() if own.circuit},
            cache_ttl_ns=nanoseconds(polling.cache_ttl),
            check_after_ns=nanoseconds(polling.interval + polling.jitter + polling.timeout),
            check_every_ns=nanoseconds(polling.interval),
            degrade_ns=nanoseconds(recovery.graceful_degrade),
            fallback_ns=fallback_ns,
            fallback_reason=fallback_reason,
            polling=polling.enabled,
            observe=config.mode == "observe",
            max_queues=min(config.max_queues, MAX_NS),  # what 64 bits hold
        )
