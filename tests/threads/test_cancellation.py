"""Cancelling a task at any turn of the event loop leaves no permit, count, sleeper or task behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    BatchJob,
    CircuitState,
    InMemoryStatsProvider,
    QueueStats,
    ThrottleDecision,
)
from backpressure.testing import ManualClock
from support.controller_fixtures import being_read, eventually, own_threads

if TYPE_CHECKING:
    from backpressure import StatsUnavailableError
    from backpressure._engine.border import EngineModule

Controller = AsyncBackpressureController
Work = Callable[[], Awaitable[object]]


class Provider:
    """Answers on the second turn of the caller's loop, so that each turn differs from the others."""

    loop_bound = True

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        await asyncio.sleep(0)
        return QueueStats(queue_name, 1_000)  # medium: yellow

    async def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
        await asyncio.sleep(0)
        return {}


async def run(controller: Controller, work: Work) -> None:
    await controller.run("medium", "jobs", work)


async def gate_run(controller: Controller, work: Work) -> None:
    await controller.gate("medium", "jobs").run(work)


async def gate_enter(controller: Controller, work: Work) -> None:
    async with controller.gate("medium", "jobs"):
        await work()


async def slot(controller: Controller, work: Work) -> None:
    async with controller.slot("medium", "jobs"):
        await work()


async def decorated(controller: Controller, work: Work) -> None:
    @controller.throttled("medium", "jobs")
    async def enqueue() -> None:
        await work()

    await enqueue()


async def batch(controller: Controller, work: Work) -> None:
    await controller.process_batch([BatchJob("medium", "jobs", work)])


async def suggest_and_wait(controller: Controller, work: Work) -> None:
    decision: ThrottleDecision = await controller.suggest_throttle("medium", "jobs")
    try:
        await decision.wait_async()
        await work()
    except BaseException:
        controller.record_failure(decision)
        raise
    controller.record_success(decision)


async def cancelled_at(turn: int, running: Coroutine[Any, Any, object]) -> bool:
    """Cancel `running` after `turn` turns of the loop; tell whether it ran that long."""
    task = asyncio.ensure_future(running)
    for _ in range(turn):
        await asyncio.sleep(0)
    cut = task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return cut


def turns(cancel_at: Callable[[int], Coroutine[Any, Any, bool]]) -> int:
    """Cancel at every possible turn; return how many there were."""
    return next(turn for turn in itertools.count() if not asyncio.run(cancel_at(turn)))


async def no_task_is_left() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert others == set()


@contextlib.asynccontextmanager
async def started(engine_name: str, clock: ManualClock) -> AsyncIterator[Controller]:
    async with Controller(None, Provider(), clock=clock, _engine=engine_name) as controller:
        yield controller


@pytest.mark.parametrize("way", [run, gate_run, gate_enter, slot, decorated, batch, suggest_and_wait])
def test_a_job(
    way: Callable[[Controller, Work], Coroutine[Any, Any, None]], engine_name: str, engine_module: EngineModule
) -> None:
    """The job reads its queue, sleeps and probes an open circuit."""

    async def cancel_at(turn: int) -> bool:
        clock = ManualClock(sleep_advances=True)
        begun: list[int] = []

        async def work() -> None:
            begun.append(1)
            for _ in range(3):
                await asyncio.sleep(0)

        async with started(engine_name, clock) as controller:
            for _ in range(5):
                controller.record_failure("jobs")
            clock.advance(60.002)
            cut = await cancelled_at(turn, way(controller, work))
            await no_task_is_left()
            assert not any(controller._sleeper._sleepers.values())
            assert being_read(controller) == {}
            if way is not suggest_and_wait:  # this one is admitted before it sleeps
                assert (controller.get_circuit_state("jobs") is CircuitState.OPEN) == (not begun)
                assert sum(sum(totals.reasons) for totals in controller._engine.totals().values()) == len(begun)
            clock.advance(60.002)
            assert await controller.run("medium", "jobs", bool) is False
        return cut

    assert turns(cancel_at) > 8


class Polled(Provider):
    """A provider that the controller reads on its own loop and threads."""

    loop_bound = False


POLLED = [Polled, InMemoryStatsProvider]


@pytest.mark.parametrize("provider", POLLED)
@pytest.mark.parametrize("turn", range(6))
def test_start(provider: type[Any], turn: int, engine_name: str, engine_module: EngineModule) -> None:
    async def main() -> None:
        controller = Controller(None, provider(), clock=ManualClock(), _engine=engine_name)
        before = own_threads()
        if await cancelled_at(turn, controller.start()):
            await no_task_is_left()
            assert not controller._poller.alive()
            await asyncio.to_thread(eventually, lambda: own_threads() <= before)
        await controller.start()
        assert controller._poller.alive()
        await controller.suggest_throttle("high", "jobs")
        await controller.stop()

    asyncio.run(main())


@pytest.mark.parametrize("provider", POLLED)
@pytest.mark.parametrize("turn", range(6))
def test_stop(provider: type[Any], turn: int, engine_name: str, engine_module: EngineModule) -> None:
    async def main() -> None:
        before = own_threads()
        controller = Controller(None, provider(), clock=ManualClock(), _engine=engine_name)
        await controller.start()
        await cancelled_at(turn, controller.stop())
        assert (controller.health()["stopped"], controller._poller.alive()) == (turn > 0, turn == 0)
        if turn > 0:
            await asyncio.to_thread(eventually, lambda: own_threads() <= before)
        await controller.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_refresh(engine_name: str, engine_module: EngineModule) -> None:
    async def cancel_at(turn: int) -> bool:
        async with started(engine_name, ManualClock()) as controller:
            cut = await cancelled_at(turn, controller.refresh("jobs"))
            await no_task_is_left()
            assert await controller.refresh("jobs")
        return cut

    assert turns(cancel_at) > 3
