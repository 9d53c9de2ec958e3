"""`AsyncRedisStatsProvider`: reads queues in Redis or Valkey from an event loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import AskError, ClusterDownError, RedisClusterException

from backpressure._model.arguments import validate_queue_name
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.hidden import hides_arguments
from backpressure._model.stats import QueueStats, utc_now
from backpressure.providers.layouts import ListKey, StreamKey, ZSetKey
from backpressure.providers.redis.async_client import (
    NodeServer,
    PoolServer,
    cancellable,
    check_options,
    close,
    connect,
    exchange,
)
from backpressure.providers.redis.base import CHUNK, SLICE, RedisProvider, fill, node_of
from backpressure.providers.redis.errors import unavailable
from backpressure.providers.redis.layouts import Reading
from backpressure.providers.redis.memory import ASK
from backpressure.providers.redis.riders import commands_of, deal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from backpressure._fleet.ride import Ride
    from backpressure.providers.layouts import Command, Layout
    from backpressure.providers.redis.async_client import AsyncClient, Server
    from backpressure.providers.redis.base import Outcome

__all__ = ["AsyncRedisStatsProvider", "ListKey", "StreamKey", "ZSetKey"]


# Seconds to wait for another loop to close its connections.
_PATIENCE = 1.0


class _Link:
    """The state of one event loop: its client, and whether that must ask again which node holds which keys."""

    def __init__(self, client: AsyncClient | None) -> None:
        self.pid = os.getpid()
        self.client = client
        self.stale_slots = False


class AsyncRedisStatsProvider(RedisProvider):
    """An `AsyncStatsProvider` for Redis and Valkey: `RedisStatsProvider` for asyncio.

    Args:
        url_or_client: a URL, as for `RedisStatsProvider`; or a `redis.asyncio.Redis` or
            `redis.asyncio.cluster.RedisCluster`, which is used as it is and never closed: give it short timeouts and
            ``retry=Retry(NoBackoff(), 0)``. It belongs to your event loop, so a controller reads with it only there,
            and never in the background.
        queues: as for `RedisStatsProvider`.
        timeout: seconds for each connect and each reply, where a URL is given.
        key: as for `RedisStatsProvider`.
        layout: as for `RedisStatsProvider`.

    It sends the same commands, gives the same samples and has the same errors as values. The nodes of a cluster are
    read at the same time. A read may be cancelled at any point: its connection is closed, so that no later read gets
    its replies. Long reads let the event loop run others after every 64 commands or replies.

    Made from a URL it is usable from several event loops, also in several threads and in forked children: each loop
    gets a client of its own, made when first needed and dropped some time after the loop was closed. Call `aclose`
    before your loop ends; a controller calls `release_loop` on its own. It holds credentials, so it does not pickle;
    they are in no repr, message or log record.

    Raises:
        ConfigurationError: the URL, a queue, a key, the layout or the timeout is impossible.
        InvalidQueueError: a queue's name is impossible.

    Example:
        >>> AsyncRedisStatsProvider("redis://:secret@localhost:6379/0", ["email-queue"])
        AsyncRedisStatsProvider('redis://localhost:6379/0', 1 queues)
    """

    __module__ = "backpressure"

    _client_types = (Redis, RedisCluster)
    _client_names = "a redis.asyncio.Redis or a redis.asyncio.cluster.RedisCluster"

    @hides_arguments
    def __init__(
        self,
        url_or_client: str | AsyncClient,
        queues: Iterable[str] | Mapping[str, Layout | str | bytes] | None = None,
        *,
        timeout: float = 1.0,
        key: str | None = None,
        layout: Layout | str | None = None,
    ) -> None:
        super().__init__(url_or_client, queues, timeout, key, layout)
        if self._target is not None:
            check_options(self._target)
        # A forked child never runs its parent's loops, so it never meets their clients.
        self._links: dict[asyncio.AbstractEventLoop, _Link] = {}
        #: True where it reads with a client that it was given; `AsyncStatsProvider` tells what that means.
        self.loop_bound = self._given is not None

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        """Read one queue, listed or not.

        Raises:
            StatsUnavailableError: it could not be read; ``error_type`` tells why.
            InvalidQueueError: the name cannot name a queue.
        """
        name = validate_queue_name(queue_name)
        outcome = (await self.get_many([name]))[name]
        if isinstance(outcome, StatsUnavailableError):
            raise outcome
        return outcome

    async def get_all_queue_stats(self) -> Mapping[str, Outcome]:
        """Read the queues this provider was made for, or those it discovers.

        Raises:
            StatsUnavailableError: nothing could be read.
        """
        layouts = self._found(await self._read(self._discovery())) if self._discovers else self._layouts
        return await self._read(layouts)

    async def get_many(self, queue_names: Iterable[str]) -> Mapping[str, Outcome]:
        """Read several queues, listed or not.

        Raises:
            StatsUnavailableError: nothing could be read.
            InvalidQueueError: a name cannot name a queue.
        """
        layouts, refused = self._layouts_of(queue_names)
        return {**refused, **await self._read(layouts)}

    async def _read(self, layouts: Mapping[str, Layout]) -> dict[str, Outcome]:
        self._require_open()
        link = self._link()
        failures: list[StatsUnavailableError] = []
        # Slices only let the loop run other tasks in between: all slices share their round trips.
        readings: list[Reading] = []
        now, items = utc_now(), list(layouts.items())
        for start in range(0, len(items), SLICE):
            some = dict(items[start : start + SLICE])
            readings.append(Reading(some, now, redact=self._redact, types=self._types))
            await asyncio.sleep(0)
        rides = self._riders.boarding()
        while any(rounds := [reading.commands() for reading in readings]) or rides:
            asked = [command for commands in rounds for command in commands]
            replies = await self._exchange(link, asked, failures, rides)
            rides = []
            position = 0
            for reading, commands in zip(readings, rounds, strict=True):
                reading.feed(replies[position : position + len(commands)])
                position += len(commands)
                await asyncio.sleep(0)
        results = {name: outcome for reading in readings for name, outcome in reading.results.items()}
        keys = {name: key for reading in readings for name, key in reading.keys.items()}
        results = self._with_memory(results, lambda name: node_of(link.client, keys.get(name)))
        if failures and not any(isinstance(outcome, QueueStats) for outcome in results.values()):
            raise failures[-1]
        return results

    def _link(self) -> _Link:
        loop = asyncio.get_running_loop()
        if (link := self._links.get(loop)) is None:
            for other in list(self._links):
                if other.is_closed():
                    self._links.pop(other, None)
            link = self._links[loop] = _Link(self._given)
        return link

    async def _exchange(
        self,
        link: _Link,
        commands: Sequence[Command],
        failures: list[StatsUnavailableError],
        rides: Sequence[Ride] = (),
    ) -> list[Any]:
        """Return the reply to each command, or its error; `rides` get theirs themselves."""
        replies: list[Any] = [None] * len(commands)
        try:
            client = self._client(link)
            if isinstance(client, RedisCluster):
                await self._ask_cluster(link, client, commands, replies, failures, rides)
            else:
                await self._ask("", PoolServer(client), range(len(commands)), commands, replies, failures, rides)
        except Exception as error:  # noqa: BLE001 - e.g. no node of the cluster tells where keys lie
            failures.append(self._failure(error))
            fill(replies, range(len(replies)), failures[-1])
            for ride in rides:
                ride.fail(failures[-1])
        return replies

    async def _ask(
        self,
        name: str,
        server: Server,
        positions: Sequence[int],
        commands: Sequence[Command],
        replies: list[Any],
        failures: list[StatsUnavailableError],
        rides: Sequence[Ride] = (),
    ) -> None:
        """Fill in one server's replies, and the error that ended them."""
        memory = self._memories.due(name)
        along = [ride for ride in rides if positions and not ride.alone]
        for start in range(0, len(positions), CHUNK):
            chunk = positions[start : start + CHUNK]
            try:
                asked = [commands[position] for position in chunk]
                beside = memory == "beside" and start == 0
                more = [*([ASK] if beside else []), *commands_of(along if start == 0 else ())]
                answers = await exchange(server, [*asked, *more])
                if start == 0:
                    deal(along, answers[len(asked) + beside :], self._of_fleet)
                if beside:
                    self._memories.take(name, answers[len(asked)])
                del answers[len(asked) :]
            except Exception as error:  # noqa: BLE001 - a connection closed under redis-py shows as anything
                failures.append(self._failure(error))
                fill(replies, positions, failures[-1])
                for ride in rides:
                    ride.fail(failures[-1])
                return
            for position, answer in zip(chunk, answers, strict=True):
                replies[position] = answer
        for ride in rides:
            if ride not in along:
                try:
                    ride.take(await exchange(server, commands_of([ride])), self._of_fleet)
                except Exception as error:  # noqa: BLE001 - whatever it is, the queues were read
                    ride.fail(self._failure(error))
        if memory == "alone":
            try:
                (reply,) = await exchange(server, [ASK])
            except Exception as error:  # noqa: BLE001 - whatever it is, the queues were read
                reply = error
            self._memories.take(name, reply)

    def _failure(self, error: Exception) -> StatsUnavailableError:
        return unavailable(error, what=self._where, redact=self._redact)

    def _client(self, link: _Link) -> AsyncClient:
        self._require_open()
        if link.client is None:
            assert self._target is not None  # noqa: S101 - only a URL leaves the client to be made
            link.client = connect(self._target)
        return link.client

    async def _ask_cluster(
        self,
        link: _Link,
        cluster: Any,
        commands: Sequence[Command],
        replies: list[Any],
        failures: list[StatsUnavailableError],
        rides: Sequence[Ride],
    ) -> None:
        await self._find_slots(link, cluster)
        nodes: dict[str, tuple[Any, list[int]]] = {}
        for position, command in enumerate(commands, 1):
            try:
                node = cluster.get_node_from_key(command.key)
            except RedisClusterException as error:
                replies[position - 1] = error
            else:
                nodes.setdefault(node.name, (node, []))[1].append(position - 1)
            if position % SLICE == 0:
                await asyncio.sleep(0)
        carried: dict[str, list[Ride]] = {}
        for ride in rides:
            try:
                node = cluster.get_node_from_key(ride.key)
            except RedisClusterException as error:
                ride.fail(self._failure(error))
            else:
                nodes.setdefault(node.name, (node, []))
                carried.setdefault(node.name, []).append(ride)
        before = len(failures)
        async with asyncio.TaskGroup() as group:
            for name, (node, positions) in nodes.items():
                here = carried.get(name, ())
                group.create_task(self._ask(name, NodeServer(node), positions, commands, replies, failures, here))
        misled = (AskError, ClusterDownError, RedisClusterException)
        told = (*replies, *(ride.error for ride in rides))
        if len(failures) > before or any(isinstance(reply, misled) for reply in told):
            link.stale_slots = True

    async def _find_slots(self, link: _Link, cluster: Any) -> None:
        try:
            await cancellable(cluster.initialize())
            if link.stale_slots:
                await cancellable(cluster.nodes_manager.initialize())
        except Exception:
            # No known node answers: begin again with the nodes of the URL.
            is_held = link.client is cluster
            if is_held and self._given is None:
                link.client = None
                await close(cluster)
            raise
        link.stale_slots = False

    async def release_loop(self) -> None:
        """Close the connections opened on the running event loop, which is about to end; a later read opens others."""
        link = self._links.pop(asyncio.get_running_loop(), None)
        if link is not None:
            await self._close_link(link)

    async def aclose(self) -> None:
        """Close the connections this provider opened; reads then raise `StatsUnavailableError`. Idempotent.

        Those of other loops that run are closed there; a loop that does not run keeps its own until it is collected.
        """
        self._closed = True
        here = asyncio.get_running_loop()
        for loop, link in list(self._links.items()):
            if loop is here:
                await self._close_link(link)
            elif loop.is_running() and link.pid == os.getpid():
                closing = self._close_link(link)
                try:
                    future = asyncio.run_coroutine_threadsafe(closing, loop)
                except RuntimeError:  # it was closed just now
                    closing.close()
                else:
                    # The loop may end before it gets to this.
                    await asyncio.wait([asyncio.wrap_future(future)], timeout=_PATIENCE)

    async def _close_link(self, link: _Link) -> None:
        # A client that a parent process made is kept: to collect it here would reach into the parent's loop.
        if self._given is None and link.pid == os.getpid():
            client, link.client = link.client, None
            if client is not None:
                await close(client)
