"""How cost grows with queues, threads and jobs. A cost that grows faster than the size is a defect."""

from __future__ import annotations

import random
import threading
import time
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

import pytest
from benches import peers, subjects
from benches.interleave import Case, alone, each, interleave, timer

from backpressure import BackpressureController, BatchJob, Priority

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.report import Report
    from pytest_benchmark.fixture import BenchmarkFixture

QUEUES = (1, 10, 100, 1_000, 10_000, 100_000)
THREADS = (1, 2, 4, 8, 16, 32, 64)
JOBS = (10, 100, 1_000, 10_000, 100_000)
BATCH = 10_000
DECISIONS = 20_000


def test_queues(report: Report) -> None:
    costs: dict[str, dict[int, float]] = {}
    rows = []
    for count in QUEUES:
        stored = subjects.names(count)
        keys = subjects.keys(stored)
        # Out of order, as jobs come: neighbours in memory are not neighbours in time.
        random.Random(0).shuffle(keys)
        with subjects.running("native", dict.fromkeys(stored, 0), subjects.rarely(count)) as controller:
            suggest = each("suggest_throttle", 'controller.suggest_throttle("low", key)', keys, controller=controller)
            box, *_, lookup = peers.caches(stored, keys)
            timings = interleave(suggest, box, lookup, rounds=11)
        for name, timing in timings.items():
            costs.setdefault(name, {})[count] = timing.ns * count / 1e9
        rows.append((f"{count:,}", *(f"{timing.ns:.1f} ns" for timing in timings.values())))
    report.table("One decision, by the number of queues that are asked for in random order", ("queues", *costs), rows)
    # Beyond the processor's caches every look-up waits for memory, the dict's too: growth is judged beside the dict's.
    asked, _, looked_up = costs.values()
    report.curve("queues: each asked once", asked, beside=looked_up)


def threads(count: int, work: Callable[[int], Callable[[], object]]) -> Case:
    """Return a case in which each of `count` threads calls what `work` gives it `DECISIONS` times."""

    def repeatedly(call: Callable[[], object], gate: threading.Barrier) -> None:
        gate.wait()
        for _ in repeat(None, DECISIONS):
            call()

    def turn(number: int) -> float:
        seconds = 0.0
        for _ in range(number):
            gate = threading.Barrier(count + 1)
            started = [threading.Thread(target=repeatedly, args=(work(index), gate)) for index in range(count)]
            for thread in started:
                thread.start()
            # Before the barrier: after it, threads may have run while this one still waits for the GIL.
            began = time.perf_counter()
            gate.wait()
            for thread in started:
                thread.join()
            seconds += time.perf_counter() - began
        return seconds

    return Case(f"{count}", turn, count * DECISIONS)


def decided(controller: BackpressureController) -> int:
    return sum(sum(totals.reasons) for totals in controller._engine.totals().values())


@pytest.mark.parametrize("engine", subjects.ENGINES)
def test_threads(report: Report, engine: str) -> None:
    (key,) = subjects.names(1)
    counted = 0

    def suggest(controller: BackpressureController) -> Callable[[], object]:
        nonlocal counted
        counted += DECISIONS
        return partial(controller.suggest_throttle, "low", key)

    with subjects.running(engine, {key: 0}) as controller:
        before = decided(controller)
        timings = interleave(
            *(threads(count, lambda _: suggest(controller)) for count in THREADS), rounds=5, seconds=0.0
        )
        assert decided(controller) - before == counted
    costs = {count: timings[f"{count}"].ns * count * DECISIONS / 1e9 for count in THREADS}
    report.curve(f"threads: {DECISIONS:,} decisions each, {engine}", costs)
    rows = [(name, f"{timing.ns:.0f} ns", f"{1e3 / timing.ns:.2f} million") for name, timing in timings.items()]
    report.table(f"Threads that share a controller, {engine}", ("threads", "a decision", "decisions a second"), rows)


def batch(count: int) -> list[BatchJob]:
    """Return jobs that do nothing, of all priorities and ten queues in turn."""
    stored = subjects.names(10)
    return [BatchJob(Priority(index % 3), stored[index % 10], subjects.nop) for index in range(count)]


@pytest.mark.benchmark(timer=timer)
@pytest.mark.parametrize("engine", subjects.ENGINES)
def test_batch(benchmark: BenchmarkFixture, report: Report, engine: str) -> None:
    jobs = batch(BATCH)
    with subjects.running(engine, dict.fromkeys(subjects.names(10), 0)) as controller:
        result, seconds = alone(benchmark, controller.process_batch, jobs)
        assert [outcome.status for outcome in result.outcomes] == ["succeeded"] * BATCH
        if engine == "native":
            cases = [Case(f"{count}", batches(controller, batch(count)), count) for count in JOBS]
            timings = interleave(*cases, rounds=5)
            report.curve("batch: no-ops", {count: timings[f"{count}"].ns * count / 1e9 for count in JOBS})
    micros = seconds / BATCH * 1e6
    report.table(f"Batch of {BATCH:,} no-ops, {engine}", ("", "a job"), [("process_batch", f"{micros:.2f} µs")])
    if engine == "native":
        report.target(f"native, batch of {BATCH:,}", micros, 2, "µs a job")


def batches(controller: BackpressureController, jobs: list[BatchJob]) -> Callable[[int], float]:
    def turn(number: int) -> float:
        began = timer()
        for _ in range(number):
            controller.process_batch(jobs)
        return timer() - began

    return turn
