"""A controller that nobody holds any more ends by itself, and says so; whoever holds a part of it holds all of it."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    FileControl,
    InMemoryStatsProvider,
    PollingConfig,
    QueueStats,
)
from backpressure.integrations._shared.hook import Hook
from backpressure.testing import ManualClock
from controller.fleet.meeting import CONFIG, Meeting
from support.controller_fixtures import eventually, own_threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backpressure import StatsUnavailableError

Kind = type[BackpressureController] | type[AsyncBackpressureController]

SAID = "was dropped: stop.. it, or use it in a with statement"


class AsyncProvider:
    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        return QueueStats(queue_name, 7)

    async def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
        return {"jobs": QueueStats("jobs", 7)}


class Stuck(InMemoryStatsProvider):
    """Its reads of everything hang until they are released."""

    def __init__(self) -> None:
        super().__init__({"jobs": 7})
        self.release = threading.Event()
        self.hung = threading.Event()

    def get_all_queue_stats(self) -> Any:
        self.hung.set()
        self.release.wait(30)
        return super().get_all_queue_stats()


# Threads that other tests have left.
OTHERS = weakref.WeakSet[threading.Thread]()


def threads() -> list[str]:
    return [thread.name for thread in own_threads() - set(OTHERS)]


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    gc.collect()
    OTHERS.update(own_threads())
    yield
    gc.collect()
    eventually(lambda: threads() == [])


def started(engine_name: str, kind: Kind = BackpressureController, **options: Any) -> Any:
    options.setdefault("clock", ManualClock())
    options.setdefault("registry", CollectorRegistry())
    provider = options.pop("provider", None) or InMemoryStatsProvider({"jobs": 7})
    controller: Any = kind(options.pop("config", None), provider, _engine=engine_name, **options)
    outcome = controller.start()
    if outcome is not None:
        asyncio.run(outcome)
    return controller


def collected(gone: weakref.ref[Any]) -> bool:
    gc.collect()
    return gone() is None


def polls(alive: weakref.ref[Any]) -> object:
    controller = alive()
    return controller is not None and controller._samples.durations.counts


def drop(gone: weakref.ref[Any]) -> None:
    """See the last of a controller, which complains; its poller may just be polling, and so hold it a moment more."""
    with pytest.warns(ResourceWarning, match=SAID):
        eventually(lambda: collected(gone))
    eventually(lambda: threads() == [])


@pytest.mark.parametrize(
    ("kind", "provider"),
    [
        (BackpressureController, InMemoryStatsProvider),
        (AsyncBackpressureController, InMemoryStatsProvider),
        (AsyncBackpressureController, AsyncProvider),
    ],
)
def test_it_ends_with_its_threads(engine_name: str, kind: Kind, provider: Callable[[], Any]) -> None:
    controller = started(engine_name, kind, provider=provider())
    assert "backpressure-poller" in threads()
    gone = weakref.ref(controller)
    del controller
    drop(gone)


def test_so_does_one_of_a_fleet_that_follows_a_file(engine_name: str, tmp_path: Path) -> None:
    clock = ManualClock()
    meeting, file = Meeting(clock), tmp_path / "control.toml"
    file.write_text('mode = "observe"', "utf-8")
    controller = started(engine_name, provider=meeting, config=CONFIG, clock=clock, control=FileControl(file))
    meeting.switch("circuit", "open", queue="mail")
    clock.advance(1)
    gone = weakref.ref(controller)
    del controller
    drop(gone)
    assert meeting.riders  # who meets there holds nobody


def test_decisions_and_circuits_that_it_has_made_are_no_obstacle(engine_name: str) -> None:
    controller = started(engine_name)
    for _ in range(5):
        for priority in ("low", "high"):
            controller.run(priority, "jobs", lambda: None)
    controller.circuit("jobs").force_open()
    controller.suggest_throttle("low", "jobs")
    gone = weakref.ref(controller)
    del controller
    drop(gone)


def _decorated(controller: Any) -> object:
    decorated: object = controller.throttled("low", "jobs")(print)
    return decorated


HOLDERS: dict[str, Callable[[Any], object]] = {
    "gate": lambda controller: controller.gate("low", "jobs"),
    "circuit": lambda controller: controller.circuit("jobs"),
    "run": lambda controller: controller.run,
    "suggest_throttle": lambda controller: controller.suggest_throttle,
    "peek": lambda controller: controller.peek,
    "health": lambda controller: controller.health,
    "gate's run": lambda controller: controller.gate("low", "jobs").run,
    "gate's suggest": lambda controller: controller.gate("low", "jobs").suggest,
    "decorated": _decorated,
    "hook": lambda controller: Hook(controller, "low"),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_whoever_holds_a_part_holds_it(engine_name: str, holder: str) -> None:
    clock = ManualClock()
    controller = started(engine_name, clock=clock)
    held: Any = HOLDERS[holder](controller)
    alive: weakref.ref[Any] = weakref.ref(controller)
    del controller
    gc.collect()
    assert alive() is not None
    before = polls(alive)
    clock.advance(6)
    eventually(lambda: polls(alive) != before)
    del held
    drop(alive)


@pytest.mark.parametrize("holder", ["gate", "circuit", "run", "suggest_throttle", "peek"])
def test_whoever_holds_a_part_of_an_async_one_holds_it(engine_name: str, holder: str) -> None:
    controller = started(engine_name, AsyncBackpressureController)
    held: Any = HOLDERS[holder](controller)
    alive: weakref.ref[Any] = weakref.ref(controller)
    del controller
    gc.collect()
    living = alive()
    assert living is not None
    assert living.health()["poller_alive"]
    del living
    del held
    drop(alive)


def test_a_read_that_hangs_does_not_keep_it(engine_name: str) -> None:
    provider = Stuck()
    config = BackpressureConfig(polling=PollingConfig(timeout=0.05))
    controller = BackpressureController(config, provider, registry=CollectorRegistry(), _engine=engine_name)
    controller.start()
    assert provider.hung.wait(10)
    gone = weakref.ref(controller)
    del controller
    try:
        with pytest.warns(ResourceWarning, match=SAID):
            eventually(lambda: collected(gone))
        eventually(lambda: "backpressure-poller" not in threads())
    finally:
        provider.release.set()


def test_what_it_counted_stays_on_the_page(engine_name: str) -> None:
    registry = CollectorRegistry()
    controller = started(engine_name, registry=registry)
    for _ in range(3):
        controller.suggest_throttle("low", "jobs")
    gone = weakref.ref(controller)
    del controller
    drop(gone)
    labels = {"queue": "jobs", "priority": "low", "reason": "backlog_green"}
    for _ in range(2):
        assert registry.get_sample_value("backpressure_decisions_total", labels) == 3


def test_one_without_a_poller_complains_too(engine_name: str) -> None:
    controller = started(engine_name, config=BackpressureConfig(polling=PollingConfig(enabled=False)))
    gone = weakref.ref(controller)
    del controller
    drop(gone)


def test_one_that_was_stopped_or_never_started_goes_without_a_word(engine_name: str) -> None:
    stopped = started(engine_name)
    stopped.stop()
    new = BackpressureController(None, InMemoryStatsProvider(), _engine=engine_name)
    gone = [weakref.ref(stopped), weakref.ref(new)]
    del stopped, new
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eventually(lambda: all(collected(each) for each in gone))


def test_one_that_could_not_be_made_goes_without_a_word() -> None:
    with pytest.raises(Exception, match="stats_provider"):
        BackpressureController(None, object())  # type: ignore[arg-type]
    gc.collect()


def test_no_lock_of_another_thread_is_waited_for(engine_name: str) -> None:
    """The collector runs wherever memory is needed: also while a thread scrapes, and holds the lock of all metrics."""
    registry = CollectorRegistry()
    controller = started(engine_name, registry=registry)
    gone = weakref.ref(controller)
    metrics = controller._metrics
    del controller
    held, done = threading.Event(), threading.Event()

    def scrape() -> None:
        with metrics._current():
            held.set()
            done.wait(30)

    scraping = threading.Thread(target=scrape)
    scraping.start()
    assert held.wait(10)
    try:
        drop(gone)
    finally:
        done.set()
        scraping.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_drops_its_copy_without_a_word(engine_name: str) -> None:
    controller = started(engine_name)
    gone = weakref.ref(controller)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                del controller
                code = 0 if collected(gone) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    del controller
    drop(gone)


PROGRAMS = {
    "global": "controller = start()",
    "in a cycle": "controller = start(); controller.me = controller",
    "in a function's default": "def f(controller=start()): ...",
    "held by a gate alone": "gate = start().gate('low', 'jobs')",
    "async": "controller = start(AsyncBackpressureController)",
}
PROGRAM = """
import asyncio
from backpressure import *

def start(kind=BackpressureController):
    controller = kind(None, InMemoryStatsProvider({"jobs": 7}))
    started = controller.start()
    if started is not None:
        asyncio.run(started)
    return controller

"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_end_of_the_interpreter_is_quiet(engine_name: str, program: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM + PROGRAMS[program]],
        env={**os.environ, "BACKPRESSURE_ENGINE": engine_name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
