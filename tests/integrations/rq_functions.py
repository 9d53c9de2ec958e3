"""Functions that RQ's workers run, which import them by their names."""

from __future__ import annotations

from typing import Any

from integrations import jobs
from integrations.contract.driver import blocking

#: The queue that functions enqueue in.
queues: dict[str, Any] = {}


def work(name: str = "") -> None:
    blocking(jobs.work)(name)


def important() -> None:
    blocking(jobs.important)()


def fail_once() -> None:
    blocking(jobs.fail_once)()


def errand() -> None:
    blocking(jobs.errand)()


def campaign() -> None:
    blocking(jobs.campaign)()


def enqueue_more(queue_name: str) -> None:
    """Enqueue from inside of a job."""
    queues[queue_name].enqueue(work, "from a job")


def enqueue_after(*_: Any) -> None:
    """Enqueue from a callback."""
    enqueue_more("mail")
