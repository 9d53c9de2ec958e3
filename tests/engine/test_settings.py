"""The configuration as plain integers: what is rounded how, and which queue gets what."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._engine.settings import CircuitSettings, EngineSettings, PatternSettings
from backpressure._model.config.circuit import CircuitConfig
from backpressure._model.config.polling import PollingConfig
from backpressure._model.config.recovery import FallbackMode, RecoveryStrategy
from backpressure._model.config.root import BackpressureConfig, QueueConfig
from backpressure._model.config.three_zone import BacklogThresholds, BacklogWindow, CurveConfig
from backpressure._model.units import nanoseconds
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM, Priority, Reason

MS = 1_000_000
SECOND = 1_000 * MS

DEFAULT_LAW = ThreeZoneLaw(
    windows=((100, 500, 1_000), (500, 2_000, 5_000), (1_000, 5_000, 10_000)),
    yellow_min_ns=10 * MS,
    yellow_max_ns=500 * MS,
    red_max_ns=5 * SECOND,
    scales=((3, 2), (1, 1), (1, 2)),
    shed_permille=800,
    scale_yellow=True,
    memory_permille=(850, 900),
)
DEFAULT_CIRCUIT = CircuitSettings(
    failure_threshold=5,
    recovery_threshold=3,
    trip_window_ms=30_000,
    recovery_timeout_ms=60_000,
    probe_interval_ms=5_000,
    high_attempts=False,
)


def test_the_defaults_in_integers() -> None:
    settings = EngineSettings.of(BackpressureConfig())
    assert attrs.asdict(settings, recurse=False) == {
        "law": DEFAULT_LAW,
        "circuit": DEFAULT_CIRCUIT,
        "laws": {},
        "circuits": {},
        "observed": {},
        "patterns": (),
        "one_mode": True,
        "cache_ttl_ns": 30 * SECOND,
        "check_after_ns": 9 * SECOND,
        "check_every_ns": 5 * SECOND,
        "degrade_ns": 300 * SECOND,
        "fallback_ns": (1_000 * MS, 500 * MS, 100 * MS),
        "fallback_reason": Reason.FALLBACK_CONSERVATIVE,
        "polling": True,
        "observe": False,
        "max_queues": 1_000,
        "holds_ages": False,
    }


def test_triples_are_ordered_by_priority() -> None:
    law = ThreeZoneLaw.of(BacklogThresholds(), CurveConfig())
    for priority in Priority:
        window = BacklogThresholds().window(priority)
        assert law.windows[priority.value] == (window.green_max, window.yellow_max, window.red_max)
        assert Fraction(*law.scales[priority.value]) == CurveConfig().scale(priority)
    assert [priority.value for priority in (LOW, MEDIUM, HIGH)] == [0, 1, 2]


def test_every_setting_of_the_law_arrives() -> None:
    curve = CurveConfig(
        yellow_min_delay=0.001,
        yellow_max_delay=0.002,
        red_max_delay=0.003,
        scale_high=Fraction(1, 7),
        scale_medium=Fraction(2, 7),
        scale_low=Fraction(14, 7),
        shed_permille=1,
        scale_yellow=False,
    )
    windows = [BacklogWindow(green_max=first, yellow_max=first + 1, red_max=first + 2) for first in (1, 4, 7)]
    thresholds = BacklogThresholds(low_priority=windows[0], medium_priority=windows[1], high_priority=windows[2])
    assert ThreeZoneLaw.of(thresholds, curve) == ThreeZoneLaw(
        windows=((1, 2, 3), (4, 5, 6), (7, 8, 9)),
        yellow_min_ns=MS,
        yellow_max_ns=2 * MS,
        red_max_ns=3 * MS,
        scales=((2, 1), (2, 7), (1, 7)),
        shed_permille=1,
        scale_yellow=False,
    )


def test_settings_are_plain_integers_whatever_was_given() -> None:
    curve = CurveConfig(yellow_min_delay=0, yellow_max_delay=1, red_max_delay=2, scale_low=2)  # type: ignore[arg-type]
    law = ThreeZoneLaw.of(BacklogThresholds(), curve)
    circuit = CircuitSettings.of(CircuitConfig(recovery_timeout=60, trip_window=30))
    numbers = [law.yellow_min_ns, law.yellow_max_ns, law.red_max_ns, *sum((*law.windows, *law.scales), ())]
    assert {type(number) for number in numbers} == {int}
    assert {type(value) for value in attrs.astuple(circuit)} == {int, bool}


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, 0), (1e-9, 1), (0.010, 10 * MS), (0.1 + 0.2, 300 * MS), (3_600, 3_600 * SECOND)]
)
def test_nanoseconds(seconds: float, expected: int) -> None:
    assert nanoseconds(seconds) == expected
    assert type(nanoseconds(seconds)) is int


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (0.010, 10),
        (0.0100000000001, 10),
        (0.010000001, 11),
        (0.0101, 11),
        (0.0109999, 11),
        (0.029, 29),
        (1.0, 1_000),
        (2.007, 2_007),
        (86_400.0, 86_400_000),
    ],
)
@pytest.mark.parametrize("name", ["trip_window", "recovery_timeout", "probe_interval"])
def test_the_breakers_durations_round_up_to_milliseconds(name: str, seconds: float, milliseconds: int) -> None:
    roomy: dict[str, Any] = {"probe_interval": 0.010, "recovery_timeout": 86_400.0}
    circuit = CircuitSettings.of(CircuitConfig(**(roomy | {name: seconds})))
    assert getattr(circuit, f"{name}_ms") == milliseconds


@given(st.integers(10, 86_400_000))
def test_whole_milliseconds_stay_what_they_are(milliseconds: int) -> None:
    window: dict[str, Any] = {"trip_window": f"{milliseconds}ms"}
    circuit = CircuitConfig(**window, recovery_timeout=86_400.0, probe_interval=0.010)
    assert CircuitSettings.of(circuit).trip_window_ms == milliseconds


def test_every_setting_of_the_breaker_arrives() -> None:
    circuit = CircuitConfig(
        failure_threshold=7,
        recovery_threshold=8,
        trip_window=9.0,
        recovery_timeout=11.0,
        probe_interval=10.0,
        high_priority="attempt",
    )
    assert CircuitSettings.of(circuit) == CircuitSettings(
        failure_threshold=7,
        recovery_threshold=8,
        trip_window_ms=9_000,
        recovery_timeout_ms=11_000,
        probe_interval_ms=10_000,
        high_attempts=True,
    )


@pytest.mark.parametrize(
    ("mode", "delays_ns", "reason"),
    [
        (FallbackMode.CONSERVATIVE, (1_000 * MS, 500 * MS, 100 * MS), Reason.FALLBACK_CONSERVATIVE),
        (FallbackMode.PERMISSIVE, (0, 0, 0), Reason.FALLBACK_PERMISSIVE),
        (FallbackMode.CIRCUIT_ONLY, (0, 0, 0), Reason.FALLBACK_CIRCUIT_ONLY),
    ],
)
def test_fallbacks(mode: FallbackMode, delays_ns: tuple[int, int, int], reason: Reason) -> None:
    settings = EngineSettings.of(BackpressureConfig(recovery=RecoveryStrategy(fallback_mode=mode)))
    assert (settings.fallback_ns, settings.fallback_reason) == (delays_ns, reason)


def test_the_rest_arrives_too() -> None:
    settings = EngineSettings.of(
        BackpressureConfig(
            polling=PollingConfig(interval=2.0, jitter=0.5, timeout=0.25, cache_ttl=11.0, enabled=False),
            recovery=RecoveryStrategy(graceful_degrade=13.0),
            mode="observe",
            max_queues=17,
        )
    )
    assert (settings.check_after_ns, settings.check_every_ns) == (2_750 * MS, 2 * SECOND)
    assert (settings.cache_ttl_ns, settings.degrade_ns) == (11 * SECOND, 13 * SECOND)
    assert (settings.polling, settings.observe, settings.max_queues) == (False, True, 17)


def test_a_queues_own_settings_fall_back_part_by_part() -> None:
    thresholds = BacklogThresholds(low_priority=BacklogWindow(green_max=1, yellow_max=2, red_max=3))
    curve, circuit = CurveConfig(shed_permille=1), CircuitConfig(failure_threshold=9)
    config = BackpressureConfig(
        curve=CurveConfig(shed_permille=700),
        queues={
            "bounds": QueueConfig(thresholds=thresholds),
            "shape": QueueConfig(curve=curve),
            "breaker": QueueConfig(circuit=circuit),
            "nothing": QueueConfig(),
        },
    )
    settings = EngineSettings.of(config)
    assert settings.laws == {
        "bounds": ThreeZoneLaw.of(thresholds, config.curve, memory_permille=(850, 900)),
        "shape": ThreeZoneLaw.of(config.thresholds, curve, memory_permille=(850, 900)),
    }
    assert settings.circuits == {"breaker": CircuitSettings.of(circuit)}


def test_patterns_are_in_the_order_in_which_they_are_asked() -> None:
    thresholds = BacklogThresholds(low_priority=BacklogWindow(green_max=1, yellow_max=2, red_max=3))
    circuit = CircuitConfig(failure_threshold=9)
    config = BackpressureConfig(
        queues={
            "*": QueueConfig(circuit=circuit),
            "mail-*": QueueConfig(thresholds=thresholds),
            "mail-eu": QueueConfig(mode="observe"),
            "mail-eu-*": QueueConfig(mode="enforce"),
        }
    )
    law = ThreeZoneLaw.of(thresholds, config.curve, memory_permille=(850, 900))
    settings = EngineSettings.of(config)
    compiled = CircuitSettings.of(circuit)
    assert settings.patterns == (
        PatternSettings("mail-eu-*", law, compiled, False),
        PatternSettings("mail-*", law, compiled, None),
        PatternSettings("*", None, compiled, None),
    )
    assert (settings.laws, settings.circuits) == ({"mail-eu": law}, {"mail-eu": compiled})
    assert (settings.observed, settings.one_mode) == ({"mail-eu": True}, False)


def test_a_new_configuration_is_a_new_epoch() -> None:
    config = BackpressureConfig()
    assert EngineSettings.of(config) != EngineSettings.of(config)
