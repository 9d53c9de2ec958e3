"""A broker that freezes opens the circuit of each of Kafka's clients, by its one documented line."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    CircuitConfig,
    CircuitOpenError,
    CircuitState,
    InMemoryStatsProvider,
)
from backpressure.integrations.kafka import NOT_FAILURES, is_failure, produce
from support import kafka_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.kafka_server import KafkaServer

pytestmark = pytest.mark.timeout(240)  # the first of them may have to fetch the server

CONFIG = BackpressureConfig(circuit=CircuitConfig(excluded_exceptions=NOT_FAILURES, is_failure=is_failure))
LIMIT = 5.0  # seconds


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    with kafka_server.KafkaServer() as server:
        server.create("clicks")
        yield server


@contextlib.contextmanager
def frozen(server: KafkaServer) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.resume()


def opens(send: Callable[[Any], object], server: KafkaServer) -> None:
    """Assert that `send`, given a gate, succeeds, and once the server is frozen opens the circuit in time."""
    with BackpressureController(CONFIG, InMemoryStatsProvider({"jobs": 0})) as controller:
        gate = controller.gate("high", "jobs")
        for _ in range(10):
            send(gate)
        with frozen(server):
            end = time.monotonic() + LIMIT
            with contextlib.suppress(CircuitOpenError):
                while time.monotonic() < end:
                    send(gate)
                    time.sleep(0.01)
            assert controller.get_circuit_state("jobs") is CircuitState.OPEN


def test_confluent_kafka(kafka: KafkaServer) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    settings = {"bootstrap.servers": kafka.address, "message.timeout.ms": 2000, "log_level": 0}
    producer = confluent_kafka.Producer(settings)

    def send(gate: Any) -> None:
        gate.run(produce, producer, "clicks", b"x")
        producer.poll(0)

    delivered = produce(producer, "clicks", b"first")
    producer.flush(30)
    assert delivered.result(0).topic() == "clicks"
    opens(send, kafka)
    producer.purge()
    producer.flush(10)


def test_kafka_python(kafka: KafkaServer) -> None:
    kafka_python: Any = pytest.importorskip("kafka")
    producer = kafka_python.KafkaProducer(
        bootstrap_servers=kafka.address,
        request_timeout_ms=1000,
        delivery_timeout_ms=2000,
        max_block_ms=2000,
        enable_idempotence=False,
    )
    producer.send("clicks", b"first").get(30)
    opens(lambda gate: gate.run(producer.send, "clicks", b"x"), kafka)
    producer.close(timeout=10)


def test_aiokafka(kafka: KafkaServer) -> None:
    aiokafka = pytest.importorskip("aiokafka")

    async def main() -> None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka.address, request_timeout_ms=2000)
        await producer.start()
        await producer.send_and_wait("clicks", b"first")
        async with AsyncBackpressureController(CONFIG, InMemoryStatsProvider({"jobs": 0})) as controller:
            for _ in range(10):
                await controller.run("high", "jobs", producer.send, "clicks", b"x")
            with frozen(kafka):
                with contextlib.suppress(CircuitOpenError, TimeoutError):
                    async with asyncio.timeout(LIMIT):
                        while True:
                            await controller.run("high", "jobs", producer.send, "clicks", b"x")
                            await asyncio.sleep(0.01)
                assert controller.get_circuit_state("jobs") is CircuitState.OPEN
        await producer.stop()

    asyncio.run(main())
