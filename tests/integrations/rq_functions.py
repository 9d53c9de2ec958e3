"""Functions that RQ's workers run."""

from __future__ import annotations

from typing import Any

runs: list[str] = []


def work(name: str = "") -> None:
    """Note a run."""
    runs.append(name)


def fail_once(name: str) -> None:
    """Fail at the first run."""
    runs.append(name)
    if runs.count(name) == 1:
        raise ValueError(name)


def enqueue_more(queue_name: str) -> None:
    """Enqueue from inside of a job."""
    queues[queue_name].enqueue(work, "from a job")


queues: dict[str, Any] = {}
