"""A program whose jobs enqueue more. RQ's workers import it when a job first needs it; its controller is not started.

What a worker runs is noted in the list ``ran``.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from backpressure import BackpressureController, InMemoryStatsProvider
from backpressure.integrations.rq import Queue

connection = redis.Redis.from_url(os.environ["SERVER_URL"])
controller = BackpressureController(None, InMemoryStatsProvider({"mail": 0}))


class MailQueue(Queue.bound(controller, priority="low")):  # type: ignore[misc]
    """What workers are told to make, too."""


queue = MailQueue("mail", connection=connection)


def note(what: str) -> None:
    """Note that a job ran."""
    connection.rpush("ran", what)


def send_more() -> None:
    """Enqueue from inside of a job, from a thread of it and from a pool."""
    queue.enqueue(note, "from a job")
    thread = threading.Thread(target=queue.enqueue, args=(note, "from a thread"))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(queue.enqueue_many, [Queue.prepare_data(note, ("from a pool",))]).result()


def fail() -> None:
    """Fail."""
    raise ValueError("boom")


def hang() -> None:
    """Run until it is stopped."""
    connection.rpush("hanging", "yes")
    time.sleep(60)


def on_success(*_: Any) -> None:
    """Enqueue more after a success."""
    queue.enqueue(note, "after success")


def on_failure(*_: Any) -> None:
    """Enqueue more after a failure."""
    queue.enqueue(note, "after failure")


def on_stopped(*_: Any) -> None:
    """Enqueue more after a job was stopped, which the worker's main process does."""
    queue.enqueue(note, "after stop")
