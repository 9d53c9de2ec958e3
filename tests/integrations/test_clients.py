"""What clients raise that says nothing of the queue, and outcomes that come later."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    CircuitConfig,
    CircuitState,
    InMemoryStatsProvider,
)
from backpressure.integrations import kafka, postgres, rabbitmq, redis, sqs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis as redis_client_type

MODULES = [kafka, postgres, rabbitmq, redis, sqs]


def count_of(controller: Any, queue: str) -> int:
    failures: int = controller.circuit(queue).stats()["failure_count"]
    return failures


@pytest.fixture
def watched() -> Iterator[Callable[..., BackpressureController]]:
    """Return a maker of controllers that count failures as a client's module says."""
    made: list[BackpressureController] = []

    def watched(module: Any) -> BackpressureController:
        predicate = getattr(module, "is_failure", None)
        circuit = CircuitConfig(excluded_exceptions=module.NOT_FAILURES, is_failure=predicate)
        provider = InMemoryStatsProvider({"jobs": 0})
        controller = BackpressureController(BackpressureConfig(circuit=circuit), provider)
        controller.start()
        made.append(controller)
        return controller

    yield watched
    for controller in made:
        controller.stop()


def ignored(controller: BackpressureController, work: Callable[[], object], match: str | None = None) -> None:
    """Assert that work fails, again and again, and that none of it counts."""
    for _ in range(6):
        with pytest.raises(Exception, match=match):
            controller.run("high", "jobs", work)
    assert count_of(controller, "jobs") == 0


def counted(controller: BackpressureController, work: Callable[[], object]) -> None:
    with pytest.raises(Exception, match=r"Connection refused|^$|KafkaTimeoutError"):
        controller.run("high", "jobs", work)
    assert count_of(controller, "jobs") == 1


@pytest.mark.parametrize("module", MODULES)
def test_each_is_a_tuple_for_the_configuration(module: Any) -> None:
    assert CircuitConfig(excluded_exceptions=module.NOT_FAILURES).excluded_exceptions == module.NOT_FAILURES
    assert not any(issubclass(OSError, kind) for kind in module.NOT_FAILURES)


@pytest.mark.parametrize("module", MODULES)
def test_without_the_client_there_is_less_to_exclude(module: Any) -> None:
    clients = ("aiokafka", "amqp", "botocore", "confluent_kafka", "kafka", "kombu", "pgqueuer", "procrastinate")
    code = (
        "import sys\n"
        f"for name in {(*clients, 'psycopg', 'psycopg_pool', 'redis')!r}: sys.modules[name] = None\n"
        f"from {module.__name__} import NOT_FAILURES\n"
        "assert TypeError in NOT_FAILURES"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_only_what_was_looked_up_is_there() -> None:
    names = {kind.__name__ for module in MODULES for kind in module.NOT_FAILURES}
    assert names >= {
        "AlreadyEnqueued",
        "BufferError",
        "ContentTooLarge",
        "DataError",
        "DuplicateJobError",
        "EncodeError",
        "LimitExceeded",
        "MaxConnectionsError",
        "MessageSizeTooLargeError",
        "ParamValidationError",
        "RefusedError",
        "SerializationError",
        "TooManyRequests",
        "UniqueViolation",
    }
    assert "PoolTimeout" not in names  # all that a pool says of a dead server


def test_redis(watched: Any, redis_client: redis_client_type.Redis, redis_url: str) -> None:
    client = importlib.import_module("redis")
    controller = watched(redis)
    with client.Redis.from_url(redis_url) as mine:
        ignored(controller, lambda: mine.rpush("jobs", object()), "Invalid input")
    pool = client.ConnectionPool.from_url(redis_url, max_connections=1)
    blocking = client.BlockingConnectionPool.from_url(redis_url, max_connections=1, timeout=0.001)
    for used_up, match in ((pool, "Too many connections"), (blocking, "No connection available")):
        taken = used_up.get_connection()
        ignored(controller, partial(client.Redis(connection_pool=used_up).rpush, "jobs", 1), match)
        used_up.release(taken)
        used_up.disconnect()

    def refused() -> None:
        raise client.exceptions.ConnectionError("Error 111 connecting to localhost:1. Connection refused.")

    counted(controller, refused)


@pytest.fixture
def producer() -> Any:
    """A producer of confluent-kafka without a broker, which gives up after 0.2 s and holds ten messages."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    settings = {
        "bootstrap.servers": "127.0.0.1:1",
        "message.timeout.ms": 200,
        "queue.buffering.max.messages": 10,
        "message.max.bytes": 1000,
        "log_level": 0,
    }
    producer = confluent_kafka.Producer(settings)
    yield producer
    producer.purge()
    producer.flush(5)


def test_a_full_buffer_and_a_message_that_is_too_large_say_nothing(watched: Any, producer: Any) -> None:
    controller = watched(kafka)
    for _ in range(10):
        producer.produce("clicks", b"x")
    ignored(controller, lambda: kafka.produce(producer, "clicks", b"x"), "Local: Queue full")
    ignored(controller, lambda: kafka.produce(producer, "clicks", b"x" * 2000), "MSG_SIZE_TOO_LARGE")
    ignored(controller, lambda: kafka.produce(producer, "clicks", object()))
    assert controller.get_circuit_state("jobs") is CircuitState.CLOSED


@pytest.mark.parametrize("name", ["on_delivery", "callback"])
def test_a_dead_broker_opens_the_circuit_by_deliveries(watched: Any, producer: Any, name: str) -> None:
    controller = watched(kafka)
    told: list[Any] = []
    gate = controller.gate("high", "jobs")
    futures = [
        gate.run(kafka.produce, producer, "clicks", b"x", **{name: lambda error, _: told.append(error)})
        for _ in range(5)
    ]
    assert not any(future.done() for future in futures)
    assert count_of(controller, "jobs") == 0
    producer.flush(10)
    assert len(told) == 5
    assert controller.get_circuit_state("jobs") is CircuitState.OPEN
    assert type(futures[0].exception()).__name__ == "KafkaException"


def test_what_your_own_callback_raises_loses_no_outcome(watched: Any, producer: Any) -> None:
    controller = watched(kafka)

    def raises(error: Any, message: Any) -> None:
        raise LookupError("mine")

    controller.run("high", "jobs", kafka.produce, producer, "clicks", b"x", on_delivery=raises)
    with pytest.raises(LookupError, match="mine"):
        producer.flush(10)
    assert count_of(controller, "jobs") == 1


def test_what_the_application_purged_says_nothing(watched: Any, producer: Any) -> None:
    controller = watched(kafka)
    future = controller.run("high", "jobs", kafka.produce, producer, "clicks", b"x")
    producer.purge()
    producer.flush(10)
    assert not kafka.is_failure(future.exception())
    assert count_of(controller, "jobs") == 0


def test_asyncio_is_told_of_deliveries_too(producer: Any) -> None:
    async def main() -> None:
        circuit = CircuitConfig(excluded_exceptions=kafka.NOT_FAILURES, is_failure=kafka.is_failure)
        provider = InMemoryStatsProvider({"jobs": 0})
        async with AsyncBackpressureController(BackpressureConfig(circuit=circuit), provider) as controller:
            for _ in range(5):
                await controller.run("high", "jobs", kafka.produce, producer, "clicks", b"x")
            await asyncio.to_thread(producer.flush, 10)
            assert controller.get_circuit_state("jobs") is CircuitState.OPEN

    asyncio.run(main())


def test_kafka_python_and_aiokafka_have_classes_for_it(watched: Any) -> None:
    controller = watched(kafka)
    for module in ("kafka.errors", "aiokafka.errors"):
        errors = pytest.importorskip(module)

        def too_large(errors: Any = errors) -> None:
            raise errors.MessageSizeTooLargeError("The message is 2000 bytes")

        ignored(controller, too_large)

    def timed_out() -> None:
        raise errors.KafkaTimeoutError

    counted(controller, timed_out)


class Client:
    """As ``boto3.client("sqs")``, as far as it goes here."""

    def __init__(self, *failed: dict[str, Any]) -> None:
        self.response = {"Successful": [{"Id": "0"}], **({"Failed": list(failed)} if failed else {})}
        self.request: dict[str, Any] = {}

    def send_message_batch(self, **request: Any) -> dict[str, Any]:
        self.request = request
        return self.response


BUSY = {"Id": "1", "Code": "InternalError", "SenderFault": False}
TOO_LONG = {"Id": "2", "Code": "InvalidMessageContents", "SenderFault": True}


def test_a_batch_that_was_not_all_taken_raises(watched: Any) -> None:
    controller = watched(sqs)
    client = Client()
    assert controller.run("low", "jobs", sqs.send_batch, client, QueueUrl="u", Entries=[]) is client.response
    assert client.request == {"QueueUrl": "u", "Entries": []}
    with pytest.raises(sqs.RefusedError, match=r"1 entries \(InvalidMessageContents\)"):
        controller.run("low", "jobs", sqs.send_batch, Client(TOO_LONG), QueueUrl="u", Entries=[])
    assert count_of(controller, "jobs") == 0
    with pytest.raises(sqs.UnsentError) as caught:
        controller.run("low", "jobs", sqs.send_batch, Client(BUSY, TOO_LONG), QueueUrl="u", Entries=[])
    assert caught.value.failed == [BUSY, TOO_LONG]
    assert caught.value.response["Successful"] == [{"Id": "0"}]
    assert not isinstance(caught.value, sqs.RefusedError)
    assert count_of(controller, "jobs") == 1


def test_an_asynchronous_client_has_the_same() -> None:
    class Awaited(Client):
        async def send_message_batch(self, **request: Any) -> dict[str, Any]:  # type: ignore[override]
            return super().send_message_batch(**request)

    async def main() -> None:
        assert (await sqs.send_batch_async(Awaited(), QueueUrl="u"))["Successful"]
        with pytest.raises(sqs.UnsentError):
            await sqs.send_batch_async(Awaited(BUSY), QueueUrl="u")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "counts"),
    [
        ("InvalidMessageContents", False),
        ("AWS.SimpleQueueService.BatchRequestTooLong", False),
        ("AWS.SimpleQueueService.NonExistentQueue", True),
        ("ThrottlingException", True),
        ("InternalError", True),
    ],
)
def test_boto3s_codes(code: str, counts: bool) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    assert sqs.is_failure(exceptions.ClientError({"Error": {"Code": code}}, "SendMessage")) is counts
    assert not sqs.is_failure(exceptions.ParamValidationError(report="missing"))
    assert sqs.is_failure(exceptions.EndpointConnectionError(endpoint_url="u"))
