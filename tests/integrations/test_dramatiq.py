"""Dramatiq behind a controller, with Dramatiq's own worker on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure import (
    InMemoryStatsProvider,
    JobShedError,
    ThrottledError,
    is_shed_error,
)
from backpressure.providers.layouts import DramatiqLayout
from integrations import jobs
from integrations.commands import command
from integrations.contract.driver import Blocking, blocking
from integrations.contract.framework import Fault, Framework
from integrations.contract.promises import Contract
from integrations.everywhere import BLOCKING_WAYS, from_everywhere_blocking
from integrations.frameworks import required
from integrations.jobs import JOBS, errands, ran
from integrations.overload import OVERLOAD, decided

required("dramatiq")

import dramatiq  # noqa: E402 - skipped before where it is missing
from dramatiq.brokers.redis import RedisBroker  # noqa: E402
from dramatiq.middleware import AsyncIO, Middleware, Pipelines, Retries  # noqa: E402

from backpressure.integrations import dramatiq as integration  # noqa: E402
from backpressure.integrations.dramatiq import (  # noqa: E402
    BackpressureMiddleware,
    DramatiqBackpressureError,
    DramatiqCircuitOpenError,
    DramatiqControllerNotStartedError,
    DramatiqJobShedError,
    DramatiqThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch
    from integrations.contract.framework import Exempt, Faults, Ways, WaysOfMany
    from support.controller_fixtures import MakeController


# Dramatiq's own types leave these untyped.
_RedisBroker: Any = RedisBroker
group: Any = integration.group
pipeline: Any = dramatiq.pipeline


@contextlib.contextmanager
def shop(url: str) -> Iterator[Any]:
    """Make a broker with its actors, and an overload in the queue ``mail``."""
    broker: Any = _RedisBroker(url=url, middleware=[AsyncIO(), Pipelines(), Retries()])
    for job in JOBS:
        dramatiq.actor(broker=broker, queue_name="mail", max_retries=1, min_backoff=1)(blocking(job))
    broker.get_actor("important").options["backpressure_priority"] = "high"
    for _ in range(OVERLOAD):
        broker.get_actor("work").send()
    yield broker
    broker.close()


@contextlib.contextmanager
def working(broker: RedisBroker) -> Iterator[None]:
    """Run a worker's threads until the queue is empty, then the body, and stop them."""
    with worker(broker) as started:
        broker.join("mail", timeout=20_000)
        started.join()
        yield


@contextlib.contextmanager
def worker(broker: RedisBroker) -> Iterator[dramatiq.Worker]:
    """Run a worker's threads."""
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=2)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def receipt(app: Any) -> Any:
    """Declare an actor with a priority."""
    options: dict[str, Any] = {"actor_name": "receipt", "queue_name": "mail", "backpressure_priority": "high"}
    return dramatiq.actor(broker=app, **options)(blocking(jobs.work))


def message(app: Any, *args: Any, **options: Any) -> Any:
    return app.get_actor("work").message_with_options(args=args, **options)


def send(app: Any, **options: Any) -> Any:
    return app.get_actor("work").send_with_options(**options)


class Dramatiq(Framework):
    title = "Dramatiq"
    driver = Blocking()
    keys = ("dramatiq:mail", "dramatiq:mail.DQ")
    ways: ClassVar[Ways] = {
        "send": lambda app: app.get_actor("work").send(),
        "due soon": lambda app: send(app, delay=30_000),
        "enqueue": lambda app: app.enqueue(message(app)),
        "unknown": lambda app: app.enqueue(dramatiq.Message("mail", "elsewhere", (), {}, {})),
        "pipeline": lambda app: pipeline([message(app), message(app)], broker=app).run(),
        "group": lambda app: group([message(app)], broker=app).run(),
    }
    marks: ClassVar[Ways] = {
        "actor": lambda app: app.get_actor("important").send(),
        "declared": lambda app: receipt(app).send(),
        "call": lambda app: send(app, backpressure_priority="high"),
    }
    later: ClassVar[Ways] = {
        "delay": lambda app: send(app, delay=3_600_000),
        "group": lambda app: group([message(app)], broker=app).run(delay=3_600_000),
    }
    many: ClassVar[WaysOfMany] = {
        "group": lambda app, jobs: group([app.get_actor(job).message() for job in jobs], broker=app).run(),
    }
    faults: ClassVar[Faults] = {
        "argument": Fault(lambda app: app.get_actor("work").send(object()), TypeError),
        "in a group": Fault(lambda app: group([message(app), message(app, object())], broker=app).run(), TypeError),
    }
    exempt: ClassVar[Exempt] = {
        "test_what_runs_at_once_runs_whatever_the_backlog": "Dramatiq has no broker that runs messages at once",
        "test_a_job_that_is_there_already_is_no_failure": "to Dramatiq every message is a new one",
        "test_an_app_is_hooked_once": "its middleware does not look for others, and each asks for itself",
    }

    def layout(self, queue_name: str) -> DramatiqLayout:
        return DramatiqLayout()

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Any]:
        with shop(url) as broker:
            yield broker

    def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        app.add_middleware(BackpressureMiddleware(controller, **options))
        return app

    def send(self, app: Any, job: str) -> Any:
        return app.get_actor(job).send()

    def name_of(self, given: Any) -> str:
        return str(given.actor_name)

    @contextlib.asynccontextmanager
    async def working(self, app: Any) -> AsyncIterator[None]:
        with worker(app):
            yield

    async def send_more(self, app: Any) -> set[str]:
        """Send what asynchronous actors, pipelines and the worker itself send for."""

        async def errand_of_a_coroutine() -> None:
            app.get_actor("work").send("from an async actor")

        dramatiq.actor(broker=app, queue_name="mail")(errand_of_a_coroutine).send()
        send(app, args=("delayed",), delay=1)
        pipeline([message(app, "first"), message(app, "second", pipe_ignore=True)], broker=app).run()
        return {"from an async actor", "delayed", "first", "second"}


class TestContract(Contract):
    framework = Dramatiq()


@pytest.fixture
def broker(redis_client: redis.Redis, redis_url: str) -> Iterator[RedisBroker]:
    ran.clear()
    with shop(redis_url) as broker:
        yield broker


@pytest.fixture
def controller(watch: Watch, broker: RedisBroker) -> BackpressureController:
    return watch(DramatiqLayout(), "mail")


def protect(broker: RedisBroker, controller: BackpressureController, priority: Any = "low") -> None:
    broker.add_middleware(BackpressureMiddleware(controller, priority=priority))


def messages(redis_client: redis.Redis) -> int:
    return redis_client.llen("dramatiq:mail") + redis_client.llen("dramatiq:mail.DQ")


def test_a_plain_exception_in_a_middleware_could_not_stop_a_message(
    broker: RedisBroker, redis_client: redis.Redis
) -> None:
    class Sheds(Middleware):
        def before_enqueue(self, *_: object) -> None:
            raise JobShedError

    broker.add_middleware(Sheds())
    broker.get_actor("work").send()
    assert messages(redis_client) == OVERLOAD + 1


@pytest.mark.parametrize("plain", [True, False])
def test_errors_of_every_kind_stop_a_message(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis, plain: bool
) -> None:
    send = broker.get_actor("work").send if plain else group([broker.get_actor("work").message()], broker=broker).run

    async def on_a_loop() -> None:
        send()

    protect(broker, controller, {"elsewhere": "low", "*": "medium"})
    with pytest.raises(DramatiqJobShedError) as shed:
        broker.enqueue(dramatiq.Message("mail", "elsewhere", (), {}, {}))
    assert is_shed_error(shed.value)
    with pytest.raises(DramatiqThrottledError) as throttled, pytest.warns(RuntimeWarning, match="event loop"):
        asyncio.run(on_a_loop())
    assert isinstance(throttled.value, ThrottledError)
    copy = pickle.loads(pickle.dumps(throttled.value))
    assert (copy.retry_after, copy.queue_name) == (throttled.value.retry_after, "mail")
    controller.circuit("mail").force_open()
    with pytest.raises(DramatiqCircuitOpenError):
        send()
    controller.stop()
    with pytest.raises(DramatiqBackpressureError, match="was stopped"):
        send()
    assert messages(redis_client) == OVERLOAD


def test_a_group_is_gated_once_and_enqueued_all_or_none(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(broker, controller)
    high, low = broker.get_actor("important").message(), broker.get_actor("work").message()
    with pytest.raises(DramatiqJobShedError):
        group([high, pipeline([high, low], broker=broker), group([high, low], broker=broker)], broker=broker).run()
    assert messages(redis_client) == OVERLOAD
    before = decided(controller)
    group([high, pipeline([high, low], broker=broker)] * 5, broker=broker).run()
    assert decided(controller) == before + 1
    assert messages(redis_client) == OVERLOAD + 10


def test_a_retry_passes_whoever_enqueues_it(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(broker, controller)
    broker.get_actor("work").send_with_options(retries=1)
    assert messages(redis_client) == OVERLOAD + 1


def test_nothing_that_a_worker_sends_is_refused(redis_client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    outside: Any = _RedisBroker(url=redis_url, middleware=[])
    outside.declare_queue("mail")
    for name, options in {"send_more": {"on_success": "after"}, "send_more_async": {}}.items():
        outside.enqueue(dramatiq.Message("mail", name, (), {}, options))
    outside.close()
    expected = {
        *("after the process booted", "before the worker booted", "after the worker booted", "from a fork"),
        *("from an actor", "from a thread", "from a pool", "from an async actor", "from a thread of an async actor"),
        "from a callback",
    }
    program = ("dramatiq", "integrations.dramatiq_program", "--processes", "1", "--threads", "2")
    with command(tmp_path, redis_url, *program) as worker:
        worker.until(lambda: redis_client.llen("ran") >= len(expected))
        worker.end()
    assert set(redis_client.lrange("ran", 0, -1)) == {what.encode() for what in expected}


PERIODIQ = """
import sys, threading
import periodiq

def loop(self):
    broker = self.actors[0].broker
    broker.get_actor("work").send("of the scheduler's own")
    thread = threading.Thread(target=broker.get_actor("work").send, args=("of a thread",))
    thread.start()
    thread.join()

periodiq.Scheduler.loop = loop
periodiq.alarm = periodiq.sleep = lambda seconds: None
sys.exit(periodiq.main(periodiq.make_argument_parser().parse_args(["integrations.periodiq_program"])))
"""


def test_the_process_of_periodiqs_scheduler_sends_what_is_due(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    pytest.importorskip("periodiq")
    (tmp_path / "periodiq_once.py").write_text(PERIODIQ)
    with command(tmp_path, redis_url, "periodiq_once") as scheduler:
        scheduler.outcome()
    assert redis_client.llen("dramatiq:default") == 3


def test_periodiqs_scheduler_may_run_elsewhere(
    broker: RedisBroker, make_controller: MakeController, redis_client: redis.Redis
) -> None:
    periodiq = pytest.importorskip("periodiq")
    protect(broker, make_controller(start=False))
    broker.add_middleware(periodiq.PeriodiqMiddleware())
    actor: Any = dramatiq.actor(
        broker=broker, queue_name="mail", actor_name="minutely", periodic=periodiq.cron("* * * * *")
    )(blocking(jobs.work))
    periodiq.Scheduler([actor]).send_actors([actor], "2026-01-01T00:00:00+00:00")
    assert messages(redis_client) == OVERLOAD + 1
    with pytest.raises(DramatiqControllerNotStartedError):
        actor.send()


@pytest.mark.filterwarnings("ignore:.* event loop:RuntimeWarning")
def test_coroutines_of_named_actors_are_judged_and_mere_calls_are_the_producers(
    broker: RedisBroker, controller: BackpressureController
) -> None:
    raised: list[Any] = []

    async def fan_out() -> None:
        raised.extend(from_everywhere_blocking(broker.get_actor("work").send).values())

    async def send_one() -> None:
        broker.get_actor("work").send("from an actor")

    errands.update({"campaign": fan_out, "errand": send_one})
    on_a_loop = dramatiq.actor(broker=broker, queue_name="mail", actor_name="campaign_on_a_loop")(fan_out)
    second: Any = broker.get_actor("errand").message_with_options(pipe_ignore=True)
    pipeline([broker.get_actor("campaign").message(), second], broker=broker).run()
    on_a_loop.send()
    inside = {"campaign", "campaign_on_a_loop"}
    broker.add_middleware(BackpressureMiddleware(controller, priority="low", inside_tasks=inside))
    with pytest.raises(JobShedError):
        broker.get_actor("errand")()  # a mere call: it is the producer that sends
    with working(broker):
        pass
    assert raised == [DramatiqJobShedError] * 2 * len(BLOCKING_WAYS)
    assert ran.count("from an actor") == 1


def test_a_worker_within_a_producer_may_send_as_it_boots(
    broker: RedisBroker, controller: BackpressureController
) -> None:
    class Boots(Middleware):
        def before_worker_boot(self, *_: object) -> None:
            broker.get_actor("work").send("boot")
            thread = threading.Thread(target=broker.get_actor("work").send, args=("boot thread",))
            thread.start()
            thread.join()

    broker.add_middleware(Boots())
    protect(broker, controller)
    with working(broker), pytest.raises(JobShedError):
        broker.get_actor("work").send()
    assert {"boot", "boot thread"} <= set(ran)
    assert controller._passed.counts() == {("mail", "worker"): 2}


@pytest.fixture
def calm(make_controller: MakeController, broker: RedisBroker) -> BackpressureController:
    """A controller that sees no backlog, before the broker."""
    calm = make_controller(InMemoryStatsProvider({"mail": 0}))
    protect(broker, calm, "high")
    return calm


def failures(controller: BackpressureController) -> int:
    return int(controller.circuit("mail").stats()["failure_count"])


def test_a_failure_is_reported_at_once_whatever_becomes_of_its_thread(
    broker: RedisBroker, calm: BackpressureController, full_server: None
) -> None:
    def send() -> None:
        with pytest.raises(Exception, match="maxmemory"):
            broker.get_actor("work").send()

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    assert failures(calm) == 1
    assert calm.circuit("mail").stats()["last_failure"] == "OutOfMemoryError"


def test_a_broker_that_tries_anew_is_asked_for_once(broker: RedisBroker, calm: BackpressureController) -> None:
    before = decided(calm)
    message = broker.get_actor("work").message()
    for _ in range(3):
        broker.emit_before("enqueue", message, None)
    broker.emit_after("enqueue", message, None)
    assert decided(calm) == before + 1
    assert failures(calm) == 0


def test_what_middlewares_send_meanwhile_is_a_message_of_its_own(
    broker: RedisBroker, calm: BackpressureController, redis_client: redis.Redis
) -> None:
    class Audit(dramatiq.Middleware):
        def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            if message.actor_name != "important":
                broker.get_actor("important").send()

    broker.add_middleware(Audit())
    before = decided(calm)
    for _ in range(5):
        broker.get_actor("work").send()
    assert decided(calm) == before + 10
    assert calm.circuit("mail").stats()["last_failure"] is None
    assert messages(redis_client) == OVERLOAD + 10
