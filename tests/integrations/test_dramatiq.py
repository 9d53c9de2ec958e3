"""Dramatiq behind a controller, with Dramatiq's own worker on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    CircuitOpenError,
    ControllerNotStartedError,
    InMemoryStatsProvider,
    JobShedError,
    ThrottledError,
    is_shed_error,
)
from backpressure.providers.layouts import DramatiqLayout
from integrations.conftest import OVERLOAD, decided
from integrations.frameworks import required
from support.controller_fixtures import eventually

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
    from collections.abc import Callable, Iterator

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch
    from support.controller_fixtures import MakeController

TESTS = pathlib.Path(__file__).parent.parent

# Dramatiq's own types leave these untyped.
_RedisBroker: Any = RedisBroker
group: Any = integration.group
pipeline: Any = dramatiq.pipeline

ran: list[str] = []


@pytest.fixture
def broker(redis_client: redis.Redis, redis_url: str) -> Iterator[RedisBroker]:
    """A broker with its actors, and an overload in the queue ``mail``."""
    ran.clear()
    broker: Any = _RedisBroker(url=redis_url, middleware=[AsyncIO(), Pipelines(), Retries()])
    for function in (work, important, fail_once, send_more, send_more_async, fan_out, fan_out_async):
        dramatiq.actor(broker=broker, queue_name="mail", max_retries=1, min_backoff=1)(function)
    broker.get_actor("important").options["backpressure_priority"] = "high"
    for _ in range(OVERLOAD):
        broker.get_actor("work").send()
    yield broker
    broker.close()


def work(name: str = "") -> None:
    ran.append(name)


def important() -> None:
    pass


def fail_once() -> None:
    ran.append("try")
    if ran.count("try") == 1:
        raise ValueError("once")


def send_more() -> None:
    work_of_broker.send("from an actor")


def attempt() -> None:
    try:
        work_of_broker.send("from a campaign")
    except JobShedError:
        ran.append("shed")


def fan_out() -> None:
    attempt()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(attempt).result()


async def fan_out_async() -> None:
    attempt()
    await asyncio.to_thread(attempt)


async def send_more_async() -> None:
    work_of_broker.send("from an async actor")


work_of_broker: Any = None


@pytest.fixture
def controller(watch: Watch, broker: RedisBroker) -> BackpressureController:
    return watch(DramatiqLayout(), "mail")


def protect(broker: RedisBroker, controller: BackpressureController, priority: Any = "low") -> None:
    broker.add_middleware(BackpressureMiddleware(controller, priority=priority))


@contextlib.contextmanager
def working(broker: RedisBroker) -> Iterator[None]:
    """Run a worker's threads until the queue is empty, then the body, and stop them."""
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=2)
    worker.start()
    try:
        broker.join("mail", timeout=20_000)
        worker.join()
        yield
    finally:
        worker.stop()


def messages(redis_client: redis.Redis) -> int:
    return redis_client.llen("dramatiq:mail") + redis_client.llen("dramatiq:mail.DQ")


def test_under_overload_low_is_shed_and_high_passes(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(broker, controller, {"fail_once": "high", "*": "low"})
    actor = broker.get_actor("work")
    with pytest.raises(DramatiqJobShedError) as shed:
        actor.send()
    assert is_shed_error(shed.value)
    assert shed.value.queue_name == "mail"
    with pytest.raises(JobShedError):
        actor.send_with_options(delay=30_000)
    assert messages(redis_client) == OVERLOAD
    broker.get_actor("fail_once").send()
    broker.get_actor("important").send()
    actor.send_with_options(backpressure_priority="high")
    assert messages(redis_client) == OVERLOAD + 3


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

    protect(broker, controller, "medium")
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


def test_nothing_of_a_retry_or_of_what_actors_send_is_lost_under_overload(
    broker: RedisBroker, controller: BackpressureController, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = broker.get_actor("work")
    monkeypatch.setitem(globals(), "work_of_broker", actor)
    broker.get_actor("fail_once").send()
    broker.get_actor("send_more").send()
    broker.get_actor("send_more_async").send()
    actor.send_with_options(args=("delayed",), delay=1)
    second = actor.message_with_options(args=("second",), pipe_ignore=True)
    pipeline([actor.message("first"), second], broker=broker).run()
    protect(broker, controller)
    with working(broker), pytest.raises(JobShedError):  # it was an overload all the while
        actor.send()
    assert ran.count("try") == 2
    assert {"from an actor", "from an async actor", "delayed", "first", "second"} <= set(ran)


def test_a_retry_passes_whoever_enqueues_it(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(broker, controller)
    broker.get_actor("work").send_with_options(retries=1)
    assert messages(redis_client) == OVERLOAD + 1


def test_a_broker_that_refuses_opens_the_circuit(
    broker: RedisBroker, controller: BackpressureController, full_server: None
) -> None:
    protect(broker, controller, "high")
    for _ in range(5):
        with pytest.raises(Exception, match="maxmemory"):
            broker.get_actor("work").send()
    with pytest.raises(CircuitOpenError):
        broker.get_actor("work").send()


def test_actors_may_be_declared_with_a_priority(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(broker, controller)
    options: dict[str, Any] = {"actor_name": "receipt", "queue_name": "mail", "backpressure_priority": "high"}
    dramatiq.actor(broker=broker, **options)(work).send()
    assert messages(redis_client) == OVERLOAD + 1


def test_successes_are_reported(broker: RedisBroker, controller: BackpressureController) -> None:
    protect(broker, controller, "high")
    for _ in range(4):
        controller.record_failure("mail")
    broker.get_actor("work").send()
    controller.record_failure("mail")
    assert str(controller.get_circuit_state("mail")) == "closed"


# -------------------------------------------------------------------------------------------------------------- workers


def run(redis_url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "TEST_REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_nothing_that_a_worker_sends_is_refused(redis_client: redis.Redis, redis_url: str) -> None:
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
    worker = run(redis_url, "-m", "dramatiq", "integrations.dramatiq_program", "--processes", "1", "--threads", "2")
    try:
        eventually(lambda: worker.poll() is not None or redis_client.llen("ran") >= len(expected), seconds=30)
    finally:
        worker.terminate()
        output = worker.communicate(timeout=30)[0]
    assert set(redis_client.lrange("ran", 0, -1)) == {what.encode() for what in expected}, output


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


def test_the_process_of_periodiqs_scheduler_sends_what_is_due(redis_client: redis.Redis, redis_url: str) -> None:
    pytest.importorskip("periodiq")
    scheduler = run(redis_url, "-c", PERIODIQ)
    output = scheduler.communicate(timeout=30)[0]
    assert scheduler.returncode == 0, output
    assert redis_client.llen("dramatiq:default") == 3, output


def test_periodiqs_scheduler_may_run_elsewhere(
    broker: RedisBroker, make_controller: MakeController, redis_client: redis.Redis
) -> None:
    periodiq = pytest.importorskip("periodiq")
    protect(broker, make_controller(start=False))
    broker.add_middleware(periodiq.PeriodiqMiddleware())
    actor: Any = dramatiq.actor(
        broker=broker, queue_name="mail", actor_name="minutely", periodic=periodiq.cron("* * * * *")
    )(work)
    periodiq.Scheduler([actor]).send_actors([actor], "2026-01-01T00:00:00+00:00")
    assert messages(redis_client) == OVERLOAD + 1
    with pytest.raises(ControllerNotStartedError):
        actor.send()


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


def test_actors_that_are_named_are_judged_inside_of_workers(
    broker: RedisBroker, controller: BackpressureController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "work_of_broker", broker.get_actor("work"))
    second = broker.get_actor("send_more").message_with_options(pipe_ignore=True)
    pipeline([broker.get_actor("fan_out").message(), second], broker=broker).run()
    broker.get_actor("fan_out_async").send()
    inside = {"fan_out", "fan_out_async"}
    broker.add_middleware(BackpressureMiddleware(controller, priority="low", inside_tasks=inside))
    with pytest.raises(JobShedError):
        broker.get_actor("send_more")()  # a mere call: it is the producer that sends
    with working(broker):
        pass
    assert ran.count("shed") == 4
    assert ran.count("from an actor") == 1


# ------------------------------------------------------------------------------------------------------------- outcomes


def test_an_unstarted_controller_stops_producers(
    broker: RedisBroker, make_controller: MakeController, redis_client: redis.Redis
) -> None:
    protect(broker, make_controller(start=False))
    with pytest.raises(DramatiqControllerNotStartedError, match="low job for queue 'mail'") as raised:
        broker.get_actor("work").send()
    assert isinstance(raised.value, ControllerNotStartedError)
    assert raised.value.queue_name == "mail"
    assert messages(redis_client) == OVERLOAD


def test_messages_of_another_time_are_not_judged_by_the_backlog_of_now(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(broker, controller)
    work = broker.get_actor("work")
    work.send_with_options(delay=3_600_000)
    group([work.message()], broker=broker).run(delay=3_600_000)
    assert messages(redis_client) == OVERLOAD + 2
    assert controller._passed.counts() == {("mail", "scheduled"): 2}


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


def test_what_cannot_be_serialised_says_nothing_of_the_queue(
    broker: RedisBroker, calm: BackpressureController, redis_client: redis.Redis
) -> None:
    actor = broker.get_actor("work")
    sent: list[Callable[[], object]] = [
        lambda: actor.send(object()),
        lambda: group([actor.message(), actor.message(object())], broker=broker).run(),
    ]
    for send in sent * 3:
        with pytest.raises(TypeError):
            send()
    assert failures(calm) == 0
    assert messages(redis_client) == OVERLOAD


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


def test_a_rule_that_raises_stops_a_message(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(broker, controller, lambda message: message.options["priority"])
    with pytest.raises(DramatiqBackpressureError, match="priority") as raised:
        broker.get_actor("work").send()
    assert isinstance(raised.value.__cause__, KeyError)
    assert messages(redis_client) == OVERLOAD


def test_messages_for_actors_of_others_are_judged(
    broker: RedisBroker, controller: BackpressureController, redis_client: redis.Redis
) -> None:
    protect(broker, controller)
    with pytest.raises(JobShedError):
        broker.enqueue(dramatiq.Message("mail", "elsewhere", (), {}, {}))
    assert messages(redis_client) == OVERLOAD
