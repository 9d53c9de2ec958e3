"""A provider that belongs to the loops of its callers: the caller that finds an old sample reads, and nobody else."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from backpressure import AsyncBackpressureController, BackpressureConfig, PollingConfig, QueueStats, Reason
from backpressure.testing import ManualClock
from support.controller_fixtures import being_read

if TYPE_CHECKING:
    import threading

    from backpressure import StatsUnavailableError
    from backpressure._engine.border import EngineModule


class Bound:
    loop_bound = True

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        self.loops.append(asyncio.get_running_loop())
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return QueueStats(queue_name, len(self.loops))

    async def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
        raise AssertionError("nobody reads in the background")


@pytest.fixture
def provider() -> Bound:
    return Bound()


@pytest.fixture
def manual() -> ManualClock:
    return ManualClock()


@pytest.fixture
def controller(
    provider: Bound, manual: ManualClock, engine_name: str, engine_module: EngineModule
) -> AsyncBackpressureController:
    return AsyncBackpressureController(None, provider, clock=manual, _engine=engine_name)


def test_each_loop_reads_for_itself_when_the_interval_is_over(
    controller: AsyncBackpressureController, provider: Bound, manual: ManualClock, started: list[threading.Thread]
) -> None:
    async def backlog() -> tuple[int | None, bool]:
        decision = await controller.suggest_throttle("low", "jobs")
        return decision.backlog_size, provider.loops[-1] is asyncio.get_running_loop()

    asyncio.run(controller.start())
    assert asyncio.run(backlog()) == (1, True)
    manual.advance(5)
    assert asyncio.run(backlog())[0] == 1
    manual.advance(1e-9)
    assert asyncio.run(backlog()) == (2, True)
    assert asyncio.run(controller.refresh("jobs"))
    assert started == []
    health = controller.health()
    assert (health["provider"], health["poller_alive"]) == ("ok", False)
    manual.advance(31)
    assert controller.health()["provider"] == "stale"
    controller.reconfigure(BackpressureConfig(polling=PollingConfig(interval=50, cache_ttl=100)))
    assert asyncio.run(backlog())[0] == 3
    manual.advance(19)
    assert asyncio.run(backlog())[0] == 3
    assert started == []
    asyncio.run(controller.stop())


def test_one_caller_reads_and_the_others_go_on_with_the_old_sample(
    controller: AsyncBackpressureController, provider: Bound, manual: ManualClock
) -> None:
    async def main() -> None:
        async with controller:
            await controller.suggest_throttle("medium", "jobs")
            manual.advance(6)
            provider.gate = asyncio.Event()
            first = asyncio.ensure_future(controller.suggest_throttle("medium", "jobs"))
            while len(provider.loops) < 2:
                await asyncio.sleep(0)
            assert (await controller.suggest_throttle("medium", "jobs")).backlog_size == 1
            provider.gate.set()
            assert (await first).backlog_size == 2
            assert being_read(controller) == {}

    asyncio.run(main())


def test_a_read_that_hangs_ends_at_the_timeout(
    controller: AsyncBackpressureController, provider: Bound, manual: ManualClock
) -> None:
    async def main() -> None:
        async with controller:
            provider.gate = asyncio.Event()
            asking = asyncio.ensure_future(controller.suggest_throttle("medium", "jobs"))
            while not provider.loops:
                await asyncio.sleep(0)
            while not asking.done():
                manual.advance(1)
                for _ in range(10):
                    await asyncio.sleep(0)
            assert (await asking).reason is Reason.FALLBACK_CONSERVATIVE
            assert controller.health()["polling_errors"] == {"deadline": 1}
            assert controller.health()["provider"] == "deadline"

    asyncio.run(main())


class Odd(BaseException):
    pass


def test_how_a_read_ends_that_was_cut_short_is_nobodys_concern(
    engine_name: str, engine_module: EngineModule, manual: ManualClock
) -> None:
    begun: list[str] = []

    class Sullen(Bound):
        async def get_queue_stats(self, queue_name: str) -> QueueStats:
            begun.append(queue_name)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError from None
            raise AssertionError("nobody sets it")

    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async with AsyncBackpressureController(
            None, Sullen(), clock=manual, registry=CollectorRegistry(), _engine=engine_name
        ) as controller:
            asking = asyncio.ensure_future(controller.suggest_throttle("low", "jobs"))
            while not begun:
                await asyncio.sleep(0)
            await manual.advance_async(3)
            assert (await asking).reason is Reason.FALLBACK_CONSERVATIVE
            assert controller.health()["provider"] == "deadline"
        gc.collect()

    asyncio.run(main())
    assert complaints == []


@pytest.mark.parametrize("error", [Odd, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_is_no_exception_is_a_failed_read_too(
    engine_name: str, engine_module: EngineModule, error: type[BaseException]
) -> None:
    class Raising:
        loop_bound = True

        async def get_queue_stats(self, queue_name: str) -> QueueStats:
            raise error

        async def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
            raise error

    async def main() -> None:
        async with AsyncBackpressureController(
            None, Raising(), registry=CollectorRegistry(), _engine=engine_name
        ) as controller:
            assert (await controller.suggest_throttle("low", "jobs")).reason is Reason.FALLBACK_CONSERVATIVE
            assert controller.health()["provider"] == "provider"

    asyncio.run(main())


def test_a_loop_that_is_closed_in_the_midst_of_a_read_hinders_no_other(
    controller: AsyncBackpressureController, provider: Bound
) -> None:
    async def ask() -> int | None:
        return (await controller.suggest_throttle("medium", "jobs")).backlog_size

    async def leave() -> None:
        provider.gate = asyncio.Event()
        asking: Any = asyncio.ensure_future(ask())
        while not provider.loops:
            await asyncio.sleep(0)
        asking.cancel()

    asyncio.run(controller.start())
    asyncio.run(leave())
    provider.gate = None
    assert asyncio.run(ask()) == 2
    asyncio.run(controller.stop())
