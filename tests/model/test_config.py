"""Every rule of the configuration, just inside and just outside, and what its errors say."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._model.config.age import AgeConfig
from backpressure._model.config.circuit import CircuitConfig
from backpressure._model.config.polling import PollingConfig
from backpressure._model.config.recovery import FallbackMode, RecoveryStrategy
from backpressure._model.config.root import BackpressureConfig, QueueConfig
from backpressure._model.config.three_zone import BacklogThresholds, BacklogWindow, CurveConfig
from backpressure._model.errors import BackpressureError, ConfigurationError
from backpressure._model.stats import MAX_BACKLOG
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM

HOUR, DAY = 3_600.0, 86_400.0
NS = 1e-9
MORE_THAN_A_FLOAT = 10**400

Build = Callable[..., Any]


def window(**changes: Any) -> BacklogWindow:
    return BacklogWindow(**({"green_max": 10, "yellow_max": 20, "red_max": 30} | changes))


def polling(**changes: Any) -> PollingConfig:
    """A configuration whose limits can be touched one at a time."""
    roomy = {"interval": 10.0, "jitter": 1.0, "timeout": 2.0, "max_backoff": 60.0, "cache_ttl": 100.0}
    return PollingConfig(**(roomy | changes))


def refused(build: Build, **values: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        build(**values)
    return caught.value


def refuses(build: Build, path: str, rule: str, **values: Any) -> None:
    """Check that the error names the path of the field, the value and the rule."""
    error = refused(build, **values)
    assert error.field == path
    assert str(error) == f"{path} is {error.value!r}: {rule}"


NO_STORE = (
    'give the URL of a Redis or Valkey such as "redis://host:6379/0", without a password: put one with a password into '
    'an environment variable, and give "$" and the name of that'
)
NO_URLS: list[Any] = ["", "localhost:6379", "amqp://host", "$", "$A B", 6379, False, []]
NO_MEDIUM: list[Any] = ["Wait", "", True, []]
INSIDE: list[tuple[Build, dict[str, Any]]] = [
    (window, {"green_max": 0}),
    (window, {"green_max": 19}),
    (window, {"green_max": 0, "yellow_max": 1, "red_max": 2}),
    (window, {"red_max": 21}),
    (window, {"red_max": MAX_BACKLOG}),
    (window, {"green_max": MAX_BACKLOG - 2, "yellow_max": MAX_BACKLOG - 1, "red_max": MAX_BACKLOG}),
    (CurveConfig, {"yellow_min_delay": 0}),
    (CurveConfig, {"yellow_min_delay": 0, "yellow_max_delay": 0, "red_max_delay": 0}),
    (CurveConfig, {"yellow_min_delay": 0.5}),
    (CurveConfig, {"yellow_max_delay": 0.01}),
    (CurveConfig, {"yellow_max_delay": 5.0}),
    (CurveConfig, {"red_max_delay": HOUR}),
    (CurveConfig, {"scale_high": 1}),
    (CurveConfig, {"scale_high": 1e-6}),
    (CurveConfig, {"scale_low": 1}),
    (CurveConfig, {"scale_low": 1_000}),
    (CurveConfig, {"shed_permille": 0}),
    (CurveConfig, {"shed_permille": 1_000}),
    (CurveConfig, {"delay_jitter": 0}),
    (CurveConfig, {"delay_jitter": 1}),
    (CircuitConfig, {"failure_threshold": 1}),
    (CircuitConfig, {"failure_threshold": 1_000}),
    (CircuitConfig, {"recovery_threshold": 1}),
    (CircuitConfig, {"recovery_threshold": 1_000}),
    (CircuitConfig, {"trip_window": 0.010}),
    (CircuitConfig, {"trip_window": DAY}),
    (CircuitConfig, {"recovery_timeout": 5.0}),
    (CircuitConfig, {"recovery_timeout": DAY}),
    (CircuitConfig, {"recovery_timeout": DAY, "probe_interval": DAY}),
    (CircuitConfig, {"probe_interval": 0.010}),
    (CircuitConfig, {"recovery_timeout": 0.010, "probe_interval": 0.010}),
    (CircuitConfig, {"excluded_exceptions": (ValueError, KeyboardInterrupt)}),
    (CircuitConfig, {"is_failure": callable}),
    (CircuitConfig, {"high_priority": "attempt"}),
    (CircuitConfig, {"probe_on_recovery": False}),
    (polling, {"interval": 0.050, "jitter": 0, "timeout": 0.050}),
    (polling, {"jitter": 0}),
    (polling, {"busy_interval": 0.050}),
    (polling, {"busy_interval": 10.0}),
    (polling, {"jitter": 5.0}),
    (polling, {"timeout": 0.010}),
    (polling, {"timeout": 10.0}),
    (polling, {"max_backoff": 10.0}),
    (polling, {"max_backoff": DAY}),
    (polling, {"cache_ttl": HOUR}),
    (polling, {"cache_ttl": 13.0}),
    (polling, {"cache_ttl": 0, "enabled": False}),
    (RecoveryStrategy, {"graceful_degrade": 0}),
    (RecoveryStrategy, {"graceful_degrade": DAY}),
    (AgeConfig, {"target": HOUR}),
    (AgeConfig, {"medium": "shed"}),
    (AgeConfig, {"low_floor": 0}),
    (AgeConfig, {"low_floor": 0.001}),
    (AgeConfig, {"low_floor": 1}),
    (AgeConfig, {"safe_rate": 0.5}),
    (AgeConfig, {"safe_rate": 1_000_000}),
    (AgeConfig, {"calls": 1}),
    (AgeConfig, {"calls": 1_000_000}),
    (AgeConfig, {"memory": (0.1, 1)}),
    (AgeConfig, {"memory": (0.849, 0.85)}),
    (AgeConfig, {"tenant_weights": {}}),
    *(
        (AgeConfig, {"store": store})
        for store in (
            "redis://localhost",
            "rediss://user@host:6379/1",
            "valkey+sentinel://a:1,b:2/main",
            "unix:///run/redis.sock",
            "$BUDGET",
            "${BUDGET}",
        )
    ),
    (BackpressureConfig, {"max_queues": 1}),
    (BackpressureConfig, {"max_queues": 10**9}),
    (BackpressureConfig, {"mode": "observe"}),
]

OUTSIDE: list[tuple[Build, str, str, dict[str, Any]]] = [
    (window, "green_max", "give an integer from 0 to 9007199254740991", {"green_max": -1}),
    (window, "red_max", "give an integer from 0 to 9007199254740991", {"red_max": MAX_BACKLOG + 1}),
    (window, "yellow_max", "give an integer from 0 to 9007199254740991", {"yellow_max": 20.0}),
    (window, "yellow_max", "must be above green_max (20)", {"green_max": 20}),
    (window, "red_max", "must be above yellow_max (30)", {"yellow_max": 30}),
    (CurveConfig, "curve.yellow_min_delay", "must be from 0 to 1 h", {"yellow_min_delay": -NS}),
    (CurveConfig, "curve.yellow_min_delay", "must be at most yellow_max_delay (0.5 s)", {"yellow_min_delay": 0.6}),
    (CurveConfig, "curve.yellow_max_delay", "must be at most red_max_delay (5.0 s)", {"yellow_max_delay": 6.0}),
    (
        CurveConfig,
        "curve.yellow_max_delay",
        "must be at least yellow_min_delay (0.6 s)",
        {"yellow_min_delay": 0.6, "yellow_max_delay": 0.5},
    ),
    (
        CurveConfig,
        "curve.yellow_max_delay",
        "must be at least yellow_min_delay (0.01 s)",
        {"yellow_max_delay": 0.010 - NS},
    ),
    (
        CurveConfig,
        "curve.red_max_delay",
        "must be from yellow_max_delay (0.5 s) to 1 h",
        {"red_max_delay": 0.5 - NS},
    ),
    (
        CurveConfig,
        "curve.red_max_delay",
        "must be from 0 to 1 h",
        {"red_max_delay": HOUR + NS * 1_000},
    ),
    *(
        (
            CurveConfig,
            f"curve.{name}",
            "must be above 0, at most 1000 and have a denominator of at most 1000000",
            {name: scale},
        )
        for name, scale in [
            ("scale_high", 0),
            ("scale_high", -1),
            ("scale_medium", "-1/2"),
            ("scale_low", 1_001),
            ("scale_low", Fraction(1_000_001, 1_000)),
            ("scale_low", Fraction(1_000_003, 1_000_001)),
            ("scale_low", math.pi),
        ]
    ),
    (
        CurveConfig,
        "curve.scale_medium",
        "must be at least scale_high (11/10): a higher priority never waits longer",
        {"scale_high": 1.1, "scale_medium": 1},
    ),
    (
        CurveConfig,
        "curve.scale_high",
        "must be at most scale_medium (1): a higher priority never waits longer",
        {"scale_high": 1.1},
    ),
    (
        CurveConfig,
        "curve.scale_low",
        "must be at least scale_medium (2): a higher priority never waits longer",
        {"scale_medium": 2, "scale_low": 1.5},
    ),
    (CurveConfig, "curve.shed_permille", "give an integer from 0 to 1000", {"shed_permille": -1}),
    (CurveConfig, "curve.shed_permille", "give an integer from 0 to 1000", {"shed_permille": 1_001}),
    (CurveConfig, "curve.shed_at", "give an integer of waiting jobs", {"shed_at": -1}),
    (CurveConfig, "curve.shed_at", "give an integer of waiting jobs", {"shed_at": 2**53}),
    (CurveConfig, "curve.shed_at", "give an integer of waiting jobs", {"shed_at": True}),
    (
        CurveConfig,
        "curve.shed_at",
        "shed_permille says the same in another way: give one of the two",
        {"shed_at": 900, "shed_permille": 800},
    ),
    (CurveConfig, "curve.delay_jitter", "give a number from 0 to 1", {"delay_jitter": -NS}),
    (CurveConfig, "curve.delay_jitter", "give a number from 0 to 1", {"delay_jitter": 1 + NS}),
    (CurveConfig, "curve.delay_jitter", "give a number from 0 to 1", {"delay_jitter": MORE_THAN_A_FLOAT}),
    *(
        (CircuitConfig, f"circuit.{name}", "give an integer from 1 to 1000", {name: value})
        for name in ("failure_threshold", "recovery_threshold")
        for value in (0, 1_001, -1)
    ),
    (CircuitConfig, "circuit.trip_window", "must be from 10 ms to 24 h", {"trip_window": 0.010 - NS}),
    (CircuitConfig, "circuit.trip_window", "must be from 10 ms to 24 h", {"trip_window": DAY + 0.001}),
    (CircuitConfig, "circuit.recovery_timeout", "must be from 10 ms to 24 h", {"recovery_timeout": DAY + 0.001}),
    *(
        (CircuitConfig, "circuit.recovery_timeout", "must be from 10 ms to 24 h", {"recovery_timeout": value} | more)
        for value in (0, -5, 0.010 - NS, 1e12)
        for more in ({}, {"probe_interval": 0.010})
    ),
    (
        CircuitConfig,
        "circuit.probe_interval",
        "must be from 10 ms to recovery_timeout (60.0 s)",
        {"probe_interval": 60 + NS},
    ),
    (
        CircuitConfig,
        "circuit.probe_interval",
        "must be from 10 ms to 24 h",
        {"probe_interval": 0.010 - NS},
    ),
    (
        CircuitConfig,
        "circuit.probe_interval",
        "must be from 10 ms to recovery_timeout (4.999 s)",
        {"recovery_timeout": 4.999, "probe_interval": 5},
    ),
    *(
        (
            CircuitConfig,
            "circuit.excluded_exceptions",
            "give a tuple of exception classes",
            {"excluded_exceptions": bad},
        )
        for bad in ([ValueError], ValueError, (ValueError(),), (int,), ("ValueError",), None)
    ),
    *(
        (CircuitConfig, "circuit.is_failure", "give a function of an exception, or None", {"is_failure": bad})
        for bad in ("ValueError", (ValueError,), False)
    ),
    (CircuitConfig, "circuit.high_priority", 'give "reject" or "attempt"', {"high_priority": "Attempt"}),
    (polling, "polling.interval", "must be from 50 ms to 24 h", {"interval": 0.050 - NS}),
    (polling, "polling.interval", "must be from 50 ms to 24 h", {"interval": DAY + 0.001}),
    (
        PollingConfig,
        "polling.interval",
        "with jitter and timeout (3601.0 s) it must be at most 1 h, the longest cache_ttl",
        {"interval": 3_597.0},
    ),
    (polling, "polling.jitter", "must be from 0 to half the interval (5.0 s)", {"jitter": 5 + NS}),
    (polling, "polling.busy_interval", "must be at least 50 ms", {"busy_interval": 0.050 - NS}),
    (polling, "polling.busy_interval", "must be from 50 ms to the interval (10.0 s)", {"busy_interval": 10 + NS}),
    (polling, "polling.jitter", "must not be negative", {"jitter": -NS}),
    (polling, "polling.timeout", "must be at least 10 ms", {"timeout": 0.010 - NS}),
    (polling, "polling.timeout", "must be from 10 ms to the interval (10.0 s)", {"timeout": 10 + NS}),
    (polling, "polling.max_backoff", "must be from the interval (10.0 s) to 24 h", {"max_backoff": 10 - NS}),
    (polling, "polling.max_backoff", "must be at most 24 h", {"max_backoff": DAY + 0.001}),
    (polling, "polling.cache_ttl", "must be from 0 to 1 h", {"cache_ttl": HOUR + 0.001}),
    (polling, "polling.cache_ttl", "must be from 0 to 1 h", {"cache_ttl": -NS, "enabled": False}),
    (
        polling,
        "polling.cache_ttl",
        "must be at least interval + jitter + timeout (13.0 s), or samples expire between polls",
        {"cache_ttl": 13 - NS},
    ),
    (RecoveryStrategy, "recovery.graceful_degrade", "must be from 0 to 24 h", {"graceful_degrade": -NS}),
    (RecoveryStrategy, "recovery.graceful_degrade", "must be from 0 to 24 h", {"graceful_degrade": DAY + 0.001}),
    (AgeConfig, "age.target", "must be from 500 ms to 1 h", {"target": 0.5 - NS}),
    (AgeConfig, "age.target", "must be from 500 ms to 1 h", {"target": 0}),
    (AgeConfig, "age.target", "must be from 500 ms to 1 h", {"target": -5}),
    (
        AgeConfig,
        "age.target",
        'milliseconds? durations are seconds: write "5s"; must be from 500 ms to 1 h',
        {"target": 5_000.0},
    ),
    *((AgeConfig, "age.medium", 'give "wait" or "shed"', {"medium": other}) for other in NO_MEDIUM),
    *(
        (AgeConfig, "age.low_floor", "give 0, or a part of the demand of LOW from 0.001 to 1", {"low_floor": bad})
        for bad in (-NS, 0.000_9, 1 + NS, 5, True, "0.005", MORE_THAN_A_FLOAT)
    ),
    *(
        (AgeConfig, "age.safe_rate", "give jobs a second from 0 to 1000000", {"safe_rate": bad})
        for bad in (-NS, 1_000_001, False, "5")
    ),
    (AgeConfig, "age.calls", "give an integer from 1 to 1000000", {"calls": 0}),
    (AgeConfig, "age.calls", "give an integer from 1 to 1000000", {"calls": 1_000_001}),
    *(
        (AgeConfig, "age.memory", 'give two parts of the memory, such as [0.85, 0.9], or "none"', {"memory": bad})
        for bad in (0.9, (0.9,), (0.9, 0.85), (0.9, 0.9), (0, 0.9), (0.85, 1.1), (85, 90), (0.5, 0.6, 0.7), "85 %", ())
    ),
    *(
        (
            AgeConfig,
            "age.store",
            NO_STORE,
            {"store": other},
        )
        for other in NO_URLS
    ),
    (BackpressureConfig, "age", "give an AgeConfig", {"age": None}),
    (QueueConfig, "age", "give an AgeConfig or None", {"age": CurveConfig()}),
    (BackpressureConfig, "max_queues", "give an integer of at least 1", {"max_queues": 0}),
    (BackpressureConfig, "mode", 'give "enforce" or "observe"', {"mode": "dry-run"}),
    (BackpressureConfig, "thresholds", "give a BacklogThresholds", {"thresholds": {}}),
    (BackpressureConfig, "curve", "give a CurveConfig", {"curve": None}),
    (BackpressureConfig, "circuit", "give a CircuitConfig", {"circuit": CurveConfig()}),
    (BackpressureConfig, "polling", "give a PollingConfig", {"polling": PollingConfig}),
    (BackpressureConfig, "recovery", "give a RecoveryStrategy", {"recovery": "conservative"}),
    (BackpressureConfig, "queues", "give a mapping of queue names to QueueConfig", {"queues": 3}),
    (BackpressureConfig, 'queues."mail"', "give a QueueConfig", {"queues": {"mail": BacklogThresholds()}}),
    (BacklogThresholds, "thresholds.low_priority", "give a BacklogWindow", {"low_priority": (1, 2, 3)}),
    (QueueConfig, "thresholds", "give a BacklogThresholds or None", {"thresholds": window()}),
    (QueueConfig, "circuit", "give a CircuitConfig or None", {"circuit": False}),
]


@pytest.mark.parametrize(("build", "values"), INSIDE)
def test_just_inside(build: Build, values: dict[str, Any]) -> None:
    built = build(**values)
    for name, value in values.items():
        assert getattr(built, name) == (Fraction(str(value)) if name.startswith("scale_") else value)


@pytest.mark.parametrize(("build", "path", "rule", "values"), OUTSIDE)
def test_just_outside(build: Build, path: str, rule: str, values: dict[str, Any]) -> None:
    refuses(build, path, rule, **values)


def test_a_queues_bad_name_says_why() -> None:
    error = refused(BackpressureConfig, queues={"a\nb": QueueConfig()})
    assert error.field == "queues"
    assert "remove control characters" in str(error)


def test_errors_are_value_errors_and_ours() -> None:
    error = refused(PollingConfig, jitter=-1)
    assert isinstance(error, ValueError)
    assert isinstance(error, BackpressureError)
    assert (error.field, error.value) == ("polling.jitter", -1.0)
    assert str(error)[0].islower()


@pytest.mark.parametrize("build", [BackpressureConfig, CurveConfig, CircuitConfig, PollingConfig, BacklogWindow])
def test_only_keywords_are_taken(build: Build) -> None:
    with pytest.raises(TypeError):
        build(1, 2, 3)


FOLLOWS: list[tuple[Build, dict[str, Any], dict[str, float]]] = [
    (CircuitConfig, {"recovery_timeout": 1}, {"probe_interval": 1}),
    (CircuitConfig, {"recovery_timeout": 300}, {"probe_interval": 5}),
    (CircuitConfig, {"recovery_timeout": "10ms"}, {"probe_interval": 0.010}),
    (PollingConfig, {"interval": 0.1}, {"jitter": 0.05, "timeout": 0.1, "max_backoff": 60, "cache_ttl": 30}),
    (PollingConfig, {"interval": 0.1}, {"busy_interval": 0.1}),
    (PollingConfig, {"interval": 20}, {"busy_interval": 1}),
    (PollingConfig, {"interval": 120}, {"jitter": 1, "timeout": 3, "max_backoff": 120, "cache_ttl": 124}),
    (PollingConfig, {"interval": 20, "timeout": 20}, {"jitter": 1, "cache_ttl": 41}),
    (PollingConfig, {"interval": 7_200, "enabled": False}, {"max_backoff": 7_200, "cache_ttl": 30}),
]


@pytest.mark.parametrize(("build", "values", "expected"), FOLLOWS)
def test_what_is_not_set_follows(build: Build, values: dict[str, Any], expected: dict[str, float]) -> None:
    built = build(**values)
    for part in (built, attrs.evolve(built), copy.deepcopy(built), pickle.loads(pickle.dumps(built))):
        assert {name: getattr(part, name) for name in expected} == expected
        assert part == build(**values, **expected)  # which sets them


def test_what_follows_goes_on_following() -> None:
    short = pickle.loads(pickle.dumps(CircuitConfig(recovery_timeout=1)))
    assert attrs.evolve(short, recovery_timeout=30).probe_interval == 5
    assert refused(lambda: attrs.evolve(CircuitConfig(probe_interval=5), recovery_timeout=1)).field == (
        "circuit.probe_interval"
    )


@pytest.mark.parametrize(
    ("given", "memory", "permille"),
    [
        ([0.5, 0.6], (0.5, 0.6), (500, 600)),
        ("0.5, 0.6", (0.5, 0.6), (500, 600)),
        ("[0.5,1]", (0.5, 1.0), (500, 1_000)),
        ((0.85, 0.85001), (0.85, 0.85001), (849, 850)),
        ("none", None, None),
    ],
)
def test_parts_of_the_memory(given: Any, memory: Any, permille: Any) -> None:
    age = AgeConfig(memory=given)
    assert (age.memory, age.memory_permille) == (memory, permille)


def test_each_value_is_checked_before_any_pair() -> None:
    refuses(CircuitConfig, "circuit.recovery_timeout", "must be from 10 ms to 24 h", recovery_timeout=0, trip_window=1)
    refuses(PollingConfig, "polling.cache_ttl", "must be from 0 to 1 h", cache_ttl=-1, jitter=5)


DURATIONS: list[tuple[Build, str]] = [
    *((CurveConfig, name) for name in ("yellow_min_delay", "yellow_max_delay", "red_max_delay")),
    *((CircuitConfig, name) for name in ("trip_window", "recovery_timeout", "probe_interval")),
    *((PollingConfig, name) for name in ("interval", "busy_interval", "jitter", "timeout", "max_backoff", "cache_ttl")),
    (RecoveryStrategy, "graceful_degrade"),
    (AgeConfig, "target"),
]
INTEGERS: list[tuple[Build, str]] = [
    *((window, name) for name in ("green_max", "yellow_max", "red_max")),
    (CurveConfig, "shed_permille"),
    *((CircuitConfig, name) for name in ("failure_threshold", "recovery_threshold")),
    (AgeConfig, "calls"),
    (BackpressureConfig, "max_queues"),
]
FRACTIONS: list[tuple[Build, str]] = [(CurveConfig, name) for name in ("scale_high", "scale_medium", "scale_low")]
BOOLEANS: list[tuple[Build, str]] = [
    (CurveConfig, "scale_yellow"),
    (CircuitConfig, "probe_on_recovery"),
    (PollingConfig, "enabled"),
    (RecoveryStrategy, "manual_override"),
    (RecoveryStrategy, "emergency_mode"),
]
NO_NUMBERS: list[Any] = [True, False, math.nan, math.inf, -math.inf, None, [], b"5"]
OPTIONAL = {"target"}


def path_of(build: Build, name: str) -> str:
    prefix = getattr(build, "_path", "")
    return f"{prefix}.{name}" if prefix else name


@pytest.mark.parametrize(("build", "name"), DURATIONS)
@pytest.mark.parametrize(
    "value", [*NO_NUMBERS, 1j, Decimal(1), "", "5", "5 s", "s", "-5s", "1e3s", "5S", "5d", ".5s", "1s,"]
)
def test_refuses_what_is_no_duration(build: Build, name: str, value: Any) -> None:
    if value is None and name in OPTIONAL:
        return
    refuses(
        build,
        path_of(build, name),
        'give seconds, a timedelta or a string such as "250ms", "5s" or "1m"',
        **{name: value},
    )


@pytest.mark.parametrize(("build", "name"), DURATIONS)
@pytest.mark.parametrize("value", ["9" * 400 + "s", "1." + "0" * 5_000 + "s"])
def test_refuses_endless_durations(build: Build, name: str, value: str) -> None:
    assert refused(build, **{name: value}).field == path_of(build, name)


@pytest.mark.parametrize(("build", "name"), DURATIONS)
@pytest.mark.parametrize("value", [86_401, 5_000_000_000, MORE_THAN_A_FLOAT, -MORE_THAN_A_FLOAT])
def test_suspects_nanoseconds_where_go_would_write_them(build: Build, name: str, value: int) -> None:
    hint = "durations are seconds; Go writes nanoseconds, so divide by 1_000_000_000"
    if value == 86_401:  # not a ten-thousandth of a second, which nobody wants
        hint = f'milliseconds? {hint}; for milliseconds write "86401ms"'
    refuses(build, path_of(build, name), hint, **{name: value})


@pytest.mark.parametrize(("build", "name"), DURATIONS)
def test_asks_whether_a_long_bare_number_is_milliseconds(build: Build, name: str) -> None:
    longest = 60 if build in {CurveConfig, AgeConfig} or name == "timeout" else 3_600
    error = refused(build, **{name: longest + 500})
    assert error.field == path_of(build, name)
    if name != "cache_ttl":  # its own rule allows no more
        assert f'milliseconds? durations are seconds: write "{(longest + 500) / 1_000:g}s", or ' in str(error)


@pytest.mark.parametrize("name", ["trip_window", "recovery_timeout"])
@pytest.mark.parametrize("value", [60_000, 60_000.0, 30_000, 3_601])
def test_milliseconds_are_not_taken_for_seconds(name: str, value: float) -> None:
    rule = f'milliseconds? durations are seconds: write "{value / 1_000:g}s", or "{value:g}s" if so long is meant'
    refuses(CircuitConfig, f"circuit.{name}", rule, **{name: value})


@pytest.mark.parametrize("given_as", ["60000s", "1000m", timedelta(seconds=60_000)])
def test_what_has_a_unit_is_believed_also_after_a_round_trip(given_as: Any) -> None:
    config = BackpressureConfig(circuit=CircuitConfig(recovery_timeout=given_as))
    assert config.circuit.recovery_timeout == 60_000
    as_json = json.loads(json.dumps(config.to_dict()))
    assert as_json["circuit"]["recovery_timeout"] == "60000.0s"
    for again in (
        BackpressureConfig.from_mapping(as_json).circuit,
        config.evolve({"max_queues": 5}).circuit,
        attrs.evolve(config.circuit, failure_threshold=2),
        pickle.loads(pickle.dumps(config)).circuit,
        copy.deepcopy(config).circuit,
    ):
        assert again.recovery_timeout == 60_000
    config.validate()


@pytest.mark.parametrize("value", [86_400, 86_400.0])
def test_a_day_in_seconds_is_no_suspect(value: float) -> None:
    assert CircuitConfig(recovery_timeout=value).recovery_timeout == DAY


def test_a_large_float_meets_the_fields_own_rule() -> None:
    refuses(CircuitConfig, "circuit.recovery_timeout", "must be from 10 ms to 24 h", recovery_timeout=86_401.0)


@pytest.mark.parametrize(("build", "name"), INTEGERS)
@pytest.mark.parametrize("value", [*NO_NUMBERS, 5.0, "5"])
def test_refuses_what_is_no_integer(build: Build, name: str, value: Any) -> None:
    error = refused(build, **{name: value})
    assert error.field == path_of(build, name)
    assert "give an integer" in str(error)


@pytest.mark.parametrize(("build", "name"), FRACTIONS)
@pytest.mark.parametrize("value", [*NO_NUMBERS, "", "half", "1/0", "nan", "inf", "1/2/3", "1e999999999"])
def test_refuses_what_is_no_fraction(build: Build, name: str, value: Any) -> None:
    refuses(build, path_of(build, name), 'give a positive number or a fraction such as "1/2"', **{name: value})


@pytest.mark.parametrize("value", [*NO_NUMBERS, "0.1"])
def test_refuses_what_is_no_jitter(value: Any) -> None:
    refuses(CurveConfig, "curve.delay_jitter", "give a number from 0 to 1", delay_jitter=value)


@pytest.mark.parametrize(("build", "name"), BOOLEANS)
@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_refuses_what_is_no_boolean(build: Build, name: str, value: Any) -> None:
    refuses(build, path_of(build, name), "give true or false", **{name: value})


def test_every_setting_is_among_those_tried() -> None:
    tried = {name for _, name in (*DURATIONS, *INTEGERS, *FRACTIONS, *BOOLEANS)}
    others = {"shed_at", "delay_jitter", "excluded_exceptions", "is_failure", "high_priority", "fallback_mode"}
    others |= {"medium", "low_floor", "store", "safe_rate", "memory", "tenant_weights"}
    for kind in (BacklogWindow, CurveConfig, CircuitConfig, PollingConfig, RecoveryStrategy, AgeConfig):
        assert {field.name for field in attrs.fields(kind)} <= tried | others


@pytest.mark.parametrize(
    ("given_as", "seconds"),
    [
        (3, 3.0),
        (0.25, 0.25),
        ("250ms", 0.25),
        ("9ms", 0.009),
        ("115ms", 0.115),
        ("5s", 5.0),
        ("1.5s", 1.5),
        ("1m", 60.0),
        ("1m30s", 90.0),
        ("1h", 3_600.0),
        ("0h1m0.5s", 60.5),
        ("500us", 0.0005),
        ("500µs", 0.0005),
        ("1ns", 1e-9),
        ("0s", 0.0),
        (" 5s\n", 5.0),
        (timedelta(milliseconds=250), 0.25),
        (timedelta(0), 0.0),
    ],
)
def test_durations(given_as: Any, seconds: float) -> None:
    degrade = RecoveryStrategy(graceful_degrade=given_as).graceful_degrade
    assert degrade == seconds
    assert type(degrade) is float


@given(st.integers(0, 86_400_000))
def test_a_duration_in_text_is_the_float_of_the_same_number(milliseconds: int) -> None:
    in_text: Any = f"{milliseconds}ms"
    assert RecoveryStrategy(graceful_degrade=in_text).graceful_degrade == milliseconds / 1_000


@given(st.integers(50, 10_000), st.integers(0, 10_000), st.integers(10, 10_000))
def test_a_cache_ttl_of_exactly_the_sum_is_enough(interval: int, jitter: int, timeout: int) -> None:
    jitter, timeout = min(jitter, interval // 2), min(timeout, interval)
    total = interval + jitter + timeout
    as_floats = {"interval": interval / 1_000, "jitter": jitter / 1_000, "timeout": timeout / 1_000}
    as_text = {name: f"{value * 1_000:.0f}ms" for name, value in as_floats.items()}
    assert PollingConfig(**as_floats, cache_ttl=total / 1_000) == PollingConfig(**as_text, cache_ttl=f"{total}ms")  # type: ignore[arg-type]
    assert refused(PollingConfig, **as_floats, cache_ttl=total / 1_000 - 1e-6).field == "polling.cache_ttl"


@pytest.mark.parametrize(
    ("given_as", "scale"),
    [
        (2, Fraction(2)),
        (1.1, Fraction(11, 10)),
        (1.5, Fraction(3, 2)),
        ("3/2", Fraction(3, 2)),
        ("1.25", Fraction(5, 4)),
        (Fraction(7, 3), Fraction(7, 3)),
    ],
)
def test_fractions_mean_what_is_written(given_as: Any, scale: Fraction) -> None:
    assert CurveConfig(scale_low=given_as).scale_low == scale


@pytest.mark.parametrize(
    ("given_as", "mode"),
    [
        (True, FallbackMode.CONSERVATIVE),
        (False, FallbackMode.PERMISSIVE),
        ("conservative", FallbackMode.CONSERVATIVE),
        ("permissive", FallbackMode.PERMISSIVE),
        ("circuit_only", FallbackMode.CIRCUIT_ONLY),
        (FallbackMode.CIRCUIT_ONLY, FallbackMode.CIRCUIT_ONLY),
    ],
)
def test_fallback_modes(given_as: Any, mode: FallbackMode) -> None:
    assert RecoveryStrategy(fallback_mode=given_as).fallback_mode is mode


@pytest.mark.parametrize("value", [1, 0, None, "true", "Conservative", "", [], {}])
def test_refuses_any_other_fallback_mode(value: Any) -> None:
    rule = 'give "conservative", "permissive" or "circuit_only", or true/false for conservative/permissive'
    refuses(RecoveryStrategy, "recovery.fallback_mode", rule, fallback_mode=value)


def test_defaults() -> None:
    config = BackpressureConfig()
    bounds = [attrs.astuple(config.thresholds.window(priority)) for priority in (HIGH, MEDIUM, LOW)]
    assert bounds == [(1_000, 5_000, 10_000), (500, 2_000, 5_000), (100, 500, 1_000)]
    curve = config.curve
    assert (curve.yellow_min_delay, curve.yellow_max_delay, curve.red_max_delay) == (0.010, 0.500, 5.0)
    assert [curve.scale(priority) for priority in (HIGH, MEDIUM, LOW)] == [Fraction(1, 2), 1, Fraction(3, 2)]
    assert (curve.shed_permille, curve.scale_yellow, curve.delay_jitter) == (800, True, 0.1)
    circuit = config.circuit
    assert (circuit.excluded_exceptions, circuit.high_priority) == ((), "reject")
    assert config.polling.cache_ttl == 30.0
    assert config.recovery.graceful_degrade == 300.0
    assert config.recovery.fallback_mode is FallbackMode.CONSERVATIVE
    assert (config.recovery.manual_override, config.recovery.emergency_mode) == (False, False)
    assert (config.mode, config.max_queues, dict(config.queues)) == ("enforce", 1_000, {})


MAIL = QueueConfig(thresholds=BacklogThresholds(low_priority=window()), circuit=CircuitConfig(failure_threshold=7))
FULL = BackpressureConfig(
    curve=CurveConfig(scale_low="7/3"),  # type: ignore[arg-type]
    circuit=CircuitConfig(excluded_exceptions=(KeyError, UnicodeError)),
    queues={"mail": MAIL, "队列": QueueConfig(curve=CurveConfig(shed_permille=1))},
)


def test_a_queue_has_its_own_or_the_shared_settings() -> None:
    assert FULL.thresholds_of("mail") is MAIL.thresholds
    assert FULL.circuit_of("mail") is MAIL.circuit
    assert FULL.curve_of("mail") is FULL.curve
    assert FULL.curve_of("队列").shed_permille == 1
    for other in ("队列", "unknown"):
        assert FULL.thresholds_of(other) is FULL.thresholds
        assert FULL.circuit_of(other) is FULL.circuit
    assert FULL.curve_of("unknown") is FULL.curve


def test_nothing_can_be_changed() -> None:
    mine = {"mail": MAIL}
    config = BackpressureConfig(queues=mine)
    mine["other"] = MAIL
    assert dict(config.queues) == {"mail": MAIL}
    with pytest.raises(TypeError):
        config.queues["other"] = MAIL  # type: ignore[index]
    for part, name in ((config, "mode"), (config.polling, "interval"), (MAIL, "curve"), (window(), "red_max")):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(part, name, None)


@pytest.mark.parametrize("config", [BackpressureConfig(), FULL], ids=["default", "full"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(config: BackpressureConfig, protocol: int) -> None:
    back = pickle.loads(pickle.dumps(config, protocol))
    assert back == config
    assert hash(back) == hash(config)
    with pytest.raises(TypeError):
        back.queues["other"] = MAIL


@pytest.mark.parametrize("part", [window(), MAIL, FULL.curve, FULL.circuit, FULL.polling, FULL.recovery, FULL])
def test_parts_are_values(part: Any) -> None:
    assert pickle.loads(pickle.dumps(part)) == part
    assert copy.deepcopy(part) == part
    assert copy.copy(part) == part
    assert attrs.evolve(part) == part
    assert hash(attrs.evolve(part)) == hash(part)


def test_evolving_checks_again() -> None:
    assert attrs.evolve(FULL.polling, jitter=2.5).jitter == 2.5
    error = refused(lambda **changes: attrs.evolve(FULL.polling, **changes), jitter=2.6)
    assert error.field == "polling.jitter"
