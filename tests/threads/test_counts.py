"""Threads that decide, run and report at the same time lose no count."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureConfig, PollingConfig
from backpressure._model.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.controller_fixtures import MakeController

THREADS = 8
DECISIONS = 100_000  # by each thread


def at_once(work: Callable[[], object]) -> None:
    """Run `work` on every thread, all beginning together."""
    barrier = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            barrier.wait(10)
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("way", ["suggest_throttle", "run", "gate.suggest", "gate.run"])
def test_no_count_is_lost(make_controller: MakeController, way: str) -> None:
    """The ready answer is removed all the time, so that counting also takes the long way."""
    controller = make_controller(None, BackpressureConfig(polling=PollingConfig(enabled=False)), clock=SystemClock())
    gate = controller.gate("low", "empty")
    decide: Callable[[], object] = {
        "suggest_throttle": lambda: controller.suggest_throttle("low", "empty"),
        "run": lambda: controller.run("low", "empty", int),
        "gate.suggest": gate.suggest,
        "gate.run": lambda: gate.run(int),
    }[way]
    ended = threading.Event()

    def disturb() -> None:
        engine = controller._engine
        while not ended.wait(0.001):
            engine.put_sample("empty", 0, engine.now_ns())

    def work() -> None:
        for _ in range(DECISIONS):
            decide()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    at_once(work)
    ended.set()
    disturber.join()
    counts = controller._engine.totals()["empty", 0].reasons
    assert sum(counts) == THREADS * DECISIONS
