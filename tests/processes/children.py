"""The program under test: it asks from processes that multiprocessing makes."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

import redis

from processes.web import controller

CHILDREN = 2


def see(waiting: int) -> int:
    """Ask until `waiting` jobs wait; return the process that saw it."""
    controller.start()
    give_up = time.monotonic() + 20
    while controller.suggest_throttle("high", "jobs").backlog_size != waiting:
        assert time.monotonic() < give_up, "samples are not fresh"
        time.sleep(0.01)
    return os.getpid()


def main(method: str) -> None:
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["processes.web"])
    with (
        redis.Redis.from_url(os.environ["TEST_REDIS_URL"]) as client,
        ProcessPoolExecutor(CHILDREN, context) as pool,
    ):
        for waiting in range(1, 4):
            client.rpush("jobs", "job")
            pids = {see(waiting), *pool.map(see, [waiting] * 4 * CHILDREN)}
            assert len(pids) > 1
    print("fresh")
