"""The Celery application under test: a shop with an overload in the queue ``mail``, and none in ``clicks``."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from integrations import jobs
from integrations.contract.driver import blocking
from integrations.frameworks import required
from integrations.jobs import ran
from integrations.overload import OVERLOAD

required("celery")

import celery  # noqa: E402 - skipped before where it is missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis


def work(self: Any, name: str = "") -> None:
    ran.append(name)


def add(self: Any, *numbers: Any) -> Any:
    return sum(sum(number) if isinstance(number, list) else number for number in numbers)


def count(self: Any, *results: Any) -> None:
    ran.append("count")


def important(self: Any, *results: Any) -> None:
    ran.append("important")


def fail(self: Any) -> None:
    raise ConnectionError


def errand(self: Any) -> None:
    blocking(jobs.errand)()


def campaign(self: Any) -> None:
    blocking(jobs.campaign)()


def fail_once(self: Any) -> None:
    ran.append("try")
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    self.app.tasks["shop.work"].delay("from a task")


def stamp(self: Any) -> None:
    ran.append(self.request.backpressure_enqueued_at)


@contextlib.contextmanager
def shop(url: str, backend: str = "cache+memory://", **classes: Any) -> Iterator[Any]:
    """Make an app with its tasks, and an overload."""
    ran.clear()
    app = celery.Celery("shop", broker=url, backend=backend, set_as_current=False, **classes)
    app.conf.update(
        task_default_queue="mail",
        task_routes={"shop.count": {"queue": "clicks"}},
        broker_transport_options={"socket_timeout": 5.0},
        worker_hijack_root_logger=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
    )
    for function in (add, campaign, count, errand, fail, fail_once, important, stamp, work):
        app.task(name=f"shop.{function.__name__}", bind=True, shared=False, max_retries=1)(function)
    app.tasks["shop.important"].backpressure_priority = "high"
    for _ in range(OVERLOAD):
        app.tasks["shop.work"].delay()
    yield app
    app.close()


def length(client: redis.Redis, queue: str = "mail") -> int:
    """Return how many messages wait in a queue."""
    return int(str(client.llen(queue)))


def sent(client: redis.Redis, queue: str = "mail") -> list[Any]:
    """Return the messages of a queue, those of the overload left out, in the order they were sent."""
    raw: Any = client.lrange(queue, 0, -1)
    messages = [json.loads(message) for message in reversed(raw)]
    return messages[OVERLOAD:] if queue == "mail" else messages
