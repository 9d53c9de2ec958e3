"""`ManualClock.advance` returns when what it made due has happened: nothing here waits in real time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import AsyncBackpressureController, BackpressureConfig, PollingConfig, QueueStats
from backpressure.testing import InMemoryStatsProvider, ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.controller_fixtures import MakeController

POLLING = BackpressureConfig(polling=PollingConfig(interval=5, jitter=0))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Recorded(InMemoryStatsProvider):
    """A provider that takes a moment of real time to answer."""

    def __init__(self) -> None:
        super().__init__({"q": 0})
        self.polls = 0

    def get_all_queue_stats(self) -> dict[str, Any]:
        time.sleep(0.01)
        self.polls += 1
        return dict(super().get_all_queue_stats())


def test_a_poll_has_ended(make_controller: MakeController, clock: ManualClock) -> None:
    provider = Recorded()
    controller = make_controller(provider, POLLING, clock=clock)
    for backlog in range(1, 21):
        provider.set("q", backlog)
        clock.advance(5)
        assert controller.suggest_throttle("low", "q").backlog_size == backlog
        assert provider.polls == backlog + 1


def test_before_it_is_due_nothing_happens(make_controller: MakeController, clock: ManualClock) -> None:
    provider = Recorded()
    make_controller(provider, POLLING, clock=clock)
    clock.advance(4.999)
    assert provider.polls == 1


def test_the_polls_of_two_controllers_have_ended(make_controller: MakeController, clock: ManualClock) -> None:
    providers = [Recorded(), Recorded()]
    for provider in providers:
        make_controller(provider, POLLING, clock=clock)
    clock.advance(5)
    assert [provider.polls for provider in providers] == [2, 2]


def test_threads_that_slept_have_done_their_jobs(make_controller: MakeController, clock: ManualClock) -> None:
    controller = make_controller(InMemoryStatsProvider({"q": 3_500}), POLLING, clock=clock)
    done: list[int] = []

    def work(number: int) -> None:
        time.sleep(0.005)
        done.append(number)

    threads = [threading.Thread(target=controller.run, args=("medium", "q", work, n)) for n in range(5)]
    for thread in threads:
        thread.start()
    clock.until_sleeping(6)
    clock.advance(4)
    assert sorted(done) == [0, 1, 2, 3, 4]
    for thread in threads:
        thread.join()


def test_a_thread_that_sleeps_again_is_at_its_next_sleep(clock: ManualClock) -> None:
    steps: list[int] = []

    def step() -> None:
        for number in range(10):
            clock.sleep(1)
            time.sleep(0.002)
            steps.append(number)

    thread = threading.Thread(target=step)
    thread.start()
    clock.until_sleeping(1)
    for number in range(10):
        clock.advance(1)
        assert steps == list(range(number + 1))
    thread.join()


def test_jobs_on_a_pool_are_done_and_its_idle_threads_are_not_waited_for(clock: ManualClock) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(clock.sleep, 1) for _ in range(2)]
        clock.until_sleeping(2)
        before = time.monotonic()
        clock.advance(1)
        took = time.monotonic() - before
        assert all(job.done() for job in jobs)
    assert took < 0.2, "as long as it takes to see that a thread hangs"


def test_what_needs_the_caller_does_not_hold_it_up_for_ever(clock: ManualClock) -> None:
    go_on = threading.Event()

    def sleep() -> None:
        clock.sleep(1)
        go_on.wait()

    thread = threading.Thread(target=sleep)
    thread.start()
    clock.until_sleeping(1)
    clock.advance(1)
    go_on.set()
    thread.join()


def test_a_thread_that_never_rests_does_not_either(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpressure.testing._LONGEST", 0.05)
    ended = threading.Event()

    def spin() -> None:
        clock.sleep(1)
        while not ended.is_set():
            time.sleep(0.0001)

    thread = threading.Thread(target=spin)
    thread.start()
    clock.until_sleeping(1)
    clock.advance(1)
    ended.set()
    thread.join()


def test_a_poll_that_hangs_ends_at_its_timeout(make_controller: MakeController, clock: ManualClock) -> None:
    class Hangs(InMemoryStatsProvider):
        free = threading.Event()

        def get_all_queue_stats(self) -> dict[str, Any]:
            self.free.wait()
            return dict(super().get_all_queue_stats())

    provider = Hangs({"q": 0})
    provider.free.set()
    controller = make_controller(provider, POLLING, clock=clock)
    provider.free.clear()
    clock.advance(5)
    assert controller.health()["polling_errors"] == {}
    clock.advance(3)
    assert controller.health()["polling_errors"] == {"deadline": 1}
    provider.free.set()


def test_a_provider_may_move_the_clock(make_controller: MakeController, clock: ManualClock) -> None:
    class Slow(Recorded):
        seconds = 0.0

        def get_all_queue_stats(self) -> dict[str, Any]:
            clock.advance(self.seconds)
            return super().get_all_queue_stats()

    provider = Slow()
    controller = make_controller(provider, POLLING, clock=clock)
    provider.seconds = 4  # beyond the timeout, so whether the poll counts is a race
    clock.advance(5)
    assert provider.polls == 2
    provider.seconds = 0
    clock.advance(30)
    assert controller.health()["provider"] == "ok"


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_task_on_the_loop_of_another_thread_has_gone_on(
    clock: ManualClock, other_loop: asyncio.AbstractEventLoop
) -> None:
    done: list[int] = []

    async def sleep(number: int) -> None:
        await clock.async_sleep(1)
        await asyncio.sleep(0)
        done.append(number)

    for number in range(5):
        asyncio.run_coroutine_threadsafe(sleep(number), other_loop)
    clock.until_sleeping(5)
    clock.advance(1)
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_a_loop_that_waits_for_the_caller_does_not_hold_it_up(
    clock: ManualClock, other_loop: asyncio.AbstractEventLoop
) -> None:
    blocked, go_on = threading.Event(), threading.Event()
    sleep = asyncio.run_coroutine_threadsafe(clock.async_sleep(1), other_loop)
    clock.until_sleeping(1)

    def block() -> None:
        blocked.set()
        go_on.wait()

    other_loop.call_soon_threadsafe(block)
    blocked.wait()
    clock.advance(1)
    go_on.set()
    sleep.result()


@pytest.mark.parametrize("ended", [False, True])
def test_a_loop_that_does_not_run_is_left_alone(clock: ManualClock, ended: bool) -> None:
    loop = asyncio.new_event_loop()
    sleep = loop.create_task(clock.async_sleep(1))
    loop.run_until_complete(asyncio.sleep(0))
    if ended:
        loop.call_soon(lambda: None)
    clock.advance(1)
    loop.run_until_complete(sleep)
    loop.close()


def test_tasks_of_the_callers_loop(clock: ManualClock) -> None:
    async def main() -> list[bool]:
        sleep = asyncio.create_task(clock.async_sleep(1))
        await asyncio.sleep(0)
        clock.advance(1)
        before = sleep.done()
        await clock.advance_async(0)
        return [before, sleep.done()]

    assert asyncio.run(main()) == [False, True]


class Awaited:
    """An asynchronous provider, which takes a moment of real time."""

    def __init__(self, *, loop_bound: bool) -> None:
        self.loop_bound = loop_bound
        self.backlog = 0

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        await asyncio.sleep(0.002)
        return QueueStats(queue_name, self.backlog)

    async def get_all_queue_stats(self) -> dict[str, QueueStats]:
        return {"q": await self.get_queue_stats("q")}


@pytest.mark.parametrize("loop_bound", [False, True])
def test_an_async_controller(clock: ManualClock, engine_name: str, loop_bound: bool) -> None:
    async def main() -> None:
        provider = Awaited(loop_bound=loop_bound)
        controller = AsyncBackpressureController(POLLING, provider, clock=clock, _engine=engine_name)
        async with controller:
            assert (await controller.suggest_throttle("low", "q")).backlog_size == 0
            done: list[int] = []
            provider.backlog = 3_500
            await clock.advance_async(5.001)
            assert (await controller.suggest_throttle("medium", "q")).backlog_size == 3_500
            jobs = [asyncio.create_task(controller.run("medium", "q", done.append, n)) for n in range(3)]
            await clock.advance_async(0)
            await clock.advance_async(4)
            assert done == [0, 1, 2]
            await asyncio.gather(*jobs)

    asyncio.run(main())


def test_it_can_be_advanced_by_many_threads(make_controller: MakeController, clock: ManualClock) -> None:
    provider = Recorded()
    controller = make_controller(provider, POLLING, clock=clock)
    threads = [threading.Thread(target=clock.advance, args=(1,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controller.health()["poller_alive"]
    assert 2 <= provider.polls <= 5


def test_a_listener_may_advance(make_controller: MakeController) -> None:
    clock = ManualClock()
    provider = InMemoryStatsProvider({"q": 0})
    controller = make_controller(provider, POLLING, clock=clock)
    advance: Callable[[object], None] = lambda change: clock.advance(1)  # noqa: E731
    controller.add_listener(advance)
    provider.fail_with(TimeoutError())
    clock.advance(5)
    assert controller.health()["polling_errors"] == {"provider": 1}


def test_who_does_not_sleep_in_time_is_told(clock: ManualClock) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 sleeps"):
        clock.until_sleeping(1, timeout=0)


def test_it_does_without_a_sleep_that_a_test_has_patched(
    make_controller: MakeController, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(InMemoryStatsProvider):
        def get_all_queue_stats(self) -> dict[str, Any]:
            threading.Event().wait(0.02)
            return dict(super().get_all_queue_stats())

    controller = make_controller(provider := Slow({"q": 0}), POLLING, clock=clock)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    provider.set("q", 7)
    clock.advance(5)
    assert controller.suggest_throttle("low", "q").backlog_size == 7
