"""Prints the memory of controllers and queues: ``memory.py ENGINE resident|traced``. Runs as its own process."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import tracemalloc
from pathlib import Path

from prometheus_client import CollectorRegistry

from backpressure import BackpressureConfig, BackpressureController, InMemoryStatsProvider, PollingConfig, QueueStats

CONTROLLERS = 50
QUEUES = 100_000
DECISIONS = 1_000_000
POLLING = PollingConfig(interval=600.0, jitter=0.0, timeout=60.0, max_backoff=600.0, cache_ttl=3_600.0)


class FreshProvider:
    """Answers as a provider that reads a server does: with objects that nobody else holds."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        return QueueStats(queue_name, 0)

    def get_all_queue_stats(self) -> dict[str, QueueStats]:
        return {name: QueueStats(name, 0) for name in self.names}


def resident() -> int:
    """Return bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def traced() -> int:
    """Return bytes of memory that Python's allocators gave out."""
    return tracemalloc.get_traced_memory()[0]


def main(engine: str, how: str) -> None:
    """Measure, and print bytes by their use."""
    used = {"resident": resident, "traced": traced}[how]

    def settled() -> int:
        gc.collect()
        # Free memory that the allocator still holds does not count.
        ctypes.CDLL(None).malloc_trim(0)
        return used()

    def start(provider: FreshProvider | InMemoryStatsProvider) -> BackpressureController:
        config = BackpressureConfig(polling=POLLING, max_queues=QUEUES)
        controller = BackpressureController(config, provider, registry=CollectorRegistry(), _engine=engine)
        controller.start()
        return controller

    if how == "traced":
        tracemalloc.start()
    idle = InMemoryStatsProvider()
    first = start(idle)
    before = settled()
    controllers = [start(idle) for _ in range(CONTROLLERS)]
    base = (settled() - before) / CONTROLLERS
    for controller in (first, *controllers):
        controller.stop()
    controllers.clear()

    provider = FreshProvider()
    provider.names = [f"queue-{number}" for number in range(QUEUES)]
    controller = start(idle)
    controller._poller._provider = provider
    before = settled()
    controller._poller.poll()
    controller._poller.poll()
    polled = settled()
    for name in provider.names:
        controller.suggest_throttle("low", name)
    asked = settled()
    for _ in range(DECISIONS):
        controller.suggest_throttle("low", "queue-1")
    decided = settled()
    controller.stop()
    print(
        json.dumps(
            {
                "a controller": base,
                "a queue that is polled, never asked for": (polled - before) / QUEUES,
                "a (queue, priority) that is asked for": (asked - polled) / QUEUES,
                "a decision": (decided - asked) / DECISIONS,
            }
        )
    )


main(*sys.argv[1:])
