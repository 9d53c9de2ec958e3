"""On trio: what needs asyncio says so and leaves nothing behind, and nothing blocks trio's loop."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING

import pytest
import trio
from prometheus_client import CollectorRegistry

from backpressure import (
    AsyncBackpressureController,
    BackpressureController,
    BackpressureError,
    BatchJob,
    InMemoryStatsProvider,
)
from backpressure._model.clock import running_loop
from support.controller_fixtures import own_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.controller_fixtures import MakeController

NEEDS_ASYNCIO = r"needs asyncio, and trio runs here.* trio\.to_thread\.run_sync"
WARNED = pytest.mark.filterwarnings("ignore:a BackpressureController is used on a running event loop:RuntimeWarning")


def test_an_async_controller_does_not_start_there(engine_name: str) -> None:
    before = own_threads()
    controller = AsyncBackpressureController(
        None, InMemoryStatsProvider({"q": 0}), registry=CollectorRegistry(), _engine=engine_name
    )

    async def enter() -> None:
        async with controller:
            pass

    for call in (enter, controller.start, controller.stop):
        with pytest.raises(BackpressureError, match=NEEDS_ASYNCIO):
            trio.run(call)
    assert own_threads() <= before
    assert not controller.health()["started"]
    asyncio.run(controller.start())  # it is as it was
    asyncio.run(controller.stop())


def test_one_that_runs_elsewhere_refuses_to_wait_there(engine_name: str) -> None:
    controller = AsyncBackpressureController(
        None, InMemoryStatsProvider({"yellow": 1_250, "empty": 0}), registry=CollectorRegistry(), _engine=engine_name
    )
    asyncio.run(controller.start())
    done: list[int] = []

    async def on_trio() -> None:
        await controller.run("medium", "empty", done.append, 1)  # nothing to wait for
        decision = await controller.suggest_throttle("medium", "yellow")
        calls: list[Callable[[], object]] = [
            lambda: controller.run("medium", "yellow", done.append, 2),
            lambda: controller.gate("medium", "yellow").run(done.append, 3),
            lambda: controller.refresh("yellow"),
            lambda: controller.suggest_throttle("medium", "never seen"),
            decision.wait_async,
        ]
        for call in calls:
            with pytest.raises(BackpressureError, match=NEEDS_ASYNCIO):
                await call()  # type: ignore[misc]
        result = await controller.process_batch([BatchJob("medium", "yellow", lambda: done.append(4))])
        assert [outcome.status for outcome in result.outcomes] == ["not_started"]

    trio.run(on_trio)
    assert done == [1]
    asyncio.run(controller.stop())


def test_a_blocking_controller_refuses_to_block_it(make_controller: MakeController) -> None:
    controller = make_controller()

    async def main() -> None:
        with pytest.warns(RuntimeWarning, match=r"call it by trio\.to_thread\.run_sync"):
            assert controller.run("medium", "empty", int) == 0
        with pytest.raises(BackpressureError, match=r"block the running event loop: call it by trio\.to_thread"):
            controller.run("medium", "yellow", int)
        with pytest.raises(BackpressureError, match=r"trio\.to_thread"):
            controller.run("medium", "yellow", int, max_wait=0.01)
        with pytest.raises(BackpressureError, match=r"trio\.to_thread"):
            controller.refresh("yellow")
        assert await trio.to_thread.run_sync(lambda: controller.run("medium", "yellow", int)) == 0

    trio.run(main)


@WARNED
def test_it_may_be_used_before_and_after(make_controller: MakeController) -> None:
    controller = make_controller()

    async def nothing() -> None:
        pass

    trio.run(nothing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert controller.run("medium", "yellow", int) == 0


def test_which_loop_runs_is_told_right_where_one_runs_inside_of_the_other() -> None:
    seen: list[str | None] = []

    async def inner() -> None:
        seen.append(running_loop())

    async def outer() -> None:
        await inner()
        ended = asyncio.Event()
        trio.lowlevel.start_guest_run(
            inner,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=lambda _: ended.set(),
        )
        await ended.wait()
        await inner()

    seen.append(running_loop())
    asyncio.run(outer())
    assert seen == [None, "asyncio", "trio", "asyncio"]


def test_the_context_manager_of_a_blocking_one_starts_there(engine_name: str) -> None:
    async def main() -> str:
        controller = BackpressureController(
            None, InMemoryStatsProvider({"q": 0}), registry=CollectorRegistry(), _engine=engine_name
        )
        with pytest.warns(RuntimeWarning, match="start and call it by trio.to_thread.run_sync"), controller:
            return await trio.to_thread.run_sync(lambda: controller.run("low", "q", str, "sent"))

    assert trio.run(main) == "sent"
