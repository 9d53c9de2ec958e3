"""Polls of a real server: their cost for the client, and their effect on producers."""

from __future__ import annotations

import gc
import itertools
import statistics
import threading
import time
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import redis
from benches import subjects

from backpressure import RedisStatsProvider
from support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benches.report import Report

    from backpressure import BackpressureController

SIZES = (10, 100, 1_000, 10_000)
POLLS = 15
CHUNK = 500
WATCHED_SECONDS = 2.0
PACE = 0.001


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with a job in each of the most queues."""
    with servers.Server() as server, redis.Redis.from_url(server.url) as client:
        pipeline = client.pipeline(transaction=False)
        for name in subjects.names(max(SIZES)):
            pipeline.rpush(name, "job")
        pipeline.execute()
        yield server.url


@contextmanager
def polling(url: str, stored: Sequence[str], engine: str = "native") -> Iterator[BackpressureController]:
    """Start a controller that polls only when the benchmark makes it."""
    provider = RedisStatsProvider(url, stored, timeout=5.0)
    with subjects.running(engine, {}, subjects.rarely(len(stored) + 1), provider=provider) as controller:
        # Polls must not make the garbage collector search other objects of this process.
        gc.collect()
        gc.freeze()
        yield controller
        gc.unfreeze()
    provider.close()


def poll(controller: BackpressureController) -> None:
    assert controller._poller.poll()


def ask(client: redis.Redis, stored: Sequence[str]) -> None:
    """Send the commands of a poll, only with redis-py."""
    for start in range(0, len(stored), CHUNK):
        pipeline = client.pipeline(transaction=False)
        for name in stored[start : start + CHUNK]:
            pipeline.llen(name)
        assert pipeline.execute()


def spent(function: Callable[..., None], *args: object) -> tuple[float, float]:
    """Return seconds of processor and of wall time that a call takes."""
    began, worked = time.perf_counter(), time.process_time()
    function(*args)
    return time.process_time() - worked, time.perf_counter() - began


def test_poll(report: Report, url: str) -> None:
    rows, cpu = [], {}
    for size in SIZES:
        stored = subjects.names(size)
        with polling(url, stored) as controller, redis.Redis.from_url(url) as client:
            rounds = [(*spent(poll, controller), *spent(ask, client, stored)) for _ in range(POLLS)]
        cpu[size], wall, alone, _ = (statistics.median(column) for column in zip(*rounds, strict=True))
        milliseconds = (f"{seconds * 1e3:.2f} ms" for seconds in (cpu[size], wall, alone))
        rows.append((f"{size:,}", *milliseconds, f"{cpu[size] / size * 1e6:.1f} µs"))
    head = ("queues", "client's processor", "wall", "processor of redis-py alone", "processor a queue")
    report.table("One poll of a Valkey server on loopback, native", head, rows)
    report.target("poll of 1,000 queues, client's processor", cpu[1_000] * 1e3, 10, "ms")
    report.curve("poll: processor", cpu)


def watch(
    controller: BackpressureController, keys: Sequence[str], done: threading.Event, pace: float
) -> tuple[array[float], array[float]]:
    """Decide until `done`, every `pace` seconds; return how long each decision took, and how late it was made."""
    took, late = array("d"), array("d")
    suggest, clock = controller.suggest_throttle, time.perf_counter
    due = clock()
    for key in itertools.cycle(keys):
        if done.is_set():
            break
        if pace:
            due = max(due + pace, clock() - pace)
            time.sleep(max(0.0, due - clock()))
        began = clock()
        suggest("low", key)
        ended = clock()
        took.append(ended - began)
        late.append(ended - due)
    return took, late


def latencies(url: str, *, pace: float, polls: bool) -> tuple[array[float], array[float]]:
    """Return how long a producer's decisions took, and how late they came, while its process polls 1 000 queues."""
    stored = subjects.names(1_000)
    with polling(url, stored) as controller:
        for name in stored:
            controller.suggest_throttle("low", name)
        done = threading.Event()
        found: list[tuple[array[float], array[float]]] = []
        keys = subjects.keys(stored[:50])
        producer = threading.Thread(target=lambda: found.append(watch(controller, keys, done, pace)))
        producer.start()
        end = time.perf_counter() + WATCHED_SECONDS
        while polls and time.perf_counter() < end:
            poll(controller)
        if not polls:
            time.sleep(WATCHED_SECONDS)
        done.set()
        producer.join()
    (both,) = found
    return both


def test_producers_meanwhile(report: Report, url: str) -> None:
    rows = []
    for what, pace in (("without pause", 0.0), ("every ms", PACE)):
        for polls in (False, True):
            took, late = latencies(url, pace=pace, polls=polls)
            quantiles = statistics.quantiles(took, n=1_000)
            lateness = statistics.quantiles(late, n=1_000)
            rows.append(
                (
                    f"{what}, {'polls on end' if polls else 'no polls'}",
                    *(f"{value * 1e6:,.1f} µs" for value in (quantiles[499], quantiles[998], max(took))),
                    *((f"{lateness[499] * 1e6:,.0f} µs", f"{lateness[998] * 1e6:,.0f} µs") if pace else ("", "")),
                )
            )
            if polls:
                report.target(
                    f"p99.9 of decisions made {what} during polls of 1,000 queues", quantiles[998] * 1e3, 1, "ms"
                )
    head = ("a producer that decides", "median", "p99.9", "longest", "late: median", "late: p99.9")
    report.table("Producers during polls of 1,000 queues, native", head, rows)


@pytest.mark.parametrize("engine", subjects.ENGINES)
def test_first_sight(report: Report, url: str, engine: str) -> None:
    stored = subjects.names(200)
    took = []
    provider = RedisStatsProvider(url, [], key="{queue}", timeout=5.0)
    with subjects.running(engine, {}, subjects.rarely(1_000), provider=provider) as controller:
        controller.suggest_throttle("low", "warm")
        for name in stored:
            began = time.perf_counter()
            controller.suggest_throttle("low", name)
            took.append(time.perf_counter() - began)
    provider.close()
    median = statistics.median(took)
    report.table(
        f"First decision on a queue, with its read from the server, {engine}",
        ("", "median"),
        [("suggest_throttle", f"{median * 1e6:.0f} µs")],
    )
    if engine == "native":
        report.target("native, first decision with a read from a local server", median * 1e3, 1, "ms")
