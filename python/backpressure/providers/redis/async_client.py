"""Turns a Redis URL into a client of `redis.asyncio`, and makes one exchange over one of its connections."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from backpressure._model.errors import ConfigurationError
from backpressure.providers.redis.base import NOT_READY, SAID, SLICE, demoted, is_master
from backpressure.providers.redis.client import is_sentinel_master

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from backpressure.providers.layouts import Command
    from backpressure.providers.redis.client import RedisTarget

__all__ = [
    "AsyncClient",
    "NodeServer",
    "PoolServer",
    "Server",
    "cancellable",
    "check_options",
    "close",
    "connect",
    "exchange",
]

AsyncClient: TypeAlias = Redis | RedisCluster

T = TypeVar("T")

_AGAIN = 0.2  # seconds after which a cancellation that seems forgotten is repeated

# Partly untyped in redis-py, and differently in each release.
_new_cluster: Any = RedisCluster
_new_node: Any = ClusterNode
_new_sentinel: Any = Sentinel
_new_recorder: Any = Pipeline

# A command's name was required before redis-py 5.3; it is unused, and deprecated since.
_command_name = inspect.signature(ConnectionPool.get_connection).parameters["command_name"]
_POOL_ARGUMENTS = ("_",) if _command_name.default is inspect.Parameter.empty else ()


def connect(target: RedisTarget) -> AsyncClient:
    """Return a new client that belongs to the running loop; it talks to no server yet."""
    ssl = {"ssl": True} if target.tls else {}
    options = _translated(target.options)
    if target.kind == "cluster":
        nodes = [_new_node(host, port) for host, port in target.hosts]
        cluster: RedisCluster = _new_cluster(startup_nodes=nodes, require_full_coverage=False, **ssl, **options)
        return cluster
    if target.kind == "sentinel":
        sentinel = _new_sentinel(target.hosts, sentinel_kwargs={**ssl, **_translated(target.sentinel_options)})
        master: Redis = sentinel.master_for(target.service, **ssl, **options)
        return master
    if "path" in options:
        options["connection_class"] = UnixDomainSocketConnection
    else:
        options["connection_class"] = SSLConnection if target.tls else Connection
    return Redis(connection_pool=ConnectionPool(**options))


def _translated(options: dict[str, Any]) -> dict[str, Any]:
    # redis.asyncio has a Retry of its own.
    return {**options, "retry": Retry(NoBackoff(), 0)}


def check_options(target: RedisTarget) -> None:
    """Refuse an option that redis-py knows for blocking clients only, now rather than at each poll.

    Raises:
        ConfigurationError: there is such an option. The message withholds the URL, and there is no cause.
    """
    try:
        client = connect(target)
        if isinstance(client, Redis):
            pool: Any = client.connection_pool
            pool.make_connection()
    except Exception:  # noqa: BLE001 - any error may quote the URL
        refusal = ConfigurationError(
            "redis_url has an option that redis.asyncio does not know (value withheld): check what follows the '?'",
            field="redis_url",
        )
    else:
        return
    # Outside of the handler, so that redis-py's error is not its context.
    raise refusal


async def close(client: AsyncClient) -> None:
    """Close all of a client's connections, also those in use by other tasks. Raises no error of redis-py."""
    closing: list[Any]
    if isinstance(client, RedisCluster):
        manager: Any = client.nodes_manager
        # The client itself closes nothing when its first look at the cluster was cancelled.
        closing = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
        with contextlib.suppress(Exception):
            await client.aclose()
    else:
        manager = client.connection_pool
        closing = [manager]
        if is_sentinel_master(client):
            closing += [sentinel.connection_pool for sentinel in manager.sentinel_manager.sentinels]
    for each in closing:
        with contextlib.suppress(Exception):
            await each.disconnect()


class Server(Protocol):
    """One server to ask: lends its connections, and knows how its replies are read."""

    check_role: bool

    async def acquire(self) -> Any:
        """Return a connection that is ready."""

    async def release(self, connection: Any) -> None:
        """Take it back."""

    async def parse(self, connection: Any, name: str, options: dict[str, Any]) -> Any:
        """Return the next reply."""

    async def require_master(self, role: Any) -> None:
        """Refuse a server that is no longer the master, given its reply to ``ROLE``."""


class PoolServer:
    """The server of a `redis.asyncio.Redis`."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client
        self.check_role = is_sentinel_master(client)

    async def acquire(self) -> Any:
        """Return a connection that is ready."""
        pool = self._client.connection_pool
        try:
            connection = await pool.get_connection(*_POOL_ARGUMENTS)
        except RedisConnectionError as error:
            if str(error) == NOT_READY:
                await _hear(pool.connection_class(**pool.connection_kwargs))
            raise
        try:
            await _make_ready(connection)
        except BaseException:
            await asyncio.shield(self.release(connection))
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Take it back."""
        await self._client.connection_pool.release(connection)

    async def parse(self, connection: Any, name: str, options: dict[str, Any]) -> Any:
        """Return the next reply."""
        return await self._client.parse_response(connection, name, **options)

    async def require_master(self, role: Any) -> None:
        """Refuse a server that has been demoted; its connections still point to it."""
        if not is_master(role):
            await self._client.connection_pool.disconnect(inuse_connections=False)
            raise demoted()


class NodeServer:
    """One node of a `redis.asyncio.RedisCluster`."""

    check_role = False

    def __init__(self, node: Any) -> None:
        self._node = node
        # Older redis-py has no method for it.
        self._take_back = getattr(node, "release", None) or node._free.append  # noqa: SLF001

    async def acquire(self) -> Any:
        """Return a connection that is ready."""
        connection = self._node.acquire_connection()
        try:
            await _make_ready(connection)
        except BaseException:
            self._take_back(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Take it back."""
        self._take_back(connection)

    async def parse(self, connection: Any, name: str, options: dict[str, Any]) -> Any:
        """Return the next reply."""
        return await self._node.parse_response(connection, name, **options)

    async def require_master(self, role: Any) -> None:
        """Refuse nothing: in a cluster a demoted node itself tells where to go."""


async def _hear(connection: Any) -> None:
    """Raise what the server says to a new connection before it is asked, such as that it has too many of them."""
    try:
        await connection.connect()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connection.read_response(), SAID)
    finally:
        await connection.disconnect(nowait=True)


async def _make_ready(connection: Any) -> None:
    # Nodes also lend connections that the server has closed; so do pools of redis-py 8 where it takes notifications.
    if connection.is_connected and await _is_spoilt(connection):
        await connection.disconnect(nowait=True)
    await connection.connect()


async def _is_spoilt(connection: Any) -> bool:
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
    try:
        # Older redis-py mistakes the end of the stream for nothing to read.
        return bool(await can_read()) or connection._reader.at_eof()  # noqa: SLF001
    except Exception:  # noqa: BLE001 - for any fault, a new one is better
        return True


async def cancellable(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; a cancellation is repeated until it has ended.

    redis-py sends with `asyncio.wait_for`. On Python 3.11 this forgets a cancellation that comes just when the bytes
    are out (python/cpython#86296). The read would then wait for the reply of a server that may be frozen.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # another one asks for the same
                await asyncio.wait({task}, timeout=_AGAIN)
        if not task.cancelled():
            task.exception()  # asyncio complains of errors that nobody looks at
        raise
    return task.result()


async def exchange(server: Server, commands: Sequence[Command]) -> list[Any]:
    """Exchange commands for their replies, in one round trip; a refused command has its error as reply."""
    return await cancellable(_exchange(server, commands))


async def _exchange(server: Server, commands: Sequence[Command]) -> list[Any]:
    recorder = _new_recorder(None, {}, transaction=False, shard_hint=None)
    if server.check_role:
        recorder.role()
    for method, key, args in commands:
        getattr(recorder, method)(key, *args)
    await asyncio.sleep(0)
    sent = recorder.command_stack
    replies: list[Any] = []
    connection = await server.acquire()
    try:
        await connection.send_packed_command(connection.pack_commands([args for args, _ in sent]))
        for number, (args, options) in enumerate(sent, 1):
            try:
                replies.append(await server.parse(connection, args[0], options))
            except ResponseError as error:
                replies.append(error)
            # To read replies that have already arrived never yields to the loop.
            if number % SLICE == 0:
                await asyncio.sleep(0)
        if server.check_role:
            await server.require_master(replies.pop(0))
    except BaseException:
        # After a failure or cancellation it may still get replies; the next commands would take them for theirs.
        with contextlib.suppress(Exception):
            await connection.disconnect(nowait=True)
        raise
    finally:
        # Shielded: after a second cancellation the pool would believe that the connection is still in use.
        await asyncio.shield(server.release(connection))
    return replies
