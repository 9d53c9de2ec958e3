"""Celery behind a controller, with Celery's own worker on a real broker."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    InMemoryStatsProvider,
    JobShedError,
    Priority,
    ThrottledError,
)
from backpressure.integrations import passing
from backpressure.providers.layouts import CeleryLayout
from integrations.conftest import OVERLOAD
from integrations.frameworks import required
from support.controller_fixtures import eventually

required("celery")

import celery  # noqa: E402 - skipped before where it is missing
import kombu  # noqa: E402
from celery import signals  # noqa: E402
from celery.contrib.testing import worker  # noqa: E402

from backpressure.integrations.celery import protect, publish  # noqa: E402
from integrations.celery_app import length, ran, shop  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch
    from support.controller_fixtures import MakeController


@pytest.fixture
def app(redis_client: redis.Redis, redis_url: str) -> Iterator[Any]:
    """An app with its tasks, and an overload in the queue ``mail``."""
    with shop(redis_url) as app:
        yield app


@pytest.fixture
def controller(watch: Watch, app: Any) -> BackpressureController:
    return watch(CeleryLayout.from_app(app), "mail", "clicks")


def test_under_overload_low_is_shed_and_high_passes(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(app, controller, priority={"shop.other": "high", "*": "low"})
    with pytest.raises(JobShedError):
        app.tasks["shop.work"].delay()
    assert length(redis_client) == OVERLOAD
    app.send_task("shop.other")
    app.tasks["shop.important"].delay()
    app.send_task("shop.important")
    app.tasks["shop.work"].apply_async(backpressure_priority="high")
    assert length(redis_client) == OVERLOAD + 4


@pytest.mark.parametrize(
    "send",
    [
        lambda app: app.tasks["shop.work"].apply_async(countdown=30),
        lambda app: app.send_task("shop.work"),
        lambda app: app.send_task("unknown.here"),
        lambda app: app.signature("shop.work").delay(),
        lambda app: celery.chain(app.signature("shop.work"), app.signature("shop.count")).delay(),
        lambda app: celery.group(app.signature("shop.work") for _ in range(3)).delay(),
        lambda app: celery.chord([app.signature("shop.work")] * 3, app.signature("shop.important")).delay(),
    ],
    ids=["eta", "by name", "unknown", "signature", "chain", "group", "chord"],
)
def test_every_way_of_sending_is_gated(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, send: Any
) -> None:
    protect(app, controller, priority="low")
    with pytest.raises(JobShedError):
        send(app)
    assert length(redis_client) == OVERLOAD


def passed(controller: BackpressureController) -> dict[tuple[str, str], int]:
    return controller._passed.counts()


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 3600},
        {"countdown": 60.5},
        {"eta": datetime.now(UTC) + timedelta(hours=1)},
        {"eta": (datetime.now(UTC) + timedelta(hours=1)).isoformat()},
        {"eta": datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)},  # Celery takes it for UTC
        {"eta": datetime.now(timezone(timedelta(hours=9))) + timedelta(hours=1), "expires": 7200},
    ],
    ids=["countdown", "float", "aware", "text", "naive", "elsewhere"],
)
def test_a_task_due_much_later_is_not_judged_by_the_backlog_of_now(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, options: dict[str, Any]
) -> None:
    protect(app, controller, priority="low")
    app.tasks["shop.work"].apply_async(**options)
    celery.group(app.signature("shop.work").set(**options) for _ in range(2)).delay()
    assert length(redis_client) == OVERLOAD + 3
    assert passed(controller) == {("mail", "scheduled"): 3}


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 59},
        {"countdown": 0},
        {"eta": datetime.now(UTC) - timedelta(hours=1)},
        {"expires": 3600},
        {"expires": datetime.now(UTC) + timedelta(hours=1)},
    ],
    ids=["soon", "now", "past", "expires", "expires at"],
)
def test_a_task_due_soon_is_judged(app: Any, controller: BackpressureController, options: dict[str, Any]) -> None:
    protect(app, controller, priority="low")
    with pytest.raises(JobShedError):
        app.tasks["shop.work"].apply_async(**options)


@pytest.mark.parametrize(
    ("args", "options", "error"),
    [
        ((object(),), {}, kombu.exceptions.EncodeError),
        ((), {"serializer": "none"}, kombu.exceptions.SerializerNotInstalled),
        ((), {"countdown": "soon"}, TypeError),
        ((), {"eta": "tomorrow", "expires": "never"}, ValueError),
        ("text", {}, TypeError),
    ],
)
def test_mistakes_of_the_call_say_nothing_of_the_queue(
    app: Any, controller: BackpressureController, args: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    protect(app, controller, priority="high")
    for _ in range(5):
        with pytest.raises(error):
            app.send_task("shop.work", args, **options)
    assert controller.circuit("mail").stats()["failure_count"] == 0


def test_a_controller_that_was_not_started_is_told(
    app: Any, make_controller: MakeController, redis_client: redis.Redis
) -> None:
    controller = make_controller(InMemoryStatsProvider({"mail": 0}), start=False)
    protect(app, controller, priority="low")
    with pytest.raises(ControllerNotStartedError):
        app.tasks["shop.work"].delay()
    with passing():
        app.tasks["shop.work"].delay()
        celery.group(app.signature("shop.work") for _ in range(2)).delay()
    assert length(redis_client) == OVERLOAD + 3
    assert passed(controller) == {("mail", "passing"): 3}


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


def test_eager_tasks_run_whatever_the_backlog(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="low")
    app.conf.task_always_eager = True
    app.tasks["shop.work"].delay("at once")
    publish(celery.group(app.signature("shop.work", ("in a group",))))
    assert ran == ["at once", "in a group"]


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


def test_on_an_event_loop_nothing_sleeps(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="medium")

    async def send() -> None:
        app.tasks["shop.work"].delay()

    with pytest.raises(ThrottledError), pytest.warns(RuntimeWarning, match="event loop"):
        asyncio.run(send())


def test_a_broker_that_refuses_opens_the_circuit(
    app: Any, controller: BackpressureController, full_server: None
) -> None:
    protect(app, controller, priority="high")
    for _ in range(5):
        with pytest.raises(Exception, match="maxmemory"):
            app.tasks["shop.work"].delay()
    with pytest.raises(CircuitOpenError):
        app.tasks["shop.work"].delay()


def test_an_app_is_protected_once(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="high")
    with pytest.raises(ConfigurationError, match="protected already"):
        protect(app, controller, priority="high")


def test_the_signal_before_publishing_could_not_stop_a_task(app: Any, redis_client: redis.Redis) -> None:
    def shed(**_: object) -> None:
        raise JobShedError

    signals.before_task_publish.connect(shed)
    try:
        app.tasks["shop.work"].delay()
    finally:
        signals.before_task_publish.disconnect(shed)
    assert length(redis_client) == OVERLOAD + 1
