"""Huey behind a controller, with Huey's own consumer on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import CircuitOpenError, JobShedError, ThrottledError
from backpressure.providers.layouts import HueyLayout
from controller_fixtures import eventually
from integrations.conftest import OVERLOAD, decided
from integrations.frameworks import required

required("huey")

import huey  # noqa: E402 - skipped before where it is missing
from huey.signals import SIGNAL_ENQUEUED  # noqa: E402

from backpressure.integrations.huey import protect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch

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

    declared: dict[Any, dict[str, Any]] = {
        work: {},
        important: {"backpressure_priority": "high"},
        fail_once: {"retries": 1},
        send_more: {},
    }
    app.tasks_by_name = {function.__name__: app.task(**options)(function) for function, options in declared.items()}
    app.tasks_by_name["fail_later"] = app.task(retries=1, retry_delay=1, name="fail_later")(fail_once)
    app.tasks_by_name["periodic"] = app.periodic_task(lambda _: True)(periodic)
    for _ in range(OVERLOAD):
        app.tasks_by_name["work"]()
    yield app
    storage.conn.close()


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
        app.tasks_by_name["work"].schedule(delay=3600)
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
    assert app.pending_count() == OVERLOAD
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


def test_due_tasks_are_known_by_object(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="low")
    app.add_schedule(app.tasks_by_name["work"].s(eta=datetime.now() - timedelta(hours=2)))  # noqa: DTZ005 - as Huey does
    (due,) = app.read_schedule()
    app.enqueue(due)
    with pytest.raises(JobShedError):
        app.enqueue(app.pending()[-1])


def test_immediate_tasks_run_whatever_the_backlog(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="low")
    app.immediate = True
    app.tasks_by_name["work"]("at once")
    assert ran == ["at once"]


def test_on_an_event_loop_nothing_sleeps(app: Any, controller: BackpressureController) -> None:
    protect(app, controller, priority="medium")

    async def send() -> None:
        app.tasks_by_name["work"]()

    with pytest.raises(ThrottledError):
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
