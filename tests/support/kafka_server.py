"""A real Apache Kafka on loopback, of one node or more, as children that die with this process.

Its jars come from `scripts/install_kafka.sh`, which is run if they are missing.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from backpressure.providers.kafka.link import LATEST, _Selector
from support import redis_fixtures, servers

with warnings.catch_warnings():
    # kafka-python reads its schemas with a function that Python 3.11 and 3.12 call deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition  # type: ignore[import-untyped]
    from kafka.errors import (  # type: ignore[import-untyped]
        NotLeaderForPartitionError,
        UnknownTopicOrPartitionError,
    )
    from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
JARS = ROOT / "target/kafka/lib"
HOST = servers.HOST

# User and password of each client that may connect to the SASL listener. `clerk` has no rights until a test gives some.
USERS = {"admin": "admin-word", "clerk": "clerk-word"}

# Small and quick to start; it holds a few thousand messages for half a minute.
_JVM = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true"]


def jars() -> Path:
    """Return the folder of Kafka's jars, fetched if necessary, or skip."""
    result = subprocess.run(["sh", ROOT / "scripts/install_kafka.sh"], capture_output=True, text=True, check=False)
    if result.returncode:
        redis_fixtures.no_server(f"no Kafka server: {(result.stderr or result.stdout).strip()}")
    return JARS


class KafkaServer(servers.Child):
    """A node with several listeners: `address` without and `sasl` with passwords, `tls`, and `lost`.

    Clients that connect to `lost` are sent on to a port where nobody listens. The node is broker and controller, or it
    joins the cluster that `first` controls, as its second broker.
    """

    start_seconds = 100.0  # three are enough if nothing else runs

    def __init__(self, first: KafkaServer | None = None) -> None:
        self._jars = jars()
        self._first = first or self
        super().__init__()
        self._ports = {name: servers.free_port() for name in ("controller", "plain", "sasl", "tls", "lost")}
        self._ports["nowhere"] = servers.dead_port()

    def _address(self, listener: str) -> str:
        return f"{HOST}:{self._ports[listener]}"

    @property
    def address(self) -> str:
        return self._address("plain")

    @property
    def sasl(self) -> str:
        return self._address("sasl")

    @property
    def tls(self) -> str:
        return self._address("tls")

    @property
    def lost(self) -> str:
        return self._address("lost")

    @property
    def nowhere(self) -> str:
        """The address to which `lost` sends its clients."""
        return self._address("nowhere")

    def _configuration(self) -> str:
        names = ("plain", "sasl", "tls", "lost")
        controls = self._first is self
        listeners = ("controller", *names) if controls else names
        entries = " ".join(f'user_{user}="{password}"' for user, password in USERS.items())
        options = {
            "process.roles": "broker,controller" if controls else "broker",
            "node.id": 1 if controls else 2,
            "controller.quorum.voters": f"1@{self._first._address('controller')}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(f"{name.upper()}://{self._address(name)}" for name in listeners),
            "advertised.listeners": ",".join(
                f"{name.upper()}://{self.nowhere if name == 'lost' else self._address(name)}" for name in names
            ),
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,LOST:PLAINTEXT"
            ),
            "inter.broker.listener.name": "PLAIN",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {entries};"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": servers.CERTIFICATE,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin;User:ANONYMOUS",
            "log.dirs": self.folder / "data",
            "num.partitions": 1,
            "num.network.threads": 1,
            "num.io.threads": 2,
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.coordinator.rebalance.protocols": "classic,consumer,share",
        }
        return "".join(f"{name}={value}\n" for name, value in options.items())

    def _java(self, *arguments: object) -> list[str]:
        java = shutil.which("java")
        assert java is not None
        return [java, *_JVM, "-cp", f"{self._jars}/*", *map(str, arguments)]

    def start(self) -> Self:
        file = self.folder / "server.properties"
        file.write_text(self._configuration())
        with self._log() as log:
            subprocess.run(
                self._java(
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    "backpressure-tests-000",
                    "-c",
                    file,
                    "--feature",
                    "share.version=1",
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                timeout=self.start_seconds,
            )
        self._spawn(*self._java("kafka.Kafka", file))
        self._wait(self._listens, f"Kafka on {self.address}")
        return self

    def leave(self) -> None:
        """End as an operator ends a node: others lead its partitions first, where there are replicas."""
        (process,) = self._processes
        process.terminate()
        process.wait(self.start_seconds)

    def _listens(self) -> bool:
        # Brokers open their listeners once the controller has accepted them.
        with contextlib.suppress(OSError), socket.create_connection((HOST, self._ports["plain"]), timeout=1.0):
            return True
        return False

    @property
    def _client(self) -> dict[str, Any]:
        return {"bootstrap_servers": self.address, "selector": _Selector}

    @contextlib.contextmanager
    def admin(self) -> Iterator[Any]:
        client = KafkaAdminClient(**self._client)
        try:
            yield client
        finally:
            client.close()

    def create(self, topic: str, partitions: int = 1) -> None:
        self._create(topic, {"num_partitions": partitions, "replication_factor": 1}, partitions)

    def spread(self, topic: str, *replicas: list[int]) -> None:
        """Create a topic whose partitions are on these nodes; the first node of each leads."""
        self._create(topic, {"assignments": dict(enumerate(replicas))}, len(replicas))

    def _create(self, topic: str, how: dict[str, Any], partitions: int) -> None:
        with self.admin() as admin:
            admin.create_topics({topic: how}, wait_for_metadata=True)
            wanted = {TopicPartition(topic, index): LATEST for index in range(partitions)}

            def served() -> bool:
                with contextlib.suppress(UnknownTopicOrPartitionError, NotLeaderForPartitionError):
                    return bool(admin.list_partition_offsets(wanted))
                return False

            # A broker reports a partition a moment before its leader serves it.
            servers.wait_until(served, what=f"topic {topic} to be served")

    def produce(self, topic: str, *counts: int) -> None:
        """Send `counts` messages to the topic's partitions."""
        producer = KafkaProducer(**self._client)
        try:
            sent = [
                producer.send(topic, b"job", partition=partition)
                for partition, count in enumerate(counts)
                for _ in range(count)
            ]
            for future in sent:
                future.get(timeout=10)
        finally:
            producer.close()

    def share(self, topic: str, group: str) -> None:
        """Join a share group that reads `topic`, whose client kafka-python does not have, and stay silent."""

        def string(value: str) -> bytes:
            return bytes([len(value) + 1]) + value.encode()

        first, no_rack, one_topic, no_tags = bytes(4), b"\0", b"\2", b"\0"
        request = struct.pack(">hhih", 76, 1, 0, 0) + no_tags  # ShareGroupHeartbeat, version 1
        request += string(group) + string("a" * 22) + first + no_rack + one_topic + string(topic) + no_tags
        with socket.create_connection((HOST, self._ports["plain"]), timeout=10) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            reply = connection.recv(4096)
        (code,) = struct.unpack_from(">h", reply, 13)
        assert code == 0, f"error {code} of a heartbeat"

    def consume(self, topic: str, group: str, *counts: int) -> None:
        """Read `counts` messages of the partitions as a member of the group, and commit the offsets after them."""
        consumer = KafkaConsumer(
            **self._client,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=10,
        )
        try:
            left = {TopicPartition(topic, partition): count for partition, count in enumerate(counts) if count}
            consumer.assign(left)
            while left:
                for partition, records in consumer.poll(timeout_ms=1000, max_records=max(left.values())).items():
                    read = records[: left[partition]]
                    left[partition] -= len(read)
                    if not left[partition]:
                        del left[partition]
                        consumer.pause(partition)
                        consumer.commit({partition: OffsetAndMetadata(read[-1].offset + 1, "", -1)})
        finally:
            consumer.close()
