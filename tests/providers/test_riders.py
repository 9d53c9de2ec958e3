"""A fleet's commands travel with the reads of queues: on every kind of Redis, and at no queue's expense."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio

from backpressure import AsyncRedisStatsProvider, QueueStats, RedisStatsProvider
from backpressure._fleet.keys import control_key, members_key, presence_key
from backpressure._fleet.operator import Operator
from backpressure._fleet.ride import Heard, Rider
from backpressure.providers import from_config
from backpressure.providers.redis.carrier import Carrier
from backpressure.providers.redis.client import parse_target
from providers.contract.reading import reading
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOTH = pytest.mark.parametrize("kind", [RedisStatsProvider, AsyncRedisStatsProvider], ids=["blocking", "asyncio"])


class Riding:
    """A provider that carries one rider."""

    def __init__(self, kind: Any, url: Any, queues: list[str]) -> None:
        self.provider = kind(url, queues, **({"timeout": 5.0} if isinstance(url, str) else {}))
        self.face = reading(self.provider)
        self.rider = Rider("shop", time.monotonic_ns)
        assert self.provider.carry(self.rider)

    def read(self, times: int = 1) -> tuple[dict[str, Any], Heard]:
        """Read as often; return what the last read found, and what the fleet said."""
        found: dict[str, Any] = {}
        for _ in range(times):
            self.rider.arm("told", 60_000, 5)
            with contextlib.suppress(Exception):
                found = dict(self.face.get_all_queue_stats())
        heard = self.rider.heard()
        assert heard is not None
        return found, heard


@pytest.fixture
def riding() -> Iterator[Callable[..., Riding]]:
    with contextlib.ExitStack() as stack:

        def make(kind: Any, url: Any, *queues: str) -> Riding:
            made = Riding(kind, url, [*queues])
            stack.callback(made.face.close)
            return made

        yield make


@BOTH
class TestOneServer:
    def test_it_costs_three_commands_and_no_connection(
        self, kind: Any, riding: Callable[..., Riding], own_server: servers.Server
    ) -> None:
        with own_server.client() as client:
            client.rpush("mail", 1, 2)
            made = Operator(client, "shop", by="ana").override(True, reason="sale")
            assert made is not None
            rider = riding(kind, own_server.url, "mail")
            rider.read(3)  # alone at first, then entered among the members by the server's clock
            before = client.info("stats")
            found, heard = rider.read()
            after = client.info("stats")
            assert found["mail"].backlog_count == 2
            assert heard.control is not None
            assert heard.now_ms is not None
            assert list(heard.control) == ["override"]
            assert abs(heard.now_ms - time.time() * 1_000) < 60_000
            assert after["total_commands_processed"] - before["total_commands_processed"] <= 1 + 3 + 2
            assert after["total_connections_received"] == before["total_connections_received"]
            assert client.get(presence_key("shop", rider.rider.member_id)) == b"told"
            assert 0 < client.pttl(presence_key("shop", rider.rider.member_id)) <= 60_000
            assert client.zcard(members_key("shop")) == 1

    @pytest.mark.parametrize("what", ["wrong type", "not allowed", "out of memory", "huge"])
    def test_a_fleet_that_fails_costs_no_queue(
        self, kind: Any, riding: Callable[..., Riding], own_server: servers.Server, what: str
    ) -> None:
        with own_server.client() as client:
            client.rpush("mail", 1, 2)
            if what == "wrong type":
                client.set(control_key("shop"), "x")
            elif what == "not allowed":
                client.execute_command("ACL", "SETUSER", "default", "-hgetall", "-set", "-zadd", "-time")
            elif what == "out of memory":
                client.config_set("maxmemory", "1mb")
            else:
                client.hset(control_key("shop"), mapping={f"f{number}": "x" * 5_000 for number in range(500)})
            rider = riding(kind, own_server.url, "mail")
            for _ in range(2):
                assert isinstance(rider.read()[0]["mail"], QueueStats)
            found, heard = rider.read()
            assert isinstance(found["mail"], QueueStats)
            if what == "huge":
                assert heard.control is not None
                assert len(heard.control) == 500
            elif what == "out of memory":
                assert heard.error is None
                assert heard.presence_error is not None
            else:
                assert heard.error is not None
            assert "fleet at " in str(heard.error or heard.presence_error or "fleet at ")
            client.execute_command("ACL", "SETUSER", "default", "+@all")

    def test_a_server_that_goes_and_comes(
        self, kind: Any, riding: Callable[..., Riding], own_server: servers.Server
    ) -> None:
        rider = riding(kind, own_server.url, "mail")
        rider.read()
        own_server.kill()
        _, heard = rider.read()
        assert heard.error is not None
        own_server.start()
        found, heard = rider.read(2)
        assert heard.error is None
        assert found["mail"].backlog_count == 0
        with own_server.client() as client:
            assert client.zcard(members_key("shop")) == 1  # it is entered anew

    def test_a_provider_without_queues_carries_too(
        self, kind: Any, riding: Callable[..., Riding], redis_client: redis.Redis, redis_url: str
    ) -> None:
        del redis_client
        found, heard = riding(kind, redis_url).read()
        assert (found, heard.error) == ({}, None)

    def test_two_controllers_share_a_provider(
        self, kind: Any, riding: Callable[..., Riding], redis_client: redis.Redis, redis_url: str
    ) -> None:
        del redis_client
        rider, other = riding(kind, redis_url, "mail"), Rider("shop", time.monotonic_ns)
        assert rider.provider.carry(other)
        other.arm("theirs", 5_000, 5)
        rider.read()
        heard = other.heard()
        assert heard is not None
        assert heard.error is None
        assert not other.is_armed()

    def test_a_dropped_rider_is_carried_no_more(self, kind: Any, riding: Callable[..., Riding], redis_url: str) -> None:
        rider = riding(kind, redis_url, "mail")
        del rider.rider
        assert rider.provider._riders.boarding() == []

    def test_a_cluster(self, kind: Any, riding: Callable[..., Riding], redis_cluster: servers.Cluster) -> None:
        client: Any = redis.RedisCluster(host=servers.HOST, port=redis_cluster.nodes[0].port)
        with client:
            operator = Operator(client, "shop", by="ana")
            operator.override(True, reason="sale")
            queues = [f"q{number}" for number in range(20)]
            for names in (queues, []):
                rider = riding(kind, redis_cluster.url, *names)
                found, heard = rider.read(3)
                assert heard.error is heard.presence_error is None
                assert heard.control is not None
                assert list(heard.control) == ["override"]
                assert len(found) == len(names)
                client.delete(presence_key("shop", rider.rider.member_id))
            for key in (control_key("shop"), members_key("shop")):
                client.delete(key)

    def test_sentinel(self, kind: Any, riding: Callable[..., Riding]) -> None:
        with redis_fixtures.start() as master:
            rules = f"sentinel monitor main {servers.HOST} {master.port} 1"
            with servers.Server(sentinel=rules) as sentinel, master.client() as client:
                Operator(client, "shop", by="ana").override(True, reason="sale")
                rider = riding(kind, f"redis+sentinel://{servers.HOST}:{sentinel.port}/main/0", "mail")
                for _ in range(2):
                    _, heard = rider.read()
                    assert heard.control is not None
                    assert list(heard.control) == ["override"]
                client.execute_command("REPLICAOF", servers.HOST, servers.dead_port())
                _, heard = rider.read()
                assert heard.control is None  # a replica without a master may know what is long over

    def test_a_proxy_that_hangs_up_costs_no_queue_from_the_second_read_on(
        self, kind: Any, riding: Callable[..., Riding]
    ) -> None:
        def handle(connection: socket.socket) -> None:
            while data := connection.recv(65_536):
                if b"HGETALL" in data or b"INFO" in data:
                    return
                connection.sendall(b":7\r\n" * data.count(b"LLEN"))

        with servers.Listener(handle) as proxy:
            rider = riding(kind, f"redis://{servers.HOST}:{proxy.port}", "mail")
            for _ in range(4):
                found, heard = rider.read()
                assert found["mail"].backlog_count == 7
                assert heard.error is not None


def test_a_client_that_decodes(riding: Callable[..., Riding], redis_client: redis.Redis) -> None:
    Operator(redis_client, "shop", by="ana").override(True, reason="é")
    options = redis_client.connection_pool.connection_kwargs
    with redis.Redis(host=options["host"], port=options["port"], decode_responses=True) as client:
        _, heard = riding(RedisStatsProvider, client, "mail").read()
    assert heard.control is not None
    assert "é" in str(heard.control["override"])


def test_the_fleets_server_is_told_from_others(redis_url: str) -> None:
    rider = Rider("shop", time.monotonic_ns)
    with contextlib.closing(RedisStatsProvider("redis://ana:secret@h:1/0", ["mail"])) as provider:
        for url, same in (
            ("redis://ana:secret@h:1/0", True),
            ("redis://ana:secret@h:1", True),
            ("redis://ana:other@h:1/0", False),
            ("redis://h:1/0", False),
            ("redis://ana:secret@h:1/1", False),
            ("redis://ana:secret@h:2/0", False),
        ):
            assert provider.carry(rider, parse_target(url, 1)) is same
    with contextlib.closing(RedisStatsProvider(redis.Redis.from_url(redis_url), ["mail"])) as provider:
        assert provider.carry(rider)
        assert not provider.carry(rider, parse_target(redis_url, 1))


def test_of_several_providers_the_one_in_redis_carries(redis_url: str, redis_client: redis.Redis) -> None:
    from backpressure import BackpressureConfig

    del redis_client
    redis_queue, kafka = {"url": redis_url}, {"url": "http://localhost:1", "options": {"query": "up"}}
    config = BackpressureConfig.from_mapping({"queues": {"mail": redis_queue, "clicks": kafka}})
    rider = Rider("shop", time.monotonic_ns)
    with contextlib.closing(from_config(config)) as provider:
        assert provider.carry(rider)
        rider.arm("told", 5_000, 5)
        provider.get_many(["mail"])
        assert rider.heard() is not None
    config = BackpressureConfig.from_mapping({"queues": {"mail": redis_queue, "sms": {"url": "redis://localhost:1"}}})
    with contextlib.closing(from_config(config)) as provider:
        assert not provider.carry(rider)
        assert provider.carry(rider, parse_target(redis_url, 1))


class TestCarrier:
    """Connections of the fleet's own."""

    def test_it_carries(self, redis_client: redis.Redis, redis_url: str) -> None:
        Operator(redis_client, "shop", by="ana").override(True, reason="sale")
        rider = Rider("shop", time.monotonic_ns)
        with contextlib.closing(Carrier(parse_target(redis_url, 5.0))) as carrier:
            assert self.carried(rider, carrier).control

    @staticmethod
    def carried(rider: Rider, carrier: Carrier) -> Heard:
        rider.arm("told", 5_000, 5)
        ride = rider.board()
        assert ride is not None
        carrier.carry(ride)
        heard = rider.heard()
        assert heard is not None
        return heard

    def test_in_a_cluster(self, redis_cluster: servers.Cluster) -> None:
        rider = Rider("shop", time.monotonic_ns)
        with contextlib.closing(Carrier(parse_target(redis_cluster.url, 5.0))) as carrier:
            heard = self.carried(rider, carrier)
            assert heard.error is heard.presence_error is None

    def test_a_server_that_is_away_and_a_password_that_is_wrong(self, own_server: servers.Server) -> None:
        rider = Rider("shop", time.monotonic_ns)
        url = f"redis://:hunter2@{servers.HOST}:{own_server.port}"
        with own_server.client() as client:
            client.config_set("requirepass", "other")
        with contextlib.closing(Carrier(parse_target(url, 1.0))) as carrier:
            for _ in range(2):
                heard = self.carried(rider, carrier)
                assert "cannot read fleet at redis://127.0.0.1" in str(heard.error)
                assert "hunter2" not in str(heard.error)
                own_server.kill()


class TestRide:
    """What a rider makes of replies, without a server."""

    @staticmethod
    def rider() -> tuple[Rider, list[int]]:
        now = [1_000_000_000]
        return Rider("shop", lambda: now[0]), now

    def test_what_was_true_was_true_in_the_middle(self) -> None:
        rider, now = self.rider()
        rider.arm("told", 5_000, 5)
        ride = rider.board()
        assert ride is not None
        now[0] += 400_000_000
        ride.take([{}, (7, 250_000), True, 1, 1], lambda error: error)
        assert rider.heard() == Heard(1, 1_200_000_000, 7_250, {}, 1)

    def test_who_was_stopped_meanwhile_counts_from_the_sending(self) -> None:
        rider, now = self.rider()
        rider.arm("told", 5_000, 5)
        ride = rider.board()
        assert ride is not None
        now[0] += 3_600_000_000_000
        ride.take([{}, (7, 0), True, 1, 1], lambda error: error)
        heard = rider.heard()
        assert heard is not None
        assert heard.at_ns == 1_500_000_000

    def test_an_older_ride_that_ends_late_says_nothing(self) -> None:
        rider, _ = self.rider()
        rides = []
        for _ in range(2):
            rider.arm("told", 5_000, 5)
            rides.append(rider.board())
        first, second = rides
        assert first is not None
        assert second is not None
        second.take([{"a": b"1"}, (7, 0), True, 1, 1], lambda error: error)
        first.take([{}, (8, 0), True, 1, 1], lambda error: error)
        first.fail(ValueError())
        heard = rider.heard()
        assert heard is not None
        assert heard.control == {"a": b"1"}

    @pytest.mark.parametrize(
        "replies", [[None, None, None], [[], (1, 2), 1], [{}, "x", 1], [{}, (None, 1), 1], [7, 7, 7]]
    )
    def test_a_server_that_is_none(self, replies: list[Any]) -> None:
        rider, _ = self.rider()
        rider.arm("told", 5_000, 5)
        ride = rider.board()
        assert ride is not None
        ride.take(replies, lambda error: error)
        heard = rider.heard()
        assert heard is not None
        assert heard.error is not None
        assert heard.control is None

    def test_it_boards_once(self) -> None:
        rider, _ = self.rider()
        rider.arm("told", 5_000, 5)
        assert rider.board() is not None
        assert rider.board() is None

    def test_a_forked_child_is_another_member(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rider, _ = self.rider()
        parent = rider.member_id
        assert rider.member_id == parent
        monkeypatch.setattr(os, "getpid", lambda: 4_711)
        assert rider.member_id != parent
        assert "-4711-" in rider.member_id

    def test_a_host_with_an_odd_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "gethostname", lambda: "hä us\n" * 20)
        member_id = self.rider()[0].member_id
        assert member_id.isascii()
        assert " " not in member_id
        assert len(member_id) < 100
