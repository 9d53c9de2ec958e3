"""Fixtures for tests of controllers: they make controllers on either engine, and wait for the work of threads."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from backpressure import BackpressureController, InMemoryStatsProvider
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure import AsyncBackpressureController, BackpressureConfig, StatsProvider
    from backpressure._controller.polling.sights import Sight
    from backpressure._engine.border import EngineModule
    from backpressure.testing import _Wait


class MakeController(Protocol):
    """Makes a started controller on the engine under test; it is stopped when the test ends."""

    def __call__(
        self,
        provider: StatsProvider | None = None,
        config: BackpressureConfig | None = None,
        *,
        start: bool = True,
        **options: Any,
    ) -> BackpressureController: ...


def eventually(predicate: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until another thread has made `predicate` true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            pytest.fail("it did not come true")
        time.sleep(0.001)


def own_threads(kind: str = "") -> set[threading.Thread]:
    """Return the threads that this package has started, or those of one `kind`, such as ``"poller"``.

    A test compares them with those that were there before it: one that failed may have left some.
    """
    return {thread for thread in threading.enumerate() if thread.name.startswith(f"backpressure-{kind}")}


def overrun(clock: ManualClock, seconds: float) -> None:
    """Let the deadline of a read pass: called by the provider, whose caller waits `seconds` by `clock`.

    Unlike `advance` it waits for nothing: what comes next may wait for the read.
    """

    def limits() -> list[_Wait]:
        return [wait for wait in list(clock._waiting.values()) if wait.is_limit]

    eventually(limits)
    clock._now_ns += round(seconds * 1e9)
    for wait in limits():
        if wait.at_ns <= clock._now_ns:
            wait.wake()


def at_rest(controller: BackpressureController | AsyncBackpressureController, clock: ManualClock, polls: int) -> bool:
    """Tell whether the poller has ended `polls` polls and waits for the next one, and nobody else waits.

    While it reads, it waits too: for the deadline.
    """
    return sum(controller._poller.samples.durations.counts) == polls and clock.sleeping() == 1


def being_read(controller: BackpressureController | AsyncBackpressureController) -> dict[str, Sight]:
    """Return the queues that callers are having read, and whose read has not ended."""
    fields = list(controller._host.sights._fields.values())
    return {name: sight for field in fields for name, sight in (*field.pending.items(), *field.flying.items())}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Return a list of the threads that the test's own thread starts from now on."""
    mine, threads, start = threading.current_thread(), list[threading.Thread](), threading.Thread.start

    def note(thread: threading.Thread) -> None:
        if threading.current_thread() is mine:
            threads.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    return threads


@pytest.fixture
def clock() -> ManualClock:
    """A clock that producers' sleeps move."""
    return ManualClock(sleep_advances=True)


@pytest.fixture
def provider() -> InMemoryStatsProvider:
    """A provider with one queue in each zone of MEDIUM, and an empty one."""
    return InMemoryStatsProvider({"empty": 0, "green": 500, "yellow": 1_250, "red": 3_500, "full": 100_000})


@pytest.fixture
def make_controller(
    engine_name: str, engine_module: EngineModule, clock: ManualClock, provider: InMemoryStatsProvider
) -> Iterator[MakeController]:
    """Return a maker of controllers on the engine under test."""
    default = provider
    made: list[BackpressureController] = []

    def make(
        provider: StatsProvider | None = None,
        config: BackpressureConfig | None = None,
        *,
        start: bool = True,
        **options: Any,
    ) -> BackpressureController:
        options.setdefault("clock", clock)
        controller = BackpressureController(config, provider or default, _engine=engine_name, **options)
        made.append(controller)
        if start:
            controller.start()
        return controller

    yield make
    for controller in made:
        controller.stop()


@pytest.fixture
def controller(make_controller: MakeController) -> BackpressureController:
    """Return a running controller with the default configuration."""
    return make_controller()
