"""A program whose tasks, hooks, signals and schedules enqueue more. Its controller is not started.

What a consumer runs is noted in the list ``ran``.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import huey
import redis
from huey.signals import SIGNAL_COMPLETE, SIGNAL_ERROR

from backpressure import BackpressureController, InMemoryStatsProvider
from backpressure.integrations.huey import protect

url = os.environ["SERVER_URL"]
connection = redis.Redis.from_url(url)
controller = BackpressureController(None, InMemoryStatsProvider({"mail": 0}))
app: Any = protect(huey.RedisHuey("mail", url=url), controller, priority="low")


@app.task()  # type: ignore[untyped-decorator]
def note(what: str) -> None:
    """Note that a task ran."""
    connection.rpush("ran", what)


@app.task()  # type: ignore[untyped-decorator]
def send_more() -> str:
    """Enqueue from inside of a task, from a thread of it and from a pool."""
    note("from a task")
    thread = threading.Thread(target=note, args=("from a thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(note, "from a pool").result()
    return "from a pipeline"


@app.task(retries=1)  # type: ignore[untyped-decorator]
def fail() -> None:
    """Fail, and be retried."""
    connection.rpush("ran", "try")
    raise ValueError("boom")


@app.periodic_task(lambda _: True)  # type: ignore[untyped-decorator]
def periodic() -> None:
    """Be due."""
    connection.rpush("ran", "periodic")


@app.on_startup()  # type: ignore[untyped-decorator]
def on_startup() -> None:
    """Enqueue as a worker starts."""
    note("on startup")


@app.on_shutdown()  # type: ignore[untyped-decorator]
def on_shutdown() -> None:
    """Enqueue as a worker ends; nobody runs it."""
    note("on shutdown")
    connection.rpush("ran", "on shutdown")


@app.pre_execute()  # type: ignore[untyped-decorator]
def before(task: Any) -> None:
    """Enqueue before a task."""
    if task.name == "send_more":
        note("before")


@app.post_execute()  # type: ignore[untyped-decorator]
def after(task: Any, *_: Any) -> None:
    """Enqueue after a task."""
    if task.name == "send_more":
        note("after")


@app.signal(SIGNAL_COMPLETE, SIGNAL_ERROR)  # type: ignore[untyped-decorator]
def on_signal(signal: str, task: Any, *_: Any) -> None:
    """Enqueue on a signal."""
    if task.name in {"send_more", "fail"}:
        note(f"on {signal}")
