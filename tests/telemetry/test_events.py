"""What listeners and the log are told: one event and one line per change of state, with fields."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure import (
    BacklogThresholds,
    BacklogWindow,
    BackpressureConfig,
    BackpressureController,
    CircuitState,
    InMemoryStatsProvider,
    Priority,
    StateChange,
    StatsUnavailableError,
)

if TYPE_CHECKING:
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController


@pytest.fixture
def changes(controller: BackpressureController) -> list[StateChange]:
    """Return what a listener of the running controller has heard so far."""
    heard: list[StateChange] = []
    controller.add_listener(heard.append)
    return heard


def told(changes: list[StateChange]) -> list[tuple[Any, ...]]:
    return [(change.kind, change.queue_name, change.old, change.new) for change in changes]


def poll(controller: BackpressureController, provider: InMemoryStatsProvider, **backlogs: int) -> None:
    for name, backlog in backlogs.items():
        provider.set(name, backlog)
    assert controller._poller.poll()


class TestZones:
    def test_each_change_is_told_once(
        self, controller: BackpressureController, provider: InMemoryStatsProvider, changes: list[StateChange]
    ) -> None:
        for backlog in (0, 600, 700, 9_000, 0):
            poll(controller, provider, empty=backlog)
            for _ in range(3):
                controller.suggest_throttle("medium", "empty")
        assert told(changes) == [
            ("zone", "empty", "green", "yellow"),
            ("zone", "empty", "yellow", "red"),
            ("zone", "empty", "red", "green"),
        ]
        assert {change.priority for change in changes} == {Priority.MEDIUM}

    def test_every_priority_has_a_window_of_its_own(
        self, controller: BackpressureController, changes: list[StateChange]
    ) -> None:
        for priority in ("low", "medium", "high"):
            controller.suggest_throttle(priority, "yellow")
        assert [(change.priority, change.new) for change in changes] == [
            (Priority.LOW, "red"),
            (Priority.MEDIUM, "yellow"),
            (Priority.HIGH, "yellow"),
        ]

    def test_a_new_configuration_may_change_them(
        self, controller: BackpressureController, changes: list[StateChange]
    ) -> None:
        controller.suggest_throttle("medium", "empty")
        controller.suggest_throttle("medium", "green")
        window = BacklogWindow(green_max=1, yellow_max=2, red_max=3)
        controller.reconfigure(BackpressureConfig(thresholds=BacklogThresholds(medium_priority=window)))
        controller.suggest_throttle("medium", "empty")
        controller.suggest_throttle("medium", "green")
        assert told(changes) == [("configuration", None, "old", "new"), ("zone", "green", "green", "red")]

    def test_observe_mode_tells_the_real_ones(self, make_controller: MakeController) -> None:
        controller = make_controller(None, BackpressureConfig(mode="observe"))
        changes: list[StateChange] = []
        controller.add_listener(changes.append)
        controller.suggest_throttle("low", "full")
        assert told(changes) == [("zone", "full", "green", "red")]


class TestSwitches:
    def test_an_override_is_told_when_turned_and_when_its_time_is_up(
        self, controller: BackpressureController, clock: ManualClock, changes: list[StateChange]
    ) -> None:
        controller.set_manual_override(True, for_=600)
        clock.advance(600)
        for _ in range(3):
            controller.suggest_throttle("low", "empty")
        on, off = ("override", None, "off", "on"), ("override", None, "on", "off")
        assert [change for change in told(changes) if change[0] == "override"] == [on, off]

    def test_turning_what_is_turned_already_is_no_change(
        self, controller: BackpressureController, changes: list[StateChange]
    ) -> None:
        controller.set_manual_override(False)
        controller.set_emergency_mode(True)
        controller.set_emergency_mode(True)
        assert told(changes) == [("emergency", None, "off", "on")]


class TestListeners:
    def test_an_event_is_frozen(self, controller: BackpressureController, changes: list[StateChange]) -> None:
        controller.set_emergency_mode(True)
        assert changes[0].at.tzinfo is not None
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            changes[0].new = "off"  # type: ignore[misc]

    def test_one_that_raises_harms_nobody(
        self,
        controller: BackpressureController,
        changes: list[StateChange],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        later: list[StateChange] = []

        def broken(_: StateChange) -> None:
            raise RuntimeError("mine")

        controller.add_listener(broken)
        controller.add_listener(later.append)
        assert controller.suggest_throttle("medium", "red").delay > 0
        assert told(changes) == told(later) == [("zone", "red", "green", "red")]
        (report,) = (record for record in caplog.records if record.exc_info)
        assert "stays registered" in report.getMessage()

    def test_a_listener_may_use_the_controller(self, controller: BackpressureController) -> None:
        seen: list[CircuitState] = []

        def look(change: StateChange) -> None:
            if change.kind == "circuit":
                seen.append(controller.get_circuit_state(change.queue_name or ""))
                controller.circuit("empty").reset()

        controller.add_listener(look)
        controller.circuit("empty").force_open()
        assert seen == [CircuitState.OPEN, CircuitState.CLOSED]


class TestLog:
    def test_one_line_per_change_and_every_line_has_fields(
        self,
        controller: BackpressureController,
        provider: InMemoryStatsProvider,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG, "backpressure")
        for _ in range(50):
            controller.suggest_throttle("medium", "red")
        controller.circuit("empty").force_open()
        controller.set_manual_override(True)
        provider.fail_with(StatsUnavailableError("down", error_type="connect"))
        for _ in range(3):
            controller._poller.poll()
        lines = [(record.levelname, record.getMessage(), vars(record)["change"]) for record in caplog.records]
        assert lines == [
            ("WARNING", "queue 'red' is red for medium jobs, was green", "zone"),
            ("WARNING", "circuit of queue 'empty' is forced open until it is released", "forced"),
            ("WARNING", "circuit of queue 'empty' is open, was closed", "circuit"),
            ("INFO", "manual override is on", "override"),
            ("WARNING", "statistics cannot be read: down", "provider"),
        ]
        zone = vars(caplog.records[0])
        assert (zone["queue_name"], zone["priority"], zone["old"], zone["new"]) == ("red", "medium", "green", "red")
