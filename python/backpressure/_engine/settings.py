"""The configuration as the engines take it: plain integers, so that both compute exactly the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from backpressure._engine.laws.registry import has_own_law, law_of
from backpressure._model.config.patterns import is_pattern, matches, patterns_of
from backpressure._model.config.recovery import FallbackMode
from backpressure._model.units import MAX_NS, nanoseconds
from backpressure._model.vocabulary import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.laws.age import AgeLaw
    from backpressure._engine.laws.law import Law
    from backpressure._model.config.circuit import CircuitConfig
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["CircuitSettings", "EngineSettings", "PatternSettings"]

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


@attrs.frozen
class PatternSettings:
    """What the queues have of their own that a pattern matches; ``None`` is what holds for all."""

    pattern: str
    law: Law | AgeLaw | None
    circuit: CircuitSettings | None
    observe: bool | None


@attrs.frozen(eq=False)
class EngineSettings:
    """Everything an engine decides by. A new object is a new configuration epoch.

    Attributes:
        law, circuit, observe: what holds for all queues but those in laws, circuits, observed, which have their own.
        patterns: what holds for queues that are not in these tables: the first that matches. What less specific
            patterns say is in it already.
        one_mode: whether `observe` holds for all queues.
        holds_ages: whether an age is to be held in any queue, so that its law is to be looked up first.
        cache_ttl_ns: age up to which a sample is believed.
        check_after_ns: age of a sample beyond which its reader looks after the poller; `check_every_ns` apart.
        degrade_ns: time over which an expired sample's delay moves to the fallback's.
        fallback_ns, fallback_reason: what holds without a usable sample.
        polling: whether a poller keeps the samples fresh; else callers read on expiry.
        observe: whether to hand out go, and keep the real decision beside it.
        max_queues: queues with state of their own.
    """

    law: Law | AgeLaw
    circuit: CircuitSettings
    laws: dict[str, Law | AgeLaw]
    circuits: dict[str, CircuitSettings]
    observed: dict[str, bool]
    patterns: tuple[PatternSettings, ...]
    one_mode: bool
    cache_ttl_ns: int
    check_after_ns: int
    check_every_ns: int
    degrade_ns: int
    fallback_ns: tuple[int, int, int]
    fallback_reason: Reason
    polling: bool
    observe: bool
    max_queues: int
    holds_ages: bool = False

    def law_of(self, queue_name: str) -> Law | AgeLaw:
        """Return the law that holds for a queue."""
        own = self.laws.get(queue_name)
        if own is None and self.patterns:
            own = self._pattern_of(queue_name, "law")
        return self.law if own is None else own

    def circuit_of(self, queue_name: str) -> CircuitSettings:
        """Return the breaker settings that hold for a queue."""
        own = self.circuits.get(queue_name) or self._pattern_of(queue_name, "circuit")
        return own or self.circuit

    def observes(self, queue_name: str) -> bool:
        """Tell whether what is decided for a queue is only observed."""
        if self.one_mode:
            return self.observe
        own = self.observed.get(queue_name)
        if own is None:
            own = self._pattern_of(queue_name, "observe")
        return self.observe if own is None else own

    def _pattern_of(self, queue_name: str, part: str) -> Any:
        """Return the part of the first pattern that matches."""
        found = next((of for of in self.patterns if matches(of.pattern, queue_name)), None)
        return None if found is None else getattr(found, part)

    @classmethod
    def of(cls, config: BackpressureConfig, enforces: Callable[[float], bool] = bool) -> EngineSettings:
        """Flatten a whole configuration.

        Args:
            config: what is to be flattened.
            enforces: tells whether this process is among a share of those that enforce.
        """
        polling, recovery = config.polling, config.recovery
        sections = {name: _of_section(config, name, enforces) for name in config.queues}
        named = {name: section for name, section in sections.items() if not is_pattern(name)}
        observe = config.mode == "observe" or not enforces(config.enforce_share)
        fallback_ns, fallback_reason = _FALLBACKS[recovery.fallback_mode]
        return cls(
            law=law_of(config),
            circuit=CircuitSettings.of(config.circuit),
            laws={name: of.law for name, of in named.items() if of.law is not None},
            circuits={name: of.circuit for name, of in named.items() if of.circuit is not None},
            observed={name: of.observe for name, of in named.items() if of.observe is not None},
            patterns=tuple(sections[name] for name in patterns_of(config.queues)),
            one_mode=all(section.observe in {None, observe} for section in sections.values()),
            holds_ages=any(age and age.target for age in (config.age, *(own.age for own in config.queues.values()))),
            cache_ttl_ns=nanoseconds(polling.cache_ttl),
            check_after_ns=nanoseconds(polling.interval + polling.jitter + polling.timeout),
            check_every_ns=nanoseconds(polling.interval),
            degrade_ns=nanoseconds(recovery.graceful_degrade),
            fallback_ns=fallback_ns,
            fallback_reason=fallback_reason,
            polling=polling.enabled,
            observe=observe,
            max_queues=min(config.max_queues, MAX_NS),  # what 64 bits hold
        )


def _of_section(config: BackpressureConfig, name: str, enforces: Callable[[float], bool]) -> PatternSettings:
    own = config.of(name)
    own_mode = own.mode is not None or own.enforce_share is not None
    return PatternSettings(
        pattern=name,
        law=law_of(config, name) if has_own_law(config, name) else None,
        circuit=None if own.circuit is None else CircuitSettings.of(own.circuit),
        observe=not enforces(config.enforce_share_of(name)) if own_mode else None,
    )
