"""Dramatiq behind a controller, with Dramatiq's own worker on a real broker."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import CircuitOpenError, JobShedError, ThrottledError, is_shed_error
from backpressure.providers.layouts import DramatiqLayout
from integrations.conftest import OVERLOAD, decided
from integrations.frameworks import required

required("dramatiq")

import dramatiq  # noqa: E402 - skipped before where it is missing
from dramatiq.brokers.redis import RedisBroker  # noqa: E402
from dramatiq.middleware import AsyncIO, Middleware, Pipelines, Retries  # noqa: E402

from backpressure.integrations import dramatiq as integration  # noqa: E402
from backpressure.integrations.dramatiq import (  # noqa: E402
    BackpressureMiddleware,
    DramatiqBackpressureError,
    DramatiqCircuitOpenError,
    DramatiqJobShedError,
    DramatiqThrottledError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from backpressure import BackpressureController
    from integrations.conftest import Watch

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
    for function in (work, important, fail_once, send_more, send_more_async):
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


async def send_more_async() -> None:
    work_of_broker.send("from an async actor")


work_of_broker: Any = None


@pytest.fixture
def controller(watch: Watch, broker: RedisBroker) -> BackpressureController:
    return watch(DramatiqLayout(), "mail")


def protect(broker: RedisBroker, controller: BackpressureController, priority: Any = "low") -> None:
    broker.add_middleware(BackpressureMiddleware(controller, priority=priority))


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
        actor.send_with_options(delay=3_600_000)
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
    with pytest.raises(DramatiqThrottledError) as throttled:
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
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=2)
    worker.start()
    try:
        broker.join("mail", timeout=20_000)
        worker.join()
        with pytest.raises(JobShedError):  # it was an overload all the while
            actor.send()
    finally:
        worker.stop()
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
