"""`KafkaStatsProvider` against a real Kafka: lag, transactions, errors, a frozen broker, and what is left behind."""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure._model.errors import ConfigurationError, StatsUnavailableError
from backpressure.providers.kafka import link as _kafka_link
from backpressure.providers.kafka.provider import ConsumerLag, KafkaStatsProvider
from providers import checks
from providers.checks import failure
from providers.contract.backend import PASSWORD, USER, Backend, Refusal, Wrong, frozen
from providers.contract.life import leaves_nothing
from providers.contract.suite import Contract
from support import kafka_server, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from providers.contract.reading import Face
    from support.kafka_server import KafkaServer

pytestmark = pytest.mark.timeout(240)  # the first of them may have to fetch the server


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    """One broker for all tests here, each with topics and groups of its own."""
    with kafka_server.KafkaServer() as server:
        server.create("first")
        server.produce("first", 1)
        server.consume("first", "first", 1)  # until then there is no topic for offsets, and coordinators are "loading"
        yield server


_NUMBERS = itertools.count(1)


@pytest.fixture
def name() -> str:
    """Name of a topic and of a group that no other test uses."""
    return f"jobs-{next(_NUMBERS)}"


@contextlib.contextmanager
def opened(where: str, queues: Any = (), **options: Any) -> Iterator[KafkaStatsProvider]:
    provider = KafkaStatsProvider(where, queues, **{"timeout": 10.0, **options})  # machines stall
    try:
        yield provider
    finally:
        provider.close()


def backlogs(provider: KafkaStatsProvider) -> dict[str, int | str]:
    return checks.backlogs(provider.get_all_queue_stats())


def login(user: str, password: str = "", mechanism: str = "PLAIN") -> dict[str, Any]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": user,
        "sasl_plain_password": password or kafka_server.USERS[user],
    }


def wrong(field: str, *arguments: Any, **options: Any) -> Wrong:
    return Wrong(field, lambda: KafkaStatsProvider(*arguments, **options))


def sasl(user: str, mechanism: str = "PLAIN") -> Refusal:
    options = login(user, PASSWORD, mechanism)
    return Refusal(
        "auth",
        "check the user name and password",
        lambda backend: backend.make({"q": backend.place("q")}, given=backend.kafka.sasl, **options),
    )


LED_PAST = "clients are led past a proxy, to the address that the broker tells them"


class Kafka(Backend):
    """One topic with fifty messages, and for each queue a group that has them before it in part."""

    kind = KafkaStatsProvider
    faces = ("plain", "tls")
    kept = 4  # a link has one to where it begins, and one to the broker
    secrets = (USER, PASSWORD, kafka_server.USERS["admin"])
    quotes = False  # a broker says what it refuses in a number
    silent = ("backpressure", "kafka")  # kafka-python would write the password there
    connect_advice = "check that a broker listens there"
    labels: ClassVar = {"garbage": "timeout"}  # it waits for so many bytes as the first four announce
    where = "bootstrap_servers"
    malformed = (f"me:{PASSWORD}@h:1", f"kafka://{PASSWORD}", "", 5, [], ["h:1", None])
    wrong = (
        wrong("queues.emails", "h", ["emails"]),
        wrong("queues.q", "h", {"q": "emails"}),
        wrong("queues.q", "h", {"q": 5}, group="g"),
        wrong("topic", "h", ["no topic"], group="g"),
        wrong("group", "h", group=""),
        wrong("request_timeout_ms", "h", request_timeout_ms=5),
        wrong("sasl_plain_pasword", "h", sasl_plain_pasword=PASSWORD),
        wrong("security_protocol", "h", security_protocol="sasl_ssl"),
        wrong("security_protocol", "h", sasl_plain_password=PASSWORD),
        wrong("security_protocol", "h", security_protocol="SASL_PLAINTEXT", ssl_cafile="x"),
        wrong("security_protocol", "h", security_protocol="SSL", sasl_mechanism="PLAIN"),
        wrong("sasl_mechanism", "h", security_protocol="SASL_SSL"),
        wrong("sasl_mechanism", "h", security_protocol="SASL_SSL", sasl_mechanism="plain"),
        wrong("sasl_plain_username", "h", security_protocol="SASL_SSL", sasl_mechanism="PLAIN"),
        wrong("sasl_plain_password", "h", **{**login("me", PASSWORD), "sasl_plain_password": None}),
    )
    refusals: ClassVar = {
        "password": sasl("clerk"),
        "user": sasl(USER),
        "mechanism": sasl("clerk", "SCRAM-SHA-256"),
        "none": Refusal(
            "connect",
            "security_protocol",
            lambda backend: backend.make({"q": backend.place("q")}, given=backend.kafka.sasl),
        ),
    }
    not_promised: ClassVar = {
        "test_an_idle_connection_that_was_closed_is_replaced": LED_PAST,
        "test_what_a_network_may_do": LED_PAST,
        "test_a_server_that_drips_is_cut_off": LED_PAST,
        "test_a_server_that_restarts": "a start formats the disk of this broker",
    }

    def __init__(self, kafka: KafkaServer) -> None:
        self.kafka = kafka
        super().__init__(self.port_of("plain"), kafka)
        self.bad: set[str] = set()

    def make(
        self, queues: Any, *, face: str = "plain", host: str = "", port: int = 0, given: Any = None, **options: Any
    ) -> Any:
        if face != "plain":
            options["security_protocol"] = "SSL"
        if face == "tls":
            options["ssl_cafile"] = str(servers.CERTIFICATE)
        address = f"{host or servers.HOST}:{port or self.port_of(face)}"
        return KafkaStatsProvider(address if given is None else given, queues, **options)

    def place(self, name: str) -> Any:
        return ConsumerLag("missing" if name in self.bad else FIFTY, group=name.encode().hex()[:200])

    def port_of(self, face: str) -> int:
        address = self.kafka.address if "plain" in face else self.kafka.tls
        return int(address.rpartition(":")[2])

    def fill(self, backlogs: Mapping[str, int]) -> None:
        from kafka import TopicPartition  # type: ignore[import-untyped]
        from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

        with self.kafka.admin() as admin:
            for name, backlog in backlogs.items():
                offset = OffsetAndMetadata(50 - backlog, "", -1)
                admin.alter_group_offsets(self.place(name).group, {TopicPartition(FIFTY, 0): offset})

    def wake(self, provider: Face) -> None:
        def answers() -> bool:
            with contextlib.suppress(StatsUnavailableError):
                return bool(provider.get_all_queue_stats())
            return False

        eventually(answers)

    def spoil(self, name: str) -> str:
        self.bad.add(name)
        return "missing"

    def secretive(self) -> Iterator[Any]:
        queues = {"q": ConsumerLag(FIFTY, group="g")}
        options: dict[str, Any] = {**login(USER, PASSWORD), "proxy_url": None}
        for where in (self.kafka.sasl, self.kafka.nowhere, self.kafka.address, self.kafka.tls):
            yield self.make(queues, given=where, **options)
        with frozen(self.kafka):
            yield self.make(queues, given=self.kafka.sasl, timeout=0.5, **login("admin"))

    def inside(self, provider: Any) -> Iterable[object]:
        return []  # the client's options lie there, as it needs them


FIFTY = "fifty-messages"


@pytest.fixture(scope="module")
def fifty(kafka: KafkaServer) -> KafkaServer:
    kafka.create(FIFTY)
    kafka.produce(FIFTY, 50)
    return kafka


@pytest.fixture
def backend(fifty: KafkaServer) -> Kafka:
    return Kafka(fifty)


class TestContract(Contract, of=Kafka):
    pass


def test_lag_is_what_was_produced_less_what_was_committed(kafka: KafkaServer, name: str) -> None:
    kafka.create(name, partitions=4)
    kafka.produce(name, 50, 30, 20, 0)
    kafka.consume(name, "workers", 20, 30, 7)
    with opened(kafka.address, {"q": ConsumerLag(name, group="workers")}) as provider:
        stats = provider.get_queue_stats("q")
        assert (stats.queue_name, stats.backlog_count) == ("q", 100 - 57)
        assert (stats.processing_count, stats.delayed_count, stats.oldest_age) == (None, None, None)
        assert stats.fault() is None
        assert (stats.entered, stats.left) == (100, 57)
        kafka.produce(name, 0, 0, 0, 5)
        stats = provider.get_queue_stats("q")
        assert (stats.backlog_count, stats.entered, stats.left) == (48, 105, 57)
        kafka.consume(name, "workers", 30, 0, 13, 5)
        stats = provider.get_queue_stats("q")
        assert (stats.backlog_count, stats.entered, stats.left) == (0, 105, 105)


def test_new_partitions_count_at_once(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 2)
    with opened(kafka.address, [name], group="workers") as provider:
        assert backlogs(provider) == {name: 2}
        with kafka.admin() as admin:
            admin.create_partitions({name: 3})
        kafka.produce(name, 0, 4, 5)
        assert backlogs(provider) == {name: 11}


def test_two_groups_on_one_topic(kafka: KafkaServer, name: str) -> None:
    kafka.create(name, partitions=2)
    kafka.produce(name, 10, 10)
    kafka.consume(name, "fast", 10, 9)
    kafka.consume(name, "slow", 1, 0)
    queues = {group: ConsumerLag(name, group=group) for group in ("fast", "slow", "none")}
    with opened(kafka.address, queues) as provider:
        assert backlogs(provider) == {"fast": 1, "slow": 19, "none": 20}


def test_partitions_without_a_commit_count_from_where_consumers_begin(kafka: KafkaServer, name: str) -> None:
    kafka.create(name, partitions=2)
    kafka.produce(name, 10, 10)
    kafka.consume(name, "some", 4)
    queues = {
        f"{group} {reset}": ConsumerLag(name, group=group, auto_offset_reset=reset)
        for group in ("some", "none")
        for reset in ("earliest", "latest")
    }
    with opened(kafka.address, queues) as provider:
        assert backlogs(provider) == {"some earliest": 16, "some latest": 6, "none earliest": 20, "none latest": 0}


def test_messages_that_are_gone_do_not_count(kafka: KafkaServer, name: str) -> None:
    from kafka import TopicPartition

    kafka.create(name, partitions=2)
    kafka.produce(name, 10, 10)
    kafka.consume(name, "some", 4, 4)
    with kafka.admin() as admin:
        admin.delete_records({TopicPartition(name, 0): 7})
    queues = {
        "none": ConsumerLag(name, group="none"),
        "earliest": ConsumerLag(name, group="some"),
        "latest": ConsumerLag(name, group="some", auto_offset_reset="latest"),
    }
    with opened(kafka.address, queues) as provider:
        assert backlogs(provider) == {"none": 13, "earliest": 9, "latest": 6}


def test_a_commit_beyond_the_end_counts_from_where_consumers_begin(kafka: KafkaServer, name: str) -> None:
    """As of a topic that was made anew or restored, or of offsets that were copied from another cluster."""
    from kafka import TopicPartition
    from kafka.structs import OffsetAndMetadata

    kafka.create(name, partitions=2)
    kafka.produce(name, 10, 10)
    with kafka.admin() as admin:
        admin.alter_group_offsets(name, {TopicPartition(name, 0): OffsetAndMetadata(1_000, "", -1)})
        admin.delete_records({TopicPartition(name, 0): 3})
    queues = {
        "earliest": ConsumerLag(name, group=name),
        "latest": ConsumerLag(name, group=name, auto_offset_reset="latest"),
    }
    with opened(kafka.address, queues) as provider:
        assert backlogs(provider) == {"earliest": 7 + 10, "latest": 0}
    kafka.consume(name, name, 7, 4)
    with opened(kafka.address, queues) as provider:
        assert backlogs(provider) == {"earliest": 6, "latest": 6}


def test_a_commit_that_is_newer_than_the_end_is_not_beyond_it(
    kafka: KafkaServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is asked for beside the commits, and a busy group may commit what came in between."""
    kafka.create(name)
    kafka.produce(name, 10)
    kafka.consume(name, name, 10)
    offsets = _kafka_link.Link.offsets
    before = [2]

    async def earlier(link: _kafka_link.Link, leaders: Any, time: int) -> Any:
        found = await offsets(link, leaders, time)
        if time == _kafka_link.LATEST and before:
            back = before.pop()
            found = {partition: end - back for partition, end in found.items() if isinstance(end, int)}
        return found

    monkeypatch.setattr(_kafka_link.Link, "offsets", earlier)
    with opened(kafka.address, [name], group=name) as provider:
        assert backlogs(provider) == {name: 0}
    assert not before


def test_a_share_group_is_refused_and_spoils_no_other(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 3)
    kafka.consume(name, f"{name}-workers", 1)
    kafka.share(name, f"{name}-share")
    queues = {group: ConsumerLag(name, group=f"{name}-{group}") for group in ("share", "workers", "none")}
    with opened(kafka.address, queues) as provider:
        assert backlogs(provider) == {"share": "config", "workers": 2, "none": 3}
        error = failure(lambda: provider.get_queue_stats("share"))
        assert f"group '{name}-share': ShareGroupError: it commits no offsets" in str(error)
    with opened(kafka.address, queues, api_version=(2, 1)) as provider:
        assert backlogs(provider)["workers"] == 2  # its requests could not ask


def test_a_transaction_that_hangs_hides_nothing(kafka: KafkaServer, name: str) -> None:
    from kafka import KafkaProducer

    kafka.create(name)
    producer = KafkaProducer(**kafka._client, transactional_id=name)
    try:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(name, b"job", partition=0).get(timeout=10)
        kafka.produce(name, 5)
        with opened(kafka.address, [name], group="workers") as provider:
            assert backlogs(provider) == {name: 6}, "consumers that read what is committed see none of them yet"
            producer.commit_transaction()
            eventually(lambda: backlogs(provider) == {name: 7})  # the marker of the commit is an offset too
    finally:
        producer.close()


def test_a_missing_topic_spoils_no_other_and_is_not_created(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 3)
    with opened(kafka.address, [name, "missing"], group="workers") as provider:
        for _ in range(2):
            outcomes = provider.get_all_queue_stats()
            error = outcomes["missing"]
            assert isinstance(error, StatsUnavailableError)
            assert (error.queue_name, error.error_type) == ("missing", "missing")
            assert "there is no topic 'missing'" in str(error)
            assert "create it, or check its name" in str(error)
            assert backlogs(provider)[name] == 3
        assert "'missing'" in str(failure(lambda: provider.get_queue_stats("missing")))
    with kafka.admin() as admin:
        assert "missing" not in admin.list_topics()


def test_topics_that_are_not_listed_are_read_for_the_group(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 3)
    kafka.consume(name, "workers", 1)
    with opened(kafka.address, {"q": name}, group="workers") as provider:
        assert backlogs(provider) == {"q": 2}
        assert provider.get_queue_stats(name).backlog_count == 2
        for impossible in ("no topic", "é", "x" * 250):
            assert "not among the queues" in str(failure(lambda asked=impossible: provider.get_queue_stats(asked)))  # type: ignore[misc]
    with opened(kafka.address, {"q": ConsumerLag(name, group="workers")}) as provider:
        assert "not among the queues" in str(failure(lambda: provider.get_queue_stats(name)))
        assert provider.get_many([]) == {}


def test_all_queues_of_a_read_share_its_requests(
    kafka: KafkaServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = _kafka_link.Link._send

    def note(link: _kafka_link.Link, node: int | str, request: Any) -> Any:
        sent.append(type(request).__name__)
        return send(link, node, request)

    monkeypatch.setattr(_kafka_link.Link, "_send", note)
    topics = [f"{name}-{number}" for number in range(5)]
    for topic in topics:
        kafka.create(topic, partitions=3)
    queues = {f"{topic} {group}": ConsumerLag(topic, group=group) for topic in topics for group in ("a", "b", "c")}
    with opened(kafka.address, queues) as provider:
        assert set(backlogs(provider).values()) == {0}
        assert sorted(sent) == [
            "FindCoordinatorRequest",
            "ListGroupsRequest",  # no group has committed anything: are they share groups?
            "ListOffsetsRequest",
            "ListOffsetsRequest",
            "MetadataRequest",
            "OffsetFetchRequest",
        ]
        sent.clear()
        assert len(backlogs(provider)) == 15
        assert sorted(sent) == [
            "ListGroupsRequest",
            "ListOffsetsRequest",
            "ListOffsetsRequest",
            "MetadataRequest",
            "OffsetFetchRequest",
        ]
        kafka.produce(topics[0], 1)
        for group in ("a", "b", "c"):
            kafka.consume(topics[0], group, 1)
        sent.clear()
        assert set(backlogs(provider).values()) == {0}
        assert sorted(sent) == ["ListOffsetsRequest", "ListOffsetsRequest", "MetadataRequest", "OffsetFetchRequest"]


def test_the_protocol_of_old_brokers(kafka: KafkaServer, name: str) -> None:
    kafka.create(name, partitions=2)
    kafka.produce(name, 4, 4)
    kafka.consume(name, "a", 1, 1)
    queues = {group: ConsumerLag(name, group=group) for group in "abcdefghij"}
    with opened(kafka.address, queues, api_version=(2, 1)) as provider:
        for _ in range(2):
            assert backlogs(provider) == {**dict.fromkeys(queues, 8), "a": 6}


def test_where_a_broker_sends_its_clients_is_told(kafka: KafkaServer) -> None:
    with opened(kafka.lost, {"q": ConsumerLag("t", group="g")}) as provider:
        for _ in range(2):
            error = failure(provider.get_all_queue_stats)
            assert (error.error_type, kafka.nowhere in str(error)) == ("connect", True)


@pytest.mark.parametrize("where", ["lost", "sasl"])
def test_reads_of_what_lets_nobody_in_leave_nothing_behind(kafka: KafkaServer, where: str) -> None:
    def fails(provider: Face) -> bool:
        return failure(provider.get_all_queue_stats).error_type == "connect"

    leaves_nothing(opened(getattr(kafka, where), {"q": ConsumerLag("t", group="g")}), fails)


def test_passwords(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 2)
    with opened(kafka.sasl, [name], group="workers", **login("admin")) as provider:
        assert backlogs(provider) == {name: 2}


def test_one_of_the_servers_suffices(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    for _ in range(4):  # they are tried in any order
        with opened(f"{kafka.nowhere}, {kafka.address}", [name], group="workers") as provider:
            assert backlogs(provider) == {name: 0}


def test_what_is_not_granted_fails_alone(kafka: KafkaServer, name: str) -> None:
    from kafka.admin import (  # type: ignore[import-untyped]
        ACL,
        ACLOperation,
        ACLPermissionType,
        ResourcePattern,
        ResourceType,
    )

    def grant(kind: Any, granted: str) -> None:
        with kafka.admin() as admin:
            pattern = ResourcePattern(kind, granted)
            admin.create_acls([ACL("User:clerk", "*", ACLOperation.DESCRIBE, ACLPermissionType.ALLOW, pattern)])

    hidden = f"{name}-hidden"
    for topic in (name, hidden):
        kafka.create(topic)
        kafka.produce(topic, 3)
    queues = {
        "both": ConsumerLag(name, group=name),
        "topic": ConsumerLag(hidden, group=name),
        "group": ConsumerLag(name, group=hidden),
    }
    with opened(kafka.sasl, queues, **login("clerk")) as provider:
        assert backlogs(provider) == dict.fromkeys(queues, "acl")
        grant(ResourceType.TOPIC, name)
        grant(ResourceType.GROUP, name)
        eventually(lambda: backlogs(provider)["both"] == 3)
        assert backlogs(provider) == {"both": 3, "topic": "acl", "group": "acl"}
        for queue, missing in (("topic", f"topic {hidden!r}"), ("group", f"group {hidden!r}")):
            error = failure(lambda asked=queue: provider.get_queue_stats(asked))  # type: ignore[misc]
            assert error.queue_name == queue
            assert missing in str(error)
            assert "grant the user describe" in str(error)


@pytest.fixture
def brokers() -> Iterator[tuple[KafkaServer, KafkaServer]]:
    """Two brokers of one cluster. The first controls it and keeps the groups' offsets."""
    with kafka_server.KafkaServer() as first:
        first.create("first")
        first.produce("first", 1)
        first.consume("first", "workers", 1)
        with kafka_server.KafkaServer(first) as second:
            yield first, second


def test_each_broker_answers_for_the_partitions_that_it_leads(brokers: tuple[KafkaServer, KafkaServer]) -> None:
    first, second = brokers
    leaders = {"here": ([1],), "there": ([2],), "both": ([1], [2], [1], [2]), "moves": ([2, 1],)}
    for topic, replicas in leaders.items():
        first.spread(topic, *replicas)
        first.produce(topic, *range(10, 10 + len(replicas)))
        first.consume(topic, "workers", *range(1, 1 + len(replicas)))
    lag = {"here": 9, "there": 9, "both": 46 - 10, "moves": 9}
    with (
        opened(first.address, list(leaders), group="workers") as provider,
        opened(second.address, list(leaders), group="workers") as by_the_second,
        opened(first.address, list(leaders), group="workers", timeout=2) as impatient,
    ):
        assert backlogs(provider) == backlogs(by_the_second) == lag
        second.freeze()
        try:
            found = backlogs(impatient)
            assert found == {"here": 9, "there": "timeout", "both": "timeout", "moves": "timeout"}
        finally:
            second.resume()
        eventually(lambda: backlogs(provider) == lag)
        second.leave()
        eventually(lambda: backlogs(provider)["moves"] == 9, 30)
        found = backlogs(provider)
        assert (found["here"], found["moves"]) == (9, 9)
        assert {found["there"], found["both"]} <= {"failover", "connect"}
        assert set(backlogs(impatient).values()) <= {9, "failover", "connect"}


def test_a_leader_that_cannot_be_asked_spoils_no_other(
    kafka: KafkaServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if there were three brokers: one that is not known, one that is gone, and this one."""
    topics = [name, f"{name}-leaderless", f"{name}-away"]
    for topic in topics:
        kafka.create(topic, partitions=2)
        kafka.produce(topic, 2, 1)
    leaders = _kafka_link._leaders

    def elsewhere(topic: Any) -> Any:
        leader = {topics[1]: -1, topics[2]: 7}.get(topic.name, topic.partitions[0].leader_id)
        topic.partitions[1].leader_id = leader
        return leaders(topic)

    managers = set()
    with opened(kafka.address, topics, group="workers") as provider:
        with monkeypatch.context() as patch:
            patch.setattr(_kafka_link, "_leaders", elsewhere)
            for _ in range(2):
                assert list(backlogs(provider).values()) == [3, "failover", "failover"]
                managers.add(provider._links().idle[0]._manager)
        assert len(managers) == 2, "kafka-python would refuse to ask again who once refused a password"
        assert list(backlogs(provider).values()) == [3, 3, 3]


@pytest.mark.parametrize(
    ("error", "label"),
    [
        ("CoordinatorLoadInProgressError", "loading"),
        ("CoordinatorNotAvailableError", "loading"),
        ("NotCoordinatorError", "failover"),
        ("GroupAuthorizationFailedError", "acl"),
    ],
)
def test_a_coordinator_that_refuses_is_looked_up_anew(
    kafka: KafkaServer, name: str, monkeypatch: pytest.MonkeyPatch, error: str, label: str
) -> None:
    from kafka import errors

    commits = _kafka_link._commits

    def refuse(group: str, answer: Any) -> Any:
        if group == "moved":
            answer.error_code = getattr(errors, error).errno
        return commits(group, answer)

    kafka.create(name)
    kafka.produce(name, 2)
    queues = {group: ConsumerLag(name, group=group) for group in ("moved", "there")}
    with opened(kafka.address, queues) as provider:
        with monkeypatch.context() as patch:
            patch.setattr(_kafka_link, "_commits", refuse)
            assert backlogs(provider) == {"moved": label, "there": 2}
        (link,) = provider._links().idle
        assert list(link._coordinators) == ["there"]
        assert backlogs(provider) == {"moved": 2, "there": 2}


def test_a_connection_that_died_meanwhile_is_opened_anew(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    with opened(kafka.address, [name], group="workers") as provider:
        for _ in range(3):
            assert backlogs(provider) == {name: 0}
            (link,) = provider._links().idle
            for connection in link._manager._conns.values():
                connection.transport._sock.shutdown(2)


def test_other_clients_log_as_ever(kafka: KafkaServer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kafka.create(name)
    with opened(kafka.address, [name], group="workers") as provider:
        backlogs(provider)
        caplog.clear()
        kafka.produce(name, 1)
    assert "kafka.protocol.parser" in {record.name for record in caplog.records}


@pytest.mark.parametrize(
    "options",
    [
        {"topic": ""},
        {"topic": "no topic"},
        {"topic": "x" * 250},
        {"topic": ".."},
        {"topic": None},
        {"topic": "emails\n"},
        {"group": ""},
        {"group": None},
        {"auto_offset_reset": "none"},
    ],
)
def test_impossible_lags(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ConsumerLag(**{"topic": "emails", "group": "workers", **options})
    assert caught.value.field == next(iter(options))


def test_reprs() -> None:
    lag = ConsumerLag("t", group="g", auto_offset_reset="latest")
    options: dict[str, Any] = login("me", PASSWORD)
    provider = KafkaStatsProvider(["h:1", "[::1]:2"], {"a": lag, "b": "u"}, group="g", **options)
    assert repr(provider) == "KafkaStatsProvider('kafka at h:1,[::1]:2', 2 queues)"
    assert repr(lag) == "ConsumerLag(topic='t', group='g', auto_offset_reset='latest')"
