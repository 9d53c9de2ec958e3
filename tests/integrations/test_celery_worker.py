"""Whatever Celery's workers and beat send passes, and nothing else does that runs beside them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import ControllerNotStartedError, InMemoryStatsProvider, JobShedError
from backpressure.integrations._shared.workers import in_worker
from backpressure.providers.layouts import CeleryLayout
from integrations.frameworks import required
from integrations.jobs import ran
from integrations.overload import OVERLOAD
from support.controller_fixtures import eventually

required("celery")

import celery  # noqa: E402 - skipped before where it is missing
from celery import beat, signals  # noqa: E402
from celery.contrib.testing import worker  # noqa: E402
from celery.worker import state  # noqa: E402

from backpressure.integrations.celery import protect  # noqa: E402
from integrations.celery_app import length, sent, shop  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch
    from support.controller_fixtures import MakeController


@pytest.fixture
def app(redis_client: redis.Redis, redis_url: str) -> Iterator[Any]:
    with shop(redis_url) as app:
        yield app


@pytest.fixture
def controller(watch: Watch, app: Any) -> BackpressureController:
    """A controller over the overload."""
    return watch(CeleryLayout.from_app(app), "mail", "clicks")


@pytest.fixture
def unstarted(make_controller: MakeController) -> BackpressureController:
    """A controller that was not started, as a worker's need not be."""
    return make_controller(InMemoryStatsProvider({"mail": 5000}), start=False)


def work(app: Any, name: str = "") -> Any:
    return app.signature("shop.work", (name,), immutable=True)


def running(app: Any, pool: str = "solo") -> Any:
    """Run a worker in another thread, as one embedded in a producer."""
    return worker.start_worker(app, perform_ping_check=False, pool=pool, queues=["mail"], concurrency=2)


#: Signals from the first that a worker sends to its last, by name.
SIGNALS = ("worker_init", "worker_process_init", "task_prerun", "task_success", "task_postrun")


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_what_handlers_of_a_workers_signals_send_passes(
    app: Any, unstarted: BackpressureController, redis_client: redis.Redis, pool: str
) -> None:
    def handler(name: str) -> Any:
        return lambda **_: app.send_task(name, queue="clicks")

    names = [name for name in (*SIGNALS, "worker_shutdown") if pool == "solo" or name != "worker_process_init"]
    handlers = {name: handler(name) for name in names}
    redis_client.delete("mail")
    work(app, "one").delay()
    protect(app, unstarted, priority="low")
    for name, receiver in handlers.items():
        getattr(signals, name).connect(receiver)
    try:
        with running(app, pool) as started:
            eventually(lambda: ran)
            with pytest.raises(ControllerNotStartedError):
                work(app).delay()
        started.stop()  # as the producer's own thread may
    finally:
        for name, receiver in handlers.items():
            getattr(signals, name).disconnect(receiver)
    tasks = {message["headers"]["task"] for message in sent(redis_client, "clicks")}
    assert tasks == set(names)
    with pytest.raises(ControllerNotStartedError):  # the worker is over
        work(app).delay()


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_threads_and_pools_of_tasks_pass_and_those_of_the_producer_do_not(
    app: Any, unstarted: BackpressureController, redis_client: redis.Redis, pool: str
) -> None:
    def fan_out(self: Any) -> None:
        with ThreadPoolExecutor(2) as executor:
            list(executor.map(lambda n: work(app, f"pool {n}").apply_async(queue="clicks"), range(4)))
        thread = threading.Thread(target=work(app, "thread").apply_async, kwargs={"queue": "clicks"})
        thread.start()
        thread.join()
        celery.group(work(app, "group"), work(app, "group")).apply_async(queue="clicks")
        ran.append("fanned out")

    refused: list[object] = []
    over = threading.Event()

    def produce() -> None:
        while not over.wait(0.01):
            try:
                refused.append(work(app).delay())
            except ControllerNotStartedError:
                refused.append(None)

    app.task(name="shop.fan_out", bind=True, shared=False)(fan_out)
    redis_client.delete("mail")
    app.tasks["shop.fan_out"].delay()
    protect(app, unstarted, priority="low")
    producer = threading.Thread(target=produce)
    producer.start()
    try:
        with running(app, pool):
            eventually(lambda: ran)
    finally:
        over.set()
        producer.join()
    assert ran == ["fanned out"]
    assert length(redis_client, "clicks") == 7
    assert set(refused) == {None}
    assert not in_worker()


def test_a_worker_on_the_main_thread_is_the_process(
    app: Any, unstarted: BackpressureController, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send() -> None:
        work(app).apply_async(queue="clicks")

    def on_ready(consumer: object) -> None:
        send()
        ready.set()
        before.join()
        after = threading.Thread(target=send)
        after.start()
        after.join()
        monkeypatch.setattr(state, "should_stop", 0)

    def send_when_ready() -> None:
        ready.wait()
        send()

    ready = threading.Event()
    before = threading.Thread(target=send_when_ready)
    before.start()
    protect(app, unstarted, priority="low")
    options = {"without_mingle": True, "without_gossip": True, "without_heartbeat": True}
    app.WorkController(pool="solo", queues=["clicks.none"], ready_callback=on_ready, **options).start()
    assert length(redis_client, "clicks") == 3
    assert not in_worker()


def test_a_ping_of_tests_needs_no_priority(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    import celery.contrib.testing.tasks

    redis_client.delete("mail")
    app.finalize()
    celery.contrib.testing.tasks.ping  # noqa: B018 - registers it
    protect(app, controller, priority={"shop.work": "low"})
    with worker.start_worker(app, pool="solo", queues=["mail"]):
        pass


def test_beat_passes(app: Any, controller: BackpressureController, redis_client: redis.Redis) -> None:
    def on_start(**_: object) -> None:
        work(app).apply_async(queue="clicks", backpressure_priority="low")

    protect(app, controller, priority="low", queue={"clicks": "mail"})
    app.conf.beat_schedule = {"often": {"task": "shop.work", "schedule": 0.01}}
    service = beat.Service(app, max_interval=0.01, scheduler_cls=beat.Scheduler)
    signals.beat_init.connect(on_start)
    thread = threading.Thread(target=service.start)
    thread.start()
    try:
        eventually(lambda: length(redis_client) >= OVERLOAD + 3)
        with pytest.raises(JobShedError):  # beat is within a producer
            work(app).delay()
    finally:
        service.stop()
        thread.join()
        signals.beat_init.disconnect(on_start)
    assert length(redis_client, "clicks") == 1
    with pytest.raises(JobShedError):
        work(app).delay()


def campaign(app: Any, body: Any) -> Any:
    """Register a task whose function is `body`, as one whose tasks are judged."""
    task = app.task(name="shop.mailing", bind=True, shared=False, max_retries=2)(body)
    app.finalize()
    return task


def test_what_a_task_sends_may_be_judged(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    def send_mails(self: Any) -> str:
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        for send in (
            work(app, "mail").delay,
            lambda: app.send_task("shop.work"),
            celery.group(work(app, "mail"), app.signature("shop.important")).delay,
            celery.chord([work(app, "mail")], work(app, "mail")).delay,
            app.tasks["shop.fan_out"],
        ):
            try:
                send()
            except JobShedError:
                ran.append("shed")
        app.tasks["shop.important"].delay()
        return "done"

    def fan_out(self: Any) -> None:
        work(app, "mail").delay()

    app.task(name="shop.fan_out", bind=True, shared=False)(fan_out)
    protect(app, controller, priority={"shop.important": "high", "*": "low"}, inside_tasks={"shop.mailing"})
    task = campaign(app, send_mails).si()
    controller.set_manual_override(True)
    task.delay()
    celery.chain(task, work(app, "next")).apply_async(link=work(app, "linked"))
    celery.chord([task, task], work(app, "body")).delay()
    controller.set_manual_override(False)
    with running(app):
        eventually(lambda: {"next", "linked", "body"} <= set(ran) and ran.count("important") == 4, 20)
    assert ran.count("shed") == 4 * 5
    assert "mail" not in ran
    assert controller._passed.counts()["mail", "retry"] == 4


def test_handlers_of_a_judged_tasks_signals_pass(
    app: Any, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    def handler(sender: Any, **_: object) -> None:
        if sender.name == "shop.mailing":
            work(app).apply_async(queue="clicks", backpressure_priority="low")

    def nothing(self: Any) -> None: ...

    campaign(app, nothing).delay()
    protect(app, controller, priority="low", queue={"clicks": "mail"}, inside_tasks={"shop.mailing", "not.there"})
    for signal in (signals.task_prerun, signals.task_success, signals.task_postrun):
        signal.connect(handler)
    try:
        with running(app):
            eventually(lambda: length(redis_client, "clicks") == 3)
    finally:
        for signal in (signals.task_prerun, signals.task_success, signals.task_postrun):
            signal.disconnect(handler)


@pytest.mark.parametrize("inside", [(), ("shop.inner",)])
def test_a_task_that_a_producer_runs_itself_is_the_producers(
    app: Any, controller: BackpressureController, inside: tuple[str, ...]
) -> None:
    def send(self: Any) -> None:
        app.send_task("shop.work")

    app.task(name="shop.inner", shared=False, bind=True)(send)
    protect(app, controller, priority="low", inside_tasks=inside)
    with pytest.raises(JobShedError):
        app.tasks["shop.inner"].apply(throw=True)
    with pytest.raises(JobShedError):
        app.tasks["shop.inner"]()
