"""The description's metrics and health report, parsed from it and compared with running controllers."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from backpressure import BackpressureConfig, InMemoryStatsProvider, RecoveryStrategy, StatsUnavailableError
from backpressure._telemetry.families import FAMILIES
from support.seed_document import block

if TYPE_CHECKING:
    from backpressure import BackpressureController
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

METRICS = [line for line in block("backpressure_cache_hit_rate") if line.startswith("backpressure_")]
_report = "".join(line.removeprefix("//") for line in block('"last_fallback"'))
HEALTH = json.loads(_report[_report.index("{") :])


@pytest.fixture
def provider() -> InMemoryStatsProvider:
    return InMemoryStatsProvider({"email-queue": 1_250, "payments-queue": 8_000, "analytics-queue": 100_000})


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def watched(
    make_controller: MakeController, registry: CollectorRegistry, provider: InMemoryStatsProvider
) -> BackpressureController:
    """A controller that has done a little of everything."""
    controller = make_controller(registry=registry)
    for _ in range(9):
        controller.suggest_throttle("medium", "email-queue")
    controller.run("medium", "email-queue", bool)
    controller.suggest_throttle("high", "payments-queue")
    controller.suggest_throttle("low", "analytics-queue")
    provider.fail_with(StatsUnavailableError("too slow", error_type="timeout"))
    controller.refresh("email-queue")
    return controller


def test_all_metrics_are_found() -> None:
    assert len(METRICS) == 8


@pytest.mark.parametrize("line", METRICS)
def test_every_metric_is_exported_with_its_labels(
    line: str, watched: BackpressureController, registry: CollectorRegistry
) -> None:
    name = line.partition("{")[0]
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
    family = FAMILIES[name]
    assert family.labels == tuple(labels)
    expected = {
        "backpressure_throttle_events_total": 10,
        "backpressure_shed_events_total": 1,
        "backpressure_throttle_delay_seconds": 1,
        "backpressure_circuit_breaker_state": 0,
        "backpressure_queue_backlog_size": 1_250,
        "backpressure_producer_compliance_ratio": 1,
        "backpressure_polling_errors_total": 1,
        "backpressure_cache_hit_rate": 9 / 12,
    }
    sample = f"{name}_count" if family.kind == "histogram" else name
    assert registry.get_sample_value(sample, labels) == expected[name]


def test_the_states_of_a_circuit_are_numbered_as_described(
    watched: BackpressureController, registry: CollectorRegistry, clock: ManualClock
) -> None:
    def shown() -> tuple[float | None, str]:
        state = registry.get_sample_value("backpressure_circuit_breaker_state", {"queue": "email-queue"})
        return state, str(watched.get_circuit_state("email-queue"))

    assert "// Circuit breaker states (0=closed, 1=open, 2=half-open)" in block("backpressure_cache_hit_rate")
    assert shown() == (0, "closed")
    for _ in range(5):
        watched.record_failure("email-queue")
    assert shown() == (1, "open")
    clock.advance(60.002)
    watched.suggest_throttle("high", "email-queue")
    assert shown() == (2, "half-open")


def test_all_of_the_health_report_is_found() -> None:
    assert len(HEALTH) == 9


@pytest.mark.parametrize("key", HEALTH)
def test_every_health_key_has_the_described_type(key: str, watched: BackpressureController, clock: ManualClock) -> None:
    clock.advance(331)  # all samples are long expired: the fallback decides
    watched.suggest_throttle("low", "email-queue")
    health = json.loads(json.dumps(watched.health(), allow_nan=False))
    assert type(health[key]) is type(HEALTH[key])
    if key == "last_fallback":
        assert datetime.fromisoformat(health[key]) == clock.utc_now()
        assert datetime.fromisoformat(HEALTH[key]).tzinfo is not None


def test_the_health_report_is_reached(
    make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
) -> None:
    controller = make_controller()
    for _ in range(5):
        controller.record_failure("analytics-queue")
    clock.advance(60.002)
    provider.remove("payments-queue")
    controller.refresh("analytics-queue")
    controller.suggest_throttle("high", "analytics-queue")
    circuits = controller.health()["circuit_states"]
    assert {name: circuits[name] for name in HEALTH["circuit_states"]} == HEALTH["circuit_states"]
    health = controller.health()
    switches = ("started", "stopped", "manual_override", "emergency_mode", "polling_enabled")
    assert {name: health[name] for name in switches} == {name: HEALTH[name] for name in switches}


def test_health_follows_the_switches_and_the_life_cycle(make_controller: MakeController) -> None:
    controller = make_controller(start=False)
    assert (controller.health()["started"], controller.health()["stopped"]) == (False, False)
    controller.start()
    assert (controller.health()["started"], controller.health()["stopped"]) == (True, False)
    for switch, key in (
        (controller.set_manual_override, "manual_override"),
        (controller.set_emergency_mode, "emergency_mode"),
    ):
        switch(True)
        assert controller.health()[key] is True
        switch(False)
        assert controller.health()[key] is False
    controller.stop()
    assert (controller.health()["started"], controller.health()["stopped"]) == (True, True)


def test_health_tells_what_a_forgotten_switch_would_hide(make_controller: MakeController) -> None:
    config = BackpressureConfig(recovery=RecoveryStrategy(manual_override=True, emergency_mode=True))
    health = make_controller(None, config).health()
    assert (health["manual_override"], health["emergency_mode"]) == (True, True)


def test_health_shows_workers_provider_and_latency(
    watched: BackpressureController, provider: InMemoryStatsProvider
) -> None:
    assert watched.health()["polling_errors"] == {"timeout": 1}
    provider.fail_with(None)
    provider.set("email-queue", 70, processing_count=3, delayed_count=2, oldest_age=9.5)
    assert watched._poller.poll()
    health = watched.health()
    assert health["provider"] == "ok"
    assert health["last_poll_seconds"] >= 0
    email = health["queues"]["email-queue"]
    assert (email["backlog"], email["processing"], email["delayed"], email["oldest_age"]) == (70, 3, 2, 9.5)
    provider.fail_with(StatsUnavailableError("no server", error_type="connect"))
    watched._poller.poll()
    assert watched.health()["provider"] == "connect"
