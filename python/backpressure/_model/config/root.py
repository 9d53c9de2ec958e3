"""What a user can set: frozen attrs classes that check themselves when built.

Durations are seconds as floats; each also takes a ``timedelta`` or a string such as ``"250ms"``, ``"5s"``, ``"1m30s"``.
All classes are immutable and safe to share between threads.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, Literal

import attrs

from backpressure._model.arguments import shown, validate_queue_name
from backpressure._model.errors import BackpressureError, ConfigurationError
from backpressure._model.stats import MAX_BACKLOG
from backpressure._model.vocabulary import Priority

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

_TICK = 0.010
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

# A field's name, and a function: True, or the rule that is broken. It is a function of the value alone, or of the
# finished object (or of its sound part).
_Rules = tuple[tuple[str, Callable[[Any], bool | str]], ...]


class Unset:
    """A default, which nobody has set: it gives way to what was. Kept by copies, and by what is laid over them."""

    __slots__ = ()


class _UnsetInteger(Unset, int):
    __slots__ = ()


class _UnsetSeconds(Unset, float):
    __slots__ = ()


class _UnsetFraction(Unset, Fraction):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"Fraction({self.numerator}, {self.denominator})"


def _fail(owner: object, name: str, value: object, rule: str) -> ConfigurationError:
    prefix = getattr(owner, "_path", "")
    path = f"{prefix}.{name}" if prefix else name
    return ConfigurationError(f"{path} is {shown(value)}: {rule}", field=path, value=value)


def _is_number(value: object) -> bool:
    # Not math.isfinite, which overflows on integers that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def _to_seconds(value: object, owner: object, field: "attrs.Attribute[Any]") -> float:
    if isinstance(value, _UnsetSeconds):
        return value
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


def _to_fraction(value: object, owner: object, field: "attrs.Attribute[Any]") -> Fraction:
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


def _to_fallback_mode(value: object, owner: object, field: "attrs.Attribute[Any]") -> "FallbackMode":
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
    return _converted(_to_seconds, default=_UnsetSeconds(default))


def _fraction(default: Fraction) -> Any:
    return _converted(_to_fraction, default=_UnsetFraction(default))


def _checked(default: Any, check: Callable[[Any], bool], rule: str) -> Any:
    def validate(owner: object, field: "attrs.Attribute[Any]", value: object) -> None:
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


def check_field(cls: type[Any], field: "attrs.Attribute[Any]", value: object) -> Any:
    """Convert and validate one value as building `cls` would, without the rest of the object."""
    converter: Any = field.converter
    if converter is not None:
        value = converter.converter(value, cls, field)
    if field.validator is not None:
        field.validator(cls, field, value)
    return value


def broken_rules(cls: type[Any], values: Any) -> Iterator[ConfigurationError]:
    """Yield the first broken rule of each field: of each value for itself, then of pairs that are sound so far.

    In between, fields of `values` that nobody has set follow those that they depend on. What `values` lacks, or is
    broken, is taken away, and rules about it are passed over.
    """
    for name, rule in cls._own_rules:
        if (value := getattr(values, name, None)) is not None and (verdict := rule(value)) is not True:
            delattr(values, name)
            yield _fail(cls, name, value, verdict)
    for name, follow in cls._follow.items():
        if isinstance(getattr(values, name, None), Unset):
            try:
                setattr(values, name, _UnsetSeconds(follow(attrs.fields_dict(cls)[name].default, values)))
            except AttributeError:
                delattr(values, name)
    broken: set[str] = set()
    for name, rule in cls._rules:
        try:
            verdict = rule(values)
        except AttributeError:
            continue
        if verdict is not True and name not in broken:
            broken.add(name)
            yield _fail(cls, name, getattr(values, name), verdict)


def _ordered(low: str, high: str, low_rule: str, high_rule: str, *, strictly: bool = False) -> _Rules:
    """Return the rules that field `low` is not above `high`; where nobody set the one, the other is to blame."""

    def blames_low(it: Any) -> bool:
        return isinstance(getattr(it, high), Unset) and not isinstance(getattr(it, low), Unset)

    def in_order(it: Any) -> bool:
        lower, higher = getattr(it, low), getattr(it, high)
        return bool(lower < higher or (lower == higher and not strictly))

    return (
        (low, lambda it: in_order(it) or not blames_low(it) or low_rule.format(getattr(it, high))),
        (high, lambda it: in_order(it) or blames_low(it) or high_rule.format(getattr(it, low))),
    )


class _Section:
    """What all parts share: a place in the tree, rules of their fields and between them, and who follows whom."""

    __slots__ = ()

    _path: ClassVar[str] = ""
    _own_rules: ClassVar[_Rules] = ()
    _rules: ClassVar[_Rules] = ()
    #: Fields that follow others until they are set: functions of their defaults and of the object, in this order.
    _follow: ClassVar[Mapping[str, Callable[[float, Any], float]]] = {}

    def __attrs_post_init__(self) -> None:
        cls: type[Any] = type(self)
        values = SimpleNamespace(**{field.name: getattr(self, field.name) for field in attrs.fields(cls)})
        for error in broken_rules(cls, values):
            raise error
        for name in cls._follow:
            object.__setattr__(self, name, getattr(values, name))


class FallbackMode(StrEnum):
    """What to do when there are no usable statistics.

    ``conservative`` delays HIGH/MEDIUM/LOW by 100/500/1000 ms, ``permissive`` does not delay, ``circuit_only`` leaves
    the breaker alone to judge. Settings take ``true`` and ``false`` for the first two.

    Example:
        >>> RecoveryStrategy(fallback_mode=False).fallback_mode
        <FallbackMode.PERMISSIVE: 'permissive'>
    """

    CONSERVATIVE = "conservative"
    PERMISSIVE = "permissive"
    CIRCUIT_ONLY = "circuit_only"


@attrs.frozen(kw_only=True)
class BacklogWindow(_Section):
    """Where a queue's backlog turns from green to yellow to red. Integers, in waiting jobs. Immutable.

    0 <= green_max < yellow_max < red_max <= 2**53 - 1.

    Args:
        green_max: largest backlog at which jobs go at once.
        yellow_max: largest backlog of the yellow zone; beyond it lies red.
        red_max: where the delay stops growing.

    Raises:
        ConfigurationError: a bound is no such integer, or out of order.

    Example:
        >>> BacklogWindow(green_max=200, yellow_max=100, red_max=1_000)
        Traceback (most recent call last):
            ...
        backpressure.ConfigurationError: yellow_max is 100: must be above green_max (200)
    """

    green_max: int = _integer(attrs.NOTHING, 0, MAX_BACKLOG)
    yellow_max: int = _integer(attrs.NOTHING, 0, MAX_BACKLOG)
    red_max: int = _integer(attrs.NOTHING, 0, MAX_BACKLOG)

    _rules = tuple(
        rule
        for low, high in (("green_max", "yellow_max"), ("yellow_max", "red_max"))
        for rule in _ordered(low, high, f"must be below {high} ({{}})", f"must be above {low} ({{}})", strictly=True)
    )


def _window(green: int, yellow: int, red: int) -> Any:
    green, yellow, red = map(_UnsetInteger, (green, yellow, red))
    return _instance(BacklogWindow, BacklogWindow(green_max=green, yellow_max=yellow, red_max=red))


@attrs.frozen(kw_only=True)
class BacklogThresholds(_Section):
    """One window for each priority. Immutable.

    Args:
        high_priority: default 1000/5000/10000.
        medium_priority: default 500/2000/5000.
        low_priority: default 100/500/1000.

    Raises:
        ConfigurationError: a window is no `BacklogWindow`.

    Example:
        >>> BacklogThresholds().window(Priority.LOW)
        BacklogWindow(green_max=100, yellow_max=500, red_max=1000)
    """

    _path = "thresholds"

    high_priority: BacklogWindow = _window(1_000, 5_000, 10_000)
    medium_priority: BacklogWindow = _window(500, 2_000, 5_000)
    low_priority: BacklogWindow = _window(100, 500, 1_000)

    def window(self, priority: Priority) -> BacklogWindow:
        """Return the window of `priority`."""
        return (self.low_priority, self.medium_priority, self.high_priority)[priority.value]


def _is_delay(delay: float) -> bool | str:
    return 0 <= delay <= _HOUR or "must be from 0 to 1 h"


def _is_scale(scale: Fraction) -> bool | str:
    rule = f"must be above 0, at most {_MAX_SCALE} and have a denominator of at most {_MAX_DENOMINATOR}"
    return (0 < scale <= _MAX_SCALE and scale.denominator <= _MAX_DENOMINATOR) or rule


@attrs.frozen(kw_only=True)
class CurveConfig(_Section):
    """Shape of the delay between the bounds of a window. Durations in seconds. Immutable.

    The base delay grows linearly from `yellow_min_delay` to `yellow_max_delay` across the yellow zone and on to
    `red_max_delay` across the red one, and is multiplied by the priority's scale. LOW is shed once the backlog is
    more than `shed_permille` thousandths into the red zone.

    Args:
        yellow_min_delay: base delay just above the green bound.
        yellow_max_delay: base delay at the yellow bound.
        red_max_delay: base delay at the red bound and beyond; at most an hour.
        scale_high: factor for HIGH; a number or a fraction such as ``"1/2"``.
        scale_medium: factor for MEDIUM, at least that of HIGH.
        scale_low: factor for LOW, at least that of MEDIUM.
        shed_permille: how far into the red zone, in thousandths of it, LOW begins to be shed; 1000 never sheds.
        scale_yellow: ``False`` scales the red zone alone, as the Go original does; HIGH then waits *less* just above
            the yellow limit than just below it.
        delay_jitter: sleeps are lengthened by a random share of up to this, so that producers do not wake together.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> curve = CurveConfig(yellow_max_delay="250ms", red_max_delay="2s", scale_low=2)
        >>> curve.yellow_max_delay, curve.scale(Priority.LOW)
        (0.25, Fraction(2, 1))
    """

    _path = "curve"

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

    _own_rules = (
        *((name, _is_delay) for name in ("yellow_min_delay", "yellow_max_delay", "red_max_delay")),
        *((name, _is_scale) for name in ("scale_high", "scale_medium", "scale_low")),
    )
    _rules = (
        *_ordered(
            "yellow_min_delay",
            "yellow_max_delay",
            "must be at most yellow_max_delay ({} s)",
            "must be at least yellow_min_delay ({} s)",
        ),
        *_ordered(
            "yellow_max_delay",
            "red_max_delay",
            "must be at most red_max_delay ({} s)",
            "must be from yellow_max_delay ({} s) to 1 h",
        ),
        *(
            rule
            for low, high in (("scale_high", "scale_medium"), ("scale_medium", "scale_low"))
            for rule in _ordered(
                low,
                high,
                f"must be at most {high} ({{}}): a higher priority never waits longer",
                f"must be at least {low} ({{}}): a higher priority never waits longer",
            )
        ),
    )

    def scale(self, priority: Priority) -> Fraction:
        """Return the factor on the base delay for `priority`."""
        return (self.scale_low, self.scale_medium, self.scale_high)[priority.value]


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in value
    )


@attrs.frozen(kw_only=True)
class CircuitConfig(_Section):
    """When a queue's circuit breaker opens and how it recovers. Durations in seconds. Immutable.

    Args:
        failure_threshold: consecutive failures that open the circuit.
        recovery_threshold: successful probes that close it.
        trip_window: seconds without an attempt, from the end of a failure on, that end a row of failures.
        recovery_timeout: seconds an open circuit rejects everything before its first probe.
        probe_interval: seconds between probes of a half-open circuit.
        excluded_exceptions: exception classes that are no failure (settable in code only).
        is_failure: asked about each other `Exception`: ``False`` for one that is no failure (settable in code only).
            Must be thread-safe; what it raises is logged once, and the exception counts.
        high_priority: ``"attempt"`` lets HIGH through an open circuit; ``"reject"`` blocks all priorities.
        probe_on_recovery: where statistics and enqueues share a server and reads failed since the circuit opened, the
            first good read of the queue makes its next admission the probe.

    `probe_interval` follows a shorter `recovery_timeout` unless it is set.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> CircuitConfig(failure_threshold=10, recovery_timeout="2m", excluded_exceptions=(KeyError,)).recovery_timeout
        120.0
    """

    _path = "circuit"

    failure_threshold: int = _integer(5, 1, 1_000)
    recovery_threshold: int = _integer(3, 1, 1_000)
    trip_window: float = _duration(30.0)
    recovery_timeout: float = _duration(60.0)
    probe_interval: float = _duration(5.0)
    excluded_exceptions: tuple[type[BaseException], ...] = _checked(
        (), _are_exceptions, "give a tuple of exception classes"
    )
    is_failure: Callable[[Exception], bool] | None = _checked(
        None, lambda value: value is None or callable(value), "give a function of an exception, or None"
    )
    high_priority: Literal["reject", "attempt"] = _checked(
        "reject", lambda value: value in ("reject", "attempt"), 'give "reject" or "attempt"'
    )
    probe_on_recovery: bool = _boolean(default=True)

    _own_rules = tuple(
        (name, lambda seconds: _TICK <= seconds <= _DAY or "must be from 10 ms to 24 h")
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


def _longest_gap(polling: Any) -> Any:
    # Rounded to nanoseconds, or 0.1 + 0.2 would be more than 0.3.
    return round(polling.interval + polling.jitter + polling.timeout, 9)


@attrs.frozen(kw_only=True)
class PollingConfig(_Section):
    """How statistics are read in the background. All durations in seconds. Immutable.

    Args:
        interval: between two polls.
        jitter: a poll comes up to this much earlier or later, so that producers do not poll together.
        timeout: longest a whole poll, or the first read of a queue, may take.
        max_backoff: longest wait after failed polls.
        cache_ttl: age up to which a sample is believed.
        enabled: ``False`` reads on the caller's path whenever a sample has expired.

    What is not set follows `interval`: `jitter` and `timeout` a shorter one, `max_backoff` and `cache_ttl` a longer.

    Raises:
        ConfigurationError: a value is impossible, or does not fit another.

    Example:
        >>> polling = PollingConfig(interval="500ms")
        >>> polling.jitter, polling.timeout, polling.cache_ttl
        (0.25, 0.5, 30.0)
    """

    _path = "polling"

    interval: float = _duration(5.0)
    jitter: float = _duration(1.0)
    timeout: float = _duration(3.0)
    max_backoff: float = _duration(60.0)
    cache_ttl: float = _duration(30.0)
    enabled: bool = _boolean(default=True)

    _own_rules = (
        ("interval", lambda interval: 0.050 <= interval <= _DAY or "must be from 50 ms to 24 h"),
        ("jitter", lambda jitter: jitter >= 0 or "must not be negative"),
        ("timeout", lambda timeout: timeout >= _TICK or "must be at least 10 ms"),
        ("max_backoff", lambda longest: longest <= _DAY or "must be at most 24 h"),
        ("cache_ttl", lambda ttl: 0 <= ttl <= _HOUR or "must be from 0 to 1 h"),
    )
    _follow = MappingProxyType(
        {
            "jitter": lambda default, it: min(default, it.interval / 2),
            "timeout": lambda default, it: min(default, it.interval),
            "max_backoff": lambda default, it: max(default, it.interval),
            "cache_ttl": lambda default, it: max(default, _longest_gap(it)) if it.enabled else default,
        }
    )
    _rules = (
        (
            "interval",
            lambda it: (
                not it.enabled
                or isinstance(it.interval, Unset)
                or _longest_gap(it) <= _HOUR
                or f"with jitter and timeout ({_longest_gap(it)} s) it must be at most 1 h, the longest cache_ttl"
            ),
        ),
        (
            "jitter",
            lambda it: it.jitter <= it.interval / 2 or f"must be from 0 to half the interval ({it.interval / 2} s)",
        ),
        (
            "timeout",
            lambda it: it.timeout <= it.interval or f"must be from 10 ms to the interval ({it.interval} s)",
        ),
        (
            "max_backoff",
            lambda it: it.interval <= it.max_backoff or f"must be from the interval ({it.interval} s) to 24 h",
        ),
        (
            "cache_ttl",
            lambda it: (
                not it.enabled
                or it.cache_ttl >= _longest_gap(it)
                or f"must be at least interval + jitter + timeout ({_longest_gap(it)} s), "
                "or samples expire between polls"
            ),
        ),
    )


@attrs.frozen(kw_only=True)
class RecoveryStrategy(_Section):
    """What happens when statistics are stale or missing, and the manual switches' initial positions. Immutable.

    Args:
        fallback_mode: ``conservative`` delays HIGH/MEDIUM/LOW by 100/500/1000 ms, ``permissive`` does not delay,
            ``circuit_only`` leaves the breaker alone to judge.
        graceful_degrade: seconds over which an expired sample's delay moves to the fallback's.
        manual_override: start with the override on.
        emergency_mode: start with emergency mode on.

    Raises:
        ConfigurationError: a value is impossible.

    Example:
        >>> RecoveryStrategy(fallback_mode="permissive", graceful_degrade="1m").graceful_degrade
        60.0
    """

    _path = "recovery"

    fallback_mode: FallbackMode = _converted(_to_fallback_mode, default=FallbackMode.CONSERVATIVE)
    graceful_degrade: float = _duration(300.0)
    manual_override: bool = _boolean(default=False)
    emergency_mode: bool = _boolean(default=False)

    _own_rules = (("graceful_degrade", lambda seconds: 0 <= seconds <= _DAY or "must be from 0 to 24 h"),)


def _optional(kind: type[Any]) -> Any:
    return _checked(None, lambda value: value is None or isinstance(value, kind), f"give a {kind.__name__} or None")


@attrs.frozen(kw_only=True)
class QueueConfig(_Section):
    """What one queue has of its own; ``None`` means the shared setting. Immutable.

    Args:
        thresholds: its windows.
        curve: its delays.
        circuit: its breaker.

    Raises:
        ConfigurationError: a part is of another class.

    Example:
        >>> config = BackpressureConfig(queues={"email-queue": QueueConfig(circuit=CircuitConfig(failure_threshold=9))})
        >>> config.circuit_of("email-queue").failure_threshold, config.circuit_of("other").failure_threshold
        (9, 5)
    """

    thresholds: BacklogThresholds | None = _optional(BacklogThresholds)
    curve: CurveConfig | None = _optional(CurveConfig)
    circuit: CircuitConfig | None = _optional(CircuitConfig)


def _to_queues(value: object, owner: object, field: "attrs.Attribute[Any]") -> Mapping[str, QueueConfig]:
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
class BackpressureConfig(_Section):
    """Complete configuration; every part has defaults. Immutable.

    Args:
        thresholds: bounds of the zones, in waiting jobs.
        curve: delays and shedding between them.
        circuit: breakers.
        polling: how statistics are read.
        recovery: what happens without them, and switches.
        mode: ``"observe"`` decides, counts and logs but never delays or sheds.
        max_queues: how many queues get state of their own; the rest share a fallback.
        queues: settings of single queues, since one window cannot fit all.

    Raises:
        ConfigurationError: a value is impossible; its ``field`` is the dotted path.

    Example:
        >>> config = BackpressureConfig(polling=PollingConfig(interval="2s", timeout="1s"), max_queues=50)
        >>> config.polling.interval
        2.0
    """

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

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], base: "BackpressureConfig | None" = None) -> "BackpressureConfig":
        """Return `base`, or else the defaults, with nested tables of settings laid over it.

        What a queue sets goes over its own setting in `base` if it has that part, else over the shared one as loaded.

        Raises:
            ConfigurationError: settings are unknown or impossible; its ``faults`` and its message hold all of them.

        Example:
            >>> config = BackpressureConfig.from_mapping({"polling": {"interval": "2s", "timeout": "1s"}})
            >>> config.polling.timeout
            1.0
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.from_mapping(mapping, base)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], base: "BackpressureConfig | None" = None) -> "BackpressureConfig":
        """Return `base`, or else the defaults, with a UTF-8 ``.toml`` or ``.json`` file of at most 1 MiB laid over it.

        Raises:
            ConfigurationError: as from `from_mapping`, or the file cannot be read.
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.from_file(path, base)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, base: "BackpressureConfig | None" = None
    ) -> "BackpressureConfig":
        """Return `base`, or else the defaults, with variables such as ``BACKPRESSURE_POLLING__INTERVAL=5s`` over it.

        `environ` defaults to that of the process. Two underscores go one level down; case is ignored. Queues are one
        JSON object in ``BACKPRESSURE_QUEUES``. ``BACKPRESSURE_ENGINE`` and ``BACKPRESSURE_TEST_*`` are no settings.

        Raises:
            ConfigurationError: as from `from_mapping`.

        Example:
            >>> config = BackpressureConfig.from_env({"BACKPRESSURE_RECOVERY__FALLBACK_MODE": "permissive"})
            >>> str(config.recovery.fallback_mode)
            'permissive'
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.from_env(environ, base)

    def evolve(self, changes: Mapping[str, Any]) -> "BackpressureConfig":
        """Return a changed copy.

        Paths are dotted, queue names quoted: ``queues."email-queue".curve.red_max_delay``. Values may be tables or
        objects of this module, too; of two changes to one setting the later counts.

        Raises:
            ConfigurationError: as from `from_mapping`.

        Example:
            >>> config = BackpressureConfig().evolve({"thresholds.low_priority.red_max": 2_000})
            >>> config.thresholds.low_priority
            BacklogWindow(green_max=100, yellow_max=500, red_max=2000)
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.evolve(self, changes)

    def to_dict(self) -> dict[str, Any]:
        """Return everything ready for JSON and `from_mapping`: seconds, scales as text.

        All but ``excluded_exceptions`` and ``is_failure``, which only code can hold.
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.to_dict(self)

    def validate(self) -> None:
        """Check every value again, as building the configuration did.

        Raises:
            ConfigurationError: as from `from_mapping`.
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        loading.validate(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy does not pickle; the plain dict it shows does.
        values = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        return (_rebuild, (values | {"queues": dict(self.queues)},))


def _rebuild(values: dict[str, Any]) -> BackpressureConfig:
    return BackpressureConfig(**values)
