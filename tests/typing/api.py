"""What users may rely on of the types. Checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

import backpressure as bp


def add(one: int, other: int) -> int:
    return one + other


def decide(controller: bp.BackpressureController) -> None:
    decision = controller.suggest_throttle(bp.LOW, "queue")
    assert_type(decision, bp.ThrottleDecision)
    assert_type(controller.peek("low", "queue"), bp.ThrottleDecision)
    assert_type(decision.delay, float)
    assert_type(decision.zone, bp.Zone | None)
    assert_type(decision.wait(), None)
    assert_type(controller.get_circuit_state("queue"), bp.CircuitState)
    assert_type(controller.circuit("queue"), bp.CircuitBreaker)
    controller.suggest_throttle(1, "queue")  # type: ignore[arg-type]


def run(controller: bp.BackpressureController) -> None:
    assert_type(controller.run("high", "queue", add, 7, 2, max_wait=1.0), int)
    with controller.slot("low", "queue") as decision:
        assert_type(decision, bp.ThrottleDecision)

    @controller.throttled("low", "queue")
    def enqueue(event: str, *, urgent: bool = False) -> int:
        return len(event) + urgent

    assert_type(enqueue("a", urgent=True), int)
    enqueue(3)  # type: ignore[arg-type]

    @controller.throttled("low", "queue")
    async def enqueue_async(event: str) -> int:
        return len(event)

    async def use() -> None:
        assert_type(await enqueue_async("a"), int)

    _ = use


async def run_async(controller: bp.AsyncBackpressureController) -> None:
    async def work(event: str) -> int:
        return len(event)

    assert_type(await controller.suggest_throttle("medium", "queue"), bp.ThrottleDecision)
    assert_type(await controller.run("low", "queue", work, "event"), int)
    assert_type(await controller.run("low", "queue", add, 7, 2), int)

    @controller.throttled("low", "queue")
    async def enqueue(event: str) -> int:
        return len(event)

    assert_type(await enqueue("a"), int)
    await enqueue(3)  # type: ignore[arg-type]
    async with controller.slot("low", "queue") as decision:
        assert_type(decision, bp.ThrottleDecision)


def gates(controller: bp.BackpressureController) -> None:
    gate = controller.gate("low", "queue", max_wait=1.0)
    assert_type(gate, bp.Gate)
    assert_type(gate.suggest(), bp.ThrottleDecision)
    assert_type(gate.peek(), bp.ThrottleDecision)
    assert_type(gate.run(add, 7, 2), int)
    assert_type(gate.priority, bp.Priority)
    with gate as decision:
        assert_type(decision, bp.ThrottleDecision)


async def async_gates(controller: bp.AsyncBackpressureController) -> None:
    async def work(event: str) -> int:
        return len(event)

    gate = controller.gate("low", "queue")
    assert_type(await gate.suggest(), bp.ThrottleDecision)
    assert_type(gate.peek(), bp.ThrottleDecision)
    assert_type(await gate.run(work, "event"), int)
    assert_type(await gate.run(add, 7, 2), int)
    async with gate as decision:
        assert_type(decision, bp.ThrottleDecision)


def listen(controller: bp.BackpressureController) -> None:
    def hear(change: bp.StateChange) -> None:
        assert_type(change.priority, bp.Priority | None)

    controller.add_listener(hear)


def batch(controller: bp.BackpressureController) -> None:
    result = controller.process_batch([bp.BatchJob(bp.LOW, "queue", print)], timeout=3)
    assert_type(result, bp.BatchResult)
    assert_type(result.outcomes[0], bp.JobOutcome)


def configure() -> None:
    config = bp.BackpressureConfig.from_mapping({"polling": {"interval": "5s"}})
    assert_type(config, bp.BackpressureConfig)
    assert_type(config.polling.interval, float)
    bp.PollingConfig(5.0)  # type: ignore[call-arg]


def provide() -> None:
    provider: bp.StatsProvider = bp.InMemoryStatsProvider()
    provider = bp.RedisStatsProvider("redis://localhost", ["queue"])
    bp.BackpressureController(None, provider)
    bp.BackpressureController(None, object())  # type: ignore[arg-type]


def break_circuits(breaker: bp.CircuitBreaker) -> None:
    assert_type(breaker.call(add, 7, 2), int)
    assert_type(breaker.allow(), bool)
    breaker.call(add, "7", 2)  # type: ignore[arg-type]
