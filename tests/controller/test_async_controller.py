"""`AsyncBackpressureController`, on both engines: reads off the hot path, sleeps that suspend, clean cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    CircuitOpenError,
    ControllerNotStartedError,
    ControllerStoppedError,
    InMemoryStatsProvider,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    PollingConfig,
    Priority,
    QueueStats,
    Reason,
    StatsUnavailableError,
    ThrottleDecision,
    ThrottledError,
)
from backpressure.testing import ManualClock
from support.controller_fixtures import at_rest, being_read, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from backpressure._engine.border import EngineModule

OUTAGE = StatsUnavailableError("no server", error_type="connect")
BACKLOGS = {"empty": 0, "red": 3_500, "full": 100_000}


class AsyncProvider:
    """An `AsyncStatsProvider` over a dict, which notes its reads and can be made to wait."""

    def __init__(self, backlogs: dict[str, int] | None = None) -> None:
        self.backlogs = dict(BACKLOGS if backlogs is None else backlogs)
        self.reads: list[str] = []
        self.error: Exception | None = None
        self.gate: threading.Event | None = None

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        self.reads.append(queue_name)
        while self.gate is not None and not self.gate.is_set():
            await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        return QueueStats(queue_name, self.backlogs.get(queue_name, 700))

    async def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
        if self.error is not None:
            raise self.error
        return {name: QueueStats(name, backlog) for name, backlog in self.backlogs.items()}


class Make(Protocol):
    """Makes a controller on the engine under test."""

    def __call__(
        self, provider: Any = None, config: BackpressureConfig | None = None, **options: Any
    ) -> AsyncBackpressureController: ...


@pytest.fixture
def make(engine_name: str, engine_module: EngineModule, clock: ManualClock) -> Make:
    def make(
        provider: Any = None, config: BackpressureConfig | None = None, **options: Any
    ) -> AsyncBackpressureController:
        options.setdefault("clock", clock)
        return AsyncBackpressureController(config, provider or AsyncProvider(), _engine=engine_name, **options)

    return make


async def later(value: str) -> str:
    await asyncio.sleep(0)
    return value


def counted(controller: AsyncBackpressureController) -> int:
    return sum(sum(totals.reasons) for totals in controller._engine.totals().values())


def test_the_life_cycle(make: Make) -> None:
    async def main() -> None:
        controller = make()
        with pytest.raises(ControllerNotStartedError):
            await controller.suggest_throttle("low", "empty")
        async with controller:
            await controller.start()
            assert controller.health()["queues"]["full"]["backlog"] == 100_000
        await controller.stop()
        with pytest.raises(ControllerStoppedError):
            await controller.run("low", "empty", bool)
        with pytest.raises(ControllerStoppedError):
            await controller.start()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())


@pytest.mark.parametrize("provider", [AsyncProvider(), InMemoryStatsProvider(dict(BACKLOGS))], ids=["async", "sync"])
def test_decisions_sleeps_and_reports(make: Make, provider: Any, clock: ManualClock) -> None:
    async def main() -> None:
        async with make(provider) as controller:
            assert (await controller.suggest_throttle("low", "full")).should_shed
            before = clock.monotonic_ns()
            value: str = await controller.run("medium", "red", later, "value")
            assert value == "value"
            assert 2.75 <= (clock.monotonic_ns() - before) / 1e9 <= 2.75 * 1.1
            assert await controller.run("high", "empty", pow, 2, 3) == 8
            with pytest.raises(JobShedError):
                await controller.run("low", "full", bool)
            with pytest.raises(ThrottledError):
                await controller.run("medium", "red", bool, max_wait=1)
            async with controller.slot("low", "empty") as decision:
                assert decision.reason is Reason.BACKLOG_GREEN
            await (await controller.suggest_throttle("medium", "red")).wait_async()
            assert counted(controller) == 7

    asyncio.run(main())


def test_bad_arguments(make: Make) -> None:
    async def main() -> None:
        async with make() as controller:
            with pytest.raises(InvalidPriorityError):
                await controller.suggest_throttle(1, "empty")  # type: ignore[arg-type]
            with pytest.raises(InvalidQueueError):
                await controller.run("low", "", bool)

    asyncio.run(main())


def test_failures_open_the_circuit(make: Make) -> None:
    async def main() -> None:
        async with make() as controller:

            @controller.throttled("low", "empty")
            async def enqueue() -> None:
                raise OSError("no server")

            assert enqueue.__name__ == "enqueue"
            for _ in range(5):
                with pytest.raises(OSError, match="no server"):
                    await enqueue()
            with pytest.raises(CircuitOpenError):
                await enqueue()
            with pytest.raises(CircuitOpenError):
                async with controller.slot("high", "empty"):
                    pytest.fail("the body must not run")

    asyncio.run(main())


def test_only_coroutine_functions_can_be_decorated(make: Make) -> None:
    controller = make()

    async def generate() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="generator function"):
        controller.throttled("low", "empty")(generate)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no coroutine function"):
        controller.throttled("low", "empty")(bool)  # type: ignore[arg-type]


class TestFirstSight:
    def test_callers_share_one_read(self, make: Make) -> None:
        async def main() -> None:
            provider = AsyncProvider({})
            async with make(provider) as controller:
                provider.gate = threading.Event()
                asking = [asyncio.ensure_future(controller.suggest_throttle("medium", "new")) for _ in range(50)]
                while not provider.reads:
                    await asyncio.sleep(0)
                provider.gate.set()
                decisions = await asyncio.gather(*asking)
                assert {decision.backlog_size for decision in decisions} == {700}
                assert provider.reads == ["new"]
                assert being_read(controller) == {}

        asyncio.run(main())

    def test_a_failed_read_means_the_fallback_until_the_next_poll(self, make: Make) -> None:
        async def main() -> None:
            provider = AsyncProvider({})
            async with make(provider) as controller:
                provider.error = OUTAGE
                for _ in range(3):
                    decision = await controller.suggest_throttle("medium", "new")
                    assert decision.reason is Reason.FALLBACK_CONSERVATIVE
                assert provider.reads == ["new"]
                assert controller.health()["polling_errors"] == {"connect": 1}

        asyncio.run(main())

    def test_a_read_that_hangs_ends_at_the_timeout(self, make: Make, clock: ManualClock) -> None:
        async def main() -> None:
            provider = AsyncProvider({})
            async with make(provider) as controller:
                provider.gate = threading.Event()
                asking = asyncio.ensure_future(controller.suggest_throttle("medium", "new"))
                while not (provider.reads and clock.sleeping() == 3):  # the poller, the read and its caller
                    await asyncio.sleep(0)
                await clock.advance_async(3)
                assert (await asking).reason is Reason.FALLBACK_CONSERVATIVE
                assert controller.health()["polling_errors"] == {"deadline": 1}

        asyncio.run(main())

    def test_a_cached_decision_does_not_yield(self, make: Make) -> None:
        async def main() -> None:
            async with make() as controller:
                await controller.suggest_throttle("low", "empty")
                asking = controller.suggest_throttle("low", "empty")
                with pytest.raises(StopIteration):  # it returns at the first step
                    asking.send(None)

        asyncio.run(main())

    def test_without_polling_one_caller_reads_at_expiry(self, make: Make, clock: ManualClock) -> None:
        async def main() -> None:
            provider = AsyncProvider()
            async with make(provider, BackpressureConfig(polling=PollingConfig(enabled=False))) as controller:
                await controller.suggest_throttle("medium", "empty")
                clock.advance(31)
                provider.gate = threading.Event()
                first = asyncio.ensure_future(controller.suggest_throttle("medium", "empty"))
                while len(provider.reads) < 2:
                    await asyncio.sleep(0)
                assert (await controller.suggest_throttle("medium", "empty")).reason is Reason.STATS_STALE
                provider.gate.set()
                assert (await first).reason is Reason.BACKLOG_GREEN

        asyncio.run(main())


class TestPolling:
    def test_the_poller_polls_and_recovers(self, make: Make) -> None:
        clock = ManualClock()

        async def until(predicate: Callable[[], object]) -> None:
            await asyncio.to_thread(eventually, predicate)

        async def main() -> None:
            provider = AsyncProvider()
            async with make(provider, BackpressureConfig(polling=PollingConfig(jitter=0)), clock=clock) as controller:
                await until(lambda: at_rest(controller, clock, 1))
                provider.backlogs["empty"] = 5
                clock.advance(5)
                await until(lambda: (controller._engine.sample("empty") or (0,))[0] == 5)
                provider.error = OUTAGE
                await until(lambda: at_rest(controller, clock, 2))
                clock.advance(5)
                await until(lambda: controller.health()["provider"] == "connect")
                provider.error = None
                await until(lambda: at_rest(controller, clock, 3))
                clock.advance(10)
                await until(lambda: controller.health()["provider"] == "ok")

        asyncio.run(main())


class TestCancellation:
    def test_a_start_that_is_cancelled_leaves_no_thread(self, make: Make) -> None:
        polls, go_on = threading.Event(), threading.Event()

        class Provider(InMemoryStatsProvider):
            def get_all_queue_stats(self) -> dict[str, QueueStats]:
                polls.set()
                go_on.wait()
                return {}

        async def main() -> None:
            controller = make(Provider({}))
            starting = asyncio.ensure_future(controller.start())
            await asyncio.to_thread(polls.wait)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            go_on.set()
            assert controller._poller.alive() is False

        asyncio.run(main())

    @pytest.mark.parametrize("steps", range(12))
    def test_at_any_step_nothing_is_held(self, make: Make, steps: int) -> None:
        """Cancel a first-sight, throttled, probing run after each number of loop turns it can take."""

        async def main() -> None:
            provider = AsyncProvider({"red": 3_500})
            clock = ManualClock(sleep_advances=True)
            async with make(provider, clock=clock) as controller:
                for _ in range(5):
                    controller.record_failure("new")
                clock.advance(60.002)
                provider.backlogs["new"] = 1_000  # medium: yellow
                started: list[int] = []

                async def work() -> None:
                    started.append(1)
                    for _ in range(3):
                        await asyncio.sleep(0)

                running = asyncio.ensure_future(controller.run("medium", "new", work))
                for _ in range(steps):
                    await asyncio.sleep(0)
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
                while being_read(controller):
                    await asyncio.sleep(0)
                assert controller._sleeper._sleepers == {} or not any(controller._sleeper._sleepers.values())
                # A call that was cancelled before it was admitted took no lease, and was not counted.
                state = str(controller.get_circuit_state("new"))
                assert (state == "open") == (not started)
                assert counted(controller) == len(started)
                clock.advance(5.002)
                controller._engine.put_sample("new", 0, clock.monotonic_ns())
                assert await controller.run("medium", "new", bool) is False

        asyncio.run(main())

    @pytest.mark.parametrize("how", ["run", "suggest"])
    def test_a_reader_hears_of_nothing_but_its_cancellation(self, make: Make, how: str) -> None:
        async def main() -> None:
            provider = AsyncProvider({})
            async with make(provider) as controller:
                provider.gate = threading.Event()
                ask = controller.run("low", "new", bool) if how == "run" else controller.suggest_throttle("low", "new")
                reader = asyncio.ensure_future(ask)
                while not provider.reads:
                    await asyncio.sleep(0)
                reader.cancel()
                with pytest.raises(asyncio.CancelledError) as raised:
                    await reader
                assert raised.value.__context__ is None
                provider.gate.set()

        asyncio.run(main())

    def test_a_cancelled_reader_does_not_take_the_read_from_others(self, make: Make) -> None:
        async def main() -> None:
            provider = AsyncProvider({})
            async with make(provider) as controller:
                provider.gate = threading.Event()
                first = asyncio.ensure_future(controller.suggest_throttle("medium", "new"))
                second = asyncio.ensure_future(controller.suggest_throttle("medium", "new"))
                while not provider.reads:
                    await asyncio.sleep(0)
                first.cancel()
                await asyncio.wait({first})
                provider.gate.set()
                assert (await second).backlog_size == 700
                assert provider.reads == ["new"]

        asyncio.run(main())


def test_ten_thousand_tasks(make: Make) -> None:
    async def main() -> None:
        async with make() as controller:
            done = await asyncio.gather(*(controller.run("low", "empty", asyncio.sleep, 0, n) for n in range(10_000)))
            assert done == list(range(10_000))
            assert counted(controller) == 10_000

    asyncio.run(main())


def test_stop_wakes_sleeping_tasks_and_override_lets_them_go(make: Make) -> None:
    async def sleeping(controller: AsyncBackpressureController) -> asyncio.Task[ThrottleDecision]:
        async def wait() -> ThrottleDecision:
            async with controller.slot("medium", "red") as decision:
                return decision

        task = asyncio.ensure_future(wait())
        while not any(controller._sleeper._sleepers.values()):
            await asyncio.sleep(0)
        return task

    async def main() -> None:
        async with make(clock=ManualClock()) as controller:
            task = await sleeping(controller)
            controller.set_manual_override(True)
            assert (await task).reason is Reason.MANUAL_OVERRIDE
            controller.set_manual_override(False)
            task = await sleeping(controller)
            await controller.stop()
            with pytest.raises(ControllerStoppedError):
                await task

    asyncio.run(main())


def test_several_loops_in_threads_share_a_controller(make: Make) -> None:
    controller = make(InMemoryStatsProvider(dict(BACKLOGS)))
    barrier = threading.Barrier(4)

    async def ask(number: int) -> None:
        barrier.wait(10)
        for _ in range(500):
            await controller.run("low", "empty", bool)
        assert (await controller.suggest_throttle("medium", f"new-{number}")).reason is Reason.FALLBACK_CONSERVATIVE

    def loop(number: int) -> None:
        asyncio.run(ask(number))

    asyncio.run(controller.start())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(loop, range(4)))
    assert controller._engine.totals()["empty", Priority.LOW.value].reasons[0] == 2_000
    asyncio.run(controller.stop())


def test_refresh_reads_now(make: Make) -> None:
    async def main() -> None:
        provider = AsyncProvider()
        async with make(provider) as controller:
            provider.backlogs["empty"] = 5_000
            assert await controller.refresh("empty")
            assert (await controller.suggest_throttle("medium", "empty")).delay == 5
            provider.error = OUTAGE
            assert not await controller.refresh("empty")

    asyncio.run(main())


def test_a_plain_function_may_return_an_awaitable(make: Make) -> None:
    async def main() -> None:
        def later() -> Awaitable[int]:
            return asyncio.ensure_future(asyncio.sleep(0, 3))

        async with make() as controller:
            assert await controller.run("low", "empty", later) == 3

    asyncio.run(main())


def test_stop_during_start_leaves_nothing_running(make: Make) -> None:
    async def main() -> None:
        provider = AsyncProvider()
        controller = make(provider, clock=ManualClock())
        starting = asyncio.ensure_future(controller.start())
        await asyncio.sleep(0)
        await controller.stop()
        await starting
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        with pytest.raises(ControllerStoppedError):
            await controller.suggest_throttle("low", "empty")

    asyncio.run(main())
