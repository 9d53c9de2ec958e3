"""Fill a real server of 64 MB by jobs of 10 KB, and print what became of them: `python -m benches.memory`.

Workers take 200 jobs a second, producers offer 1 000: 5 % HIGH, 25 % MEDIUM, 70 % LOW, and nobody waits. With a target
of 60 s for a job, 12 000 would wait: 120 MB. Arguments choose rows by a part of their name; `--seconds 300` makes them
longer. The server is that of the tests: set PYTHONPATH to `tests`.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import Counter
from typing import Any

import redis
from prometheus_client import CollectorRegistry

from backpressure import BackpressureConfig, BackpressureController, BackpressureError, RedisStatsProvider
from support import redis_fixtures

DRAIN, OFFERS, PRODUCERS = 200, 1_000, 4
PRIORITIES = {"high": 5, "medium": 25, "low": 70}
LIMIT, JOB = "64mb", b"x" * 10_000
QUEUE = "jobs"
#: Windows that are never reached: what the table refuses, it refuses by memory.
WIDE = {
    f"thresholds.{priority}_priority.{bound}": 10**6 + above
    for priority in ("medium", "low")
    for above, bound in enumerate(("green_max", "yellow_max", "red_max"))
}
ROWS: dict[str, dict[str, Any]] = {
    "target 60 s": {"age.target": "60s"},
    "target 60 s, no look at memory": {"age.target": "60s", "age.memory": "none"},
    "table": WIDE,
    "table, no look at memory": {**WIDE, "age.memory": "none"},
}
HEAD = ("what", "most used", "at rest", "HIGH enqueued", "HIGH failed", "refused by memory", "out of memory")


class Run:
    """Workers and producers on threads, around one server."""

    def __init__(self, url: str, config: BackpressureConfig) -> None:
        self._url = url
        self._config = config
        self._stopped = threading.Event()
        #: How often offers of a priority ended so.
        self.ends: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def work(self) -> None:
        """Take jobs in even steps."""
        client, due = redis.Redis.from_url(self._url), time.monotonic()
        while not self._stopped.is_set():
            client.lpop(QUEUE)
            due += 1 / DRAIN
            time.sleep(max(0.0, due - time.monotonic()))

    def produce(self, seed: int) -> None:
        """Offer jobs by chance."""
        draw, client, due = random.Random(seed), redis.Redis.from_url(self._url), time.monotonic()
        provider = RedisStatsProvider(self._url, [QUEUE])
        with BackpressureController(self._config, provider, registry=CollectorRegistry()) as controller:
            while not self._stopped.is_set():
                due += draw.expovariate(OFFERS / PRODUCERS)
                time.sleep(max(0.0, due - time.monotonic()))
                (priority,) = draw.choices(list(PRIORITIES), list(PRIORITIES.values()))
                end = "enqueued"
                try:
                    controller.run(priority, QUEUE, client.rpush, QUEUE, JOB, max_wait=0)
                except BackpressureError as error:
                    end = str(getattr(error, "reason", type(error).__name__))
                except redis.OutOfMemoryError:
                    end = "out of memory"
                with self._lock:
                    self.ends[priority, end] += 1

    def watch(self, seconds: float) -> list[float]:
        """Let it run, and return which part of the memory was used every half a second."""
        threads = [threading.Thread(target=self.work)]
        threads += [threading.Thread(target=self.produce, args=(number,)) for number in range(PRODUCERS)]
        for thread in threads:
            thread.start()
        client, used = redis.Redis.from_url(self._url), list[float]()
        for _ in range(round(2 * seconds)):
            time.sleep(0.5)
            told: Any = client.info("memory")
            used.append((told["used_memory"] - told["mem_not_counted_for_evict"]) / told["maxmemory"])
        self._stopped.set()
        for thread in threads:
            thread.join()
        return used


def row(name: str, seconds: float) -> tuple[str, ...]:
    """Run one row of the table."""
    with redis_fixtures.start() as server:
        with server.client() as client:
            client.config_set("maxmemory", LIMIT)
            client.config_set("maxmemory-policy", "noeviction")
        run = Run(server.url, BackpressureConfig().evolve(ROWS[name]))
        used = run.watch(seconds)
    rest = used[len(used) // 2 :]
    high = {end: count for (priority, end), count in run.ends.items() if priority == "high"}
    enqueued = high.pop("enqueued", 0)
    by = Counter[str]()
    for (_, end), count in run.ends.items():
        by[end] += count
    return (
        name,
        f"{max(used):.1%}",
        f"{min(rest):.1%}–{max(rest):.1%}",
        f"{enqueued:,}",
        ", ".join(f"{count:,} {end}" for end, count in high.items()) or "0",
        f"{by['memory']:,}",
        f"{by['out of memory']:,}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of rows; default all")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each row lasts")
    chosen = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}", sep="\n")
    for name in ROWS:
        if not chosen.names or any(part in name for part in chosen.names):
            print(f"| {' | '.join(row(name, chosen.seconds))} |", flush=True)


if __name__ == "__main__":
    main()
