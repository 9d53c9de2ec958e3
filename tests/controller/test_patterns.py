"""Sections of queues and of patterns: what holds for a queue that first appears at run time, on both engines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig, ConfigurationError, QueueConfig
from backpressure._model.config.patterns import matches

if TYPE_CHECKING:
    from backpressure import InMemoryStatsProvider
    from support.controller_fixtures import MakeController

NAMES = ("mail", "mail-", "mail-eu", "mail-eu-1", "a-mail", "b", "über", "aa", "a*b", "a\u2028b", "[ab]", "a?b")
PATTERNS = (
    "*",
    "**",
    "mail*",
    "mail-*",
    "*-*",
    "*mail*",
    "m*l*u",
    "a**b",
    "*r",
    "ü*",
    "ma*ail",
    "*a*a*",
    "[ab]*",
    "a?*",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_star_stands_for_any_text_and_nothing_else_is_special(make_controller: MakeController, pattern: str) -> None:
    config = BackpressureConfig(queues={pattern: QueueConfig(mode="observe")})
    controller = make_controller(config=config)
    expected = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    for name in NAMES:
        hit = expected.fullmatch(name) is not None
        assert matches(pattern, name) == hit, name
        assert (config.mode_of(name) == "observe") == hit
        assert (controller.suggest_throttle("low", name).reason == "observe_only") == hit
        assert (controller.peek("low", name).reason == "observe_only") == hit


@pytest.fixture
def config() -> BackpressureConfig:
    low = {"green_max": 1, "yellow_max": 2, "red_max": 3}
    return BackpressureConfig.from_mapping(
        {
            "queues": {
                "*": {"circuit": {"failure_threshold": 1}},
                "mail-*": {"thresholds": {"low_priority": low}},
                "mail-eu": {"mode": "observe"},
                "mail-eu-*": {"mode": "observe", "circuit": {"failure_threshold": 2}},
            }
        }
    )


def test_a_queue_of_run_time_has_the_settings_of_its_pattern(
    make_controller: MakeController, provider: InMemoryStatsProvider, config: BackpressureConfig
) -> None:
    controller = make_controller(config=config)
    names = ("other", "mail-us", "mail-eu", "mail-eu-1")
    for name in names:
        provider.set(name, 50)
    told = {name: controller.suggest_throttle("low", name) for name in names}
    assert [str(told[name].reason) for name in names] == [
        "backlog_green",
        "backlog_red_shed",
        "observe_only",
        "observe_only",
    ]
    for name in names[2:]:
        advised = told[name].advised
        assert advised is not None
        assert advised.reason == "backlog_red_shed"
    opened = []
    for name in names:
        controller.record_failure(name)
        opened.append(controller.get_circuit_state(name) == "open")
    assert opened == [True, True, True, False], "mail-eu-1 lies over mail-*, which lies over *"


def test_modes_are_swapped_with_the_rest(
    make_controller: MakeController, provider: InMemoryStatsProvider, config: BackpressureConfig
) -> None:
    controller = make_controller(config=config)
    provider.set("mail-eu", 50)
    reasons = [controller.suggest_throttle("low", "mail-eu").reason]
    for mode in ("enforce", "observe"):
        controller.reconfigure(config.evolve({"queues.mail-eu.mode": mode}))
        reasons.append(controller.suggest_throttle("low", "mail-eu").reason)
    assert list(map(str, reasons)) == ["observe_only", "backlog_red_shed", "observe_only"]
    assert controller.health()["queues"]["mail-eu"]["mode"] == "observe"


def test_an_observed_queue_runs_what_would_be_refused(
    make_controller: MakeController, provider: InMemoryStatsProvider, config: BackpressureConfig
) -> None:
    controller = make_controller(config=config.evolve({"mode": "observe", "queues.mail-us.mode": "enforce"}))
    for name in ("mail-us", "mail-x"):
        provider.set(name, 50)
    assert controller.run("low", "mail-x", lambda: 1) == 1
    with pytest.raises(Exception, match="shed"):
        controller.run("low", "mail-us", lambda: 1)


def test_a_breaker_of_a_pattern_cannot_change_either(
    make_controller: MakeController, config: BackpressureConfig
) -> None:
    controller = make_controller(config=config)
    changed: dict[str, Any] = {'queues."mail-eu-*".circuit.failure_threshold': 3}
    with pytest.raises(ConfigurationError, match="circuit cannot change"):
        controller.reconfigure(config.evolve(changed))


def test_a_queue_beyond_max_queues_has_the_mode_of_its_pattern(
    make_controller: MakeController, config: BackpressureConfig
) -> None:
    controller = make_controller(config=config.evolve({"max_queues": 1}))
    controller.suggest_throttle("low", "mail-us")
    reasons = [controller.suggest_throttle("low", name).reason for name in ("mail-eu-1", "b")]
    assert list(map(str, reasons)) == ["observe_only", "untracked"]
