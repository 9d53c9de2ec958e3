"""The description's examples, written in Python and run on both engines."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    HIGH,
    LOW,
    MEDIUM,
    AsyncBackpressureController,
    BacklogThresholds,
    BackpressureConfig,
    BackpressureController,
    BatchJob,
    CircuitOpenError,
    CircuitState,
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    InMemoryStatsProvider,
    JobShedError,
    Reason,
    StatsUnavailableError,
    is_circuit_open_error,
    is_retryable,
    is_shed_error,
)

if TYPE_CHECKING:
    from backpressure._engine.border import EngineModule
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

QUEUES = {"email-queue": 1_250, "payments-queue": 0, "analytics-queue": 100_000}


@pytest.fixture
def provider() -> InMemoryStatsProvider:
    return InMemoryStatsProvider(dict(QUEUES))


class Queue:
    """The queue that the examples enqueue to."""

    def __init__(self) -> None:
        self.jobs: list[object] = []
        self.later: list[object] = []
        self.broken = False

    def enqueue(self, job: object) -> object:
        if self.broken:
            raise OSError("no server")
        self.jobs.append(job)
        return job


@pytest.fixture
def queue() -> Queue:
    return Queue()


def trip(controller: BackpressureController, queue_name: str) -> None:
    for _ in range(5):
        controller.record_failure(queue_name)


def test_basic_setup(
    engine_name: str, engine_module: EngineModule, provider: InMemoryStatsProvider, clock: ManualClock
) -> None:
    config = BackpressureConfig()
    logger = logging.getLogger("application")
    controller = BackpressureController(config, provider, logger=logger, clock=clock, _engine=engine_name)
    controller.start()
    try:
        assert controller.suggest_throttle(HIGH, "payments-queue").delay == 0
    finally:
        controller.stop()
    with pytest.raises(ControllerStoppedError):
        controller.suggest_throttle(HIGH, "payments-queue")


def test_basic_setup_in_asyncio(
    engine_name: str, engine_module: EngineModule, provider: InMemoryStatsProvider, clock: ManualClock
) -> None:
    async def main() -> None:
        controller = AsyncBackpressureController(BackpressureConfig(), provider, clock=clock, _engine=engine_name)
        await controller.start()
        try:
            assert (await controller.suggest_throttle(HIGH, "payments-queue")).delay == 0
        finally:
            await controller.stop()

    asyncio.run(main())


def test_setup_refuses_what_cannot_work(engine_name: str, engine_module: EngineModule) -> None:
    unsuitable: Any = object()
    with pytest.raises(ConfigurationError, match="stats_provider"):
        BackpressureController(BackpressureConfig(), unsuitable, _engine=engine_name)
    with pytest.raises(ConfigurationError, match=r"thresholds\.low_priority\.red_max"):
        BackpressureConfig.from_mapping({"thresholds": {"low_priority": {"red_max": 1}}})


def test_start_begins_polling_and_stop_ends_it(make_controller: MakeController) -> None:
    controller = make_controller(start=False)
    with pytest.raises(ControllerNotStartedError):
        controller.suggest_throttle(LOW, "email-queue")
    assert not controller.health()["poller_alive"]
    controller.start()
    assert controller.health()["poller_alive"]
    assert controller.health()["queues"]["email-queue"]["backlog"] == 1_250
    controller.stop()
    assert not controller.health()["poller_alive"]


def test_simple_throttling(controller: BackpressureController, clock: ManualClock, queue: Queue) -> None:
    def enqueue(job: str, queue_name: str) -> object:
        decision = controller.suggest_throttle(MEDIUM if queue_name == "email-queue" else LOW, queue_name)
        if decision.should_shed:
            raise JobShedError("try later", retry_after=decision.retry_after)
        if decision.delay > 0:
            clock.sleep(decision.delay)
        return queue.enqueue(job)

    before = clock.monotonic_ns()
    assert enqueue("welcome", "email-queue") == "welcome"
    assert clock.monotonic_ns() - before == 255_000_000
    with pytest.raises(JobShedError):
        enqueue("click", "analytics-queue")
    assert queue.jobs == ["welcome"]


def test_automatic_throttling(controller: BackpressureController, clock: ManualClock, queue: Queue) -> None:
    def enqueue(priority: str, queue_name: str, job: str) -> object:
        try:
            return controller.run(priority, queue_name, queue.enqueue, job)
        except Exception as error:
            if not is_shed_error(error):
                raise
            queue.later.append(job)
            return None

    assert enqueue("high", "payments-queue", "payment") == "payment"
    before = clock.monotonic_ns()
    enqueue("medium", "email-queue", "welcome")
    assert clock.monotonic_ns() - before >= 255_000_000
    enqueue("low", "analytics-queue", "click")
    queue.broken = True
    for _ in range(5):
        with pytest.raises(OSError, match="no server"):
            enqueue("high", "payments-queue", "payment 2")
    enqueue("high", "payments-queue", "payment 3")  # the circuit is open: high is refused too
    assert queue.jobs == ["payment", "welcome"]
    assert queue.later == ["click", "payment 3"]


def test_batch_processing(controller: BackpressureController, queue: Queue) -> None:
    jobs = [
        BatchJob(priority=HIGH, queue_name="payments-queue", work=lambda: queue.enqueue("payment")),
        BatchJob(priority=LOW, queue_name="analytics-queue", work=lambda: queue.enqueue("event")),
    ]
    result = controller.process_batch(jobs)
    assert [outcome.status for outcome in result.outcomes] == ["succeeded", "shed"]
    assert queue.jobs == ["payment"]


def test_the_same_in_asyncio(
    engine_name: str, engine_module: EngineModule, provider: InMemoryStatsProvider, clock: ManualClock, queue: Queue
) -> None:
    async def main() -> None:
        async with AsyncBackpressureController(None, provider, clock=clock, _engine=engine_name) as controller:
            await (await controller.suggest_throttle(MEDIUM, "email-queue")).wait_async()
            queue.enqueue("welcome")
            await controller.run("high", "payments-queue", queue.enqueue, "payment")
            with pytest.raises(JobShedError):
                await controller.run("low", "analytics-queue", queue.enqueue, "click")
            jobs = [BatchJob(HIGH, "payments-queue", lambda: queue.enqueue("payment 2"))]
            assert (await controller.process_batch(jobs)).count("succeeded") == 1
            controller.set_manual_override(True)
            await controller.run("low", "analytics-queue", queue.enqueue, "click")
            controller.circuit("payments-queue").force_open()
            assert controller.get_circuit_state("payments-queue") is CircuitState.OPEN
            assert controller.health()["circuit_states"]["payments-queue"] == "open"

    asyncio.run(main())
    assert queue.jobs == ["welcome", "payment", "payment 2", "click"]


def test_checking_errors(controller: BackpressureController, queue: Queue) -> None:
    with pytest.raises(JobShedError) as shed:
        controller.run("low", "analytics-queue", queue.enqueue, 1)
    queue.broken = True
    with pytest.raises(OSError, match="no server") as failed:
        controller.run("high", "payments-queue", queue.enqueue, 1)
    trip(controller, "payments-queue")
    with pytest.raises(CircuitOpenError) as opened:
        controller.run("high", "payments-queue", queue.enqueue, 1)
    predicates = (is_shed_error, is_circuit_open_error, is_retryable)
    assert [predicate(shed.value) for predicate in predicates] == [True, False, False]
    assert [predicate(opened.value) for predicate in predicates] == [True, True, False]
    assert [predicate(failed.value) for predicate in predicates] == [False, False, True]


def test_a_refused_job_says_when_to_retry(controller: BackpressureController, clock: ManualClock, queue: Queue) -> None:
    with pytest.raises(JobShedError) as shed:
        controller.run("low", "analytics-queue", queue.enqueue, 1)
    assert shed.value.retry_after == 7.5
    trip(controller, "payments-queue")
    with pytest.raises(CircuitOpenError) as opened:
        controller.run("high", "payments-queue", queue.enqueue, 1)
    assert opened.value.retry_after == pytest.approx(60, abs=0.002)
    clock.advance(opened.value.retry_after or 0)
    assert controller.run("high", "payments-queue", queue.enqueue, 1) == 1


def test_retries_back_off_exponentially(controller: BackpressureController, clock: ManualClock, queue: Queue) -> None:
    waits: list[float] = []

    def enqueue_with_retries(job: str) -> object:
        for attempt in range(8):
            try:
                return controller.run("high", "payments-queue", queue.enqueue, job)
            except Exception as error:
                if not (is_retryable(error) or is_shed_error(error)):
                    raise
                waits.append(max(2.0**attempt, getattr(error, "retry_after", None) or 0))
                clock.sleep(waits[-1])
                queue.broken = attempt < 5
        pytest.fail("it was given up")

    queue.broken = True
    assert enqueue_with_retries("payment") == "payment"
    assert waits == [1, 2, 4, 8, 16, pytest.approx(44, abs=0.002)]  # the rest of the open circuit's minute


def test_fallbacks_without_delay_still_break_circuits(
    make_controller: MakeController, provider: InMemoryStatsProvider
) -> None:
    for mode in ("permissive", "circuit_only"):
        provider.fail_with(StatsUnavailableError("no server"))
        controller = make_controller(None, BackpressureConfig.from_mapping({"recovery": {"fallback_mode": mode}}))
        assert controller.suggest_throttle(LOW, "analytics-queue").delay == 0
        trip(controller, "analytics-queue")
        assert controller.suggest_throttle(LOW, "analytics-queue").reason is Reason.CIRCUIT_OPEN


def test_manual_override(controller: BackpressureController) -> None:
    controller.set_manual_override(True)
    decision = controller.suggest_throttle(LOW, "analytics-queue")
    assert (decision.should_shed, decision.delay, decision.reason) == (False, 0, Reason.MANUAL_OVERRIDE)
    controller.set_manual_override(False)
    assert controller.suggest_throttle(LOW, "analytics-queue").should_shed


def test_circuit_breaker_controls(controller: BackpressureController) -> None:
    def state() -> CircuitState:
        return controller.get_circuit_state("email-queue")

    assert state() is CircuitState.CLOSED
    circuit = controller.circuit("email-queue")
    controller.record_failure("email-queue")
    assert circuit.stats()["failure_count"] == 1
    circuit.force_open()
    assert state() is CircuitState.OPEN
    assert controller.suggest_throttle(HIGH, "email-queue").should_shed
    circuit.force_close()
    assert state() is CircuitState.CLOSED
    assert not controller.suggest_throttle(HIGH, "email-queue").should_shed
    controller.record_failure("email-queue")
    circuit.reset()
    assert (circuit.stats()["failure_count"], circuit.stats()["last_failure_time"]) == (0, None)


@pytest.mark.parametrize("queue_name", ["email-queue", "never-seen"])
def test_the_breaker_is_there_whenever_it_is_asked_for(controller: BackpressureController, queue_name: str) -> None:
    controller.circuit(queue_name).force_open()
    assert controller.get_circuit_state(queue_name) is CircuitState.OPEN


def test_configuration_evolves_week_by_week(
    make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
) -> None:
    first = BackpressureConfig().evolve(
        {"thresholds.low_priority.red_max": 10_000, "recovery.fallback_mode": False, "recovery.graceful_degrade": 0}
    )
    controller = make_controller(None, first)
    provider.set("analytics-queue", 1_500)
    controller.refresh("analytics-queue")
    assert not controller.suggest_throttle(LOW, "analytics-queue").should_shed

    provider.fail_with(StatsUnavailableError("no server"))
    clock.advance(31)
    unknown = controller.suggest_throttle(LOW, "analytics-queue")
    assert (unknown.reason, unknown.delay) == (Reason.FALLBACK_PERMISSIVE, 0)
    provider.fail_with(None)
    controller.refresh("analytics-queue")

    controller.reconfigure(first.evolve({"thresholds.low_priority.red_max": 2_000}))
    assert not controller.suggest_throttle(LOW, "analytics-queue").should_shed
    provider.set("analytics-queue", 1_701)  # more than four fifths of the way from 500 to 2000
    controller.refresh("analytics-queue")
    assert controller.suggest_throttle(LOW, "analytics-queue").should_shed

    controller.reconfigure(first.evolve({"thresholds": BacklogThresholds()}))
    provider.set("analytics-queue", 900)
    controller.refresh("analytics-queue")
    assert not controller.suggest_throttle(LOW, "analytics-queue").should_shed
    provider.set("analytics-queue", 901)
    controller.refresh("analytics-queue")
    assert controller.suggest_throttle(LOW, "analytics-queue").should_shed


def test_very_high_thresholds_watch_without_throttling(
    make_controller: MakeController, provider: InMemoryStatsProvider
) -> None:
    high = {"green_max": 10**9, "yellow_max": 10**9 + 1, "red_max": 10**9 + 2}
    names = ("low_priority", "medium_priority", "high_priority")
    config = BackpressureConfig.from_mapping({"thresholds": dict.fromkeys(names, high)})
    controller = make_controller(None, config)
    decisions = [controller.suggest_throttle(priority, name) for priority in (LOW, MEDIUM, HIGH) for name in QUEUES]
    assert {decision.delay for decision in decisions} == {0}
    assert {name: queue["backlog"] for name, queue in controller.health()["queues"].items()} == QUEUES


def test_stricter_thresholds_slow_the_same_backlog_down(make_controller: MakeController) -> None:
    controller = make_controller()
    delays = []
    for scale in (1.0, 0.8, 0.6):
        window = {name: int(bound * scale) for name, bound in (("green_max", 500), ("yellow_max", 2_000))}
        controller.reconfigure(BackpressureConfig.from_mapping({"thresholds": {"medium_priority": window}}))
        delays.append(controller.suggest_throttle(MEDIUM, "email-queue").delay)
    assert delays == sorted(set(delays))


def test_environments_differ_by_files_and_variables(make_controller: MakeController, tmp_path: Any) -> None:
    path = tmp_path / "production.toml"
    path.write_text("thresholds.medium_priority.yellow_max = 4000\n")
    production = BackpressureConfig.from_file(path)
    staging = BackpressureConfig.from_env({"BACKPRESSURE_THRESHOLDS__MEDIUM_PRIORITY__GREEN_MAX": "1250"}, production)
    delays = [
        make_controller(None, config).suggest_throttle(MEDIUM, "email-queue").delay for config in (production, staging)
    ]
    assert delays[0] == pytest.approx(0.010 + 0.490 * 750 / 3_500)
    assert delays[1] == 0


def test_debug_information_goes_to_the_given_logger(
    make_controller: MakeController, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "application.backpressure")
    logger = logging.getLogger("application.backpressure")
    controller = make_controller(logger=logger)
    controller.circuit("problematic-queue").force_open()
    assert str(controller.get_circuit_state("problematic-queue")) == "open"
    logger.info("controller health", extra={"health": controller.health()})
    changes = [record for record in caplog.records if getattr(record, "change", None) == "circuit"]
    assert [(record.name, record.queue_name) for record in changes] == [  # type: ignore[attr-defined]
        ("application.backpressure", "problematic-queue")
    ]
    assert caplog.records[-1].health["circuit_states"]["problematic-queue"] == "open"  # type: ignore[attr-defined]
