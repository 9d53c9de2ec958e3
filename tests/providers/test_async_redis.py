"""`AsyncRedisStatsProvider` against real servers: what it shares with the blocking one, cancellation, and loops."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import inspect
import logging
import os
import pickle
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.client import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster

from backpressure import AsyncBackpressureController, BackpressureConfig, PollingConfig, Priority, Reason
from backpressure._model.errors import ConfigurationError, InvalidQueueError, StatsUnavailableError
from backpressure._model.stats import AsyncStatsProvider, QueueStats
from backpressure.providers.redis import async_client as _redis_async_client
from backpressure.providers.redis import async_provider as module
from backpressure.providers.redis.async_provider import AsyncRedisStatsProvider
from backpressure.providers.redis.provider import ListKey, RedisStatsProvider, StreamKey, ZSetKey
from providers.checks import counts, sample
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from backpressure._engine.border import EngineModule

GROUP = "workers"
HANGS = 30.0


@contextlib.asynccontextmanager
async def opened(url_or_client: Any, queues: Any = ("q",), **options: Any) -> AsyncIterator[AsyncRedisStatsProvider]:
    provider = AsyncRedisStatsProvider(url_or_client, queues, **{"timeout": 10.0, **options})  # machines stall
    try:
        yield provider
    finally:
        await provider.aclose()


async def failure(reading: Awaitable[object]) -> StatsUnavailableError:
    """Return what `reading` raises, which carries neither cause nor context."""
    with pytest.raises(StatsUnavailableError) as caught:
        await reading
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def read_all(url: Any, queues: Any, **options: Any) -> dict[str, Any]:
    """Read once on a loop of its own."""

    async def main() -> dict[str, Any]:
        async with opened(url, queues, **options) as provider:
            return dict(await provider.get_all_queue_stats())

    return asyncio.run(main())


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each exchange sent."""
    sizes: list[int] = []
    exchange = _redis_async_client.exchange

    async def noted(server: Any, commands: Any) -> list[Any]:
        sizes.append(len(commands))
        return await exchange(server, commands)

    monkeypatch.setattr(module, "exchange", noted)
    return sizes


# ------------------------------------------------------------------------------------------------------------- layouts


def test_is_an_async_stats_provider(redis_url: str) -> None:
    provider = AsyncRedisStatsProvider(redis_url, ["q"])
    assert isinstance(provider, AsyncStatsProvider)
    assert inspect.iscoroutinefunction(provider.get_queue_stats)


def test_layouts_as_the_blocking_provider_reads_them(redis_url: str, redis_client: redis.Redis) -> None:
    now = time.time()
    redis_client.rpush("jobs", "a", "b", "c")
    redis_client.rpush("jobs:running", "d")
    redis_client.zadd("z", {"past": now - 60, "soon": now + 60})
    for number in range(10):
        redis_client.xadd("s", {"n": number})
    redis_client.xgroup_create("s", GROUP, id="0")
    redis_client.xreadgroup(GROUP, "worker", {"s": ">"}, count=3)
    redis_client.xadd("middle", {"n": 0})
    redis_client.xgroup_create("middle", GROUP, id="$")
    redis_client.xadd("middle", {"n": 1})
    redis_client.set("text", "x")
    queues = {
        "plain": "jobs",
        "bytes": b"jobs",
        "both": ListKey("jobs", "jobs:running"),
        "empty": "nothing",
        "zset": ZSetKey("z"),
        "due": ZSetKey("z", due="seconds"),
        "stream": StreamKey("s", GROUP),
        "lagless": StreamKey("middle", GROUP),
        "other group": StreamKey("s", "others"),
        "text": "text",
        "text as zset": ZSetKey("text", due="seconds"),
        "text as stream": StreamKey("text", GROUP),
    }
    outcomes = read_all(redis_url, queues)
    assert {name: counts(sample(outcomes, name)) for name in queues if not name.startswith("text")} == {
        "plain": (3, None, None),
        "bytes": (3, None, None),
        "both": (3, 1, None),
        "empty": (0, None, None),
        "zset": (2, None, None),
        "due": (1, None, 1),
        "stream": (7, 3, None),
        "lagless": (1, 0, None),
        "other group": (10, 0, None),
    }
    assert sample(outcomes, "stream").oldest_age == pytest.approx(0, abs=5)
    provider = RedisStatsProvider(redis_url, queues)
    blocking = provider.get_all_queue_stats()
    provider.close()
    for name, outcome in outcomes.items():
        if isinstance(outcome, StatsUnavailableError):
            assert (outcome.error_type, outcome.queue_name) == ("wrongtype", name)
            assert "holds a string" in str(outcome)
            assert str(outcome) == str(blocking[name])
        else:
            assert counts(outcome) == counts(sample(blocking, name))


def test_names(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.rpush("jobs:other", "x", "y")

    async def main() -> None:
        async with opened(redis_url, [], key="jobs:{queue}") as provider:
            assert (await provider.get_queue_stats("other")).backlog_count == 2
            assert await provider.get_all_queue_stats() == {}
            with pytest.raises(InvalidQueueError):
                await provider.get_queue_stats("")
        async with opened(redis_url, {"q": "jobs:other"}, key=None) as provider:
            outcomes = await provider.get_many(["q", "unlisted"])
            assert sample(outcomes).backlog_count == 2
            assert "not among the queues" in str(outcomes["unlisted"])
            assert (await failure(provider.get_queue_stats("unlisted"))).queue_name == "unlisted"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: AsyncRedisStatsProvider("http://h", ["q"]), "redis_url"),
        (lambda: AsyncRedisStatsProvider("redis://h?what=secret", ["q"]), "redis_url"),
        (lambda: AsyncRedisStatsProvider("rediss://h?ssl_validate_ocsp=secret", ["q"]), "redis_url"),
        (lambda: AsyncRedisStatsProvider("redis+cluster://h?ssl_validate_ocsp=secret", ["q"]), "redis_url"),
        (lambda: AsyncRedisStatsProvider(redis.Redis(), ["q"]), "url_or_client"),  # type: ignore[arg-type]
        (lambda: AsyncRedisStatsProvider("redis://h", "q"), "queues"),
        (lambda: AsyncRedisStatsProvider("redis://h", {"q": 1}), "queues.q"),
        (lambda: AsyncRedisStatsProvider("redis://h", ["q"], timeout=0), "timeout"),
        (lambda: AsyncRedisStatsProvider("redis://h", ["q"], key="q"), "key"),
    ],
)
def test_impossible_settings(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.field == field
    assert "secret" not in str(caught.value) + repr(vars(caught.value))
    assert caught.value.__context__ is None


# ---------------------------------------------------------------------------------------------------------- long reads


def test_many_queues_are_read_in_chunks(redis_url: str, redis_client: redis.Redis, round_trips: list[int]) -> None:
    names = [f"q{number}" for number in range(1201)]
    pipeline = redis_client.pipeline(transaction=False)
    for number, name in enumerate(names):
        pipeline.rpush(name, *range(number % 7 + 1))
    pipeline.set("q600", "not a list")
    pipeline.execute()
    outcomes = read_all(redis_url, names)
    assert round_trips == [500, 500, 201, 1], "the last one asks for the type of the bad key"
    assert [name for name in names if not isinstance(outcomes[name], QueueStats)] == ["q600"]
    assert all(
        sample(outcomes, name).backlog_count == number % 7 + 1 for number, name in enumerate(names) if name != "q600"
    )


def test_streams_of_one_read_share_their_rounds(
    redis_url: str, redis_client: redis.Redis, round_trips: list[int]
) -> None:
    redis_client.xadd("s", {"n": 1})
    redis_client.xgroup_create("s", GROUP, id="0")
    outcomes = read_all(redis_url, {f"q{number}": StreamKey("s", GROUP) for number in range(200)})
    assert round_trips == [200, 200]
    assert all(sample(outcomes, name).backlog_count == 1 for name in outcomes)


def test_a_long_read_leaves_the_loop_to_others(redis_url: str, redis_client: redis.Redis) -> None:
    async def main() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with opened(redis_url, [f"q{number}" for number in range(5_000)]) as provider:
            await provider.get_queue_stats("q0")
            task = asyncio.create_task(others())
            await provider.get_all_queue_stats()
            task.cancel()
        return turns

    # 5 000 commands, replies and samples, one turn after every 64 of the latter two at least.
    assert asyncio.run(main()) > 150


# ---------------------------------------------------------------------------------------------------------- transports


def test_unix_socket_and_database(redis_server: servers.Server) -> None:
    with redis_server.client(db=3) as client:
        client.flushall()
        client.rpush("q", "x", "y")
    for url in (f"unix://{redis_server.unix_socket}?db=3", f"redis://{servers.HOST}:{redis_server.port}/3"):
        assert sample(read_all(url, ["q"])).backlog_count == 2


def test_tls() -> None:
    with redis_fixtures.start(requirepass="secret") as server, servers.tls_front(server) as front:
        with server.client() as client:
            client.rpush("q", "x")
        url = f"rediss://:secret@{servers.HOST}:{front.port}/0"
        assert sample(read_all(f"{url}?ssl_ca_certs={servers.CERTIFICATE}", ["q"])).backlog_count == 1
        assert sample(read_all(f"{url}?ssl_cert_reqs=none", ["q"])).backlog_count == 1
        with pytest.raises(StatsUnavailableError) as caught:
            read_all(url, ["q"])
        assert caught.value.error_type == "protocol"


def test_sentinel() -> None:
    async def main(port: int, client: Any) -> None:
        async with opened(f"redis+sentinel://:secret@{servers.HOST}:{port}/main/0") as provider:
            assert (await provider.get_queue_stats("q")).backlog_count == 1
            # Demoted behind the sentinel's back: its answers are those of a replica without a master.
            client.execute_command("REPLICAOF", servers.HOST, servers.dead_port())
            assert (await failure(provider.get_queue_stats("q"))).error_type == "failover"
            client.execute_command("REPLICAOF", "NO", "ONE")
            assert (await provider.get_queue_stats("q")).backlog_count == 1
        async with opened(f"redis+sentinel://:secret@{servers.HOST}:{port}/other") as provider:
            assert (await failure(provider.get_queue_stats("q"))).error_type == "failover"

    with redis_fixtures.start(requirepass="secret") as master:
        rules = f"sentinel monitor main {servers.HOST} {master.port} 1\nsentinel auth-pass main secret"
        with servers.Server(sentinel=rules) as sentinel, master.client() as client:
            client.rpush("q", "x")
            asyncio.run(main(sentinel.port, client))


def fill_cluster(cluster: servers.Cluster, names: list[str]) -> None:
    for node in cluster.nodes:
        with node.client() as direct:
            direct.flushall()
    with contextlib.closing(RedisCluster(host=servers.HOST, port=cluster.nodes[0].port)) as client:
        for number, name in enumerate(names):
            client.rpush(name, *range(number + 1))
        client.set("text", "x")
        client.xadd("s", {"n": 1})
        client.xgroup_create("s", GROUP, id="0-1")


def test_cluster(redis_cluster: servers.Cluster, round_trips: list[int]) -> None:
    names = [f"q{number}" for number in range(40)]
    fill_cluster(redis_cluster, names)

    async def main() -> None:
        async with opened(redis_cluster.url, names) as provider:
            outcomes = await provider.get_all_queue_stats()
            assert [sample(outcomes, name).backlog_count for name in names] == list(range(1, 41))
            assert len(round_trips) == 3, "one exchange a node"
        async with opened(redis_cluster.url, {"t": "text", "s": StreamKey("s", GROUP)}) as provider:
            outcomes = await provider.get_all_queue_stats()
            assert "holds a string" in str(outcomes["t"])
            assert counts(sample(outcomes, "s")) == (1, 0, None)
        client = redis.asyncio.RedisCluster(host=servers.HOST, port=redis_cluster.nodes[0].port)
        async with opened(client, names) as provider:
            assert (await provider.get_queue_stats("q7")).backlog_count == 8
        assert await client.llen("q7") == 8
        await client.aclose()

    asyncio.run(main())


def test_cluster_follows_moved_slots(redis_cluster: servers.Cluster) -> None:
    fill_cluster(redis_cluster, [])

    async def main(clients: list[Any]) -> None:
        slot = int(clients[0].execute_command("CLUSTER", "KEYSLOT", "q"))
        ids = [client.execute_command("CLUSTER", "MYID") for client in clients]
        owner = min(slot * 3 // 16384, 2)
        target = (owner + 1) % 3

        def assign(index: int) -> None:
            for client in clients:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[index])

        async with opened(redis_cluster.url) as provider:
            assert (await provider.get_queue_stats("q")).backlog_count == 0
            assign(target)
            try:
                clients[target].rpush("q", "x")
                assert (await failure(provider.get_queue_stats("q"))).error_type == "cluster"
                assert (await provider.get_queue_stats("q")).backlog_count == 1
            finally:
                clients[target].delete("q")
                assign(owner)

    with contextlib.ExitStack() as stack:
        asyncio.run(main([stack.enter_context(node.client()) for node in redis_cluster.nodes]))


def test_cluster_with_a_frozen_node_still_reads_the_others(redis_cluster: servers.Cluster) -> None:
    names = [f"q{number}" for number in range(40)]
    fill_cluster(redis_cluster, names)
    frozen = redis_cluster.nodes[1]

    async def main() -> None:
        async with opened(redis_cluster.url, names, timeout=1) as provider:
            await provider.get_all_queue_stats()
            frozen.freeze()
            try:
                outcomes = await provider.get_all_queue_stats()
                errors = [outcome for outcome in outcomes.values() if isinstance(outcome, StatsUnavailableError)]
                assert 0 < len(errors) < 40
                assert {error.error_type for error in errors} == {"timeout"}
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(provider.get_all_queue_stats(), 0.05)
            finally:
                frozen.resume()
            await asyncio.to_thread(servers.wait_until, redis_cluster.is_complete, what="the cluster to be whole again")
            await provider.get_all_queue_stats()
            outcomes = await provider.get_all_queue_stats()
            assert [sample(outcomes, name).backlog_count for name in names] == list(range(1, 41))

    asyncio.run(main())


def test_a_cluster_whose_first_read_is_cancelled_twice_leaves_no_connection(redis_cluster: servers.Cluster) -> None:
    async def main() -> None:
        for turn in range(80):
            async with opened(redis_cluster.url) as provider:
                read = asyncio.create_task(provider.get_all_queue_stats())
                for turns in (turn, 1):
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    read.cancel()
                await asyncio.wait({read})
                await asyncio.sleep(0.002)  # what it has asked for may come

    asyncio.run(main())
    gc.collect()
    for node in redis_cluster.nodes:
        with node.client() as client:
            # The nodes' own links count as clients.
            servers.wait_until(
                lambda own=client: len(own.client_list(_type="normal")) == 1,  # type: ignore[misc]
                what="the server to see them closed",
            )


def test_cluster_whose_server_closes_idle_connections(redis_cluster: servers.Cluster) -> None:
    async def main() -> None:
        async with opened(redis_cluster.url) as provider:
            await provider.get_queue_stats("q")
            for node in redis_cluster.nodes:
                with node.client() as direct:
                    direct.client_kill_filter(_type="normal", skipme=True)
            assert (await provider.get_queue_stats("q")).backlog_count == 0

    fill_cluster(redis_cluster, [])
    asyncio.run(main())


def test_cluster_that_is_gone_or_none(redis_server: servers.Server) -> None:
    async def main() -> None:
        async with opened(f"redis+cluster://{servers.HOST}:{servers.dead_port()}", timeout=2) as provider:
            assert (await failure(provider.get_all_queue_stats())).error_type == "connect"
        async with opened(f"redis+cluster://{servers.HOST}:{redis_server.port}", timeout=2) as provider:
            assert (await failure(provider.get_all_queue_stats())).error_type == "cluster"

    asyncio.run(main())


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 2}], ids=str)
def test_a_given_client_is_used_and_left_open(
    redis_url: str, redis_client: redis.Redis, options: dict[str, Any]
) -> None:
    redis_client.rpush("q", "x")
    redis_client.set("text", "x")
    redis_client.xadd("s", {"n": 1})
    redis_client.xgroup_create("s", GROUP, id="0-1")

    async def main() -> None:
        async with Redis.from_url(redis_url, **options) as client:
            await client.client_setname("mine")
            queues = {"q": "q", "s": StreamKey(b"s", GROUP.encode()), "t": "text"}
            provider = AsyncRedisStatsProvider(client, queues)
            outcomes = await provider.get_all_queue_stats()
            assert sample(outcomes).backlog_count == 1
            assert counts(sample(outcomes, "s")) == (1, 0, None)
            assert "holds a string" in str(outcomes["t"])
            await provider.aclose()
            assert await client.client_getname() in {"mine", b"mine"}, "the connection was closed"
            assert "is closed" in str(await failure(provider.get_all_queue_stats()))

    asyncio.run(main())


# -------------------------------------------------------------------------------------------------------------- faults


def test_dead_server_and_its_return() -> None:
    async def main(server: servers.Server) -> None:
        async with opened(server.url) as provider:
            assert (await provider.get_queue_stats("q")).backlog_count == 0
            server.kill()
            error = await failure(provider.get_all_queue_stats())
            assert error.error_type == "connect"
            assert f"redis://{servers.HOST}:{server.port}/0" in str(error)
            server.start()
            assert (await provider.get_queue_stats("q")).backlog_count == 0

    with redis_fixtures.start() as server:
        asyncio.run(main(server))


def test_idle_connection_closed_by_the_server(redis_url: str, redis_client: redis.Redis) -> None:
    async def main() -> None:
        async with opened(redis_url) as provider:
            await provider.get_queue_stats("q")
            redis_client.client_kill_filter(_type="normal", skipme=True)
            assert (await provider.get_queue_stats("q")).backlog_count == 0

    asyncio.run(main())


def test_authentication() -> None:
    async def main(server: servers.Server) -> None:
        for credentials in ("", ":wrong@", "nobody:secret@"):
            async with opened(f"redis://{credentials}{servers.HOST}:{server.port}/0") as provider:
                assert (await failure(provider.get_all_queue_stats())).error_type == "auth"
        async with opened(f"redis://:secret@{servers.HOST}:{server.port}/0") as provider:
            assert (await provider.get_queue_stats("q")).backlog_count == 0

    with redis_fixtures.start(requirepass="secret") as server:
        asyncio.run(main(server))


async def close_connections(link: Any) -> None:
    await _redis_async_client.close(link.client)


@pytest.mark.parametrize("given_client", [False, True], ids=["url", "client"])
@pytest.mark.parametrize("warm", [True, False], ids=["reading", "connecting"])
def test_cancelled_reads_of_a_frozen_server_leave_no_reply_behind(given_client: bool, warm: bool) -> None:
    async def main(server: servers.Server) -> None:
        retry = Retry(NoBackoff(), 0)
        async with Redis(host=servers.HOST, port=server.port, socket_timeout=HANGS, retry=retry) as client:
            queues = [f"q{number}" for number in range(100)]
            where = client if given_client else server.url
            async with opened(where, queues, timeout=HANGS, key="{queue}") as provider:
                if warm:
                    await provider.get_all_queue_stats()
                server.freeze()
                begun = time.monotonic()
                reads = [asyncio.create_task(asyncio.wait_for(provider.get_all_queue_stats(), 0.2)) for _ in range(3)]
                done, _ = await asyncio.wait(reads)
                assert time.monotonic() - begun < 10
                assert all(isinstance(task.exception(), TimeoutError) for task in done)
                server.resume()
                # Replies to the cancelled reads would be taken for these.
                for _ in range(3):
                    assert (await provider.get_queue_stats("three")).backlog_count == 3
                    outcomes = await provider.get_all_queue_stats()
                    assert [sample(outcomes, name).backlog_count for name in queues] == list(range(1, 101))
                assert not asyncio.all_tasks() - {asyncio.current_task()}

    with redis_fixtures.start() as server:
        with server.client() as direct:
            direct.rpush("three", "a", "b", "c")
            for number in range(100):
                direct.rpush(f"q{number}", *range(number + 1))
        asyncio.run(main(server))


@pytest.mark.parametrize("warm", [True, False], ids=["reading", "connecting"])
@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_a_read_of_a_frozen_server_can_be_cancelled_at_every_turn(kind: str, warm: bool) -> None:
    async def main(server: servers.Server, url: str) -> None:
        for turn in range(25):  # after a dozen it waits for the reply
            async with opened(url, ["q"], timeout=HANGS) as provider:
                if warm or kind == "cluster":  # which cannot be met without an answer
                    await provider.get_all_queue_stats()
                server.freeze()
                if not warm:
                    await asyncio.gather(*map(close_connections, provider._links.values()))
                read = asyncio.create_task(provider.get_all_queue_stats())
                for _ in range(turn):
                    await asyncio.sleep(0)
                read.cancel()
                await asyncio.wait({read}, timeout=5)
                server.resume()
                assert read.cancelled(), turn

    with contextlib.ExitStack() as stack:
        if kind == "cluster":
            cluster = stack.enter_context(servers.Cluster(1))
            asyncio.run(main(cluster.nodes[0], cluster.url))
        else:
            server = stack.enter_context(redis_fixtures.start())
            asyncio.run(main(server, server.url))


def test_a_read_cancelled_between_replies_closes_its_connection(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_client.rpush("q", "x")
    parse = Redis.parse_response
    taken = 0
    connections: list[Any] = []
    reached: asyncio.Event

    async def stops(self: Any, connection: Any, name: Any, **options: Any) -> Any:
        nonlocal taken
        if name == "LLEN":
            taken += 1
            if taken == 5:
                connections.append(connection)
                reached.set()
                await asyncio.Event().wait()
        return await parse(self, connection, name, **options)

    async def main() -> None:
        nonlocal reached
        reached = asyncio.Event()
        async with opened(redis_url, [f"empty{number}" for number in range(20)], key="{queue}") as provider:
            monkeypatch.setattr(Redis, "parse_response", stops)
            task = asyncio.ensure_future(provider.get_all_queue_stats())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [connection.is_connected for connection in connections] == [False]
            for _ in range(5):
                assert (await provider.get_queue_stats("q")).backlog_count == 1

    asyncio.run(main())


def test_a_failure_in_the_middle_keeps_what_was_read(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    exchange = _redis_async_client.exchange

    async def breaks(server: Any, commands: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise redis.ConnectionError("cut")
        return await exchange(server, commands)

    monkeypatch.setattr(module, "exchange", breaks)
    monkeypatch.setattr(module, "CHUNK", 2)
    outcomes = read_all(redis_url, list("abcde"))
    assert calls == 2
    assert [isinstance(outcomes[name], QueueStats) for name in "abcde"] == [True, True, False, False, False]
    assert [(outcomes[name].error_type, outcomes[name].queue_name) for name in "cde"] == [
        ("connect", name) for name in "cde"
    ]


# ------------------------------------------------------------------------------------------------------------- secrets

CANARY = "canary-9f3b-word"
NAME = "canary-user"


def test_credentials_are_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []

    async def watch(url: str) -> None:
        async with opened(url, timeout=0.3) as provider:
            shown.extend([repr(provider), str(provider), repr(vars(provider))])
            for read in (provider.get_all_queue_stats, lambda: provider.get_queue_stats("q")):
                try:
                    shown.append(repr(await read()))
                except StatsUnavailableError as error:
                    shown.extend([*traceback.format_exception(error), repr(vars(error)), repr(pickle.dumps(error))])
            shown.append(repr(provider._where))
            for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="does not pickle") as caught:
                    refuse(provider)
                shown.append(str(caught.value))

    def quoting(connection: Any) -> None:
        while data := connection.recv(65536):
            words = [word for word in data.split(b"\r\n") if word and word[:1] not in b"*$"]
            connection.sendall(b"-ERR what is this: %s\r\n" % b" ".join(b"'%s'" % word for word in words) * 4)

    who = f"{NAME}:{CANARY}@{servers.HOST}"
    dead = servers.dead_port()
    with redis_fixtures.start(requirepass="another") as server, servers.Listener(quoting) as other:
        for url in (
            *(f"redis://{who}:{port}/0" for port in (dead, server.port, other.port)),
            f"redis://{who}:{other.port}/0?protocol=2",
            f"rediss://{who}:{server.port}/0",
            f"unix://{NAME}:{CANARY}@{server.unix_socket}",
            f"redis+sentinel://{who}:{other.port}/main?sentinel_username={NAME}&sentinel_password={CANARY}",
            f"redis+cluster://{who}:{other.port}",
            f"redis+cluster://{who}:{dead}",
        ):
            asyncio.run(watch(url))
    shown.extend(str(vars(record)) for record in caplog.records if not record.name.startswith("asyncio"))
    assert len(shown) > 80
    assert [text for text in shown if CANARY in text] == []
    assert [text for text in shown if NAME in text] == []


# ------------------------------------------------------------------------------------------------- loops and processes


def test_loops_in_several_threads(redis_url: str, redis_client: redis.Redis) -> None:
    names = [f"q{number}" for number in range(50)]
    for number, name in enumerate(names):
        redis_client.rpush(name, *range(number + 1))
    provider = AsyncRedisStatsProvider(redis_url, names)
    wrong: list[object] = []
    barrier = threading.Barrier(4)

    async def read() -> None:
        for _ in range(10):
            found = await provider.get_all_queue_stats()
            if [sample(found, name).backlog_count for name in names] != list(range(1, 51)):
                wrong.append(found)

    async def main() -> None:
        await asyncio.gather(read(), read(), read())
        barrier.wait()
        # One closes the connections of all, each on its own loop, while those run on.
        if threading.current_thread().name == "closer":
            await provider.aclose()
            closed.set()
        while not closed.is_set():
            await asyncio.sleep(0.001)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    closed = threading.Event()
    threads = [threading.Thread(target=run, name=name) for name in ("closer", "a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(redis_client.client_list()) == 1


# What the first loop leaves open is the point of this test; it is closed when it is collected, with a warning.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_loop_after_the_other(redis_url: str, redis_client: redis.Redis) -> None:
    provider = AsyncRedisStatsProvider(redis_url, ["q"])
    for _ in range(3):
        asyncio.run(provider.get_queue_stats("q"))
        assert len(provider._links) == 1, "clients of closed loops are dropped"

    async def last() -> None:
        await provider.get_queue_stats("q")
        await provider.aclose()
        await provider.aclose()

    asyncio.run(last())
    gc.collect()
    servers.wait_until(lambda: len(redis_client.client_list()) == 1, what="the server to see them closed")


def ids(client: redis.Redis) -> set[str]:
    return {entry["id"] for entry in client.client_list()}


def test_a_loop_that_ends_is_let_go_of(redis_url: str, redis_client: redis.Redis) -> None:
    async def main(provider: AsyncRedisStatsProvider) -> None:
        await provider.get_queue_stats("q")
        await provider.release_loop()
        await provider.release_loop()
        assert provider._links == {}
        await provider.get_queue_stats("q")
        await provider.release_loop()

    before = ids(redis_client)
    asyncio.run(main(AsyncRedisStatsProvider(redis_url, ["q"])))
    servers.wait_until(lambda: not ids(redis_client) - before, what="the server to see them closed")


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("closed", ["before stop", "after stop", "never"])
def test_a_controllers_loop_leaves_no_connection(
    redis_url: str, redis_client: redis.Redis, engine_name: str, engine_module: EngineModule, closed: str
) -> None:
    async def main() -> None:
        provider = AsyncRedisStatsProvider(redis_url, ["q"])
        async with AsyncBackpressureController(None, provider, _engine=engine_name) as controller:
            assert (await controller.suggest_throttle("low", "q")).backlog_size == 0
            assert len(ids(redis_client) - before) == 1
            if closed == "before stop":
                await provider.aclose()
        if closed == "after stop":
            await provider.aclose()

    before = ids(redis_client)
    asyncio.run(main())
    gc.collect()
    servers.wait_until(lambda: not ids(redis_client) - before, what="the server to see them closed")


def test_a_given_client_is_read_by_on_its_own_loop(
    redis_url: str, redis_client: redis.Redis, engine_name: str, engine_module: EngineModule
) -> None:
    redis_client.rpush("q", "x")
    names = [f"q{number}" for number in range(300)]

    async def main() -> None:
        async with Redis.from_url(redis_url, max_connections=2) as client:
            provider = AsyncRedisStatsProvider(client, ["q"])
            assert provider.loop_bound
            async with AsyncBackpressureController(
                None, AsyncRedisStatsProvider(client, ["q", *names]), _engine=engine_name
            ) as controller:
                asked = (controller.suggest_throttle("low", name) for name in ["q", *names])
                decisions = await asyncio.gather(*asked)
                assert [decision.backlog_size for decision in decisions] == [1, *(0 for _ in names)]
                assert not controller.health()["poller_alive"]
            assert await client.llen("q") == 1

    asyncio.run(main())
    assert not AsyncRedisStatsProvider(redis_url, ["q"]).loop_bound


def test_a_given_clients_full_pool_is_not_the_servers_limit(redis_url: str) -> None:
    async def main() -> None:
        async with Redis.from_url(redis_url, max_connections=1) as client:
            pool: Any = client.connection_pool
            lent = await pool.get_connection(*_redis_async_client._POOL_ARGUMENTS)
            error = await failure(AsyncRedisStatsProvider(client, ["q"]).get_queue_stats("q"))
            assert (error.error_type, "raise max_connections" in str(error)) == ("pool", True)
            await pool.release(lent)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_its_own_connection(redis_url: str, redis_client: redis.Redis) -> None:
    redis_client.rpush("q", "x")

    async def child(provider: AsyncRedisStatsProvider) -> int:
        backlog = (await provider.get_queue_stats("q")).backlog_count
        await provider.aclose()
        return 0 if backlog == 1 else 2

    loop = asyncio.new_event_loop()
    provider = AsyncRedisStatsProvider(redis_url, ["q"])
    loop.run_until_complete(provider.get_queue_stats("q"))
    before = ids(redis_client)
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = asyncio.run(child(provider))
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert loop.run_until_complete(provider.get_queue_stats("q")).backlog_count == 1
    assert ids(redis_client) == before, "the child closed its parent's connection"
    loop.run_until_complete(provider.aclose())
    loop.close()


# ---------------------------------------------------------------------------------------------------------- controller


async def until(condition: Callable[[], Coroutine[Any, Any, object]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


def test_in_a_controller(engine_name: str, engine_module: EngineModule) -> None:
    async def main(server: servers.Server, direct: redis.Redis) -> None:
        config = BackpressureConfig(polling=PollingConfig(interval=0.2, jitter=0, timeout=0.2, max_backoff=0.4))
        async with opened(server.url, ["jobs"], timeout=HANGS) as provider:
            controller = AsyncBackpressureController(config, provider, _engine=engine_name)
            await controller.start()
            try:

                async def decide() -> Any:
                    return await controller.suggest_throttle(Priority.LOW, "jobs")

                decision = await decide()
                assert (decision.reason, decision.backlog_size, decision.delay) == (Reason.BACKLOG_GREEN, 0, 0)

                direct.rpush("jobs", *range(100_000))

                async def sheds() -> bool:
                    return bool((await decide()).should_shed)

                await until(sheds)
                assert (await decide()).backlog_size == 100_000

                server.freeze()
                await asyncio.sleep(0.5)  # polls are cancelled meanwhile
                server.resume()
                direct.delete("jobs")

                async def goes() -> bool:
                    return bool((await decide()).backlog_size == 0)

                await until(goes)
            finally:
                await controller.stop()

    with redis_fixtures.start() as server, server.client() as direct:
        asyncio.run(main(server, direct))
