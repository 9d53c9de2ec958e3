"""When a queue's circuit breaker opens, and how it recovers."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal

import attrs

from backpressure._model.config.fields import DAY, TICK, Section, boolean, checked, code_only, duration, integer
from backpressure._model.half_built import repr_when_half_built

__all__ = ["CircuitConfig"]


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    )


def _is_function_or_none(value: object) -> bool:
    return value is None or callable(value)


@repr_when_half_built
@attrs.frozen(kw_only=True)
class CircuitConfig(Section):
    """When a queue's circuit breaker opens and how it recovers. Durations in seconds. Immutable.

    Args:
        failure_threshold: consecutive failures that open the circuit.
        recovery_threshold: successful probes that close it.
        trip_window: a row of failures ends after this many seconds without an attempt, from the end of a failure.
        recovery_timeout: seconds an open circuit rejects everything before its first probe.
        probe_interval: seconds between probes of a half-open circuit.
        excluded_exceptions: exception classes that are no failure (settable in code only).
        is_failure: called with every other `Exception`; returns ``False`` if it is no failure (settable in code only).
            Must be thread-safe; what it raises is logged once, and the exception counts.
        high_priority: ``"attempt"`` lets HIGH through an open circuit; ``"reject"`` blocks all priorities.
        probe_on_recovery: if statistics and enqueues share a server, and reads have failed since the circuit opened,
            then the first good read of the queue makes its next admission the probe.

    `probe_interval` follows a shorter `recovery_timeout` unless it is set.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> CircuitConfig(failure_threshold=10, recovery_timeout="2m", excluded_exceptions=(KeyError,)).recovery_timeout
        120.0
    """

    _path = "circuit"

    failure_threshold: int = integer(5, 1, 1_000)
    recovery_threshold: int = integer(3, 1, 1_000)
    trip_window: float = duration(30.0)
    recovery_timeout: float = duration(60.0)
    probe_interval: float = duration(5.0)
    excluded_exceptions: tuple[type[BaseException], ...] = code_only(
        (),
        _are_exceptions,
        "give a tuple of exception classes",
        form="a tuple of exception classes",
        may_be=lambda value: isinstance(value, tuple),
    )
    is_failure: Callable[[Exception], bool] | None = code_only(
        None,
        _is_function_or_none,
        "give a function of an exception, or None",
        form="a function of an exception",
        may_be=_is_function_or_none,
    )
    high_priority: Literal["reject", "attempt"] = checked(
        "reject", lambda value: value in ("reject", "attempt"), 'give "reject" or "attempt"'
    )
    probe_on_recovery: bool = boolean(default=True)

    _own_rules = tuple(
        (name, lambda seconds: TICK <= seconds <= DAY or "must be from 10 ms to 24 h")
        for name in ("trip_window", "recovery_timeout", "probe_interval")
    )
    _follow = MappingProxyType({"probe_interval": lambda default, it: min(default, it.recovery_timeout)})
    _rules = (
        (
            "probe_interval",
            lambda it: (
                it.probe_interval <= it.recovery_timeout
                or f"must be from 10 ms to recovery_timeout ({it.recovery_timeout} s)"
            ),
        ),
    )
