"""How controllers start and end: cut short, raced or tried again, they leave no thread behind, and settings stay."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    ControllerStoppedError,
    InMemoryStatsProvider,
    PollingConfig,
    QueueStats,
    Reason,
)
from backpressure._controller.polling.sights import Landing
from backpressure.testing import ManualClock
from support.controller_fixtures import eventually, own_threads
from support.tracing import run_traced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from backpressure import StatsUnavailableError
    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController


class AsyncProvider:
    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        return QueueStats(queue_name, 7)

    async def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
        return {"jobs": QueueStats("jobs", 7)}


PROVIDERS = [AsyncProvider, lambda: InMemoryStatsProvider({"jobs": 7, "new": 7})]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = own_threads()
    yield
    eventually(lambda: own_threads() <= before)


def make_async(provider: Any, engine_name: str, **options: Any) -> AsyncBackpressureController:
    return AsyncBackpressureController(None, provider, clock=ManualClock(), _engine=engine_name, **options)


def test_a_start_whose_metrics_names_are_taken_leaves_nothing_and_may_be_tried_again(
    make_controller: MakeController,
) -> None:
    registry = CollectorRegistry()
    taken = Gauge("backpressure_manual_override", "ours", registry=registry)
    controller = make_controller(start=False, registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match="backpressure_manual_override"):
            controller.start()
        assert controller._poller._current is None
    registry.unregister(taken)
    controller.start()
    assert controller.health()["poller_alive"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
def test_a_start_that_is_interrupted_leaves_nothing_and_may_be_tried_again(
    make_controller: MakeController, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_: object) -> None:
        raise error

    controller = make_controller(start=False)
    with monkeypatch.context() as patch:
        patch.setattr(Landing, "wait", interrupted)
        with pytest.raises(error):
            controller.start()
    assert controller._poller._current is None
    controller.start()
    assert controller.health()["poller_alive"]


def test_a_stop_that_comes_at_any_point_of_start_leaves_no_poller(make_controller: MakeController) -> None:
    """As from a signal handler: in every line, until start() has none left."""
    ended = False
    for number in range(10_000):
        controller = make_controller(start=False, registry=CollectorRegistry())
        lines = 0

        def trace(frame: FrameType, event: str, _arg: object) -> Any:
            nonlocal lines
            if "metrics" in frame.f_code.co_filename:
                return None
            lines += event == "line" and "/backpressure/" in frame.f_code.co_filename
            if lines == number + 1:  # noqa: B023 - called within this turn
                sys.settrace(None)
                lines += 1
                controller.stop()  # noqa: B023
            return trace

        with contextlib.suppress(ControllerStoppedError):
            run_traced(controller.start, trace)
        ended = lines <= number
        if ended:
            break
        assert not controller._poller.alive()
        assert controller.health()["stopped"]
    assert ended


def test_a_stop_that_is_interrupted_at_any_point_is_made_good_by_the_next(make_controller: MakeController) -> None:
    ended = False
    for number in range(10_000):
        controller = make_controller(registry=CollectorRegistry(), clock=ManualClock())
        lines = 0

        def trace(frame: FrameType, event: str, _arg: object) -> Any:
            nonlocal lines
            if "/backpressure/" not in frame.f_code.co_filename or "metrics" in frame.f_code.co_filename:
                return None
            lines += event == "line"
            if event == "line" and lines == number + 1:  # noqa: B023 - called within this turn
                raise KeyboardInterrupt
            return trace

        with contextlib.suppress(KeyboardInterrupt):
            run_traced(controller.stop, trace)
        ended = lines <= number
        if ended:
            break
        controller.stop()
        assert controller.health()["stopped"]
    assert ended


def test_a_start_that_is_interrupted_when_its_metrics_are_registered_may_be_tried_again(
    make_controller: MakeController,
) -> None:
    class Interrupted(CollectorRegistry):
        def register(self, collector: Any) -> None:
            super().register(collector)
            raise KeyboardInterrupt

    registry = Interrupted()
    controller = make_controller(start=False, registry=registry)
    with pytest.raises(KeyboardInterrupt):
        controller.start()
    controller.start()
    assert registry.get_sample_value("backpressure_manual_override") == 0


def test_a_start_has_its_poller_although_another_failed_meanwhile(make_controller: MakeController) -> None:
    controller = make_controller(start=False)
    with controller._starting():
        controller._poller.retire()
    assert controller.health()["poller_alive"]
    assert controller._poller.is_begun()


def test_starts_that_fail_side_by_side_leave_no_poller(make_controller: MakeController) -> None:
    controller = make_controller(start=False)

    def fail() -> None:
        with controller._starting():
            both.wait(10)
            raise TimeoutError

    both = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        for start in [pool.submit(fail) for _ in range(2)]:
            with pytest.raises(TimeoutError):
                start.result(10)
    assert controller._poller._current is None


class Hanging(InMemoryStatsProvider):
    """Reads that end when they are let go."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.begun, self.release = threading.Event(), threading.Event()

    def _hang(self, name: str) -> None:
        if name in self.names:
            self.begun.set()
            self.release.wait(30)

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        self._hang(queue_name)
        return QueueStats(queue_name, 7)

    def get_all_queue_stats(self) -> dict[str, QueueStats]:
        self._hang("*")
        return {}


def test_stop_lets_go_who_waits_for_a_start_or_a_first_sight(make_controller: MakeController) -> None:
    """They would wait for the timeout, on a clock that stands still."""
    for name, call in [
        ("*", lambda controller: controller.start()),
        ("jobs", lambda controller: controller.suggest_throttle("low", "jobs")),
    ]:
        provider = Hanging(name)
        controller = make_controller(provider, start=name != "*", clock=ManualClock())
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(call, controller)
            assert provider.begun.wait(10)
            controller.stop()
            with contextlib.suppress(ControllerStoppedError):  # start() ends as it may
                waiting.result(10)
        provider.release.set()
        assert controller.health()["stopped"]


def test_stop_lets_go_tasks_that_wait_for_a_first_sight(engine_name: str, engine_module: EngineModule) -> None:
    async def main() -> None:
        provider = Hanging("jobs")
        controller = make_async(provider, engine_name)
        await controller.start()
        waiting = asyncio.ensure_future(controller.suggest_throttle("low", "jobs"))
        while not provider.begun.is_set():
            await asyncio.sleep(0.001)
        await controller.stop()
        with pytest.raises(ControllerStoppedError):
            await asyncio.wait_for(waiting, 10)
        provider.release.set()

    asyncio.run(main())


@pytest.mark.parametrize("make_provider", PROVIDERS)
def test_several_starts_at_once_start_one_poller(
    make_provider: Any, engine_name: str, engine_module: EngineModule
) -> None:
    async def main() -> None:
        before = own_threads("poller")
        controller = make_async(make_provider(), engine_name)
        await asyncio.gather(*(controller.start() for _ in range(5)))
        assert len(own_threads("poller") - before) == 1
        assert sum(controller._samples.durations.counts) == 1
        await controller.stop()

    asyncio.run(main())


def test_several_threads_that_start_start_one_poller(make_controller: MakeController) -> None:
    before = own_threads("poller")
    controller = make_controller(start=False)
    with ThreadPoolExecutor(8) as pool:
        for start in [pool.submit(controller.start) for _ in range(8)]:
            start.result(10)
    eventually(lambda: len(own_threads("poller") - before) == 1)
    assert sum(controller._samples.durations.counts) == 1


@pytest.mark.parametrize("make_provider", PROVIDERS)
def test_nothing_needs_the_loops_executor(make_provider: Any, engine_name: str, engine_module: EngineModule) -> None:
    async def main() -> None:
        closed = ThreadPoolExecutor(1)
        closed.shutdown()
        asyncio.get_running_loop().set_default_executor(closed)
        async with make_async(make_provider(), engine_name) as controller:
            assert (await controller.suggest_throttle("low", "jobs")).backlog_size == 7
            assert (await controller.suggest_throttle("low", "new")).backlog_size == 7
            assert await controller.refresh("new")

    asyncio.run(main())


@pytest.mark.parametrize("make_provider", PROVIDERS)
def test_a_stop_that_returns_leaves_no_thread(
    make_provider: Any, engine_name: str, engine_module: EngineModule
) -> None:
    async def main() -> None:
        for _ in range(20):
            before = set(threading.enumerate())
            async with make_async(make_provider(), engine_name, registry=CollectorRegistry()) as controller:
                await controller.suggest_throttle("low", "new")
            left = {thread.name for thread in set(threading.enumerate()) - before}
            assert not left & {"backpressure-poller", "backpressure-loop", "backpressure-wait"}

    asyncio.run(main())


@pytest.mark.parametrize("make_provider", PROVIDERS)
def test_a_stop_that_is_cancelled_has_stopped(
    make_provider: Any, engine_name: str, engine_module: EngineModule
) -> None:
    async def main() -> None:
        controller = make_async(make_provider(), engine_name)
        await controller.start()
        stopping = asyncio.ensure_future(controller.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait({stopping})
        assert controller.health()["stopped"]
        assert not controller.health()["poller_alive"]

    asyncio.run(main())


@pytest.mark.parametrize("enabled", [True, False])
def test_reconfigure_before_start_holds(make_controller: MakeController, enabled: bool) -> None:
    before = BackpressureConfig(polling=PollingConfig(enabled=not enabled))
    after = BackpressureConfig(polling=PollingConfig(enabled=enabled, interval=2, timeout=1))
    controller = make_controller(None, before, start=False)
    controller.reconfigure(after)
    assert not controller._poller.alive()
    controller.start()
    assert controller.health()["poller_alive"] is enabled
    assert controller._poller._config is after.polling
    controller.suggest_throttle("low", "empty")
    controller.stop()


def test_while_the_interpreter_ends_a_first_sight_falls_back_at_once(
    make_controller: MakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = make_controller()

    def refuse(_: threading.Thread) -> None:
        pytest.fail("Python 3.11 would wait here for ever")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "is_finalizing", lambda: True)
        patch.setattr(threading.Thread, "start", refuse)
        assert controller.suggest_throttle("low", "new").reason is Reason.FALLBACK_CONSERVATIVE
        assert controller.run("high", "empty", int) == 0
        assert not controller._poller.check()


def test_where_no_thread_is_to_be_had_a_first_sight_falls_back_at_once(
    make_controller: MakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = make_controller()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert controller.suggest_throttle("low", "new").reason is Reason.FALLBACK_CONSERVATIVE


def test_a_provider_that_nobody_reads_any_more_is_not_said_to_be_well(
    make_controller: MakeController, clock: ManualClock
) -> None:
    controller = make_controller()
    assert controller.health()["provider"] == "ok"
    controller.stop()
    clock.advance(10)
    health = controller.health()
    assert (health["provider"], health["poller_alive"]) == ("stale", False)


def test_a_blocking_controller_starts_on_a_loop_without_waiting(make_controller: MakeController) -> None:
    async def main() -> BackpressureController:
        return make_controller()

    with pytest.warns(RuntimeWarning, match="running event loop"):
        controller = asyncio.run(main())
    eventually(lambda: controller.health()["last_poll_seconds"] is not None)
