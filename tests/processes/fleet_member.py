"""A producer process of a fleet: says when everything passes, and when it does not any more.

Its argument tells how it produces. It ends with its input.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from backpressure import (
    AsyncBackpressureController,
    AsyncRedisStatsProvider,
    BackpressureConfig,
    BackpressureController,
    FleetConfig,
    JobShedError,
    PollingConfig,
    RedisStatsProvider,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

URL = os.environ["TEST_REDIS_URL"]
INTERVAL = 0.2
PAUSE = 0.02
CONFIG = BackpressureConfig(
    polling=PollingConfig(interval=INTERVAL, jitter=0, max_backoff=INTERVAL), fleet=FleetConfig(name="shop")
)

over = threading.Event()


def say(passes: bool, before: bool | None) -> bool:
    if passes is not before:
        print("on" if passes else "off", time.monotonic(), flush=True)
    return passes


def watch(passes: Callable[[], bool]) -> None:
    before = None
    while not over.wait(PAUSE):
        before = say(passes(), before)


async def watch_async(passes: Callable[[], Awaitable[bool]]) -> None:
    before = None
    while not over.is_set():
        before = say(await passes(), before)
        await asyncio.sleep(PAUSE)


def blocking() -> None:
    provider = RedisStatsProvider(URL, ["jobs"], timeout=INTERVAL)
    with BackpressureController(CONFIG, provider) as controller:
        watch(lambda: controller.suggest_throttle("low", "jobs").reason == "manual_override")


async def asynchronous() -> None:
    provider = AsyncRedisStatsProvider(URL, ["jobs"], timeout=INTERVAL)
    async with AsyncBackpressureController(CONFIG, provider) as controller:

        async def passes() -> bool:
            return (await controller.suggest_throttle("low", "jobs")).reason == "manual_override"

        await watch_async(passes)
    await provider.aclose()


def by_rq() -> None:
    import redis

    from backpressure.integrations.rq import Queue

    provider = RedisStatsProvider(URL, ["jobs"], timeout=INTERVAL, layout="rq")
    with redis.Redis.from_url(URL) as connection, BackpressureController(CONFIG, provider) as controller:
        queue = Queue("jobs", connection=connection, controller=controller, priority={"builtins.int": "low"})

        def passes() -> bool:
            try:
                queue.enqueue("builtins.int")
            except JobShedError:
                return False
            except redis.RedisError:  # it went, and the server is away
                return True
            return True

        watch(passes)


async def by_saq() -> None:
    import redis
    import saq

    from backpressure.integrations.saq import protect

    queue = saq.Queue.from_url(URL, name="jobs")
    provider = AsyncRedisStatsProvider(URL, ["jobs"], timeout=INTERVAL, layout="saq")
    async with AsyncBackpressureController(CONFIG, provider) as controller:
        protect(queue, controller, priority={"job": "low"})

        async def passes() -> bool:
            try:
                await queue.enqueue("job")
            except JobShedError:
                return False
            except (redis.RedisError, OSError):  # it went, and the server is away
                return True
            return True

        await watch_async(passes)
    await provider.aclose()


def listen() -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    threading.Thread(target=listen, daemon=True).start()
    how = sys.argv[1]
    if how in {"blocking", "rq"}:
        (blocking if how == "blocking" else by_rq)()
    else:
        asyncio.run(asynchronous() if how == "asynchronous" else by_saq())
