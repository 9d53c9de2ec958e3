"""An asynchronous provider as a blocking one: on which loop, in which context, and how hanging reads end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    PollingConfig,
    QueueStats,
    StatsUnavailableError,
)
from backpressure._controller.polling import own_loop
from backpressure._controller.polling.deadline import Reader
from backpressure._controller.polling.own_loop import LoopReads
from backpressure.testing import ManualClock
from support.controller_fixtures import at_rest, eventually, overrun, own_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._engine.border import EngineModule

TIMEOUT = 3.0

whose = contextvars.ContextVar("whose", default="nobody's")


class Provider:
    """Notes where it is read; `hang` is what a read does first. With a `clock`, its deadline passes before."""

    def __init__(self) -> None:
        self.clock: ManualClock | None = None
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.released: list[asyncio.AbstractEventLoop] = []
        self.contexts: set[str] = set()
        self.go_on = threading.Event()
        self.hang: Any = None

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        self.loops.append(asyncio.get_running_loop())
        self.contexts.add(whose.get())
        if self.hang is not None:
            if self.clock is not None:
                overrun(self.clock, TIMEOUT)
            await self.hang(self)
        return QueueStats(queue_name, len(self.loops))

    async def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
        return {"jobs": await self.get_queue_stats("jobs")}

    async def release_loop(self) -> None:
        self.released.append(asyncio.get_running_loop())


async def sleeps(_: Provider) -> None:
    await asyncio.sleep(30)


async def swallows(provider: Provider) -> None:
    while not provider.go_on.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue


async def blocks(provider: Provider) -> None:
    provider.go_on.wait(30)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def reads(provider: Provider) -> Iterator[LoopReads]:
    reads = LoopReads(provider)
    yield reads
    provider.go_on.set()
    thread = reads.end()
    if thread is not None:
        thread.join(10)
    eventually(lambda: all(loop.over for loops in reads._left.values() for loop in loops))


def test_reads_share_a_loop_that_is_nobodys(provider: Provider, reads: LoopReads) -> None:
    whose.set("mine")
    assert reads.get_queue_stats("a").backlog_count == 1
    assert set(reads.get_all_queue_stats()) == {"jobs"}
    assert provider.loops[0] is provider.loops[1]
    assert provider.contexts == {"nobody's"}
    assert not hasattr(reads, "get_many")


def test_get_many_is_there_where_the_provider_has_it() -> None:
    class Many(Provider):
        async def get_many(self, names: list[str]) -> dict[str, QueueStats]:
            return {name: QueueStats(name, 3) for name in names}

    reads = LoopReads(Many())
    assert set(reads.get_many(["a", "b"])) == {"a", "b"}
    reads.close()


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr
)
def test_what_a_read_raises_is_raised_and_ends_no_loop(
    provider: Provider, reads: LoopReads, error: BaseException
) -> None:
    async def fails(_: Provider) -> None:
        raise error

    provider.hang = fails
    with pytest.raises(StatsUnavailableError if isinstance(error, asyncio.CancelledError) else type(error)):
        reads.get_queue_stats("a")
    provider.hang = None
    assert reads.get_queue_stats("a").backlog_count == 2
    assert provider.loops[0] is provider.loops[1]


@pytest.mark.parametrize(("hang", "same"), [(sleeps, True), (swallows, False), (blocks, False)])
def test_a_read_that_hangs_is_ended_or_left_behind_with_its_loop(
    provider: Provider, reads: LoopReads, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, hang: Any, same: bool
) -> None:
    monkeypatch.setattr(own_loop, "_GRACE", 10 if same else 0.01)
    reader = Reader(reads, clock)
    provider.clock, provider.hang = clock, hang
    with pytest.raises(StatsUnavailableError) as raised:
        reader.call(lambda: reads.get_queue_stats("a"), TIMEOUT)
    assert raised.value.error_type == "deadline"
    provider.hang = None
    eventually(lambda: not any(loop.reads for loop in reads._loops.values()))
    assert reader.call(lambda: reads.get_queue_stats("a"), 10).backlog_count == 2
    assert (provider.loops[0] is provider.loops[1]) is same
    provider.go_on.set()


def test_two_loops_may_hang_at_a_time(provider: Provider, reads: LoopReads, clock: ManualClock) -> None:
    reader = Reader(reads, clock)
    provider.clock, provider.hang = clock, blocks
    for _ in range(4):
        with pytest.raises(StatsUnavailableError):
            reader.call(lambda: reads.get_queue_stats("a"), TIMEOUT)
        eventually(lambda: not reads._loops)
    assert len(provider.loops) == 2
    provider.hang = None
    provider.go_on.set()
    eventually(lambda: all(loop.over for loops in reads._left.values() for loop in loops))
    assert reader.call(lambda: reads.get_queue_stats("a"), 10).backlog_count == 3


def test_the_end_frees_what_belongs_to_the_loop(provider: Provider, reads: LoopReads) -> None:
    before = own_threads("loop")
    reads.get_queue_stats("a")
    thread = reads.end()
    assert thread is not None
    thread.join(10)
    assert provider.released == provider.loops
    assert provider.loops[0].is_closed()
    reads.get_queue_stats("a")
    assert provider.loops[0] is not provider.loops[1]
    reads.close()
    with pytest.raises(StatsUnavailableError, match="was stopped"):
        reads.get_queue_stats("a")
    eventually(lambda: own_threads("loop") <= before)


@pytest.mark.parametrize("hang", [sleeps, swallows, blocks])
def test_stop_does_not_wait_for_what_hangs(hang: Any, engine_name: str, engine_module: EngineModule) -> None:
    before = own_threads("loop")
    provider = Provider()
    provider.hang = hang
    config = BackpressureConfig(polling=PollingConfig(timeout=0.05))

    async def main() -> None:
        controller = AsyncBackpressureController(config, provider, _engine=engine_name)
        try:
            await controller.start()
            # It waits for the timeout, and not for a poller that a busy machine lets run later.
            await asyncio.to_thread(eventually, lambda: controller.health()["polling_errors"] == {"deadline": 1})
        finally:
            await asyncio.wait_for(controller.stop(), 5)

    try:
        asyncio.run(main())
    finally:
        provider.go_on.set()
    eventually(lambda: own_threads("loop") <= before)


def test_loops_of_callers_come_and_go(
    provider: Provider, clock: ManualClock, engine_name: str, engine_module: EngineModule
) -> None:
    config = BackpressureConfig(polling=PollingConfig(jitter=0))
    controller = AsyncBackpressureController(config, provider, clock=clock, _engine=engine_name)

    async def backlog() -> int:
        return (await controller.suggest_throttle("low", "jobs")).backlog_size or 0

    asyncio.run(controller.start())
    try:
        for polls in range(1, 5):
            eventually(partial(at_rest, controller, clock, polls))
            assert asyncio.run(backlog()) == polls
            clock.advance(5)
        assert controller.health()["poller_alive"]
        assert len(set(map(id, provider.loops))) == 1
    finally:
        asyncio.run(controller.stop())
    assert provider.released
