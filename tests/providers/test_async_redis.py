"""`AsyncRedisStatsProvider` against real servers: given clients, cancellation and loops; the rest is in test_redis."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import redis
import redis.asyncio
from redis.asyncio.client import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster

from backpressure import AsyncBackpressureController
from backpressure._model.errors import StatsUnavailableError
from backpressure.providers.redis import async_client as _redis_async_client
from backpressure.providers.redis.async_provider import AsyncRedisStatsProvider
from backpressure.providers.redis.provider import StreamKey
from providers.checks import counts, sample
from providers.contract.backend import Wrong
from providers.contract.suite import Contract
from providers.redis_backend import RedisBackend, running, wrong
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

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


class AsyncRedis(RedisBackend):
    kind = AsyncRedisStatsProvider
    faces = ("plain", "tls")
    kept = 16  # a connection goes back a moment after its read has ended
    uncut: ClassVar = {}  # a task is cancelled wherever it waits
    malformed = (
        *RedisBackend.malformed,
        "redis://h?what=canary",
        "rediss://h?ssl_validate_ocsp=canary",
        "redis+cluster://h?ssl_validate_ocsp=canary",
    )
    wrong = (
        *wrong(AsyncRedisStatsProvider),
        Wrong("url_or_client", lambda: AsyncRedisStatsProvider(redis.Redis(), ["q"])),  # type: ignore[arg-type]
    )

    def with_clients(self, known: tuple[int, ...], unknown: int) -> Iterator[Any]:
        return iter(())  # a client belongs to one loop, and is read there below


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Server]:
    with running() as server:
        yield server


@pytest.fixture
def backend(server: servers.Server) -> Iterator[AsyncRedis]:
    with servers.tls_front(server) as front:
        yield AsyncRedis(server, front)


class TestContract(Contract, of=AsyncRedis):
    pass


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


def test_a_given_cluster_client_is_used_and_left_open(redis_cluster: servers.Cluster) -> None:
    fill_cluster(redis_cluster, ["q0", "q1"])

    async def main() -> None:
        client = redis.asyncio.RedisCluster(host=servers.HOST, port=redis_cluster.nodes[0].port)
        async with opened(client, ["q1"]) as provider:
            assert (await provider.get_queue_stats("q1")).backlog_count == 2
        assert await client.llen("q1") == 2
        await client.aclose()

    asyncio.run(main())


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


def test_loops_in_several_threads(redis_url: str, redis_client: redis.Redis) -> None:
    names = [f"q{number}" for number in range(50)]
    for number, name in enumerate(names):
        redis_client.rpush(name, *range(number + 1))
    provider = AsyncRedisStatsProvider(redis_url, names)
    before = ids(redis_client)
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
    assert not ids(redis_client) - before


# What the first loop leaves open is the point of this test; it is closed when it is collected, with a warning.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_loop_after_the_other(redis_url: str, redis_client: redis.Redis) -> None:
    provider = AsyncRedisStatsProvider(redis_url, ["q"])
    before = ids(redis_client)
    for _ in range(3):
        asyncio.run(provider.get_queue_stats("q"))
        assert len(provider._links) == 1, "clients of closed loops are dropped"

    async def last() -> None:
        await provider.get_queue_stats("q")
        await provider.aclose()
        await provider.aclose()

    asyncio.run(last())
    gc.collect()
    servers.wait_until(lambda: not ids(redis_client) - before, what="the server to see them closed")


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
