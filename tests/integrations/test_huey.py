"""Huey behind a controller, with Huey's own consumer on a real server."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure import JobShedError
from backpressure.providers.layouts import HueyLayout
from integrations.commands import command
from integrations.contract.driver import Blocking, blocking
from integrations.contract.framework import Fault, Framework
from integrations.contract.promises import Contract
from integrations.frameworks import required
from integrations.jobs import JOBS, OnceError, errands, ran
from integrations.overload import OVERLOAD
from support.controller_fixtures import eventually

required("huey")

import huey  # noqa: E402 - skipped before where it is missing
from huey.signals import SIGNAL_ENQUEUED  # noqa: E402

from backpressure.integrations.huey import protect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch
    from integrations.contract.framework import Exempt, Faults, Ways, WaysOfMany
    from integrations.contract.shop import Shop
    from support.controller_fixtures import MakeController


@contextlib.contextmanager
def shop(url: str) -> Iterator[Any]:
    """Make a Huey with its tasks, and an overload in its queue."""
    app = huey.RedisHuey("mail", url=url)
    storage = app.storage  # immediate mode replaces it
    options: dict[str, Any] = {"fail_once": {"retries": 1}, "campaign": {"retries": 1}}
    options["important"] = {"backpressure_priority": "high"}
    app.jobs = {job.__name__: app.task(**options.get(job.__name__, {}))(blocking(job)) for job in JOBS}
    for _ in range(OVERLOAD):
        app.jobs["work"]()
    yield app
    storage.conn.connection_pool.disconnect()


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


def work(app: Any) -> Any:
    return app.jobs["work"]


def important(app: Any) -> Any:
    return app.jobs["important"]


WRONG = (AttributeError, TypeError, ValueError)


class Huey(Framework):
    title = "Huey"
    driver = Blocking()
    keys = ("huey.redis.mail", "huey.schedule.mail")
    ways: ClassVar[Ways] = {
        "call": lambda app: work(app)(),
        "due soon": lambda app: work(app).schedule(delay=30),
        "pipeline": lambda app: app.enqueue(work(app).s().then(important(app))),
        "group": lambda app: app.enqueue(huey.group([important(app).s(), work(app).s()])),
        "group with a later one": lambda app: app.enqueue(huey.group([work(app).s(delay=3600), work(app).s()])),
        "chord with a later one": lambda app: app.enqueue(
            huey.chord([work(app).s(delay=3600), work(app).s()], work(app).s())
        ),
    }
    marks: ClassVar[Ways] = {"task": lambda app: important(app)()}
    later: ClassVar[Ways] = {
        "scheduled": lambda app: work(app).schedule(delay=3600),
        "group": lambda app: app.enqueue(huey.group([work(app).s(delay=3600)])),
    }
    many: ClassVar[WaysOfMany] = {
        "group": lambda app, jobs: app.enqueue(huey.group(app.jobs[job].s() for job in jobs)),
        "chord": lambda app, jobs: app.enqueue(huey.chord([app.jobs[job].s() for job in jobs], work(app).s())),
    }
    faults: ClassVar[Faults] = {
        "argument": Fault(lambda app: work(app)(lambda: None), WRONG),
        "in a pipeline": Fault(lambda app: app.enqueue(work(app).s().then(work(app), lambda: None)), WRONG),
        "in a group": Fault(lambda app: app.enqueue(huey.group([work(app).s(), work(app).s(lambda: None)])), WRONG),
        "callback": Fault(lambda app: app.enqueue(huey.chord([work(app).s()], work(app).s(lambda: None))), WRONG),
        "group in a chord": Fault(lambda app: app.enqueue(huey.chord([huey.group([])], work(app).s())), WRONG),
    }
    exempt: ClassVar[Exempt] = {"test_a_job_that_is_there_already_is_no_failure": "to Huey every task is a new one"}

    def layout(self, queue_name: str) -> HueyLayout:
        return HueyLayout()

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Any]:
        with shop(url) as app:
            yield app

    def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        return protect(app, controller, **options)

    def send(self, app: Any, job: str) -> Any:
        return app.jobs[job]()

    @contextlib.asynccontextmanager
    async def working(self, app: Any) -> AsyncIterator[None]:
        with consuming(app, periodic=True):
            yield

    def name_of(self, given: Any) -> str:
        return str(given.name)

    async def send_more(self, app: Any) -> set[str]:
        """Send what goes on with other tasks, and what the scheduler is to send."""

        def periodic() -> None:
            ran.append("periodic")

        def fail_later() -> None:
            ran.append("later")
            if ran.count("later") == 1:
                raise ValueError
            ran.append("late")

        app.periodic_task(lambda _: True)(periodic)
        app.task(retries=1, retry_delay=1)(fail_later)()
        app.enqueue(work(app).s("first").then(work(app), "second"))
        app.enqueue(huey.chord([work(app).s("member")], work(app).s("callback")))
        work(app).schedule(("delayed",), delay=1)
        return {"second", "callback", "delayed", "late", "periodic"}

    @contextlib.asynccontextmanager
    async def at_once(self, shop: Shop) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        await shop.hook()
        shop.app.immediate = True
        yield lambda: work(shop.app)("at once")


class TestContract(Contract):
    framework = Huey()


@pytest.fixture
def app(redis_client: redis.Redis, redis_url: str) -> Iterator[Any]:
    ran.clear()
    with shop(redis_url) as app:
        yield app


@pytest.fixture
def controller(watch: Watch, app: Any) -> BackpressureController:
    return watch(HueyLayout(), "mail")


def sending(app: Any, *what: str) -> Any:
    """Return the task ``errand``, which is to send a task."""

    async def send() -> None:
        work(app)(*what)

    errands["errand"] = send
    return app.jobs["errand"]


def test_the_signal_of_an_enqueue_could_not_stop_it(app: Any) -> None:
    @app.signal(SIGNAL_ENQUEUED)  # type: ignore[untyped-decorator]
    def shed(*_: object) -> None:
        raise JobShedError

    work(app)()
    assert app.pending_count() == OVERLOAD + 1


def test_an_immediate_task_may_retry_and_enqueue(app: Any, make_controller: MakeController) -> None:
    protect(app, make_controller(start=False), priority="low", inside_tasks={"fail_once"})
    app.immediate = True
    app.jobs["fail_once"]()
    sending(app, "from a task")()
    assert ran == ["try", "try", "from a task"]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_nothing_that_a_consumer_enqueues_is_refused(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, kind: str
) -> None:
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
    program = ("huey.bin.huey_consumer", "integrations.huey_program.app")
    expected = [
        *("on startup", "before", "after", "on complete", "on error", "on error", "try", "try", "periodic", "delayed"),
        *("from a task", "from a thread", "from a pool", "from a pipeline", "on shutdown"),
    ]
    with command(tmp_path, redis_url, *program, "-w", "1", "-k", kind) as consumer:
        consumer.until(lambda: redis_client.llen("ran") >= len(expected) - 1)
        consumer.end(signal.SIGINT)
    assert sorted(redis_client.lrange("ran", 0, -1)) == sorted(what.encode() for what in expected)


def test_what_a_consumer_within_a_producer_enqueues_as_it_starts_passes(
    app: Any, controller: BackpressureController
) -> None:
    @app.on_startup()  # type: ignore[untyped-decorator]
    def boot() -> None:
        work(app)("at boot")
        thread = threading.Thread(target=work(app), args=("from a thread",))
        thread.start()
        thread.join()

    protect(app, controller, priority="low")
    with consuming(app):
        eventually(lambda: {"at boot", "from a thread"} <= set(ran))
        with pytest.raises(JobShedError):
            work(app)()
    assert controller._passed.counts() == {("mail", "worker"): 2}


def test_retries_and_pipelines_of_tasks_that_are_named_pass(app: Any, controller: BackpressureController) -> None:
    async def fan_out() -> None:
        ran.append("try")
        with pytest.raises(JobShedError):
            work(app)("from a campaign")
        if ran.count("try") == 1:
            raise OnceError

    errands["campaign"] = fan_out
    app.enqueue(app.jobs["campaign"].s().then(work(app), "next"))
    protect(app, controller, priority="low", inside_tasks={"campaign"})
    with consuming(app):
        eventually(lambda: "next" in ran)
    assert (ran.count("try"), ran.count("from a campaign")) == (2, 0)


def test_who_executes_a_task_by_hand_is_its_consumer(app: Any, make_controller: MakeController) -> None:
    app.enqueue(sending(app, "from a task").s().then(important(app)))
    protect(app, make_controller(start=False), priority="low")
    while app.pending_count():
        app.execute(app.dequeue())
    assert "from a task" in ran
