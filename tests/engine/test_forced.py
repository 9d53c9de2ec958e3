"""Circuits held open by hand, and what is told of failures: both are seen wherever a user would look."""

from __future__ import annotations

import logging
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from backpressure import (
    BackpressureConfig,
    CircuitConfig,
    CircuitOpenError,
    CircuitState,
    ConfigurationError,
    Reason,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure import BackpressureController
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

OBSERVE = BackpressureConfig(mode="observe")


def fail() -> None:
    raise ConnectionError("amqp://user:secret@broker is away")


def heard(controller: BackpressureController) -> list[tuple[str, str, str]]:
    changes: list[tuple[str, str, str]] = []
    controller.add_listener(lambda change: changes.append((change.kind, change.old, change.new)))
    return changes


def test_a_queues_circuit_is_named_by_whoever_refuses(controller: BackpressureController) -> None:
    circuit = controller.circuit("empty")
    circuit.force_open()
    calls: list[Callable[[], object]] = [lambda: controller.run("low", "empty", int), lambda: circuit.call(int)]
    for refuse in calls:
        with pytest.raises(CircuitOpenError, match="circuit of queue 'empty' is open: retry once it is released"):
            refuse()


class TestForcing:
    @pytest.mark.parametrize("state", ["closed", "open", "half-open"])
    def test_is_told_in_every_state(self, controller: BackpressureController, clock: ManualClock, state: str) -> None:
        for _ in range(0 if state == "closed" else 5):
            controller.record_failure("empty")
        if state == "half-open":
            clock.advance(60)
            controller.suggest_throttle("low", "empty")
        assert controller.get_circuit_state("empty") == CircuitState[state.upper().replace("-", "_")]
        changes = heard(controller)
        controller.circuit("empty").force_open()
        opened = [] if state == "open" else [("circuit", state, "open")]
        assert changes == [("forced", "off", "on"), *opened]
        changes.clear()
        controller.circuit("empty").force_close()
        assert changes == [("forced", "on", "off"), ("circuit", "open", "closed")]

    def test_is_told_again_when_its_time_is_changed(
        self, controller: BackpressureController, caplog: pytest.LogCaptureFixture
    ) -> None:
        controller.circuit("empty").force_open(for_=600)
        changes = heard(controller)
        controller.circuit("empty").force_open(for_=90.5)
        assert changes == [("forced", "on", "on")]
        assert [message for message in caplog.messages if "forced" in message] == [
            "circuit of queue 'empty' is forced open for 600 s",
            "circuit of queue 'empty' is forced open for 90.5 s",
        ]

    def test_for_a_time_ends_by_itself(
        self, controller: BackpressureController, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "backpressure")
        controller.circuit("empty").force_open(for_=600)
        with pytest.raises(CircuitOpenError, match=r"retry in 600\.000 s") as raised:
            controller.run("high", "empty", int)
        assert raised.value.retry_after == 600
        clock.advance(599)
        assert controller.suggest_throttle("high", "empty").reason is Reason.CIRCUIT_OPEN
        clock.advance(1)
        assert controller.run("high", "empty", int) == 0
        assert [message for message in caplog.messages if "circuit" in message][-2:] == [
            "circuit of queue 'empty' is released",
            "circuit of queue 'empty' is closed, was open",
        ]

    @pytest.mark.parametrize("look", ["state", "stats", "health", "scrape", "run", "slot", "gate"])
    def test_for_a_time_is_over_wherever_one_looks(
        self, make_controller: MakeController, clock: ManualClock, look: str
    ) -> None:
        registry = CollectorRegistry()
        controller = make_controller(registry=registry)
        controller.circuit("empty").force_open(for_=5)
        clock.advance(5)
        if look == "state":
            assert controller.get_circuit_state("empty") is CircuitState.CLOSED
        elif look == "stats":
            assert controller.circuit("empty").stats()["forced"] is False
        elif look == "health":
            health = controller.health()
            assert (health["forced"], health["circuit_states"]["empty"]) == ([], "closed")
        elif look == "scrape":
            assert registry.get_sample_value("backpressure_circuit_forced", {"queue": "empty"}) == 0
        elif look == "run":
            assert controller.run("low", "empty", int) == 0
        elif look == "slot":
            with controller.slot("low", "empty"):
                pass
        else:
            assert controller.gate("low", "empty").run(int) == 0

    def test_a_listener_that_hears_of_it_by_a_scrape_holds_nobody_up(
        self, make_controller: MakeController, clock: ManualClock
    ) -> None:
        registry = CollectorRegistry()
        controller = make_controller(registry=registry)
        controller.circuit("empty").force_open(for_=5)
        stopped: list[bool] = []

        def listen(_: object) -> None:
            thread = threading.Thread(target=controller.stop, daemon=True)
            thread.start()
            thread.join(5)
            stopped.append(not thread.is_alive())

        controller.add_listener(listen)
        clock.advance(5)
        assert registry.get_sample_value("backpressure_circuit_forced", {"queue": "empty"}) == 0
        assert stopped == [True, True]

    def test_is_shown_by_health_and_metrics(self, make_controller: MakeController) -> None:
        registry = CollectorRegistry()
        controller = make_controller(registry=registry)
        controller.refresh("green")
        controller.circuit("empty").force_open()
        health = controller.health()
        assert health["forced"] == ["empty"]
        assert [health["queues"][name]["forced"] for name in ("empty", "green")] == [True, False]
        for name, forced in (("empty", 1), ("green", 0)):
            assert registry.get_sample_value("backpressure_circuit_forced", {"queue": name}) == forced

    def test_holds_in_observe_mode(self, make_controller: MakeController) -> None:
        controller = make_controller(None, OBSERVE)
        gate = controller.gate("high", "empty")
        gate.run(int)
        controller.circuit("empty").force_open()
        decision = controller.suggest_throttle("high", "empty")
        assert (decision.reason, decision.should_shed, decision.advised) == (Reason.CIRCUIT_OPEN, True, None)
        calls: tuple[Callable[[], object], ...] = (lambda: controller.run("high", "empty", int), lambda: gate.run(int))
        for call in calls:
            for _ in range(2):  # the second is refused by an answer that lies ready
                with pytest.raises(CircuitOpenError):
                    call()
        controller.circuit("empty").reset()
        assert gate.run(int) == 0

    def test_beats_a_circuit_that_observe_mode_only_watches(self, make_controller: MakeController) -> None:
        controller = make_controller(None, OBSERVE)
        for _ in range(5):
            controller.record_failure("empty")
        assert controller.run("low", "empty", int) == 0
        controller.circuit("empty").force_open()
        with pytest.raises(CircuitOpenError):
            controller.run("low", "empty", int)

    @pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "600", True, None.__class__])
    def test_a_bad_time_is_refused(self, controller: BackpressureController, bad: Any) -> None:
        with pytest.raises(ConfigurationError, match="for_ is"):
            controller.circuit("empty").force_open(for_=bad)

    def test_for_longer_than_any_clock_runs_holds(self, controller: BackpressureController, clock: ManualClock) -> None:
        controller.circuit("empty").force_open(for_=1e300)
        clock.advance(86_400)
        assert controller.get_circuit_state("empty") is CircuitState.OPEN


class TestTheLastFailure:
    def test_is_named_and_never_quoted(
        self, controller: BackpressureController, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(5):
            with pytest.raises(ConnectionError):
                controller.run("high", "empty", fail)
        assert controller.circuit("empty").stats()["last_failure"] == "ConnectionError"
        with pytest.raises(CircuitOpenError) as raised:
            controller.run("high", "empty", int)
        assert raised.value.last_failure == "ConnectionError"
        assert pickle.loads(pickle.dumps(raised.value)).last_failure == "ConnectionError"
        (line,) = [message for message in caplog.messages if "is open" in message]
        assert line == "circuit of queue 'empty' is open, was closed: ConnectionError was the last failure"
        assert (
            "secret" not in f"{raised.value} {caplog.text} {controller.health()} {controller.circuit('empty').stats()}"
        )

    def test_is_the_last_that_counted(self, controller: BackpressureController) -> None:
        def exclude() -> None:
            raise CircuitOpenError("another queue's")

        with pytest.raises(ConnectionError):
            controller.run("high", "empty", fail)
        with pytest.raises(CircuitOpenError):
            controller.run("high", "empty", exclude)
        assert controller.circuit("empty").stats()["last_failure"] == "ConnectionError"
        controller.record_failure("empty")
        assert controller.circuit("empty").stats()["last_failure"] is None


class TestProbes:
    def test_one_that_came_to_nothing_gives_its_lease_back(
        self, make_controller: MakeController, clock: ManualClock
    ) -> None:
        controller = make_controller(
            None, BackpressureConfig(circuit=CircuitConfig(recovery_threshold=1, excluded_exceptions=(KeyError,)))
        )

        def duplicate() -> None:
            raise KeyError("enqueued already")

        for _ in range(5):
            controller.record_failure("empty")
        clock.advance(60)
        for _ in range(3):
            with pytest.raises(KeyError):
                controller.run("low", "empty", duplicate)
            assert controller.get_circuit_state("empty") is CircuitState.HALF_OPEN
        with pytest.raises(KeyboardInterrupt), controller.slot("low", "empty"):
            raise KeyboardInterrupt
        assert controller.run("low", "empty", int) == 0
        assert controller.get_circuit_state("empty") is CircuitState.CLOSED


def test_enqueues_that_fail_slowly_open_the_circuit(controller: BackpressureController, clock: ManualClock) -> None:
    def hang() -> None:
        clock.advance(58.8)  # what redis-py's own defaults take on a frozen server
        raise TimeoutError

    calls: tuple[Callable[[], object], ...] = (
        lambda: controller.run("high", "empty", hang),
        lambda: controller.gate("high", "green").run(hang),
    )
    for call in calls:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                call()
        with pytest.raises(CircuitOpenError):
            call()
