"""Ask one controller always for new queue names: `many_names.py ENGINE NAMES` fails unless its memory stays flat.

Every tenth name is used by a job that waits, so that time passes, idle queues are evicted, and new ones get state.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    InMemoryStatsProvider,
    InvalidQueueError,
    JobShedError,
    PollingConfig,
    QueueStats,
)
from backpressure.testing import ManualClock

MAX_QUEUES = 100
MAX_GROWTH = 6 << 20  # bytes; a name that was kept would cost at least 60
MAX_PAGE = 3_000 * MAX_QUEUES


class _RedEverywhere(InMemoryStatsProvider):
    def get_queue_stats(self, queue_name: str) -> QueueStats:
        return QueueStats(queue_name, 3_500)


def resident() -> int:
    """Return bytes of memory in use; only on Linux, because elsewhere only the peak is known."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(engine: str, names: int) -> None:
    """Print the number of names and the bytes by which the process grew since a fifth of them."""
    config = BackpressureConfig(max_queues=MAX_QUEUES, polling=PollingConfig(enabled=False))
    registry = CollectorRegistry()
    start = tracked = 0
    clock = ManualClock(sleep_advances=True)
    with BackpressureController(config, _RedEverywhere(), clock=clock, registry=registry, _engine=engine) as controller:
        for number in range(names):
            name = f"queue-{number}"
            if number % 10:
                tracked += controller.suggest_throttle("medium", name).reason != "untracked"
                controller.record_failure(name)
            else:
                with contextlib.suppress(JobShedError):
                    controller.run("medium", name, int)
                with contextlib.suppress(InvalidQueueError):
                    controller.suggest_throttle("medium", f"{name}\n")
            if number == names // 5:
                start = resident()
        page = len(generate_latest(registry))
        grown = resident() - start
        queues = len(controller.health()["queues"])
    print(f"{engine}: {names} cases, {tracked} tracked, memory grew by {grown} bytes, the metrics page has {page}")
    assert grown < MAX_GROWTH
    assert page < MAX_PAGE
    assert queues <= MAX_QUEUES
    assert tracked > 10 * MAX_QUEUES, "hardly any queue was evicted"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
