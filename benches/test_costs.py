"""The library's costs apart from decisions: import, scrape, memory, and processor time while nothing happens."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from benches import subjects
from benches.interleave import alone, each, interleave, timer
from prometheus_client import CollectorRegistry, generate_latest

from support import servers

if TYPE_CHECKING:
    from benches.report import Report
    from pytest_benchmark.fixture import BenchmarkFixture

WORKERS = Path(__file__).parent / "workers"
SCRAPED = (10, 100, 1_000, 10_000)
IMPORTED = (
    "backpressure",
    "redis",
    "prometheus_client",
    "cachebox",
    "circuitbreaker",
    "pybreaker",
    "limits",
    "throttled",
)
HEAVY = ("redis", "prometheus_client", "cattrs", "asyncio")


def python(*arguments: str) -> Any:
    """Run a program in a process of its own; return what it prints as JSON."""
    done = subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def test_import(report: Report) -> None:
    code = (
        "import json, sys, time; before = len(sys.modules); began = time.perf_counter(); import {}; "
        "taken = time.perf_counter() - began; print(json.dumps([taken, len(sys.modules) - before, list(sys.modules)]))"
    )
    rounds = [{name: python("-c", code.format(name)) for name in IMPORTED} for _ in range(11)]
    rows = []
    for name in IMPORTED:
        seconds = statistics.median(found[name][0] for found in rounds)
        rows.append((name, f"{seconds * 1e3:.1f} ms", f"{rounds[0][name][1]}"))
    report.table("Import", ("", "median", "modules loaded"), rows)
    heavy = [name for name in HEAVY if name in rounds[0]["backpressure"][2]]
    report.target(f"imported at once, of {', '.join(HEAVY)}", len(heavy), 0, "modules")


@pytest.mark.benchmark(timer=timer)
def test_scrape(benchmark: BenchmarkFixture, report: Report) -> None:
    costs = {}
    for count in SCRAPED:
        stored, registry = subjects.names(count), CollectorRegistry()
        with subjects.running(
            "native", dict.fromkeys(stored, 0), subjects.rarely(count), registry=registry
        ) as controller:
            for name in stored:
                controller.suggest_throttle("low", name)
            if count == 1_000:
                page, seconds = alone(benchmark, generate_latest, registry)
                row = ("1,000 queues", f"{seconds * 1e3:.1f} ms", f"{len(page) / 1e3:,.0f} kB")
                report.table("Scrape, native", ("", "median", "page"), [row])
            timing = interleave(each("scrape", "scrape(key)", [registry], scrape=generate_latest), rounds=5)["scrape"]
        costs[count] = timing.ns / 1e9
    report.curve("scrape: queues", costs)


@pytest.mark.parametrize("engine", subjects.ENGINES)
def test_memory(report: Report, engine: str) -> None:
    resident, traced = (python(str(WORKERS / "memory.py"), engine, how) for how in ("resident", "traced"))
    rows = [(name, f"{resident[name]:,.0f} B", f"{traced[name]:,.0f} B") for name in resident]
    head = ("", "resident set", "tracemalloc")
    report.table(f"Memory, {engine}: 100,000 queues", head, rows)
    if engine == "native":
        base, polled, asked, decision = resident.values()
        report.target("memory: a controller", base / 1024, 64, "KiB")
        report.target("memory: a polled queue never asked for", polled, 512, "B")
        report.target("memory: a (queue, priority) asked for", asked, 1024, "B")
        report.target("memory: a decision", decision, 100, "B")


def test_steady_processor(report: Report) -> None:
    stored = subjects.names(100)
    with servers.Server() as server, redis.Redis.from_url(server.url) as client:
        for name in stored:
            client.rpush(name, "job")
        # At the same time, so that they share their minute; the machine has nothing else to do.
        with ThreadPoolExecutor(3) as pool:
            runs = [
                pool.submit(python, str(WORKERS / "steady.py"), server.url, how) for how in ("idle", "paced", "busy")
            ]
            idle, paced, busy = (run.result() for run in runs)
    rows = [
        ("100 queues, a poll every 5 s", f"{idle:.4%}"),
        ("and 1,000 decisions a second", f"{idle + busy - paced:.4%}"),
    ]
    report.table("Processor over a minute at the defaults, of one core", ("", "share"), rows)
    report.target("steady processor, 100 queues, 5 s", idle * 100, 0.05, "%")
    report.target("steady processor, with 1,000 decisions a second", (idle + busy - paced) * 100, 0.1, "%")
