"""A program whose actors, callbacks, boot hooks and forks send more. Its controller is not started.

What a worker runs is noted in the list ``ran``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, Callbacks, Middleware, Pipelines

from backpressure import BackpressureController, InMemoryStatsProvider
from backpressure.integrations.dramatiq import BackpressureMiddleware

url = os.environ["SERVER_URL"]
connection = redis.Redis.from_url(url)
controller = BackpressureController(None, InMemoryStatsProvider({"mail": 0}))
_RedisBroker: Any = RedisBroker
broker: Any = _RedisBroker(url=url, middleware=[AsyncIO(), Callbacks(), Pipelines()])
broker.add_middleware(BackpressureMiddleware(controller, priority="low"))


def in_fork() -> int:
    """Send from a process of a middleware's."""
    note.send("from a fork")
    return 0


class Booting(Middleware):
    """Sends at each moment of a worker's boot."""

    @property
    def forks(self) -> list[Any]:
        """See ``dramatiq.Middleware``."""
        return [in_fork]

    def after_process_boot(self, broker: Any) -> None:
        """See ``dramatiq.Middleware``."""
        note.send("after the process booted")

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        """See ``dramatiq.Middleware``."""
        note.send("before the worker booted")

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        """See ``dramatiq.Middleware``."""
        threading.Thread(target=note.send, args=("after the worker booted",)).start()


broker.add_middleware(Booting())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="mail")
def note(what: str) -> None:
    """Note that an actor ran."""
    connection.rpush("ran", what)


@dramatiq.actor(queue_name="mail")
def send_more() -> None:
    """Send from inside of an actor, from a thread of it and from a pool."""
    note.send("from an actor")
    thread = threading.Thread(target=note.send, args=("from a thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(note.send, "from a pool").result()


@dramatiq.actor(queue_name="mail")
async def send_more_async() -> None:
    """Send from inside of an async actor, and from a thread of it."""
    note.send("from an async actor")
    await asyncio.to_thread(note.send, "from a thread of an async actor")


@dramatiq.actor(queue_name="mail")
def after(*_: Any) -> None:
    """Send from a callback."""
    note.send("from a callback")
