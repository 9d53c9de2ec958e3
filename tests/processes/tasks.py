"""The Celery application under test: its task tells how many jobs wait, as its worker process sees it."""

from __future__ import annotations

import json
import os
import time

import redis
from celery import Celery

from processes.web import controller

app = Celery(broker=os.environ["TEST_REDIS_URL"])
app.conf.worker_prefetch_multiplier = 1


@app.task(name="ask")  # type: ignore[untyped-decorator]
def ask() -> None:
    if os.environ["TEST_START"] == "request":
        controller.start()
    decision = controller.suggest_throttle("high", "jobs")
    time.sleep(0.02)  # so that the other process gets the next one
    with redis.Redis.from_url(os.environ["TEST_REDIS_URL"]) as client:
        client.rpush("answers", json.dumps([os.getpid(), decision.backlog_size]))
