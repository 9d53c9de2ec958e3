"""Promises of the guide that a program of many claims found broken."""

from __future__ import annotations

import json
import math
import threading
from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureConfig, CircuitConfig, CircuitState, InMemoryStatsProvider, QueueStats
from backpressure._controller.polling import deadline, sights

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure import BackpressureController
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

TRIPS = BackpressureConfig(circuit=CircuitConfig(failure_threshold=1))


def test_nobody_waits_for_the_end_of_a_read_that_hangs() -> None:
    # Real seconds beyond `polling.timeout`: of a poll, and of a caller at the first sight of a queue.
    assert (deadline._GRACE, sights.GRACE) == (0.01, 0.03)


def test_a_read_that_ends_late_hangs_no_more(make_controller: MakeController, clock: ManualClock) -> None:
    class Provider(InMemoryStatsProvider):
        free = threading.Event()

        def get_queue_stats(self, queue_name: str) -> QueueStats:
            self.free.wait()
            return super().get_queue_stats(queue_name)

    provider = Provider({"q": 5})
    controller = make_controller(provider)
    for _ in range(3):
        provider.free.clear()
        reader = threading.Thread(target=controller.refresh, args=("q",))
        reader.start()
        clock.until_sleeping(2)
        clock.advance(3)
        reader.join()
        provider.free.set()
    assert controller.refresh("q")
    assert controller.suggest_throttle("low", "q").backlog_size == 5


@pytest.mark.parametrize("switch", ["set_manual_override", "set_emergency_mode"])
def test_under_a_switch_breakers_are_not_fed_by_name(
    make_controller: MakeController, switch: str, clock: ManualClock
) -> None:
    controller = make_controller(None, TRIPS)
    turn: Callable[[bool], None] = getattr(controller, switch)
    turn(True)
    controller.record_failure("empty")
    assert controller.get_circuit_state("empty") is CircuitState.CLOSED
    turn(False)
    controller.record_failure("empty")
    assert controller.get_circuit_state("empty") is CircuitState.OPEN
    turn(True)
    controller.record_success("empty")
    turn(False)
    assert controller.get_circuit_state("empty") is CircuitState.OPEN


def test_a_job_that_was_decided_before_a_switch_does_count(controller_that_trips: BackpressureController) -> None:
    controller = controller_that_trips
    decision = controller.suggest_throttle("low", "empty")
    controller.set_manual_override(True)
    controller.record_failure(decision)
    assert controller.get_circuit_state("empty") is CircuitState.OPEN


@pytest.fixture
def controller_that_trips(make_controller: MakeController) -> BackpressureController:
    return make_controller(None, TRIPS)


@pytest.mark.parametrize("age", [math.nan, math.inf, None, 0.0, 2.5])
def test_health_is_json_whatever_ages_a_provider_gives(make_controller: MakeController, age: float | None) -> None:
    health = make_controller(InMemoryStatsProvider({"q": QueueStats("q", 1, oldest_age=age)})).health()
    shown = json.loads(json.dumps(health, allow_nan=False))["queues"]["q"]["oldest_age"]
    assert shown == (age if age is not None and math.isfinite(age) else None)
