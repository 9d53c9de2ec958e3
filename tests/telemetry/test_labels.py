"""However many names come and go, and however many processes: labels stay within `max_queues`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from backpressure import BackpressureConfig, BackpressureController, InMemoryStatsProvider
from backpressure._telemetry.labels import Labels
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = BackpressureConfig(max_queues=10).evolve({"polling.enabled": False, "polling.cache_ttl": 1})


def labels(page: str) -> set[str]:
    return {
        sample.labels["queue"]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "queue" in sample.labels
    } - {"__other__"}


def total(page: str, name: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    )


def test_reports_that_come_after_their_queue_was_evicted(engine_name: str, engine_module: object) -> None:
    clock, registry, provider = ManualClock(sleep_advances=True), CollectorRegistry(), InMemoryStatsProvider()
    late: list[Any] = []
    with BackpressureController(CONFIG, provider, clock=clock, registry=registry, _engine=engine_name) as controller:
        for number in range(60):
            name = f"tenant-{number}"
            provider.set(name, 1_250)
            late.append(controller.suggest_throttle("medium", name))
            provider.remove(name)
            controller._passed.add(name, "worker")
            if number % 10 == 9:
                clock.advance(11)
                for decision in late[:-10]:
                    controller.record_success(decision)
                del late[:-10]
        page = generate_latest(registry).decode()
    assert len(controller._compliance._queues) <= 11
    assert len(labels(page)) <= 20  # ten that have state, and the first ten that hooks let pass
    assert total(page, "backpressure_producer_advice_total") == 50


def test_controllers_that_come_and_go(engine_name: str, engine_module: object) -> None:
    registry = CollectorRegistry()
    for life in range(5):
        provider = InMemoryStatsProvider({f"tenant-{life}-{number}": 0 for number in range(10)})
        with BackpressureController(CONFIG, provider, registry=registry, _engine=engine_name) as controller:
            for number in range(10):
                controller.suggest_throttle("low", f"tenant-{life}-{number}")
            page = generate_latest(registry).decode()
            assert len(labels(page)) == 10
            assert f"tenant-{life}-9" in page, "those that count now come first"
            assert total(page, "backpressure_decisions_total") == 10 * (life + 1)
    page = generate_latest(registry).decode()
    assert len(labels(page)) == 10
    assert total(page, "backpressure_decisions_total") == 50


WORKER = """
import sys
from backpressure import BackpressureConfig, BackpressureController, InMemoryStatsProvider
from backpressure.testing import ManualClock
life, engine = sys.argv[1:]
clock, provider = ManualClock(sleep_advances=True), InMemoryStatsProvider()
config = BackpressureConfig(max_queues=10).evolve({"polling.enabled": False, "polling.cache_ttl": 1})
with BackpressureController(config, provider, clock=clock, _engine=engine) as controller:
    for number in range(40):
        name = f"tenant-{life}-{number}"
        provider.set(name, 1_250)
        decision = controller.suggest_throttle("medium", name)
        controller.record_success(decision)
        if number % 10 == 9:
            controller.circuit(name).force_open()
            controller._metrics.flush()
            controller.circuit(name).reset()
            clock.advance(11)
"""
SCRAPE = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def run(directory: Path, code: str, *arguments: str) -> str:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_all_processes_together_living_and_dead(tmp_path: Path, engine_name: str, engine_module: object) -> None:
    page = ""
    for life in range(4):
        run(tmp_path, WORKER, str(life), engine_name)
        page = run(tmp_path, SCRAPE)
        assert len(labels(page)) == 10
        assert total(page, "backpressure_decisions_total") == 40 * (life + 1)
        assert total(page, "backpressure_producer_advice_total") == 40 * (life + 1)
    assert labels(page) == {f"tenant-0-{number}" for number in range(10)}
    for path in tmp_path.glob("*.db"):  # as servers are told to do when they start
        path.unlink()
    run(tmp_path, WORKER, "again", engine_name)
    assert labels(run(tmp_path, SCRAPE)) == {f"tenant-again-{number}" for number in range(10)}


class TestLabels:
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        return tmp_path

    def other_process(self, directory: Path, names: str, process: int = 1) -> None:
        (directory / f"counter_{process}.db").touch()
        (directory / "backpressure_queues.txt").write_text(names, "utf-8")

    def test_the_first_ones_stay(self) -> None:
        mine = Labels()
        assert mine.admit(["a", "__other__", "b"], 2) == {"a", "b"}
        assert mine.admit(["c", "a"], 2) == {"a"}
        assert mine.admit(["c"], 3) == {"c"}

    def test_those_of_other_processes_take_room_and_may_be_used(self, directory: Path) -> None:
        self.other_process(directory, "1 a\n1 with a space\n2 gone\n")
        assert Labels().admit(["x", "with a space", "y"], 3) == {"x", "with a space"}

    def test_a_line_that_was_not_finished(self, directory: Path) -> None:
        self.other_process(directory, "1 a\n1 b")
        assert Labels().admit(["x"], 3) == {"x"}
        assert (directory / "backpressure_queues.txt").read_text("utf-8") == f"1 a\n1 b\n{os.getpid()} x\n"

    def test_a_directory_that_cannot_be_written_to(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory / "gone"))
        assert Labels().admit(["a", "b", "c"], 2) == {"a", "b"}

    def test_a_lock_that_is_held_for_long_is_not_waited_for(self, directory: Path) -> None:
        fcntl = pytest.importorskip("fcntl")
        with (directory / "backpressure_queues.txt").open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert Labels().admit(["a"], 2) == {"a"}
