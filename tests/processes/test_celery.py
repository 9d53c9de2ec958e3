"""Celery's prefork pool: each of its processes has fresh statistics, wherever the controller was started."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from controller_fixtures import eventually
from processes.conftest import end

if TYPE_CHECKING:
    import redis

    from processes.conftest import Launch, Waiting


def every_process_sees(app: Any, client: redis.Redis, waiting: int) -> None:
    """Send tasks until both processes have told that so many jobs wait."""
    seen: set[int] = set()

    def look() -> bool:
        for _ in range(4):
            app.send_task("ask")
        for _ in range(4):
            answer = client.blpop("answers", 5)
            if answer is not None:
                pid, backlog = json.loads(answer[1])
                seen.update([pid] if backlog == waiting else [])
        return len(seen) == 2

    eventually(look, 30)


@pytest.mark.parametrize("start", ["import", "request"])
def test_the_prefork_pool(
    launch: Launch, waiting: Waiting, redis_client: redis.Redis, redis_url: str, start: str
) -> None:
    waiting.add(3)
    flags = ("--app=processes.tasks", "worker", "--concurrency=2", "--without-gossip", "--without-mingle")
    celery = launch("celery", *flags, TEST_START=start)
    from celery import Celery  # where it is missing, launch has said so

    with Celery(broker=redis_url) as app:
        every_process_sees(app, redis_client, waiting.count)
        every_process_sees(app, redis_client, waiting.add(4))
    assert end(celery, signal.SIGTERM) == 0
