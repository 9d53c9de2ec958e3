"""Huey behind a controller, with Huey's own consumer on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    InMemoryStatsProvider,
    JobShedError,
    ThrottledError,
)
from backpressure.providers.layouts import HueyLayout
from integrations.conftest import OVERLOAD, decided
from integrations.frameworks import required
from support.controller_fixtures import eventually

required("huey")

import huey  # noqa: E402 - skipped before where it is missing
from huey.signals import SIGNAL_ENQUEUED  # noqa: E402

from backpressure.integrations.huey import protect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch
    from support.controller_fixtures import MakeController

TESTS = pathlib.Path(__file__).parent.parent

ran: list[str] = []


@pytest.fixture
def app(redis_client: redis.Redis, redis_url: str) -> Iterator[Any]:
    """A Huey with its tasks, and an overload in its queue."""
    ran.clear()
    app = huey.RedisHuey("mail", url=redis_url)
    storage = app.storage  # immediate mode replaces it

    def fail_once() -> None:
        ran.append("try")
        if ran.count("try") == 1:
            raise ValueError("once")

    def send_more() -> None:
        app.tasks_by_name["work"]("from a task")

    def attempt() -> None:
        try:
            app.tasks_by_name["work"]("from a campaign")
        except JobShedError:
            ran.append("shed")

    def fan_out() -> None:
        attempt()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(attempt).result()
        fail_once()

    declared: dict[Any, dict[str, Any]] = {
        work: {},
        important: {"backpressure_priority": "high"},
        fail_once: {"retries": 1},
        send_more: {},
        fan_out: {"retries": 1},
    }
    app.tasks_by_name = {function.__name__: app.task(**options)(function) for function, options in declared.items()}
    app.tasks_by_name["fail_later"] = app.task(retries=1, retry_delay=1, name="fail_later")(fail_once)
    app.tasks_by_name["periodic"] = app.periodic_task(lambda _: True)(periodic)
    for _ in range(OVERLOAD):
        app.tasks_by_name["work"]()
    yield app
    storage.conn.connection_pool.disconnect()


def work(*name: object) -> str:
    ran.extend(map(str, name))
    return "worked"


def important() -> None:
    pass


def periodic() -> None:
    ran.append("periodic")


@pytest.fixture
def controller(watch: Watch, app: Any) -> BackpressureController:
    return watch(HueyLayout(), "mail")


@contextlib.contextmanager
def consuming(app: Any, *, periodic: bool = False) -> Iterator[None]:
    """Run a consumer's threads."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    consumer = app.create_consumer(workers=1, periodic=periodic, initial_delay=0.01, max_delay=0.01)
    consumer.start()
    try:
        yield
    finally:
        consumer.stop(graceful=True)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_under_overload_low_is_shed_and_high_passes(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority={"send_more": "high", "*": "low"})
    with pytest.raises(JobShedError):
        app.tasks_by_name["work"]()
    with pytest.raises(JobShedError):
        app.tasks_by_name["work"].schedule(delay=30)
    with pytest.raises(JobShedError):
        app.enqueue(app.tasks_by_name["work"].s().then(app.tasks_by_name["important"]))
    assert app.pending_count() == OVERLOAD
    app.tasks_by_name["important"]()
    app.tasks_by_name["send_more"]()
    assert app.pending_count() == OVERLOAD + 2


@pytest.mark.parametrize("kind", ["group", "chord"])
def test_a_group_is_gated_once_and_enqueued_all_or_none(
    app: Any, controller: BackpressureController, kind: str
) -> None:
    protect(app, controller, priority="low")
    work, important = app.tasks_by_name["work"], app.tasks_by_name["important"]

    def bunch(*tasks: Any) -> Any:
        return huey.chord(list(tasks), work.s()) if kind == "chord" else huey.group(iter(tasks))

    with pytest.raises(JobShedError):
        app.enqueue(bunch(important.s(), work.s()))
    with pytest.raises(JobShedError):
        app.enqueue(bunch(work.s(delay=3600), work.s()))
    assert app.pending_count() == OVERLOAD
    assert controller._passed.counts() == {}  # what is due later was not let pass either
    before = decided(controller)
    app.enqueue(bunch(*[important.s() for _ in range(10)]))
    assert decided(controller) == before + 1
    assert app.pending_count() == OVERLOAD + 10


def test_nothing_of_a_retry_or_of_what_tasks_enqueue_is_lost_under_overload(
    app: Any, controller: BackpressureController
) -> None:
    work, tasks = app.tasks_by_name["work"], app.tasks_by_name
    tasks["send_more"]()
    app.enqueue(work.s("first").then(work, "second"))
    app.enqueue(huey.chord([work.s("member")], work.s("callback")))
    tasks["fail_once"]()
    protect(app, controller, priority="low")
    with consuming(app):
        eventually(lambda: {"from a task", "second", "callback"} <= set(ran) and ran.count("try") == 2)
        with pytest.raises(JobShedError):  # it was an overload all the while
            work()


def test_what_the_scheduler_enqueues_is_not_lost_under_overload(app: Any, controller: BackpressureController) -> None:
    app.tasks_by_name["work"].schedule(("delayed",), delay=1)
    app.tasks_by_name["fail_later"]()
    protect(app, controller, priority="low")
    with consuming(app, periodic=True):
        eventually(lambda: {"delayed", "periodic"} <= set(ran) and ran.count("try") == 2)


def test_immediate_tasks_run_whatever_the_backlog(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="low")
    app.immediate = True
    app.tasks_by_name["work"]("at once")
    assert ran == ["at once"]


def test_on_an_event_loop_nothing_sleeps(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="medium")

    async def send() -> None:
        app.tasks_by_name["work"]()

    with pytest.raises(ThrottledError), pytest.warns(RuntimeWarning, match="event loop"):
        asyncio.run(send())
    assert app.pending_count() == OVERLOAD


def test_a_server_that_refuses_opens_the_circuit(
    app: Any, controller: BackpressureController, full_server: None
) -> None:
    protect(app, controller, priority="high")
    for _ in range(5):
        with pytest.raises(Exception, match="maxmemory"):
            app.tasks_by_name["work"]()
    with pytest.raises(CircuitOpenError):
        app.tasks_by_name["work"]()


def test_the_signal_of_an_enqueue_could_not_stop_it(app: Any) -> None:
    @app.signal(SIGNAL_ENQUEUED)  # type: ignore[untyped-decorator]
    def shed(*_: object) -> None:
        raise JobShedError

    app.tasks_by_name["work"]()
    assert app.pending_count() == OVERLOAD + 1


def test_an_immediate_task_may_retry_and_enqueue(app: Any, make_controller: MakeController) -> None:
    protect(app, make_controller(start=False), priority="low", inside_tasks={"fail_once"})
    app.immediate = True
    app.tasks_by_name["fail_once"]()
    app.tasks_by_name["send_more"]()
    assert ran == ["try", "try", "from a task"]


# ------------------------------------------------------------------------------------------------------------ consumers


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_nothing_that_a_consumer_enqueues_is_refused(redis_client: redis.Redis, redis_url: str, kind: str) -> None:
    outside = huey.RedisHuey("mail", url=redis_url)
    work_outside = [
        outside.task(name=name, **options)(lambda *_: None)
        for name, options in {"send_more": {}, "fail": {"retries": 1}, "note": {}}.items()
    ]
    for wrapper in work_outside:
        wrapper.task_class.__module__ = "integrations.huey_program"
        outside._registry.register(wrapper.task_class)
    send_more, fail, note = work_outside
    outside.enqueue(send_more.s().then(note))
    fail()
    note.schedule(("delayed",), delay=1)
    outside.storage.conn.connection_pool.disconnect()
    expected = [
        *("on startup", "before", "after", "on complete", "on error", "on error", "try", "try", "periodic", "delayed"),
        *("from a task", "from a thread", "from a pool", "from a pipeline", "on shutdown"),
    ]
    consumer = subprocess.Popen(
        [sys.executable, "-m", "huey.bin.huey_consumer", "integrations.huey_program.app", "-w", "1", "-k", kind],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "TEST_REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        eventually(lambda: consumer.poll() is not None or redis_client.llen("ran") >= len(expected) - 1, seconds=30)
        consumer.send_signal(signal.SIGINT)
        output = consumer.communicate(timeout=30)[0]
    finally:
        consumer.kill()
    assert sorted(redis_client.lrange("ran", 0, -1)) == sorted(what.encode() for what in expected), output


def test_a_consumer_within_a_producer_opens_nothing_of_the_producers(
    app: Any, controller: BackpressureController
) -> None:
    @app.on_startup()  # type: ignore[untyped-decorator]
    def boot() -> None:
        app.tasks_by_name["work"]("at boot")
        thread = threading.Thread(target=app.tasks_by_name["work"], args=("from a thread",))
        thread.start()
        thread.join()

    protect(app, controller, priority="low")
    with consuming(app):
        eventually(lambda: {"at boot", "from a thread"} <= set(ran))
        with pytest.raises(JobShedError):
            app.tasks_by_name["work"]()
    assert controller._passed.counts() == {("mail", "worker"): 2}


def test_tasks_that_are_named_are_judged_inside_of_consumers(app: Any, controller: BackpressureController) -> None:
    work = app.tasks_by_name["work"]
    app.enqueue(app.tasks_by_name["fan_out"].s().then(work, "next"))
    app.tasks_by_name["send_more"]()
    protect(app, controller, priority="low", inside_tasks={"fan_out"})
    with consuming(app):
        eventually(lambda: {"next", "from a task"} <= set(ran))
    assert ran.count("shed") == 4  # by the task and by its pool, at either try
    assert ran.count("from a campaign") == 0


def test_who_executes_a_task_by_hand_is_its_consumer(app: Any, make_controller: MakeController) -> None:
    app.enqueue(app.tasks_by_name["send_more"].s().then(app.tasks_by_name["important"]))
    protect(app, make_controller(start=False), priority="low")
    while app.pending_count():
        app.execute(app.dequeue())
    assert "from a task" in ran


# ------------------------------------------------------------------------------------------------------------- outcomes


def test_an_app_is_protected_once(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="high")
    with pytest.raises(ConfigurationError, match="protected already"):
        protect(app, controller, priority="high")


def test_an_unstarted_controller_stops_producers(app: Any, make_controller: MakeController) -> None:
    protect(app, make_controller(start=False), priority="low")
    with pytest.raises(ControllerNotStartedError, match="low job for queue 'mail'"):
        app.tasks_by_name["work"]()
    assert app.pending_count() == OVERLOAD


def test_tasks_of_another_time_are_not_judged_by_the_backlog_of_now(
    app: Any, controller: BackpressureController
) -> None:
    protect(app, controller, priority="low")
    work = app.tasks_by_name["work"]
    work.schedule(delay=3600)
    app.enqueue(huey.group([work.s(delay=3600), work.s(delay=3600)]))
    assert app.pending_count() == OVERLOAD + 3
    assert controller._passed.counts() == {("mail", "scheduled"): 3}


def test_what_is_wrong_with_a_task_says_nothing_of_the_queue(app: Any, make_controller: MakeController) -> None:
    calm = make_controller(InMemoryStatsProvider({"mail": 0}))
    protect(app, calm, priority="high")
    work = app.tasks_by_name["work"]
    wrong: list[Callable[[], object]] = [
        lambda: work(lambda: None),
        lambda: app.enqueue(work.s().then(work, lambda: None)),
        lambda: app.enqueue(huey.group([work.s(), work.s(lambda: None)])),
        lambda: app.enqueue(huey.chord([work.s()], work.s(lambda: None))),
        lambda: app.enqueue(huey.chord([huey.group([])], work.s())),
    ]
    for enqueue in wrong * 2:
        with pytest.raises((AttributeError, TypeError, ValueError)):
            enqueue()
    assert calm.circuit("mail").stats()["failure_count"] == 0
    assert app.pending_count() == OVERLOAD
