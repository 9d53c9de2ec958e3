"""How much of its memory a queue's server uses: read beside the queues, and missed by nobody where it cannot be."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from backpressure import AsyncRedisStatsProvider, BackpressureConfig, BackpressureController, RedisStatsProvider
from backpressure.providers.redis.memory import Memories
from providers.contract.reading import reading
from support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure import QueueStats

LIMIT = 64 << 20
BOTH = pytest.mark.parametrize("kind", [RedisStatsProvider, AsyncRedisStatsProvider], ids=["blocking", "asyncio"])


def half_full(client: Any) -> None:
    """Fill half of the memory, by bits: a long command would need it twice."""
    for number in range(LIMIT >> 18):
        client.set(f"other{number}", b"x" * (1 << 17))


class Clock:
    """Shows the time that it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Opened:
    """A provider whose looks at memory follow a clock of the test's."""

    def __init__(self, kind: Any, url: str, queues: list[str]) -> None:
        self.clock = Clock()
        self.provider = kind(url, queues, timeout=10.0)
        self.provider._memories._now = self.clock
        self.face = reading(self.provider)

    def used(self) -> dict[str, float | None]:
        """Read all queues, some seconds later."""
        self.clock.now += 5
        found: Any = self.face.get_all_queue_stats()
        return {name: stats.memory_used for name, stats in found.items()}

    @property
    def cautions(self) -> list[tuple[int, str]]:
        told: list[tuple[int, str]] = self.provider.memory_cautions()
        return told


@pytest.fixture
def opened(own_server: servers.Server) -> Iterator[Callable[..., Opened]]:
    with contextlib.ExitStack() as stack:

        def make(kind: Any, url: str = own_server.url, queues: tuple[str, ...] = ("q",)) -> Opened:
            made = Opened(kind, url, [*queues])
            stack.callback(made.face.close)
            return made

        yield make


@BOTH
class TestRead:
    def test_a_limit_that_refuses_is_told_of(
        self, kind: Any, opened: Callable[..., Opened], own_server: servers.Server
    ) -> None:
        with own_server.client() as client:
            client.config_set("maxmemory", LIMIT)
            half_full(client)
            provider = opened(kind, queues=("q", "r"))
            used = provider.used()
            assert set(used) == {"q", "r"}
            assert all(part is not None and 0.5 < part < 0.7 for part in used.values())
            client.flushall()
            # Some servers free it in the background.
            servers.wait_until(lambda: max(part or 0 for part in provider.used().values()) < 0.1, what="less memory")
        assert provider.cautions == []

    def test_without_a_limit_nothing_is_known(self, kind: Any, opened: Callable[..., Opened]) -> None:
        provider = opened(kind)
        assert provider.used() == {"q": None}
        ((level, sentence),) = provider.cautions
        assert (level, "has no maxmemory" in sentence) == (logging.INFO, True)

    def test_a_server_that_deletes_keys_is_warned_of(
        self, kind: Any, opened: Callable[..., Opened], own_server: servers.Server
    ) -> None:
        with own_server.client() as client:
            client.config_set("maxmemory", LIMIT)
            client.config_set("maxmemory-policy", "allkeys-lru")
            provider = opened(kind)
            assert provider.used() == {"q": None}
            ((level, sentence),) = provider.cautions
            assert (level, "allkeys-lru" in sentence) == (logging.WARNING, True)
            client.config_set("maxmemory-policy", "noeviction")
            assert provider.used()["q"] is not None
        assert provider.cautions == []

    def test_a_user_without_the_right_reads_the_queues_all_the_same(
        self, kind: Any, opened: Callable[..., Opened], own_server: servers.Server
    ) -> None:
        with own_server.client() as client:
            client.config_set("maxmemory", LIMIT)
            client.execute_command("ACL", "SETUSER", "reader", "on", ">word", "~q", "+llen")
            client.rpush("q", "job")
            provider = opened(kind, own_server.url.replace("://", "://reader:word@"))
            client.config_resetstat()
            for _ in range(3):
                assert provider.used() == {"q": None}
            told = client.info("commandstats")
        assert told["cmdstat_llen"]["calls"] == 3
        assert told["cmdstat_info"]["rejected_calls"] == 1, "who will not tell is not asked again"
        ((level, sentence),) = provider.cautions
        assert (level, "+info" in sentence, "word" in sentence) == (logging.INFO, True, False)

    def test_it_is_asked_for_once_a_second_at_most(
        self, kind: Any, opened: Callable[..., Opened], own_server: servers.Server
    ) -> None:
        provider = opened(kind, queues=tuple(f"q{number}" for number in range(700)))
        with own_server.client() as client:
            client.config_resetstat()
            provider.used()
            for _ in range(5):
                provider.face.get_all_queue_stats()
            provider.used()
            assert client.info("commandstats")["cmdstat_info"]["calls"] == 2

    def test_each_node_of_a_cluster_has_its_own(self, kind: Any, redis_cluster: servers.Cluster) -> None:
        names = [f"q{number}" for number in range(30)]
        limited = redis_cluster.nodes[0]
        made: Any = RedisCluster(host=servers.HOST, port=limited.port)
        with contextlib.closing(made) as cluster:
            mine = {name for name in names if cluster.get_node_from_key(name).port == limited.port}
        with limited.client() as client:
            client.config_set("maxmemory", LIMIT)
            try:
                provider = Opened(kind, redis_cluster.url, names)
                used = provider.used()
                assert {name for name, part in used.items() if part is not None} == mine
                assert 0 < len(mine) < len(names)
                provider.face.close()
            finally:
                client.config_set("maxmemory", 0)


class TestMemories:
    """What is made of replies."""

    @staticmethod
    def asked(memories: Memories, clock: Clock, reply: object) -> str:
        clock.now += 2
        how = memories.due("")
        if how:
            memories.take("", reply)
        return how

    def test_a_server_is_first_asked_alone_and_then_beside(self) -> None:
        clock = Clock()
        memories = Memories("here", clock)
        reply = {"used_memory": 90, "maxmemory": 200, "mem_not_counted_for_evict": 10}
        assert [self.asked(memories, clock, reply) for _ in range(3)] == ["alone", "beside", "beside"]
        assert memories.used("") == 0.4
        assert memories.due("") == ""

    def test_one_that_hangs_up_is_not_asked_for_ever(self) -> None:
        clock = Clock()
        memories = Memories("here", clock)
        gone = RedisConnectionError("Connection closed by server.")
        assert [self.asked(memories, clock, gone) for _ in range(5)] == ["alone"] * 3 + ["", ""]

    def test_one_that_refuses_is_asked_once(self) -> None:
        clock = Clock()
        memories = Memories("here", clock)
        assert [self.asked(memories, clock, ResponseError("unknown command")) for _ in range(3)] == ["alone", "", ""]

    def test_a_time_out_says_nothing(self) -> None:
        clock = Clock()
        memories = Memories("here", clock)
        assert [self.asked(memories, clock, RedisTimeoutError()) for _ in range(5)] == ["alone"] * 5
        assert memories.cautions() == []

    @pytest.mark.parametrize("reply", [{}, {"used_memory": "much", "maxmemory": 9}, [], b"used_memory:1", None])
    def test_garbage_is_no_memory(self, reply: object) -> None:
        memories = Memories("here", Clock())
        memories.due("")
        memories.take("", reply)
        assert not memories.used("")


class TestController:
    def config(self, **changes: Any) -> BackpressureConfig:
        return BackpressureConfig().evolve(changes)

    def test_low_and_medium_are_shed_by_memory_and_high_goes(
        self, engine_name: str, own_server: servers.Server
    ) -> None:
        with own_server.client() as client:
            client.config_set("maxmemory", LIMIT)
            half_full(client)
            answers: dict[str, list[str]] = {}
            for bounds in ("0.4, 0.9", "0.4, 0.5", "none"):
                provider = RedisStatsProvider(own_server.url, ["q"])
                config = self.config(**{"age.memory": bounds})
                with BackpressureController(config, provider, _engine=engine_name) as controller:
                    decisions = [controller.suggest_throttle(priority, "q") for priority in ("low", "medium", "high")]
                    told: Any = controller.health()["queues"]["q"]["memory_used"]
                    assert 0.5 < told < 0.7
                answers[bounds] = [decision.reason for decision in decisions if decision.should_shed]
                assert [decision.should_shed for decision in decisions][2] is False
        assert answers == {"0.4, 0.9": ["memory"], "0.4, 0.5": ["memory"] * 2, "none": []}

    def test_it_says_once_that_there_is_no_limit(
        self, own_server: servers.Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="backpressure")
        for bounds in ("0.85, 0.9", "none"):
            provider = RedisStatsProvider(own_server.url, ["q"])
            with BackpressureController(self.config(**{"age.memory": bounds}), provider) as controller:
                for _ in range(3):
                    controller.refresh("q")
            provider.close()
        assert [record.levelname for record in caplog.records if "maxmemory" in record.message] == ["INFO"]


def test_other_peoples_numbers_are_bounded() -> None:
    from backpressure._model.stats import QueueStats, part_of, permille_of

    assert [part_of(part) for part in (0, 0.5, 1, 99, True, -1, float("nan"), "1", None)] == [
        *(0.0, 0.5, 1.0, 10.0),
        *[None] * 5,
    ]
    assert permille_of(0.8999) == 899
    made: QueueStats = QueueStats("q", 1, memory_used=0.5)
    assert made.memory_used == 0.5
