"""Event loops come and go, also without notice and in several threads: the controller stays usable."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from backpressure import AsyncBackpressureController, ControllerStoppedError, QueueStats, Reason
from backpressure.testing import ManualClock
from support.controller_fixtures import at_rest, eventually

if TYPE_CHECKING:
    from backpressure import StatsUnavailableError
    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController

LOOPS = 4


class Provider:
    """Counts its reads: every sample says how many there were."""

    def __init__(self) -> None:
        self.reads = 0

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        self.reads += 1
        return QueueStats(queue_name, self.reads)

    async def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
        await asyncio.sleep(0)
        self.reads += 1
        return {"jobs": QueueStats("jobs", self.reads)}


@pytest.fixture
def controller(engine_name: str, engine_module: EngineModule, clock: ManualClock) -> AsyncBackpressureController:
    return AsyncBackpressureController(None, Provider(), clock=clock, _engine=engine_name)


def test_a_loop_that_was_closed_early_is_followed_by_another(
    controller: AsyncBackpressureController, clock: ManualClock
) -> None:
    async def ask_until_fresh(reads: int) -> None:
        # More, if this caller finds the old sample before the poller has woken up, and starts a read itself.
        while ((await controller.suggest_throttle("low", "jobs")).backlog_size or 0) < reads:
            await asyncio.sleep(0)

    asyncio.run(controller.start())
    for reads in (2, 3):
        eventually(lambda polls=reads - 1: at_rest(controller, clock, polls))  # type: ignore[misc]
        clock.advance(15)
        asyncio.run(ask_until_fresh(reads))
    asyncio.run(controller.stop())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio complains about the loss
def test_sleepers_of_a_closed_loop_hinder_nobody(engine_name: str, engine_module: EngineModule) -> None:
    clock = ManualClock()
    controller = AsyncBackpressureController(None, Provider(), clock=clock, _engine=engine_name)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(controller.start())
    controller._engine.put_sample("jobs", 3_500, clock.monotonic_ns())
    sleeper = loop.create_task(controller.run("medium", "jobs", bool))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert any(controller._sleeper._sleepers.values())
    loop.close()
    controller.set_manual_override(True)
    asyncio.run(controller.stop())
    assert not sleeper.done()
    del loop, sleeper, controller, clock
    gc.collect()


def test_one_poller_serves_the_loops_of_several_threads(
    controller: AsyncBackpressureController, clock: ManualClock
) -> None:
    barrier = threading.Barrier(LOOPS)
    reads: list[int | None] = []

    async def ask() -> None:
        barrier.wait(10)
        decision = await controller.suggest_throttle("low", "jobs")
        while decision.backlog_size == 1:
            await asyncio.sleep(0)
            decision = await controller.suggest_throttle("low", "jobs")
        reads.append(decision.backlog_size)

    asyncio.run(controller.start())
    clock.advance(15)
    with ThreadPoolExecutor(LOOPS) as pool:
        list(pool.map(lambda _: asyncio.run(ask()), range(LOOPS)))
    # A caller that asks during a read, which may have begun before, gets the next one: at most one read each.
    assert set(reads) <= set(range(2, 3 + LOOPS))
    asyncio.run(controller.stop())


def test_coroutines_of_several_loops_may_share_a_blocking_controller(make_controller: MakeController) -> None:
    controller = make_controller(clock=ManualClock())
    asleep = threading.Barrier(LOOPS + 1)

    @controller.throttled("medium", "red")
    async def enqueue() -> None:
        raise AssertionError("it was to sleep")

    async def main() -> None:
        assert controller.suggest_throttle("low", "empty").reason is Reason.BACKLOG_GREEN
        sleeping = asyncio.ensure_future(enqueue())
        await asyncio.sleep(0)
        asleep.wait(10)
        with pytest.raises(ControllerStoppedError):
            await sleeping

    with ThreadPoolExecutor(LOOPS) as pool:
        loops = [pool.submit(asyncio.run, main()) for _ in range(LOOPS)]
        asleep.wait(10)
        controller.stop()
        for loop in loops:
            loop.result(10)
