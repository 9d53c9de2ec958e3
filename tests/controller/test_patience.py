"""`patient=True`: a refused job waits until trying again makes sense and asks again, up to ``max_wait`` in total."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BatchJob,
    CircuitOpenError,
    ConfigurationError,
    ControllerStoppedError,
    CurveConfig,
    InMemoryStatsProvider,
    JobShedError,
    ThrottledError,
)
from backpressure.testing import ManualClock
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController

NO_JITTER = BackpressureConfig(curve=CurveConfig(delay_jitter=0))


class Try(Protocol):
    """Enqueues one job in a controller that is made for it; returns what its work returned."""

    def __call__(self, priority: str, prepare: Callable[[Any], object] = ..., **options: Any) -> Any: ...


@pytest.fixture
def provider() -> InMemoryStatsProvider:
    return InMemoryStatsProvider({"q": 5_000})


def blocking(controller: Any, how: str, priority: str, options: Any) -> Any:
    gate = controller.gate(priority, "q", **options)
    if how == "run":
        return controller.run(priority, "q", str, "went", **options)
    if how == "slot":
        with controller.slot(priority, "q", **options):
            return "went"
    if how == "gate.run":
        return gate.run(str, "went")
    if how == "with gate":
        with gate:
            return "went"
    if how == "throttled":
        return controller.throttled(priority, "q", **options)(lambda: "went")()
    return asyncio.run(controller.throttled(priority, "q", **options)(awaitable)())


async def awaitable() -> str:
    return "went"


async def awaited(controller: Any, how: str, priority: str, options: Any) -> Any:
    gate = controller.gate(priority, "q", **options)
    if how == "run":
        return await controller.run(priority, "q", awaitable, **options)
    if how == "slot":
        async with controller.slot(priority, "q", **options):
            return "went"
    if how == "gate.run":
        return await gate.run(awaitable)
    if how == "with gate":
        async with gate:
            return "went"
    return await controller.throttled(priority, "q", **options)(awaitable)()


HOW = ("run", "slot", "gate.run", "with gate", "throttled")


@pytest.fixture(params=[*HOW, "coroutine", *(f"async {how}" for how in HOW)])
def enqueue(
    request: pytest.FixtureRequest,
    make_controller: MakeController,
    provider: InMemoryStatsProvider,
    clock: ManualClock,
    engine_name: str,
    engine_module: EngineModule,
) -> Try:
    how: str = request.param

    async def main(priority: str, prepare: Callable[[Any], object], options: Any) -> Any:
        async with AsyncBackpressureController(NO_JITTER, provider, clock=clock, _engine=engine_name) as controller:
            prepare(controller)
            return await awaited(controller, how.removeprefix("async "), priority, options)

    def run(priority: str, prepare: Callable[[Any], object] = id, **options: Any) -> Any:
        if how.startswith("async"):
            return asyncio.run(main(priority, prepare, options))
        controller = make_controller(None, NO_JITTER)
        prepare(controller)
        return blocking(controller, how, priority, options)

    return run


def passed(clock: ManualClock) -> float:
    return (clock.monotonic_ns() - 1_000_000_000_000) / 1e9


def at_each_sleep(controller: Any, do: Callable[[int], object]) -> None:
    """Call `do` with the number of each sleep as it ends."""
    sleeper, slept = controller._sleeper, [0]
    pause, pause_async = sleeper.pause, sleeper.pause_async

    def note() -> None:
        slept[0] += 1
        do(slept[0])

    def noted(seconds: float, queue_name: str) -> None:
        pause(seconds, queue_name)
        note()

    async def noted_async(seconds: float) -> None:
        await pause_async(seconds)
        note()

    sleeper.pause, sleeper.pause_async = noted, noted_async


def falls(after: int, to: int = 0) -> Callable[[Any], None]:
    """Let the backlog of the queue fall to `to` while the job sleeps for the `after`-th time."""

    def prepare(controller: Any) -> None:
        def sample(number: int) -> None:
            backlog = to if number >= after else 5_000
            controller._provider.set("q", backlog)
            controller._engine.put_sample("q", backlog, controller._engine.now_ns())

        at_each_sleep(controller, sample)

    return prepare


def test_a_shed_job_asks_again_until_it_may_go(enqueue: Try, clock: ManualClock) -> None:
    assert enqueue("low", falls(3), patient=True) == "went"
    assert passed(clock) == pytest.approx(22.5)


def test_it_gives_up_before_it_would_wait_longer_than_max_wait(enqueue: Try, clock: ManualClock) -> None:
    with pytest.raises(JobShedError) as raised:
        enqueue("low", falls(9), patient=True, max_wait=20)
    assert (raised.value.retry_after, passed(clock)) == (7.5, 15)


def test_what_it_has_waited_counts_where_it_is_only_delayed_then(enqueue: Try, clock: ManualClock) -> None:
    with pytest.raises(ThrottledError, match=r"longer than what is left of max_wait \(0.5 s\)"):
        enqueue("low", falls(1, to=900), patient=True, max_wait=8)
    assert passed(clock) == 7.5


def test_without_patience_nothing_waits(enqueue: Try, clock: ManualClock) -> None:
    with pytest.raises(JobShedError):
        enqueue("low")
    with pytest.raises(JobShedError):
        enqueue("low", patient=False)
    assert passed(clock) == 0


def test_an_open_circuit_is_asked_again_at_its_probe(enqueue: Try, clock: ManualClock) -> None:
    def trip(controller: Any) -> None:
        falls(1)(controller)
        for _ in range(5):
            controller.record_failure("q")

    assert enqueue("low", trip, patient=True) == "went"
    assert passed(clock) == pytest.approx(60, abs=0.01)


def test_a_circuit_that_opens_while_the_job_sleeps(enqueue: Try, clock: ManualClock) -> None:
    def prepare(controller: Any) -> None:
        controller._provider.set("q", 900)
        controller._engine.put_sample("q", 900, controller._engine.now_ns())

        def trip(number: int) -> None:
            for _ in range(5 if number == 1 else 0):
                controller.record_failure("q")

        at_each_sleep(controller, trip)

    assert enqueue("low", prepare, patient=True) == "went"
    assert passed(clock) > 60


def test_a_circuit_forced_open_without_an_end_is_not_waited_for(enqueue: Try, clock: ManualClock) -> None:
    with pytest.raises(CircuitOpenError):
        enqueue("low", lambda controller: controller.circuit("q").force_open(), patient=True)
    assert passed(clock) == 0


def test_load_refuses_no_high_job_with_or_without_patience(enqueue: Try, clock: ManualClock) -> None:
    assert enqueue("high", patient=True, max_wait=0.1) == "went"
    assert passed(clock) == pytest.approx(0.1)


def test_the_override_lets_it_go(enqueue: Try, clock: ManualClock) -> None:
    def prepare(controller: Any) -> None:
        at_each_sleep(controller, lambda _: controller.set_manual_override(True))

    assert enqueue("low", prepare, patient=True) == "went"
    assert passed(clock) == 7.5


def test_stop_ends_it(enqueue: Try) -> None:
    def prepare(controller: Any) -> None:
        at_each_sleep(controller, lambda _: controller._set_stopped())

    with pytest.raises(ControllerStoppedError):
        enqueue("low", prepare, patient=True)


def test_patience_is_true_or_false(enqueue: Try, clock: ManualClock) -> None:
    with pytest.raises(ConfigurationError, match="patient is 'yes': give True or False"):
        enqueue("low", patient="yes")
    with pytest.raises(ConfigurationError, match="patient is 1"):
        BatchJob("low", "q", int, patient=1)


@pytest.mark.parametrize("backlog", [0, 5_000])
def test_it_is_no_argument_of_the_work(make_controller: MakeController, backlog: int) -> None:
    """Also where a go lies ready, and the engine calls the work itself."""
    controller = make_controller(InMemoryStatsProvider({"q": backlog}), NO_JITTER)
    falls(1)(controller)
    for _ in range(3):
        assert controller.run("low", "q", dict, patient=True, a=1) == {"a": 1}


def test_on_a_running_loop_nothing_waits(make_controller: MakeController, clock: ManualClock) -> None:
    controller = make_controller(None, NO_JITTER)

    async def main() -> None:
        with pytest.raises(JobShedError):
            controller.run("low", "q", int, patient=True, max_wait=60)
        result = controller.process_batch([BatchJob("low", "q", int, max_wait=0, patient=True)])
        assert result.counts == {"shed": 1}

    with pytest.warns(RuntimeWarning, match="running event loop"):
        asyncio.run(main())
    assert passed(clock) == 0


def test_a_cancelled_job_waits_no_longer(
    provider: InMemoryStatsProvider, engine_name: str, engine_module: EngineModule
) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with AsyncBackpressureController(NO_JITTER, provider, clock=clock, _engine=engine_name) as controller:
            before = clock.sleeping()
            task = asyncio.create_task(controller.run("low", "q", str, patient=True))
            while clock.sleeping() == before:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_stop_wakes_one_that_sleeps(make_controller: MakeController) -> None:
    controller = make_controller(None, NO_JITTER, clock=ManualClock())
    raised: list[BaseException] = []

    def run() -> None:
        try:
            controller.run("low", "q", int, patient=True)
        except ControllerStoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: any(controller._sleeper._sleepers.values()))
    controller.stop()
    thread.join(10)
    assert len(raised) == 1


class TestBatch:
    def test_a_patient_job_holds_up_its_own_stream_only(
        self, make_controller: MakeController, clock: ManualClock
    ) -> None:
        controller = make_controller(InMemoryStatsProvider({"q": 5_000, "other": 0}), NO_JITTER)
        falls(2)(controller)
        ran: list[tuple[str, float]] = []

        def job(name: str, queue_name: str, **options: Any) -> BatchJob:
            return BatchJob("low", queue_name, lambda: ran.append((name, passed(clock))), **options)

        jobs = [job("a", "q", patient=True), job("b", "q"), job("c", "other"), job("d", "other")]
        assert controller.process_batch(jobs).counts == {"succeeded": 4}
        assert ran == [("c", 0), ("d", 0), ("a", 15), ("b", 15)]

    def test_each_job_has_its_own_max_wait(self, make_controller: MakeController, clock: ManualClock) -> None:
        controller = make_controller(None, NO_JITTER)
        falls(99)(controller)
        jobs = [BatchJob("low", "q", int, patient=True, max_wait=20), BatchJob("low", "q", int)]
        assert [outcome.status for outcome in controller.process_batch(jobs).outcomes] == ["shed", "shed"]
        assert passed(clock) == 15

    def test_it_ends_at_the_batchs_timeout(self, make_controller: MakeController, clock: ManualClock) -> None:
        controller = make_controller(None, NO_JITTER)
        falls(99)(controller)
        (outcome,) = controller.process_batch([BatchJob("low", "q", int, patient=True)], timeout=20).outcomes
        assert (outcome.status, outcome.retry_after) == ("not_started", 7.5)

    def test_a_stop_is_told(self, make_controller: MakeController) -> None:
        controller = make_controller(None, NO_JITTER)
        at_each_sleep(controller, lambda _: controller._set_stopped())
        (outcome,) = controller.process_batch([BatchJob("low", "q", int, patient=True)]).outcomes
        assert (outcome.status, type(outcome.error)) == ("not_started", ControllerStoppedError)

    def test_in_asyncio(self, clock: ManualClock, engine_name: str, engine_module: EngineModule) -> None:
        async def main() -> None:
            provider = InMemoryStatsProvider({"q": 5_000})
            async with AsyncBackpressureController(NO_JITTER, provider, clock=clock, _engine=engine_name) as controller:
                falls(2)(controller)
                jobs = [BatchJob("low", "q", int, patient=True)]
                assert (await controller.process_batch(jobs)).counts == {"succeeded": 1}

        asyncio.run(main())
        assert passed(clock) == 15
