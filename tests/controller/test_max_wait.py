"""How long a job may be made to wait, and that load never refuses a HIGH one."""

from __future__ import annotations

import asyncio
import pickle
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import backpressure
from backpressure import (
    HIGH,
    LOW,
    MEDIUM,
    AsyncBackpressureController,
    BackpressureConfig,
    BatchJob,
    ConfigurationError,
    InMemoryStatsProvider,
    Reason,
    ThrottledError,
)

if TYPE_CHECKING:
    from backpressure import BackpressureController
    from backpressure._engine.border import EngineModule
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

Enter = Callable[..., Any]

BY_PRIORITY = {"low": 0, "medium": 0.2, "high": 0.05}


def slot(controller: BackpressureController, *job: Any, max_wait: Any) -> None:
    with controller.slot(*job, max_wait=max_wait):
        pass


def run(controller: BackpressureController, *job: Any, max_wait: Any) -> None:
    controller.run(*job, int, max_wait=max_wait)


def gate_run(controller: BackpressureController, *job: Any, max_wait: Any) -> None:
    controller.gate(*job, max_wait=max_wait).run(int)


def gate_with(controller: BackpressureController, *job: Any, max_wait: Any) -> None:
    with controller.gate(*job, max_wait=max_wait):
        pass


def throttled(controller: BackpressureController, *job: Any, max_wait: Any) -> None:
    controller.throttled(*job, max_wait=max_wait)(int)()


def batch(controller: BackpressureController, priority: Any, queue_name: str, max_wait: Any) -> None:
    (outcome,) = controller.process_batch([BatchJob(priority, queue_name, int, max_wait=max_wait)]).outcomes
    if outcome.error is not None:
        raise outcome.error


WAYS = pytest.mark.parametrize("enter", [slot, run, gate_run, gate_with, throttled, batch])


def slept(clock: ManualClock, enter: Callable[[], None]) -> float:
    """Return for how many seconds a call sleeps."""
    began_ns = clock.monotonic_ns()
    enter()
    return (clock.monotonic_ns() - began_ns) / 1e9


@WAYS
@pytest.mark.parametrize(("max_wait", "seconds"), [(0.1, 0.1), (0, 0), (BY_PRIORITY, 0.05), ({HIGH: 0.3}, 0.3)])
def test_high_sleeps_as_long_as_it_may_and_goes(
    controller: BackpressureController, clock: ManualClock, enter: Enter, max_wait: Any, seconds: float
) -> None:
    assert slept(clock, lambda: enter(controller, HIGH, "full", max_wait=max_wait)) == seconds


@WAYS
@pytest.mark.parametrize(
    ("priority", "queue", "max_wait", "delay"),
    [(MEDIUM, "yellow", 0.1, 0.255), (MEDIUM, "full", BY_PRIORITY, 5.0), (LOW, "green", BY_PRIORITY, 0.75)],
)
def test_others_are_refused_at_once(
    controller: BackpressureController, enter: Enter, priority: Any, queue: str, max_wait: Any, delay: float
) -> None:
    with pytest.raises(ThrottledError) as refused:
        enter(controller, priority, queue, max_wait=max_wait)
    assert (refused.value.priority, refused.value.queue_name) == (priority, queue)
    assert refused.value.reason is (Reason.BACKLOG_RED if queue == "full" else Reason.BACKLOG_YELLOW)
    assert refused.value.retry_after == delay


@WAYS
def test_a_priority_that_is_left_out_waits_as_advised(
    make_controller: MakeController, clock: ManualClock, enter: Enter
) -> None:
    controller = make_controller(None, BackpressureConfig().evolve({"curve.delay_jitter": 0}))
    assert slept(clock, lambda: enter(controller, MEDIUM, "red", max_wait={"low": 0, "high": None})) == 2.75


@WAYS
def test_jitter_makes_no_sleep_longer_than_accepted(
    make_controller: MakeController, clock: ManualClock, enter: Enter
) -> None:
    controller = make_controller(None, BackpressureConfig().evolve({"curve.delay_jitter": 1}))
    for _ in range(20):
        assert 2.75 <= slept(clock, lambda: enter(controller, MEDIUM, "red", max_wait=2.8)) <= 2.8


@WAYS
@pytest.mark.parametrize(
    ("max_wait", "message"),
    [
        (-1, "max_wait is -1: give seconds from 0"),
        (True, "max_wait is True: give seconds from 0"),
        ({"low": "1s"}, r"max_wait\['low'\] is '1s': give seconds from 0"),
        (200, r"max_wait is 200: milliseconds\? durations are seconds: write 0.2, or for so long a wait timedelta"),
        ({"low": 90}, r"max_wait\['low'\] is 90: milliseconds\? durations are seconds: write 0.09, or"),
        ({"urgent": 1}, "max_wait has an invalid priority 'urgent'"),
    ],
)
def test_what_cannot_be_one_is_an_error_while_all_is_green(
    controller: BackpressureController, enter: Enter, max_wait: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        enter(controller, "low", "empty", max_wait=max_wait)
    assert str(error.value.field).startswith("max_wait")


def test_a_batchs_job_is_hashable_whatever_it_accepts() -> None:
    jobs = [BatchJob("low", "empty", int, max_wait=max_wait) for max_wait in (BY_PRIORITY, {LOW: 0}, 0, BY_PRIORITY)]
    assert len(set(jobs)) == 3


def test_the_error_says_what_to_do_and_pickles(controller: BackpressureController) -> None:
    with pytest.raises(ThrottledError) as refused:
        controller.run("medium", "red", int, max_wait=0.2)
    message = (
        "medium job for queue 'red' would wait 2.750 s (backlog_red), longer than max_wait (0.2 s), and was not "
        "enqueued: retry in 2.750 s, or accept a longer max_wait"
    )
    assert str(refused.value) == message
    assert pickle.loads(pickle.dumps(refused.value)).reason is Reason.BACKLOG_RED


def test_sheds_and_open_circuits_say_their_reason_too(controller: BackpressureController) -> None:
    with pytest.raises(backpressure.JobShedError) as shed:
        controller.run("low", "full", int)
    controller.circuit("red").force_open()
    with pytest.raises(backpressure.CircuitOpenError) as rejected:
        controller.run("high", "red", int, max_wait=0)
    assert (shed.value.reason, rejected.value.reason) == (Reason.BACKLOG_RED_SHED, Reason.CIRCUIT_OPEN)


def test_asyncio_bounds_waits_too(engine_name: str, engine_module: EngineModule, clock: ManualClock) -> None:
    async def main() -> None:
        provider = InMemoryStatsProvider({"red": 3_500})
        async with AsyncBackpressureController(None, provider, clock=clock, _engine=engine_name) as controller:

            @controller.throttled("high", "red", max_wait=BY_PRIORITY)
            async def enqueue() -> None: ...

            async def in_slot() -> None:
                async with controller.slot("high", "red", max_wait=BY_PRIORITY):
                    pass

            async def in_batch() -> None:
                await controller.process_batch([BatchJob("high", "red", int, max_wait=BY_PRIORITY)])

            gate = controller.gate("high", "red", max_wait=BY_PRIORITY)
            for enter in (enqueue, in_slot, in_batch, lambda: gate.run(int)):
                began_ns = clock.monotonic_ns()
                await enter()
                assert clock.monotonic_ns() - began_ns == 50_000_000
            with pytest.raises(ThrottledError):
                await controller.run("medium", "red", int, max_wait=BY_PRIORITY)

    asyncio.run(main())


def test_asyncio_looks_at_it_as_a_function_is_decorated(engine_name: str, provider: InMemoryStatsProvider) -> None:
    controller = AsyncBackpressureController(None, provider, _engine=engine_name)
    with pytest.raises(ConfigurationError, match="max_wait"):
        controller.throttled("low", "empty", max_wait=-1)


@pytest.mark.parametrize("enter", [slot, run, gate_run, gate_with, throttled])
def test_a_loop_is_warned_of_once_while_all_is_green(controller: BackpressureController, enter: Enter) -> None:
    async def on_a_loop() -> None:
        enter(controller, "low", "empty", max_wait=None)

    with pytest.warns(RuntimeWarning, match="use AsyncBackpressureController") as warned:
        asyncio.run(on_a_loop())
    assert [warning.filename for warning in warned] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(on_a_loop())


def test_who_never_waits_is_not_warned_and_high_goes(controller: BackpressureController) -> None:
    async def on_a_loop() -> int:
        return controller.run("high", "red", int, max_wait=0)

    assert asyncio.run(on_a_loop()) == 0


def test_coroutine_functions_and_threads_are_not_warned_of(controller: BackpressureController) -> None:
    @controller.throttled("low", "empty")
    async def enqueue() -> int:
        return 1

    async def on_a_loop() -> list[int]:
        return [await enqueue(), await asyncio.to_thread(controller.run, "low", "empty", int)]

    assert asyncio.run(on_a_loop()) == [1, 0]


@pytest.mark.filterwarnings("ignore:a BackpressureController is used on a running event loop:RuntimeWarning")
@WAYS
@pytest.mark.parametrize("max_wait", [None, 0.1, 10, BY_PRIORITY])
def test_on_a_loop_high_goes_and_others_are_counted_as_refused(
    controller: BackpressureController, clock: ManualClock, enter: Enter, max_wait: Any
) -> None:
    controller.suggest_throttle("high", "full")  # a first sight on a loop is let go

    async def on_a_loop() -> None:
        assert slept(clock, lambda: enter(controller, "high", "full", max_wait=max_wait)) == 0
        with pytest.raises(backpressure.BackpressureError) as refused:
            enter(controller, "medium", "full", max_wait=max_wait)
        assert (refused.value.priority, refused.value.reason) == (MEDIUM, Reason.BACKLOG_RED)
        assert "would block the running event loop" in str(refused.value)

    asyncio.run(on_a_loop())
    refusals = {key: total.refused() for key, total in controller._engine.totals().items()}
    assert refusals == {("full", HIGH.value): (0, 0, 0), ("full", MEDIUM.value): (0, 0, 1)}


@pytest.mark.parametrize("enter", [run, gate_run, gate_with, batch])
def test_who_never_waits_by_priority_is_not_warned(controller: BackpressureController, enter: Enter) -> None:
    async def on_a_loop() -> None:
        enter(controller, "low", "empty", max_wait=BY_PRIORITY)

    asyncio.run(on_a_loop())


def test_a_bad_one_gives_a_probe_back(controller: BackpressureController, clock: ManualClock) -> None:
    circuit = controller.circuit("empty")
    for _ in range(5):
        circuit.record_failure()
    clock.advance(60)
    with pytest.raises(ConfigurationError):
        controller.run("low", "empty", int, max_wait=-1)
    assert controller.run("low", "empty", int) == 0
