"""Celery behind a controller, with Celery's own worker on a real broker."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure import (
    ConfigurationError,
    JobShedError,
    Priority,
)
from backpressure.providers.layouts import CeleryLayout
from integrations.contract.driver import Blocking
from integrations.contract.framework import Fault, Framework
from integrations.contract.promises import Contract
from integrations.frameworks import required
from integrations.jobs import ran
from integrations.overload import OVERLOAD
from support.controller_fixtures import eventually

required("celery")

import celery  # noqa: E402 - skipped before where it is missing
import kombu  # noqa: E402
from celery import signals  # noqa: E402
from celery.contrib.testing import worker  # noqa: E402

from backpressure.integrations.celery import protect, publish  # noqa: E402
from integrations.celery_app import length, shop  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch
    from integrations.contract.framework import Exempt, Faults, Ways, WaysOfMany
    from integrations.contract.shop import Shop


def work(app: Any) -> Any:
    return app.tasks["shop.work"]


def hours_from_now(zone: tzinfo | None = UTC) -> datetime:
    return datetime.now(zone) + timedelta(hours=1)


class Celery(Framework):
    title = "Celery"
    driver = Blocking(judged={"here"})  # a named task's own function, and no thread that it starts
    keys = ("mail",)
    ways: ClassVar[Ways] = {
        "delay": lambda app: work(app).delay(),
        "due soon": lambda app: work(app).apply_async(countdown=59),
        "due now": lambda app: work(app).apply_async(countdown=0),
        "due in the past": lambda app: work(app).apply_async(eta=datetime.now(UTC) - timedelta(hours=1)),
        "expires": lambda app: work(app).apply_async(expires=3600),
        "expires at": lambda app: work(app).apply_async(expires=hours_from_now()),
        "by name": lambda app: app.send_task("shop.work"),
        "unknown": lambda app: app.send_task("unknown.here"),
        "signature": lambda app: app.signature("shop.work").delay(),
        "chain": lambda app: celery.chain(app.signature("shop.work"), app.signature("shop.count")).delay(),
        "group": lambda app: celery.group(app.signature("shop.work") for _ in range(3)).delay(),
        "chord": lambda app: celery.chord([app.signature("shop.work")] * 3, app.signature("shop.important")).delay(),
    }
    marks: ClassVar[Ways] = {
        "task": lambda app: app.tasks["shop.important"].delay(),
        "task's name": lambda app: app.send_task("shop.important"),
        "call": lambda app: work(app).apply_async(backpressure_priority="high"),
        "Priority": lambda app: work(app).apply_async(backpressure_priority=Priority.HIGH),
    }
    later: ClassVar[Ways] = {
        "countdown": lambda app: work(app).apply_async(countdown=3600),
        "float": lambda app: work(app).apply_async(countdown=60.5),
        "aware": lambda app: work(app).apply_async(eta=hours_from_now()),
        "text": lambda app: work(app).apply_async(eta=hours_from_now().isoformat()),
        # Celery takes it for UTC.
        "naive": lambda app: work(app).apply_async(eta=hours_from_now().replace(tzinfo=None)),
        "elsewhere": lambda app: work(app).apply_async(eta=hours_from_now(timezone(timedelta(hours=9))), expires=7200),
        "group": lambda app: celery.group([app.signature("shop.work").set(countdown=3600)]).delay(),
    }
    many: ClassVar[WaysOfMany] = {
        "group": lambda app, jobs: celery.group(app.signature(f"shop.{job}") for job in jobs).delay(),
        "publish": lambda app, jobs: publish(celery.group(app.signature(f"shop.{job}") for job in jobs)),
    }
    faults: ClassVar[Faults] = {
        "argument": Fault(lambda app: app.send_task("shop.work", (object(),)), kombu.exceptions.EncodeError),
        "serializer": Fault(
            lambda app: app.send_task("shop.work", serializer="none"), kombu.exceptions.SerializerNotInstalled
        ),
        "countdown": Fault(lambda app: app.send_task("shop.work", countdown="soon"), TypeError),
        "eta": Fault(lambda app: app.send_task("shop.work", eta="tomorrow", expires="never"), ValueError),
        "text": Fault(lambda app: app.send_task("shop.work", "text"), TypeError),
    }
    exempt: ClassVar[Exempt] = {
        "test_a_job_that_is_there_already_is_no_failure": "to Celery every task is a new one",
    }
    counted_at_once: ClassVar[Mapping[tuple[str, str], int]] = {}  # Celery sends no message then

    def layout(self, queue_name: str) -> CeleryLayout:
        return CeleryLayout()

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Any]:
        with shop(url) as app:
            yield app

    def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        return protect(app, controller, **options)

    def send(self, app: Any, job: str) -> Any:
        return app.tasks[self.name(job)].delay()

    def name(self, job: str) -> str:
        return f"shop.{job}"

    def name_of(self, given: Any) -> str:
        return str(given.task)

    @contextlib.asynccontextmanager
    async def working(self, app: Any) -> AsyncIterator[None]:
        with worker.start_worker(app, perform_ping_check=False, pool="solo", queues=["mail"]):
            yield

    async def send_more(self, app: Any) -> set[str]:
        """Send what goes on with other tasks."""

        def work(name: str) -> Any:
            return app.signature("shop.work", (name,), immutable=True)

        celery.chain(work("first"), work("second")).delay()
        work("third").apply_async(link=work("linked"))
        app.tasks["shop.fail"].apply_async(link_error=work("after an error"))
        celery.chord([work("header")] * 2, work("body")).delay()
        return {"from a task", "second", "linked", "after an error", "body"}

    @contextlib.asynccontextmanager
    async def at_once(self, shop: Shop) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        await shop.hook()
        shop.app.conf.task_always_eager = True
        yield lambda: work(shop.app).delay("at once")


class TestContract(Contract):
    framework = Celery()


@pytest.fixture
def app(redis_client: redis.Redis, redis_url: str) -> Iterator[Any]:
    """An app with its tasks, and an overload in the queue ``mail``."""
    with shop(redis_url) as app:
        yield app


@pytest.fixture
def controller(watch: Watch, app: Any) -> BackpressureController:
    return watch(CeleryLayout.from_app(app), "mail", "clicks")


@pytest.mark.parametrize("how", [lambda s: s.apply_async(), publish], ids=["plain", "publish"])
def test_the_current_app_is_protected_for_names_of_other_services(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, how: Any
) -> None:
    with monkeypatched_current_app(app):
        assert protect(celery.current_app, controller, priority={"other.free": "high", "*": "low"}) is app
        with pytest.raises(ConfigurationError, match="protected already"):
            protect(app, controller, priority="low")
        for signature in (
            celery.signature("other.task"),
            celery.group(celery.signature("other.task", (n,)) for n in range(2)),
            celery.chain(celery.signature("other.task"), celery.signature("other.free")),
            celery.group([{"task": "other.task", "args": (), "kwargs": {}, "options": {}}]) | celery.signature("a"),
        ):
            with pytest.raises(JobShedError):
                how(signature)
        assert length(redis_client) == OVERLOAD
        how(celery.signature("other.free"))
    how(app.signature("other.free"))
    assert length(redis_client) == OVERLOAD + 2


@contextlib.contextmanager
def monkeypatched_current_app(app: Any) -> Iterator[None]:
    before = celery._state._tls.current_app
    app.set_current()
    yield
    celery._state._tls.current_app = before


def test_publish_refuses_what_nobody_would_ask_for(app: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'shop.work' is not protected"):
        publish(app.signature("shop.work"))


def test_marks_are_not_sent_to_the_broker(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(app, controller, priority="low")
    high = {"backpressure_priority": Priority.HIGH}
    work = app.signature("shop.work", immutable=True)
    app.conf.update(task_routes={"shop.routed": {"queue": "mail", **high}})
    app.send_task("shop.routed")
    app.send_task("shop.work", **high)
    work.apply_async(**high)
    work.clone().set(**high).apply_async(link=work.clone(**high), link_error=[work.clone(**high)])
    celery.chain(work.clone(**high), celery.group(work.clone(**high), work), work.clone(**high)).apply_async()
    celery.chord([work, work.clone(link=work.clone(**high))], work.clone(**high)).apply_async(**high)
    celery.group(work, celery.chain(work, work.clone(**high))).apply_async(**high)
    celery.canvas.xmap(work.clone(**high), [1], app=app).apply_async(**high)
    raw: Any = redis_client.lrange("mail", 0, -1)
    assert len(raw) == OVERLOAD + 10
    for message in raw:
        assert b"backpressure_priority" not in message
        assert b"backpressure_priority" not in base64.b64decode(json.loads(message)["body"])
    with pytest.raises(JobShedError):  # their own signatures were left as they are
        work.apply_async()
    assert work.clone(**high).options == high


def test_the_queue_is_the_one_that_routes_lead_to(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(app, controller, priority="low")
    app.tasks["shop.count"].delay()
    app.tasks["shop.work"].apply_async(queue="clicks")
    assert length(redis_client, "clicks") == 2
    with pytest.raises(JobShedError):
        app.tasks["shop.work"].apply_async(queue="mail")


def test_tasks_carry_the_time_they_were_first_sent(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(app, controller, priority="high")
    before = time.time()
    redis_client.delete("mail")
    app.tasks["shop.stamp"].apply_async(headers={"mine": 1})
    with worker.start_worker(app, perform_ping_check=False, pool="solo", queues=["mail"]):
        eventually(lambda: ran)
    assert before <= float(ran[0]) <= time.time()


def test_the_signal_before_publishing_could_not_stop_a_task(app: Any, redis_client: redis.Redis) -> None:
    def shed(**_: object) -> None:
        raise JobShedError

    signals.before_task_publish.connect(shed)
    try:
        app.tasks["shop.work"].delay()
    finally:
        signals.before_task_publish.disconnect(shed)
    assert length(redis_client) == OVERLOAD + 1
