"""Celery's prefork pool: each of its processes has fresh statistics, no matter where the controller was started."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from processes.conftest import end
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    import redis

    from processes.conftest import Launch, Waiting


def every_process_sees(app: Any, client: redis.Redis, waiting: int) -> None:
    """Send tasks until both processes have told that `waiting` jobs wait."""
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
    from celery import Celery  # if it is missing, launch has said so

    with Celery(broker=redis_url) as app:
        every_process_sees(app, redis_client, waiting.count)
        every_process_sees(app, redis_client, waiting.add(4))
    assert end(celery, signal.SIGTERM) == 0


def told(client: redis.Redis) -> set[str]:
    messages: Any = client.lrange("later", 0, -1)
    return {json.loads(message)["headers"]["task"] for message in messages}


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_what_a_worker_sends_passes_from_its_first_signal_to_its_last(
    launch: Launch, redis_client: redis.Redis, redis_url: str, pool: str
) -> None:
    flags = ("--app=processes.celery_passes", "worker", "--concurrency=1", f"--pool={pool}", "--queues=jobs,later.none")
    worker = launch("celery", *flags, "--without-gossip", "--without-mingle")
    from celery import Celery, chain  # if it is missing, launch has said so

    with Celery(broker=redis_url, set_as_current=False) as app:
        app.conf.task_default_queue = "jobs"
        app.send_task("plain")
        campaign = app.signature("campaign", immutable=True)
        chain(campaign, app.signature("callback", immutable=True, queue="later")).apply_async()
    expected = {"celeryd_init", "worker_init", "worker_ready", "from_task", "callback"}
    if pool != "threads":
        expected.add("worker_process_init")
    eventually(lambda: expected <= told(redis_client), 30)
    assert end(worker, signal.SIGTERM) == 0
    assert told(redis_client) == {*expected, "worker_shutdown"}


@pytest.mark.parametrize("program", ["beat", "worker --beat --pool=prefork"])
def test_what_beat_sends_passes(launch: Launch, redis_client: redis.Redis, program: str) -> None:
    beat = launch("celery", "--app=processes.celery_passes", *program.split(), "--schedule=beat")
    eventually(lambda: {"beat_init", "often"} <= told(redis_client), 30)
    # Beat's own handler closes its schedule, and a tick that still runs may then fail.
    assert end(beat, signal.SIGTERM) in {0, 1}
