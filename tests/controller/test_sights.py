"""First sights are gathered: many names make few reads, and no caller disturbs another."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import AsyncBackpressureController, BackpressureConfig, PollingConfig, QueueStats, Reason
from backpressure._controller.polling.sights import ThreadSights
from backpressure._model.errors import StatsUnavailableError
from backpressure.testing import ManualClock
from support.controller_fixtures import being_read, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController

NAMES = [f"tenant-{number}" for number in range(500)]
Answer = QueueStats | StatsUnavailableError


class Gathering:
    """Holds up the first read until all names were asked for."""

    def __init__(self) -> None:
        self.reads: list[list[str]] = []
        self.go_on = threading.Event()

    def get_all_queue_stats(self) -> Mapping[str, Answer]:
        return {}

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        outcome = self.get_many([queue_name])[queue_name]
        if isinstance(outcome, StatsUnavailableError):
            raise outcome
        return outcome

    def get_many(self, queue_names: Iterable[str]) -> Mapping[str, Answer]:
        names = list(queue_names)
        self.reads.append(names)
        self.go_on.wait(30)
        return {
            name: StatsUnavailableError("a string", error_type="wrongtype") if name == "bad" else QueueStats(name, 9)
            for name in names
        }


class AsyncGathering(Gathering):
    async def get_all_queue_stats(self) -> Mapping[str, Answer]:  # type: ignore[override]
        return {}

    async def get_queue_stats(self, queue_name: str) -> QueueStats:  # type: ignore[override]
        outcome = (await self.get_many([queue_name]))[queue_name]
        if isinstance(outcome, StatsUnavailableError):
            raise outcome
        return outcome

    async def get_many(self, queue_names: Iterable[str]) -> Mapping[str, Answer]:  # type: ignore[override]
        names = list(queue_names)
        while not self.go_on.is_set():
            await asyncio.sleep(0.001)
        return super().get_many(names)


class Bound(AsyncGathering):
    loop_bound = True


@pytest.mark.parametrize("kind", [Gathering, AsyncGathering, Bound])
def test_on_a_loop_many_names_make_two_reads(
    kind: type[Gathering], engine_name: str, engine_module: EngineModule
) -> None:
    async def main() -> None:
        provider = kind()
        async with AsyncBackpressureController(None, provider, clock=ManualClock(), _engine=engine_name) as controller:
            asking = [asyncio.ensure_future(controller.suggest_throttle("low", name)) for name in ["bad", *NAMES]]
            while len(being_read(controller)) <= len(NAMES):
                await asyncio.sleep(0)
            asking.pop().cancel()
            provider.go_on.set()
            bad, *good = await asyncio.gather(*asking)
            assert {decision.backlog_size for decision in good} == {9}
            assert bad.reason is Reason.FALLBACK_CONSERVATIVE
            assert (await controller.suggest_throttle("low", NAMES[-1])).backlog_size == 9
            assert len(provider.reads) <= 2
            assert controller.health()["polling_errors"] == {"wrongtype": 1}

    asyncio.run(main())


def test_on_threads_many_names_make_two_reads(make_controller: MakeController) -> None:
    provider = Gathering()
    controller = make_controller(provider)
    with ThreadPoolExecutor(30) as pool:
        asking = [pool.submit(controller.suggest_throttle, "low", NAMES[0])]
        eventually(lambda: provider.reads)
        asking += [pool.submit(controller.suggest_throttle, "low", name) for name in NAMES[1:30]]
        eventually(lambda: len(being_read(controller)) == 30)
        provider.go_on.set()
        assert {decision.result(10).backlog_size for decision in asking} == {9}
    assert len(provider.reads) == 2


def test_a_read_that_fails_as_a_whole_is_counted_once(make_controller: MakeController) -> None:
    class Down(Gathering):
        def get_many(self, queue_names: Iterable[str]) -> Mapping[str, Answer]:
            super().get_many(queue_names)
            raise StatsUnavailableError("no server", error_type="connect")

    provider = Down()
    controller = make_controller(provider)
    with ThreadPoolExecutor(10) as pool:
        asking = [pool.submit(controller.suggest_throttle, "low", NAMES[0])]
        eventually(lambda: provider.reads)
        asking += [pool.submit(controller.suggest_throttle, "low", name) for name in NAMES[1:10]]
        eventually(lambda: len(being_read(controller)) == 10)
        provider.go_on.set()
        assert {decision.result(10).reason for decision in asking} == {Reason.FALLBACK_CONSERVATIVE}
    assert controller.health()["polling_errors"] == {"connect": 2}
    assert controller.suggest_throttle("low", NAMES[3]).reason is Reason.FALLBACK_CONSERVATIVE
    assert len(provider.reads) == 2


@pytest.mark.parametrize("many", [True, False])
def test_a_name_that_hangs_holds_up_no_other(make_controller: MakeController, many: bool) -> None:
    begun, release = threading.Event(), threading.Event()

    class OneHangs:
        def get_all_queue_stats(self) -> Mapping[str, Answer]:
            return {}

        def get_queue_stats(self, queue_name: str) -> QueueStats:
            if queue_name == "hangs":
                begun.set()
                release.wait(30)
            return QueueStats(queue_name, 9)

    if many:
        OneHangs.get_many = lambda self, names: {name: self.get_queue_stats(name) for name in names}  # type: ignore[attr-defined]
    config = BackpressureConfig(polling=PollingConfig(interval=60, timeout=20, max_backoff=60, cache_ttl=100, jitter=0))
    controller = make_controller(OneHangs(), config, clock=None)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(controller.suggest_throttle, "low", "hangs")
        begun.wait(10)
        assert controller.suggest_throttle("low", "sound").backlog_size == 9
        release.set()


def test_a_caller_that_dies_while_it_asks_leaves_the_read_to_the_next_one(
    make_controller: MakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SoftTimeLimitError(Exception):
        pass

    def interrupted(*_: Any) -> None:
        raise SoftTimeLimitError

    provider = Gathering()
    provider.go_on.set()
    controller = make_controller(provider, BackpressureConfig(polling=PollingConfig(enabled=False)))
    for method in ("_launch", "wait"):
        with monkeypatch.context() as patch:
            patch.setattr(ThreadSights, method, interrupted)
            with pytest.raises(SoftTimeLimitError):
                controller.suggest_throttle("low", "jobs")
    eventually(lambda: not being_read(controller) or not controller._host.sights._fields)
    assert controller.suggest_throttle("low", "jobs").backlog_size == 9
    assert being_read(controller) == {}


def test_a_queue_with_an_old_sample_is_read_again_when_that_is_asked_for(make_controller: MakeController) -> None:
    provider = Gathering()
    provider.go_on.set()
    controller = make_controller(provider)
    controller._engine.put_sample("jobs", 5, 0)
    assert controller._host.read("jobs", wait=True) is None
    assert (controller._engine.sample("jobs") or (0,))[0] == 9

    async def on_a_loop() -> object:
        return controller._host.read("jobs", wait=True)

    assert asyncio.run(on_a_loop()) is None, "it is not cold"


def test_callers_that_are_impatient_begin_a_bounded_number_of_reads() -> None:
    release, read, clock = threading.Event(), list[str](), ManualClock()

    def hang(names: list[str]) -> None:
        release.wait(30)
        read.extend(names)

    sights = ThreadSights(hang, lambda name: None, together=False)
    asked = [sights.ask(f"queue-{number}")[0] for number in range(100)]
    with ThreadPoolExecutor(100) as pool:
        waiting = [pool.submit(sights.wait, sight, clock, 8) for sight in asked]
        eventually(lambda: clock.sleeping() == 100)
        clock.advance(1)
        assert clock.sleeping() == 100
        (field,) = sights._fields.values()
        assert 8 < len(field.fliers) <= 32
        release.set()
        for wait in waiting:
            wait.result(10)
    assert sorted(read) == sorted(sight.queue_name for sight in asked)
