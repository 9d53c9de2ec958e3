"""`KafkaStatsProvider` against a real Kafka: lag, transactions, errors, a frozen broker, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import logging
import multiprocessing
import os
import pickle
import threading
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import AsyncBackpressureController, BackpressureConfig, JobShedError, PollingConfig, Reason
from backpressure._model.errors import ConfigurationError, InvalidQueueError, StatsUnavailableError
from backpressure._model.stats import StatsProvider
from backpressure.providers.kafka import link as _kafka_link
from backpressure.providers.kafka.provider import ConsumerLag, KafkaStatsProvider
from providers import checks
from providers.checks import failure
from support import kafka_server, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController
    from support.kafka_server import KafkaServer

pytestmark = pytest.mark.timeout(240)  # the first of them may have to fetch the server

HANGS = 50.0  # seconds nobody would wait for
CANARY = "canary-9f3b-word"


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


def login(user: str, password: str = "", mechanism: str = "PLAIN") -> dict[str, str]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": user,
        "sasl_plain_password": password or kafka_server.USERS[user],
    }


# ----------------------------------------------------------------------------------------------------------------- lag


def test_is_a_stats_provider() -> None:
    assert isinstance(KafkaStatsProvider("localhost:9092"), StatsProvider)


def test_lag_is_what_was_produced_less_what_was_committed(kafka: KafkaServer, name: str) -> None:
    kafka.create(name, partitions=4)
    kafka.produce(name, 50, 30, 20, 0)
    kafka.consume(name, "workers", 20, 30, 7)
    with opened(kafka.address, {"q": ConsumerLag(name, group="workers")}) as provider:
        stats = provider.get_queue_stats("q")
        assert (stats.queue_name, stats.backlog_count) == ("q", 100 - 57)
        assert (stats.processing_count, stats.delayed_count, stats.oldest_age) == (None, None, None)
        assert stats.fault() is None
        kafka.produce(name, 0, 0, 0, 5)
        assert provider.get_queue_stats("q").backlog_count == 48
        kafka.consume(name, "workers", 30, 0, 13, 5)
        assert provider.get_queue_stats("q").backlog_count == 0


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
    from kafka import TopicPartition  # type: ignore[import-untyped]

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


def test_a_commit_beyond_the_end_hides_no_other_partition(kafka: KafkaServer, name: str) -> None:
    from kafka import TopicPartition
    from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

    kafka.create(name, partitions=2)
    kafka.produce(name, 10, 10)
    with kafka.admin() as admin:
        admin.alter_group_offsets(name, {TopicPartition(name, 0): OffsetAndMetadata(1_000, "", -1)})
    with opened(kafka.address, [name], group=name) as provider:
        assert backlogs(provider) == {name: 10}


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


# ------------------------------------------------------------------------------------------------------- names, topics


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
            "ListOffsetsRequest",
            "ListOffsetsRequest",
            "MetadataRequest",
            "OffsetFetchRequest",
        ]
        sent.clear()
        assert len(backlogs(provider)) == 15
        assert sorted(sent) == ["ListOffsetsRequest", "ListOffsetsRequest", "MetadataRequest", "OffsetFetchRequest"]


def test_the_protocol_of_old_brokers(kafka: KafkaServer, name: str) -> None:
    kafka.create(name, partitions=2)
    kafka.produce(name, 4, 4)
    kafka.consume(name, "a", 1, 1)
    queues = {group: ConsumerLag(name, group=group) for group in "abcdefghij"}
    with opened(kafka.address, queues, api_version=(2, 1)) as provider:
        for _ in range(2):
            assert backlogs(provider) == {**dict.fromkeys(queues, 8), "a": 6}


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("where", "options", "label", "text"),
    [
        ("nowhere", {}, "connect", "{nowhere}"),
        ("lost", {}, "connect", "{nowhere}"),  # which a server named that could be reached
        ("tls", {}, "protocol|connect", "{tls}"),  # as the broker answers before it hangs up, or does not
        ("sasl", {}, "connect", "security_protocol"),
        ("sasl", login("clerk", CANARY), "auth", "check the user name and password"),
        ("sasl", login("nobody", CANARY), "auth", "check the user name and password"),
        ("sasl", login("clerk", mechanism="SCRAM-SHA-256"), "auth", "check the user name and password"),
        ("tls", {"security_protocol": "SSL"}, "protocol", "self-signed certificate"),
    ],
    ids=["nobody listens", "advertised wrongly", "TLS", "SASL", "password", "user", "mechanism", "certificate"],
)
def test_clusters_that_cannot_be_read(
    kafka: KafkaServer, where: str, options: dict[str, Any], label: str, text: str
) -> None:
    with opened(getattr(kafka, where), {"q": ConsumerLag("t", group="g")}, **options) as provider:
        for _ in range(2):
            error = failure(provider.get_all_queue_stats)
            assert error.error_type in label.split("|")
            assert text.format(nowhere=kafka.nowhere, tls=kafka.tls) in str(error)
            assert CANARY not in str(error)


def test_a_host_that_has_no_address() -> None:
    with opened("nowhere.invalid:9092", {"q": ConsumerLag("t", group="g")}) as provider:
        error = failure(provider.get_all_queue_stats)
    assert error.error_type == "dns"
    assert "check the host name" in str(error)


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


def test_tls_and_passwords(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 2)
    tls = {"security_protocol": "SSL", "ssl_cafile": str(servers.CERTIFICATE)}
    for where, options in ((kafka.tls, tls), (kafka.sasl, login("admin"))):
        with opened(where, [name], group="workers", **options) as provider:
            assert backlogs(provider) == {name: 2}


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


# ------------------------------------------------------------------------------------------- frozen brokers, interrupts


def test_a_frozen_broker_ends_reads_by_timeout_or_interrupt(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 2)
    with (
        opened(kafka.address, [name], group="workers", timeout=HANGS) as provider,
        opened(kafka.address, [name], group="workers", timeout=HANGS) as connecting,
        opened(kafka.address, [name], group="workers", timeout=0.2) as impatient,
    ):
        assert backlogs(provider) == {name: 2}
        kafka.freeze()
        try:
            begun = time.monotonic()
            assert failure(impatient.get_all_queue_stats).error_type == "timeout"
            assert time.monotonic() - begun < 5
            for read_from in (provider, connecting):
                with ThreadPoolExecutor() as pool:
                    reads = [pool.submit(read_from.get_all_queue_stats) for _ in range(3)]
                    eventually(lambda asked=read_from: len(asked._links().reads) == 3)  # type: ignore[misc]
                    time.sleep(0.05)
                    begun = time.monotonic()
                    read_from.interrupt()
                    errors = [read.exception(HANGS) for read in reads]
                assert time.monotonic() - begun < 5
                assert [getattr(error, "error_type", error) for error in errors] == ["deadline"] * 3
        finally:
            kafka.resume()
        for read_from in (provider, connecting, impatient):
            eventually(lambda asked=read_from: recovered(asked, name) == 2)  # type: ignore[misc]
        provider.interrupt()
        assert backlogs(provider) == {name: 2}, "an interrupt concerns the reads under way"


def recovered(provider: KafkaStatsProvider, name: str) -> int | None:
    try:
        return provider.get_queue_stats(name).backlog_count
    except StatsUnavailableError:
        return None


def test_a_connection_that_died_meanwhile_is_opened_anew(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    with opened(kafka.address, [name], group="workers") as provider:
        for _ in range(3):
            assert backlogs(provider) == {name: 0}
            (link,) = provider._links().idle
            for connection in link._manager._conns.values():
                connection.transport._sock.shutdown(2)


# --------------------------------------------------------------------------------------------------------- controllers


TIGHT = {
    "thresholds": {
        "low_priority": {"green_max": 1, "yellow_max": 2, "red_max": 3},
        "high_priority": {"green_max": 100, "yellow_max": 200, "red_max": 300},
    }
}


def config(**polling: Any) -> BackpressureConfig:
    return BackpressureConfig.from_mapping(TIGHT).evolve({"polling": PollingConfig(jitter=0, **polling)})


def test_a_controller_sheds_low_and_passes_high(kafka: KafkaServer, name: str, make_controller: MakeController) -> None:
    kafka.create(name, partitions=2)
    with opened(kafka.address, {"mail": ConsumerLag(name, group="workers")}) as provider:
        controller = make_controller(provider, config())
        controller.run("low", "mail", kafka.produce, name, 10, 10)
        assert controller.refresh("mail")
        with pytest.raises(JobShedError):
            controller.run("low", "mail", kafka.produce, name, 1)
        controller.run("high", "mail", kafka.produce, name, 1)
        kafka.consume(name, "workers", 11, 10)
        assert controller.refresh("mail")
        decision = controller.suggest_throttle("low", "mail")
        assert (decision.should_shed, decision.backlog_size) == (False, 0)


def test_a_controller_outlives_a_frozen_broker(kafka: KafkaServer, name: str, make_controller: MakeController) -> None:
    kafka.create(name)
    kafka.produce(name, 20)
    quick = config(interval=0.2, timeout=0.2, max_backoff=0.4, cache_ttl=0.5).evolve({"recovery.graceful_degrade": 0})
    with opened(kafka.address, {"mail": ConsumerLag(name, group="workers")}, timeout=HANGS) as provider:
        controller = make_controller(provider, quick, clock=None)
        assert controller.suggest_throttle("low", "mail").reason == Reason.BACKLOG_RED_SHED
        kafka.freeze()
        try:
            begun = time.monotonic()
            assert not controller.refresh("mail")
            assert time.monotonic() - begun < 5
            eventually(lambda: not provider._links().reads)
            eventually(lambda: controller.suggest_throttle("low", "mail").reason == Reason.FALLBACK_CONSERVATIVE)
            assert not controller.suggest_throttle("low", "mail").should_shed
        finally:
            kafka.resume()
        eventually(lambda: controller.suggest_throttle("low", "mail").reason == Reason.BACKLOG_RED_SHED)


def test_an_async_controller_reads_it_on_a_thread(
    kafka: KafkaServer, name: str, engine_name: str, engine_module: EngineModule
) -> None:
    async def main(provider: KafkaStatsProvider) -> None:
        polling = config(interval=0.2, timeout=0.2, max_backoff=0.4)
        async with AsyncBackpressureController(polling, provider, _engine=engine_name) as controller:

            async def until(backlog: int) -> None:
                async with asyncio.timeout(10):
                    while (await controller.suggest_throttle("low", "mail")).backlog_size != backlog:
                        await asyncio.sleep(0.01)

            await until(20)
            assert (await controller.suggest_throttle("low", "mail")).should_shed
            assert (await controller.suggest_throttle("high", "mail")).delay == 0
            kafka.freeze()
            try:
                await asyncio.sleep(0.5)  # polls are interrupted meanwhile
            finally:
                kafka.resume()
            await asyncio.to_thread(kafka.consume, name, "workers", 20)
            await until(0)

    kafka.create(name)
    kafka.produce(name, 20)
    with opened(kafka.address, {"mail": ConsumerLag(name, group="workers")}, timeout=HANGS) as provider:
        asyncio.run(main(provider))


# ------------------------------------------------------------------------------------------------- what is left behind


def left_behind(address: str, queues: dict[str, ConsumerLag]) -> tuple[list[str], int]:
    """Return what 21 reads leave behind, open and closed: files, threads, warnings; and how many of them failed."""

    def held() -> set[str]:
        links = Path("/proc/self/fd").iterdir()
        return {*(str(link.readlink()) for link in links if link.is_symlink()), *map(str, threading.enumerate())}

    def looks(provider: KafkaStatsProvider, times: int) -> int:
        failed = 0
        for _ in range(times):
            try:
                assert backlogs(provider) == {"q": 0}
            except StatsUnavailableError:
                failed += 1
        return failed

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = held()
        with opened(address, queues) as provider:
            failed = looks(provider, 1)  # it opens what is kept
            kept = held()
            failed += looks(provider, 20)
            grown = held() - kept
        return [*map(str, caught), *grown, *(held() - before)], failed


@pytest.mark.parametrize("where", ["address", "nowhere", "lost", "sasl"])
def test_reads_leave_neither_threads_nor_sockets_behind(kafka: KafkaServer, where: str) -> None:
    queues = {"q": ConsumerLag("first", group="first")}
    # A process of its own holds nothing of other tests, which comes and goes as it likes.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(left_behind, getattr(kafka, where), queues).result(120) == (
            [],
            0 if where == "address" else 21,
        )


def test_closed_is_closed(kafka: KafkaServer) -> None:
    with opened(kafka.address, {"q": ConsumerLag("first", group="first")}) as provider:
        assert backlogs(provider) == {"q": 0}
    provider.close()
    assert "closed" in str(failure(provider.get_all_queue_stats))


def test_a_forked_child_opens_connections_of_its_own(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 2)
    with opened(kafka.address, [name], group="workers") as provider:
        assert backlogs(provider) == {name: 2}
        parent = next(iter(provider._links().idle))
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the process has threads: that is the test
                child = os.fork()
            if not child:
                code = 1
                with contextlib.suppress(BaseException):
                    assert not provider._links().idle
                    assert backlogs(provider) == backlogs(provider) == {name: 2}
                    provider.interrupt()
                    provider.close()
                    code = 0
                os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert backlogs(provider) == {name: 2}
            assert next(iter(provider._links().idle)) is parent, "the child has not closed what is its parent's"


def test_threads_read_at_once(kafka: KafkaServer, name: str) -> None:
    kafka.create(name)
    kafka.produce(name, 2)
    with opened(kafka.address, [name], group="workers") as provider, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: backlogs(provider), range(64))) == [{name: 2}] * 64
        assert len(provider._links().idle) <= 2


# ------------------------------------------------------------------------------------------------------ secrets, logs


def test_a_password_is_never_shown(kafka: KafkaServer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    kafka.create(name)
    caplog.set_level(1)
    caplog.clear()
    shown: list[str] = []
    user = "canary-9f3b-user"
    for where in (kafka.sasl, kafka.nowhere, kafka.address, kafka.tls):
        options = {**login(user, CANARY), "proxy_url": None}
        with opened(where, [name], group="workers", **options) as provider:
            error = failure(provider.get_all_queue_stats)
            shown += [repr(provider), str(provider), repr(error), "".join(traceback.format_exception(error))]
            for copied in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="does not pickle"):
                    copied(provider)
    with opened(kafka.sasl, [name], group="workers", **login("admin")) as provider:
        assert backlogs(provider) == {name: 0}
        kafka.freeze()
        threading.Timer(0.1, provider.interrupt).start()
        try:
            shown.append(str(failure(provider.get_all_queue_stats)))
        finally:
            kafka.resume()
    assert [text for text in shown if CANARY in text or user in text or "admin-word" in text] == []
    # Not a word in the log either. kafka-python would write the password there, and an error for each failed read.
    main = threading.get_ident()
    assert [record for record in caplog.records if record.thread == main and record.name.startswith("kafka")] == []
    assert [record for record in caplog.records if CANARY in str(vars(record))] == []


def test_other_clients_log_as_ever(kafka: KafkaServer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    kafka.create(name)
    with opened(kafka.address, [name], group="workers") as provider:
        backlogs(provider)
        caplog.clear()
        kafka.produce(name, 1)
    assert "kafka.protocol.parser" in {record.name for record in caplog.records}


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("arguments", "options", "field"),
    [
        (("",), {}, "bootstrap_servers"),
        ((5,), {}, "bootstrap_servers"),
        (([],), {}, "bootstrap_servers"),
        ((["h:1", None],), {}, "bootstrap_servers"),
        ((f"me:{CANARY}@h:1",), {}, "bootstrap_servers"),
        ((f"kafka://{CANARY}",), {}, "bootstrap_servers"),
        (("h", "emails"), {}, "queues"),
        (("h", ["emails"]), {}, "queues.emails"),
        (("h", {"q": "emails"}), {}, "queues.q"),
        (("h", {"q": 5}), {"group": "g"}, "queues.q"),
        (("h", ["no topic"]), {"group": "g"}, "topic"),
        (("h",), {"group": ""}, "group"),
        (("h",), {"timeout": 0}, "timeout"),
        (("h",), {"request_timeout_ms": 5}, "request_timeout_ms"),
        (("h",), {"sasl_plain_pasword": CANARY}, "sasl_plain_pasword"),
        (("h",), {"security_protocol": "sasl_ssl"}, "security_protocol"),
        (("h",), {"sasl_plain_password": CANARY}, "security_protocol"),
        (("h",), {"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": "x"}, "security_protocol"),
        (("h",), {"security_protocol": "SSL", "sasl_mechanism": "PLAIN"}, "security_protocol"),
        (("h",), {"security_protocol": "SASL_SSL"}, "sasl_mechanism"),
        (("h",), {"security_protocol": "SASL_SSL", "sasl_mechanism": "plain"}, "sasl_mechanism"),
        (("h",), {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "sasl_plain_username"),
        (("h",), {**login("me", CANARY), "sasl_plain_password": None}, "sasl_plain_password"),
    ],
)
def test_impossible_settings(arguments: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KafkaStatsProvider(*arguments, **options)
    assert caught.value.field == field
    assert CANARY not in f"{caught.value} {caught.value.value!r}"


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


def test_names_and_reprs() -> None:
    with pytest.raises(InvalidQueueError):
        KafkaStatsProvider("h", {"a\n": ConsumerLag("t", group="g")})
    lag = ConsumerLag("t", group="g", auto_offset_reset="latest")
    options: dict[str, Any] = login("me", CANARY)
    provider = KafkaStatsProvider(["h:1", "[::1]:2"], {"a": lag, "b": "u"}, group="g", **options)
    assert repr(provider) == "KafkaStatsProvider('kafka at h:1,[::1]:2', 2 queues)"
    assert repr(lag) == "ConsumerLag(topic='t', group='g', auto_offset_reset='latest')"
