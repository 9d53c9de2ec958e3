"""Functions that RQ's workers run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
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


def enqueue_after(*_: Any) -> None:
    """Enqueue from a callback."""
    enqueue_more("mail")


def fan_out() -> None:
    """Enqueue from inside of a job and from a thread of it; note what is raised."""

    def attempt() -> None:
        try:
            enqueue_more("mail")
        except Exception as error:  # noqa: BLE001 - whatever it is
            runs.append(type(error).__name__)

    attempt()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(attempt).result()


def wait() -> None:
    """Tell that a job is running, and have a thread of it enqueue when it may."""

    def enqueue() -> None:
        waiting.wait()
        queues["mail"].enqueue(work, "from a thread of a job")

    thread = threading.Thread(target=enqueue)
    thread.start()
    running.set()
    thread.join()


running, waiting = threading.Event(), threading.Event()
queues: dict[str, Any] = {}
