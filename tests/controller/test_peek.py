"""A look at a controller has no effect: pages that show how it stands take no probe, and count nothing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    CircuitOpenError,
    CircuitState,
    ControllerNotStartedError,
    ControllerStoppedError,
    InMemoryStatsProvider,
    InvalidPriorityError,
    InvalidQueueError,
    Priority,
    Reason,
)
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure import ThrottleDecision

LOOKS: dict[str, Callable[[BackpressureController], object]] = {
    "peek": lambda controller: controller.peek("low", "mail"),
    "gate": lambda controller: controller.gate("high", "mail").peek(),
    "health": lambda controller: controller.health(),
}


class Counted(InMemoryStatsProvider):
    reads = 0

    def get_queue_stats(self, queue_name: str) -> Any:
        self.reads += 1
        return super().get_queue_stats(queue_name)

    def get_all_queue_stats(self) -> Any:
        self.reads += 1
        return super().get_all_queue_stats()


def fail() -> None:
    raise ConnectionError("away")


def make(engine_name: str, backlog: int = 0, **options: Any) -> tuple[BackpressureController, ManualClock, Counted]:
    clock, provider = ManualClock(sleep_advances=True), Counted({"mail": backlog})
    options.setdefault("registry", CollectorRegistry())
    config = BackpressureConfig.from_mapping({"polling": {"jitter": 0}, **options.pop("config", {})})
    return BackpressureController(config, provider, clock=clock, _engine=engine_name, **options), clock, provider


@pytest.mark.parametrize("look", LOOKS)
def test_a_page_that_is_polled_leaves_the_probes_to_jobs(engine_name: str, look: str) -> None:
    controller, clock, _ = make(engine_name)
    with controller:
        for _ in range(5):
            with pytest.raises(ConnectionError):
                controller.run("high", "mail", fail)
        clock.advance(61)
        refused = 0
        for _ in range(30):
            for _ in range(3):
                LOOKS[look](controller)
            clock.advance(0.5)
            try:
                controller.run("high", "mail", lambda: None)
            except CircuitOpenError:
                refused += 1
            clock.advance(0.5)
        assert refused < 15
        assert controller.get_circuit_state("mail") == "closed"


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("backlog", [0, 1_500, 5_000])
def test_nothing_is_counted_read_or_told(engine_name: str, look: str, backlog: int) -> None:
    registry = CollectorRegistry()
    controller, clock, provider = make(engine_name, backlog, registry=registry)
    changes: list[object] = []
    with controller:
        controller.add_listener(changes.append)
        reads, page = provider.reads, generate_latest(registry)
        health = controller.health()
        for _ in range(60):
            LOOKS[look](controller)
            controller.peek("medium", "never seen")
        assert (changes, provider.reads, controller._engine.queue_names()) == ([], reads, ["mail"])
        assert generate_latest(registry) == page
        assert controller.health() == health
        clock._now_ns += 10_000 * 1_000_000_000  # nobody polled meanwhile
        assert LOOKS[look](controller)
        assert controller.health()["last_fallback"] is None
        assert (changes, provider.reads) == ([], reads)


def test_reporting_what_was_only_seen_does_nothing(engine_name: str) -> None:
    registry = CollectorRegistry()
    controller, clock, _ = make(engine_name, 1_500, registry=registry)
    with controller:
        page = generate_latest(registry)
        seen = controller.peek("medium", "mail")
        assert seen.delay > 0
        for _ in range(10):
            controller.record_failure(seen)
            controller.record_success(seen)
        assert generate_latest(registry) == page
        assert controller.circuit("mail").stats()["failure_count"] == 0
        began = clock.monotonic_ns()
        seen.wait()
        assert clock.monotonic_ns() - began == pytest.approx(seen.delay * 1e9, rel=0.2)


def test_what_is_not_known_is_a_cold_start(engine_name: str) -> None:
    controller, _, _ = make(engine_name)
    with controller:
        seen = controller.peek("low", "new")
        assert (seen.reason, seen.delay, seen.backlog_size, seen.zone) == ("cold_start", 0, None, None)


def test_errors_are_those_of_a_call(engine_name: str) -> None:
    controller, _, _ = make(engine_name)
    gate = controller.gate("low", "mail")
    looks: list[Callable[[], ThrottleDecision]] = [gate.peek, lambda: controller.peek("low", "mail")]
    for look in looks:
        with pytest.raises(ControllerNotStartedError):
            look()
    with controller:
        with pytest.raises(InvalidPriorityError):
            controller.peek("urgent", "mail")
        with pytest.raises(InvalidQueueError):
            controller.peek("low", "")
    for look in looks:
        with pytest.raises(ControllerStoppedError):
            look()


def test_an_async_controller_is_looked_at_without_awaiting(engine_name: str) -> None:
    async def main() -> None:
        controller = AsyncBackpressureController(
            None,
            InMemoryStatsProvider({"mail": 5_000}),
            registry=CollectorRegistry(),
            clock=ManualClock(),
            _engine=engine_name,
        )
        async with controller:
            assert controller.peek("low", "mail").should_shed
            assert controller.gate("high", "mail").peek().reason is Reason.BACKLOG_YELLOW
            assert controller.health()["queues"]["mail"]["advice"]["high"]["zone"] == "yellow"
            assert controller._engine.totals() == {}

    asyncio.run(main())


def test_health_tells_zone_and_advice_of_each_priority(engine_name: str) -> None:
    controller, _, _ = make(engine_name, 5_000)
    assert controller.health()["queues"] == {}
    with controller:
        advice = json.loads(json.dumps(controller.health()))["queues"]["mail"]["advice"]
    assert advice == {
        "low": {
            "zone": "red",
            "delay": None,
            "should_shed": True,
            "reason": "backlog_red_shed",
            "retry_after": 7.5,
        },
        "medium": {
            "zone": "red",
            "delay": 5.0,
            "should_shed": False,
            "reason": "backlog_red",
            "retry_after": 5.0,
        },
        "high": {
            "zone": "yellow",
            "delay": 0.25,
            "should_shed": False,
            "reason": "backlog_yellow",
            "retry_after": 0.25,
        },
    }
    assert controller.health()["queues"]["mail"]["advice"] is None


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_health_makes_no_decisions_of_what_it_sees(
    engine_name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for a thousand queues at a time."""
    controller, _, _ = make(engine_name, 5_000, config={"mode": mode})
    for builder in ("peeked", "observed"):
        monkeypatch.setattr(controller._host, builder, lambda _: pytest.fail("a decision was made"))
    with controller:
        controller.circuit("other").force_open(for_=3)
        queues = controller.health()["queues"]
    assert queues["mail"]["advice"]["low"]["reason"] == "backlog_red_shed"
    assert queues["other"]["advice"]["high"] == {
        "zone": None,
        "delay": None,
        "should_shed": True,
        "reason": "circuit_open",
        "retry_after": 3.0,
    }


def test_in_observe_mode_health_tells_what_enforcing_would(engine_name: str) -> None:
    controller, _, _ = make(engine_name, 5_000, config={"mode": "observe"})
    with controller:
        seen = controller.peek("low", "mail")
        assert (seen.reason, seen.should_shed) == (Reason.OBSERVE_ONLY, False)
        assert seen.advised is not None
        assert seen.advised.reason is Reason.BACKLOG_RED_SHED
        assert controller.health()["queues"]["mail"]["advice"]["low"]["reason"] == "backlog_red_shed"


def test_states_and_priorities_compare_as_the_texts_that_they_print(engine_name: str) -> None:
    controller, _, _ = make(engine_name, 5_000)
    with controller:
        decision = controller.suggest_throttle("low", "mail")
        assert decision.priority == "low"
        assert decision.priority is Priority.LOW
        controller.circuit("mail").force_open()
        for state in (controller.get_circuit_state("mail"), controller.circuit("mail").state):
            assert state == "open"
            assert state is CircuitState.OPEN
        given = [controller.peek(priority, "mail").priority for priority in ("high", Priority.HIGH, str(Priority.HIGH))]
        assert given == ["high"] * 3
