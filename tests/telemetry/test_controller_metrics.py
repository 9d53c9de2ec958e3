"""The metrics page of real controllers, on both engines: what producers did is what is shown."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BatchJob,
    InMemoryStatsProvider,
    JobShedError,
    PollingConfig,
)

if TYPE_CHECKING:
    from backpressure import BackpressureController
    from backpressure._engine.border import EngineModule
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def counted(make_controller: MakeController, registry: CollectorRegistry) -> BackpressureController:
    return make_controller(
        None, BackpressureConfig(polling=PollingConfig(jitter=0, busy_interval=5)), registry=registry
    )


def test_a_queues_bounds_and_what_else_its_sample_tells(
    make_controller: MakeController, provider: InMemoryStatsProvider
) -> None:
    registry = CollectorRegistry()
    low = {"green_max": 1, "yellow_max": 11, "red_max": 111}
    config = BackpressureConfig.from_mapping(
        {"queues": {"m*": {"thresholds": {"low_priority": low}, "curve": {"shed_at": 61}}, "quiet": {}}}
    )
    controller = make_controller(config=config, registry=registry)
    provider.set("mail", 5, processing_count=2, delayed_count=3, oldest_age=4.5)
    provider.set("quiet", 1)
    for name in ("mail", "quiet"):
        controller.suggest_throttle("low", name)
    value = registry.get_sample_value
    names = ("running_jobs", "delayed_jobs", "oldest_age_seconds")
    assert [value(f"backpressure_{name}", {"queue": "mail"}) for name in names] == [2, 3, 4.5]
    assert [value(f"backpressure_{name}", {"queue": "quiet"}) for name in names] == [None] * 3

    def bound(queue: str, priority: str, name: str) -> float | None:
        return value("backpressure_threshold_jobs", {"queue": queue, "priority": priority, "bound": name})

    low_bounds = ("green_max", "yellow_max", "red_max", "shed_at")
    assert [bound("mail", "low", name) for name in low_bounds] == [1, 11, 111, 61]
    assert [bound("quiet", "low", name) for name in low_bounds] == [100, 500, 1_000, 900]
    assert [bound("mail", "high", name) for name in low_bounds] == [1_000, 5_000, 10_000, None]
    controller.reconfigure(config.evolve({'queues."m*".curve.shed_permille': 1_000}))
    assert bound("mail", "low", "shed_at") is None


def test_decisions_delays_and_sheds(counted: BackpressureController, registry: CollectorRegistry) -> None:
    for _ in range(3):
        counted.suggest_throttle("low", "empty")
        counted.run("medium", "red", int)
    with pytest.raises(JobShedError):
        counted.run("low", "full", int)
    value = registry.get_sample_value
    red = {"priority": "medium", "queue": "red"}
    assert value("backpressure_throttle_events_total", red) == 3
    assert value("backpressure_throttle_delay_seconds_count", red) == 3
    assert value("backpressure_throttle_delay_seconds_sum", red) == 8.25
    assert value("backpressure_throttle_delay_seconds_bucket", {**red, "le": "2.5"}) == 0
    assert value("backpressure_throttle_delay_seconds_bucket", {**red, "le": "5.0"}) == 3
    assert value("backpressure_shed_events_total", {"priority": "low", "queue": "full"}) == 1
    green = {"priority": "low", "queue": "empty", "reason": "backlog_green"}
    assert value("backpressure_decisions_total", green) == 3
    assert value("backpressure_queue_backlog_size", {"queue": "full"}) == 100_000
    assert value("backpressure_circuit_breaker_state", {"queue": "full"}) == 0
    assert value("backpressure_cache_requests_total", {"result": "miss"}) == 5  # sleeping let the poller poll again
    assert value("backpressure_cache_requests_total", {"result": "hit"}) == 2
    assert value("backpressure_poll_duration_seconds_count") == 2


def test_every_refusal_is_counted(
    make_controller: MakeController, counted: BackpressureController, registry: CollectorRegistry
) -> None:
    def refused(queue: str, priority: str, result: str) -> float | None:
        labels = {"queue": queue, "priority": priority, "result": result}
        return registry.get_sample_value("backpressure_refusals_total", labels)

    observer = make_controller(None, BackpressureConfig(mode="observe"), registry=registry)
    for controller in (counted, observer):
        for _ in range(2):
            controller.suggest_throttle("low", "full")
        outcomes = controller.process_batch([BatchJob("low", "full", int), BatchJob("medium", "red", int, max_wait=1)])
        assert outcomes.count("succeeded") == (2 if controller is observer else 0)
        for _ in range(5):
            controller.record_failure("empty")
        for priority in ("high", "medium", "high"):
            controller.suggest_throttle(priority, "empty")
    observer.circuit("green").force_open()  # which observe mode keeps to
    observer.suggest_throttle("high", "green")
    assert refused("full", "low", "shed") == 3
    assert refused("red", "medium", "max_wait") == 1
    assert (refused("empty", "high", "circuit"), refused("empty", "medium", "circuit")) == (2, 1)
    assert refused("green", "high", "circuit") == 1
    assert b'result="shed"} 3.0' in generate_latest(registry)
    assert generate_latest(registry).count(b"backpressure_refusals_total{") == 5


def test_what_passed_is_counted_by_queue_and_why(make_controller: MakeController, registry: CollectorRegistry) -> None:
    controller = make_controller(None, BackpressureConfig(max_queues=2), registry=registry)
    for name in ("mail", "mail", "clicks", "other", "bad\nname", 7):
        controller._passed.add(name, "worker")
    controller._passed.add("mail", "retry")
    passed = {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "backpressure_passed_total"
    }
    assert passed == {("mail", "worker"): 2, ("clicks", "worker"): 1, ("__other__", "worker"): 3, ("mail", "retry"): 1}
    assert controller.health()["passed"]["mail"] == {"worker": 2, "retry": 1}


def test_compliance(counted: BackpressureController, registry: CollectorRegistry, clock: ManualClock) -> None:
    counted.run("medium", "red", int)
    with pytest.raises(RuntimeError), counted.slot("medium", "red"):
        raise RuntimeError
    patient = counted.suggest_throttle("medium", "red")
    clock.advance(2.75 * 0.95)
    counted.record_success(patient)
    for report in (counted.record_success, counted.record_failure):
        report(counted.suggest_throttle("medium", "red"))
    counted.suggest_throttle("medium", "red")  # never reported
    counted.record_success(counted.suggest_throttle("medium", "empty"))  # nothing to honour
    assert registry.get_sample_value("backpressure_producer_compliance_ratio", {"queue": "red"}) == 0.6
    assert registry.get_sample_value("backpressure_producer_compliance_ratio", {"queue": "empty"}) is None


def test_switches_and_modes(make_controller: MakeController, registry: CollectorRegistry) -> None:
    controller = make_controller(None, BackpressureConfig(mode="observe"), registry=registry)
    controller.set_manual_override(True, for_=10)
    controller.set_emergency_mode(True)
    names = ("manual_override", "emergency_mode", "observe_mode")
    assert [registry.get_sample_value(f"backpressure_{name}") for name in names] == [1, 1, 1]


def test_totals_survive_stop(counted: BackpressureController, registry: CollectorRegistry) -> None:
    counted.suggest_throttle("low", "full")
    counted.stop()
    shed = {"priority": "low", "queue": "full"}
    assert registry.get_sample_value("backpressure_shed_events_total", shed) == 1
    assert registry.get_sample_value("backpressure_circuit_breaker_state", {"queue": "full"}) is None


def test_the_async_controller_is_counted_too(
    engine_name: str, engine_module: EngineModule, registry: CollectorRegistry, clock: ManualClock
) -> None:
    async def main() -> None:
        provider = InMemoryStatsProvider({"red": 3_500})
        async with AsyncBackpressureController(
            None, provider, registry=registry, clock=clock, _engine=engine_name
        ) as controller:
            await controller.run("medium", "red", int)

    asyncio.run(main())
    red = {"priority": "medium", "queue": "red"}
    assert registry.get_sample_value("backpressure_throttle_events_total", red) == 1
    assert b'backpressure_producer_compliance_ratio{queue="red"} 1.0' in generate_latest(registry)
