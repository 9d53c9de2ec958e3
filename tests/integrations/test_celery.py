"""Celery behind a controller, with Celery's own worker on a real broker."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import CircuitOpenError, ConfigurationError, JobShedError, ThrottledError
from backpressure.providers.layouts import CeleryLayout
from controller_fixtures import eventually
from integrations.conftest import OVERLOAD, decided
from integrations.frameworks import required

required("celery")

import celery  # noqa: E402 - skipped before where it is missing
from celery import beat, signals  # noqa: E402
from celery.contrib.testing import worker  # noqa: E402

from backpressure.integrations.celery import protect, publish  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch

ran: list[str] = []


def work(self: Any, name: str = "") -> None:
    ran.append(name)


def count(self: Any) -> None:
    ran.append("count")


def important(self: Any) -> None:
    ran.append("important")


def fail_once(self: Any) -> None:
    ran.append("try")
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    self.app.tasks["shop.work"].delay("from a task")


def stamp(self: Any) -> None:
    ran.append(self.request.backpressure_enqueued_at)


@pytest.fixture
def app(redis_client: redis.Redis, redis_url: str) -> Iterator[Any]:
    """An app with its tasks, and an overload in the queue ``mail``."""
    ran.clear()
    app = celery.Celery("shop", broker=redis_url, backend="cache+memory://", set_as_current=False)
    app.conf.update(
        task_default_queue="mail",
        task_routes={"shop.count": {"queue": "clicks"}},
        broker_transport_options={"socket_timeout": 5.0},
        worker_hijack_root_logger=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
    )

    for function in (count, fail_once, important, stamp, work):
        app.task(name=f"shop.{function.__name__}", bind=True, shared=False, max_retries=1)(function)
    app.tasks["shop.important"].backpressure_priority = "high"
    for _ in range(OVERLOAD):
        app.tasks["shop.work"].delay()
    yield app
    app.close()


@pytest.fixture
def controller(watch: Watch, app: Any) -> BackpressureController:
    return watch(CeleryLayout.from_app(app), "mail", "clicks")


def length(redis_client: redis.Redis, queue: str = "mail") -> object:
    return redis_client.llen(queue)


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
        lambda app: app.tasks["shop.work"].apply_async(countdown=3600),
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


def test_the_queue_is_the_one_that_routes_lead_to(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(app, controller, priority="low")
    app.tasks["shop.count"].delay()
    app.tasks["shop.work"].apply_async(queue="clicks")
    assert length(redis_client, "clicks") == 2
    with pytest.raises(JobShedError):
        app.tasks["shop.work"].apply_async(queue="mail")


def test_a_group_is_gated_once(app: Any, controller: BackpressureController, redis_client: redis.Redis) -> None:
    protect(app, controller, priority="high")
    before = decided(controller)
    celery.group(app.signature("shop.work") for _ in range(10)).delay()
    assert decided(controller) == before + 1
    publish(celery.group(app.signature("shop.work") for _ in range(10)))
    assert decided(controller) == before + 2
    assert length(redis_client) == OVERLOAD + 20


def test_publish_sends_all_or_none_and_takes_no_connection_before_the_gate(
    app: Any, controller: BackpressureController, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    protect(app, controller, priority="low")
    important, work = app.signature("shop.important"), app.signature("shop.work")
    taken: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(app, "producer_or_acquire", lambda *_: taken.append(1))
        with pytest.raises(JobShedError):
            publish(celery.group(important, celery.chain(important, work), celery.group(important, work)))
    assert taken == []
    publish(celery.group(important, celery.chain(important, work)))  # the chain's second task is sent by a worker
    assert length(redis_client) == OVERLOAD + 2


def test_nothing_of_a_retry_or_of_what_tasks_send_is_lost_under_overload(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    app.tasks["shop.fail_once"].delay()
    celery.chain(
        app.signature("shop.work", ("first",), immutable=True), app.signature("shop.work", ("second",), immutable=True)
    ).delay()
    app.tasks["shop.work"].apply_async(("third",), link=app.signature("shop.work", ("linked",), immutable=True))
    protect(app, controller, priority="low")
    with worker.start_worker(app, perform_ping_check=False, pool="solo", queues=["mail"]):
        eventually(lambda: {"from a task", "second", "linked"} <= set(ran))
        with pytest.raises(JobShedError):  # it was an overload all the while
            app.tasks["shop.work"].delay()
    assert ran.count("try") == 2


def test_beat_passes(app: Any, controller: BackpressureController, redis_client: redis.Redis) -> None:
    protect(app, controller, priority="low")
    app.conf.beat_schedule = {"often": {"task": "shop.work", "schedule": 0.01}}
    service = beat.Service(app, max_interval=0.01, scheduler_cls=beat.Scheduler)
    thread = threading.Thread(target=service.start)
    thread.start()
    try:
        eventually(lambda: int(str(redis_client.llen("mail"))) >= OVERLOAD + 3)
    finally:
        service.stop()
        thread.join()
    with pytest.raises(JobShedError):
        app.tasks["shop.work"].delay()


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

    with pytest.raises(ThrottledError):
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
