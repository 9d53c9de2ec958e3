"""What a user can set: frozen attrs classes that check themselves when built.

Durations are seconds as floats; each also takes a ``timedelta`` or a string such as ``"250ms"``, ``"5s"``, ``"1m30s"``.
All classes are immutable and safe to share between threads.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from backpressure.errors import BackpressureError, ConfigurationError
from backpressure.types import MAX_BACKLOG, Priority, validate_queue_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "BacklogThresholds",
    "BacklogWindow",
    "BackpressureConfig",
    "CircuitConfig",
    "CurveConfig",
    "FallbackMode",
    "PollingConfig",
    "QueueConfig",
    "RecoveryStrategy",
]

_HOUR = 3_600.0
_DAY = 86_400.0
_SECOND_NS = 1_000_000_000
_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND_NS,
    "m": 60 * _SECOND_NS,
    "h": 3_600 * _SECOND_NS,
}
_PART = r"(\d{1,20}(?:\.\d{1,20})?)(ns|us|µs|ms|s|m|h)"
_MAX_SCALE = 1_000
_MAX_DENOMINATOR = 1_000_000


def _fail(owner: object, name: str, value: object, rule: str) -> ConfigurationError:
    prefix = getattr(owner, "_path", "")
    path = f"{prefix}.{name}" if prefix else name
    return ConfigurationError(f"{path} is {value!r}: {rule}", field=path, value=value)


def _is_number(value: object) -> bool:
    # Not math.isfinite, which overflows on integers that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def _to_seconds(value: object, owner: object, field: attrs.Attribute[Any]) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(rf"(?:{_PART})+", text):
            # Exactly, so that "9ms" is the same float as 0.009 and lies on the same side of a limit.
            return float(
                sum(Fraction(number) * _UNITS_NS[unit] for number, unit in re.findall(_PART, text)) / _SECOND_NS
            )
    elif _is_number(value):
        if isinstance(value, int) and abs(value) > _DAY:
            rule = "durations are seconds; Go writes nanoseconds, so divide by 1_000_000_000"
            raise _fail(owner, field.name, value, rule)
        return float(value)  # type: ignore[arg-type]
    rule = 'give seconds, a timedelta or a string such as "250ms", "5s" or "1m"'
    raise _fail(owner, field.name, value, rule)


def _to_fraction(value: object, owner: object, field: attrs.Attribute[Any]) -> Fraction:
    if isinstance(value, Fraction):
        return value
    # An exponent in text could ask for a number of a billion digits.
    if (isinstance(value, str) and re.fullmatch(r"-?[\d./]{1,24}", value)) or _is_number(value):
        try:
            # By way of the decimal text, so that 0.1 means one tenth and not its nearest binary float.
            return Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            pass
    raise _fail(owner, field.name, value, 'give a positive number or a fraction such as "1/2"')


def _to_fallback_mode(value: object, owner: object, field: attrs.Attribute[Any]) -> FallbackMode:
    if isinstance(value, bool):
        return FallbackMode.CONSERVATIVE if value else FallbackMode.PERMISSIVE
    try:
        return FallbackMode(value)  # type: ignore[arg-type]
    except ValueError:
        rule = f"give {_alternatives(FallbackMode)}, or true/false for conservative/permissive"
        raise _fail(owner, field.name, value, rule) from None


def _alternatives(choices: Any) -> str:
    *first, last = (f'"{choice}"' for choice in choices)
    return f"{', '.join(first)} or {last}"


def _converted(function: Callable[..., Any], **options: Any) -> Any:
    return attrs.field(converter=attrs.Converter(function, takes_self=True, takes_field=True), **options)


def _duration(default: float) -> Any:
    return _converted(_to_seconds, default=default)


def _fraction(default: Fraction) -> Any:
    return _converted(_to_fraction, default=default)


def _checked(default: Any, check: Callable[[Any], bool], rule: str) -> Any:
    def validate(owner: object, field: attrs.Attribute[Any], value: object) -> None:
        if not check(value):
            raise _fail(owner, field.name, value, rule)

    return attrs.field(default=default, validator=validate)


def _integer(default: Any, low: int, high: int | None = None) -> Any:
    def check(value: object) -> bool:
        return (
            isinstance(value, int) and not isinstance(value, bool) and low <= value and (high is None or value <= high)
        )

    rule = f"give an integer from {low} to {high}" if high is not None else f"give an integer of at least {low}"
    return _checked(default, check, rule)


def _boolean(*, default: bool) -> Any:
    return _checked(default, lambda value: isinstance(value, bool), "give true or false")


def _instance(kind: type[Any], default: Any) -> Any:
    return _checked(default, lambda value: isinstance(value, kind), f"give a {kind.__name__}")


def _require(owner: object, name: str, rule: str, *, holds: bool) -> None:
    if not holds:
        raise _fail(owner, name, getattr(owner, name), rule)


class FallbackMode(StrEnum):
    """What to do when there are no usable statistics."""

    CONSERVATIVE = "conservative"
    PERMISSIVE = "permissive"
    CIRCUIT_ONLY = "circuit_only"


@attrs.frozen(kw_only=True)
class BacklogWindow:
    """Upper bounds, in waiting jobs, of the green and yellow zone and the point where delay and shedding peak.

    0 <= green_max < yellow_max < red_max <= 2**53 - 1.
    """

    _path: ClassVar[str] = ""

    green_max: int = _integer(attrs.NOTHING, 0, MAX_BACKLOG)
    yellow_max: int = _integer(attrs.NOTHING, 0, MAX_BACKLOG)
    red_max: int = _integer(attrs.NOTHING, 0, MAX_BACKLOG)

    def __attrs_post_init__(self) -> None:
        _require(
            self,
            "yellow_max",
            f"must be above green_max ({self.green_max})",
            holds=self.yellow_max > self.green_max,
        )
        _require(self, "red_max", f"must be above yellow_max ({self.yellow_max})", holds=self.red_max > self.yellow_max)


def _window(green: int, yellow: int, red: int) -> Any:
    return _instance(BacklogWindow, BacklogWindow(green_max=green, yellow_max=yellow, red_max=red))


@attrs.frozen(kw_only=True)
class BacklogThresholds:
    """One window for each priority."""

    _path: ClassVar[str] = "thresholds"

    high_priority: BacklogWindow = _window(1_000, 5_000, 10_000)
    medium_priority: BacklogWindow = _window(500, 2_000, 5_000)
    low_priority: BacklogWindow = _window(100, 500, 1_000)

    def window(self, priority: Priority) -> BacklogWindow:
        """Return the window of `priority`."""
        return (self.low_priority, self.medium_priority, self.high_priority)[priority.value]


@attrs.frozen(kw_only=True)
class CurveConfig:
    """Shape of the delay between the bounds of a window.

    The base delay grows linearly from `yellow_min_delay` to `yellow_max_delay` across the yellow zone and on to
    `red_max_delay` across the red one, and is multiplied by the priority's scale. LOW is shed once the backlog is
    more than `shed_permille` thousandths into the red zone.

    Args:
        scale_yellow: ``False`` scales the red zone alone, as the Go original does; HIGH then waits *less* just above
            the yellow limit than just below it.
        delay_jitter: sleeps are lengthened by a random share of up to this, so that producers do not wake together.
    """

    _path: ClassVar[str] = "curve"

    yellow_min_delay: float = _duration(0.010)
    yellow_max_delay: float = _duration(0.500)
    red_max_delay: float = _duration(5.0)
    scale_high: Fraction = _fraction(Fraction(1, 2))
    scale_medium: Fraction = _fraction(Fraction(1))
    scale_low: Fraction = _fraction(Fraction(3, 2))
    shed_permille: int = _integer(800, 0, 1_000)
    scale_yellow: bool = _boolean(default=True)
    delay_jitter: float = _checked(
        0.1, lambda value: _is_number(value) and 0 <= value <= 1, "give a number from 0 to 1"
    )

    def __attrs_post_init__(self) -> None:
        _require(self, "yellow_min_delay", "must not be negative", holds=self.yellow_min_delay >= 0)
        _require(
            self,
            "yellow_max_delay",
            f"must be at least yellow_min_delay ({self.yellow_min_delay} s)",
            holds=self.yellow_max_delay >= self.yellow_min_delay,
        )
        _require(
            self,
            "red_max_delay",
            f"must be from yellow_max_delay ({self.yellow_max_delay} s) to 1 h",
            holds=self.yellow_max_delay <= self.red_max_delay <= _HOUR,
        )
        for name in ("scale_high", "scale_medium", "scale_low"):
            scale = getattr(self, name)
            rule = f"must be above 0, at most {_MAX_SCALE} and have a denominator of at most {_MAX_DENOMINATOR}"
            _require(self, name, rule, holds=0 < scale <= _MAX_SCALE and scale.denominator <= _MAX_DENOMINATOR)
        _require(
            self,
            "scale_medium",
            f"must be at least scale_high ({self.scale_high}): a higher priority never waits longer",
            holds=self.scale_medium >= self.scale_high,
        )
        _require(
            self,
            "scale_low",
            f"must be at least scale_medium ({self.scale_medium}): a higher priority never waits longer",
            holds=self.scale_low >= self.scale_medium,
        )

    def scale(self, priority: Priority) -> Fraction:
        """Return the factor on the base delay for `priority`."""
        return (self.scale_low, self.scale_medium, self.scale_high)[priority.value]


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    )


@attrs.frozen(kw_only=True)
class CircuitConfig:
    """When a queue's circuit breaker opens and how it recovers.

    Args:
        failure_threshold: consecutive failures that open the circuit.
        recovery_threshold: successful probes that close it.
        trip_window: seconds within which those failures must lie, first to last.
        recovery_timeout: seconds an open circuit rejects everything before its first probe.
        probe_interval: seconds between probes of a half-open circuit.
        excluded_exceptions: exception classes that are no failure (settable in code only).
        high_priority: ``"attempt"`` lets HIGH through an open circuit; ``"reject"`` blocks all priorities.
    """

    _path: ClassVar[str] = "circuit"

    failure_threshold: int = _integer(5, 1, 1_000)
    recovery_threshold: int = _integer(3, 1, 1_000)
    trip_window: float = _duration(30.0)
    recovery_timeout: float = _duration(60.0)
    probe_interval: float = _duration(5.0)
    excluded_exceptions: tuple[type[BaseException], ...] = _checked(
        (), _are_exceptions, "give a tuple of exception classes"
    )
    high_priority: Literal["reject", "attempt"] = _checked(
        "reject", lambda value: value in ("reject", "attempt"), 'give "reject" or "attempt"'
    )

    def __attrs_post_init__(self) -> None:
        _require(self, "trip_window", "must be from 10 ms to 24 h", holds=0.010 <= self.trip_window <= _DAY)
        _require(self, "recovery_timeout", "must be at most 24 h", holds=self.recovery_timeout <= _DAY)
        _require(
            self,
            "probe_interval",
            f"must be from 10 ms to recovery_timeout ({self.recovery_timeout} s)",
            holds=0.010 <= self.probe_interval <= self.recovery_timeout,
        )


@attrs.frozen(kw_only=True)
class PollingConfig:
    """How statistics are read in the background. All durations in seconds.

    Args:
        interval: between two polls.
        jitter: a poll comes up to this much earlier or later, so that producers do not poll together.
        timeout: longest a whole poll, or the first read of a queue, may take.
        max_backoff: longest wait after failed polls.
        cache_ttl: age up to which a sample is believed.
        enabled: ``False`` reads on the caller's path whenever a sample has expired.
    """

    _path: ClassVar[str] = "polling"

    interval: float = _duration(5.0)
    jitter: float = _duration(1.0)
    timeout: float = _duration(3.0)
    max_backoff: float = _duration(60.0)
    cache_ttl: float = _duration(30.0)
    enabled: bool = _boolean(default=True)

    def __attrs_post_init__(self) -> None:
        _require(self, "interval", "must be at least 50 ms", holds=self.interval >= 0.050)
        _require(
            self,
            "jitter",
            f"must be from 0 to half the interval ({self.interval / 2} s)",
            holds=0 <= self.jitter <= self.interval / 2,
        )
        _require(
            self,
            "timeout",
            f"must be from 10 ms to the interval ({self.interval} s)",
            holds=0.010 <= self.timeout <= self.interval,
        )
        _require(
            self,
            "max_backoff",
            f"must be from the interval ({self.interval} s) to 24 h",
            holds=self.interval <= self.max_backoff <= _DAY,
        )
        _require(self, "cache_ttl", "must be from 0 to 1 h", holds=0 <= self.cache_ttl <= _HOUR)
        # Rounded to nanoseconds, or 0.1 + 0.2 would be more than 0.3.
        needed = round(self.interval + self.jitter + self.timeout, 9)
        _require(
            self,
            "cache_ttl",
            f"must be at least interval + jitter + timeout ({needed} s), or samples expire between polls",
            holds=not self.enabled or self.cache_ttl >= needed,
        )


@attrs.frozen(kw_only=True)
class RecoveryStrategy:
    """What happens when statistics are stale or missing, and the manual switches' initial positions.

    Args:
        fallback_mode: ``conservative`` delays HIGH/MEDIUM/LOW by 100/500/1000 ms, ``permissive`` does not delay,
            ``circuit_only`` leaves the breaker alone to judge.
        graceful_degrade: seconds over which an expired sample's delay moves to the fallback's.
        manual_override: start with the override on.
        emergency_mode: start with emergency mode on.
    """

    _path: ClassVar[str] = "recovery"

    fallback_mode: FallbackMode = _converted(_to_fallback_mode, default=FallbackMode.CONSERVATIVE)
    graceful_degrade: float = _duration(300.0)
    manual_override: bool = _boolean(default=False)
    emergency_mode: bool = _boolean(default=False)

    def __attrs_post_init__(self) -> None:
        _require(self, "graceful_degrade", "must be from 0 to 24 h", holds=0 <= self.graceful_degrade <= _DAY)


def _optional(kind: type[Any]) -> Any:
    return _checked(None, lambda value: value is None or isinstance(value, kind), f"give a {kind.__name__} or None")


@attrs.frozen(kw_only=True)
class QueueConfig:
    """What one queue has of its own; ``None`` means the shared setting."""

    thresholds: BacklogThresholds | None = _optional(BacklogThresholds)
    curve: CurveConfig | None = _optional(CurveConfig)
    circuit: CircuitConfig | None = _optional(CircuitConfig)


def _to_queues(value: object, owner: object, field: attrs.Attribute[Any]) -> Mapping[str, QueueConfig]:
    try:
        queues = dict(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise _fail(owner, field.name, value, "give a mapping of queue names to QueueConfig") from None
    for name, settings in queues.items():
        try:
            validate_queue_name(name)
        except BackpressureError as error:
            raise _fail(owner, field.name, name, str(error)) from None
        if not isinstance(settings, QueueConfig):
            raise _fail(owner, f'{field.name}."{name}"', settings, "give a QueueConfig")
    return MappingProxyType(queues)


@attrs.frozen(kw_only=True)
class BackpressureConfig:
    """Complete configuration; every part has defaults.

    Args:
        mode: ``"observe"`` decides, counts and logs but never delays or sheds.
        max_queues: how many queues get state of their own; the rest share a fallback.
        queues: settings of single queues, since one window cannot fit all.

    Raises:
        ConfigurationError: a value is impossible; its ``field`` is the dotted path.
    """

    _path: ClassVar[str] = ""

    thresholds: BacklogThresholds = _instance(BacklogThresholds, BacklogThresholds())
    curve: CurveConfig = _instance(CurveConfig, CurveConfig())
    circuit: CircuitConfig = _instance(CircuitConfig, CircuitConfig())
    polling: PollingConfig = _instance(PollingConfig, PollingConfig())
    recovery: RecoveryStrategy = _instance(RecoveryStrategy, RecoveryStrategy())
    mode: Literal["enforce", "observe"] = _checked(
        "enforce", lambda value: value in ("enforce", "observe"), 'give "enforce" or "observe"'
    )
    max_queues: int = _integer(1_000, 1)
    queues: Mapping[str, QueueConfig] = _converted(_to_queues, factory=dict, hash=False)

    def thresholds_of(self, queue_name: str) -> BacklogThresholds:
        """Return the thresholds that hold for `queue_name`."""
        own = self.queues.get(queue_name)
        return own.thresholds if own and own.thresholds else self.thresholds

    def curve_of(self, queue_name: str) -> CurveConfig:
        """Return the curve that holds for `queue_name`."""
        own = self.queues.get(queue_name)
        return own.curve if own and own.curve else self.curve

    def circuit_of(self, queue_name: str) -> CircuitConfig:
        """Return the breaker settings that hold for `queue_name`."""
        own = self.queues.get(queue_name)
        return own.circuit if own and own.circuit else self.circuit

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy does not pickle; the plain dict it shows does.
        values = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        return (_rebuild, (values | {"queues": dict(self.queues)},))


def _rebuild(values: dict[str, Any]) -> BackpressureConfig:
    return BackpressureConfig(**values)
