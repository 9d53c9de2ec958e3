"""`RedisStatsProvider`: reads queues that lie in Redis or Valkey as lists, sorted sets or streams."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import AskError, ClusterDownError, RedisClusterException
from redis.exceptions import ConnectionError as RedisConnectionError

from backpressure._model.arguments import validate_queue_name
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.hidden import hides_arguments
from backpressure._model.stats import QueueStats, utc_now
from backpressure._runtime.pauses import Pauses
from backpressure._runtime.reading import owned, owner
from backpressure.providers.layouts import ListKey, StreamKey, ZSetKey
from backpressure.providers.redis.base import CHUNK, NOT_READY, SAID, RedisProvider, demoted, fill, is_master, node_of
from backpressure.providers.redis.client import disconnect, is_sentinel_master
from backpressure.providers.redis.errors import error_type, unavailable
from backpressure.providers.redis.layouts import Reading
from backpressure.providers.redis.memory import ASK
from backpressure.providers.redis.riders import commands_of, deal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from backpressure._fleet.ride import Ride
    from backpressure.providers.layouts import Command, Layout
    from backpressure.providers.redis.base import Outcome
    from backpressure.providers.redis.client import Client

__all__ = ["ListKey", "RedisStatsProvider", "StreamKey", "ZSetKey", "error_type"]


class _Read:
    """One call of the provider while it runs."""

    def __init__(self) -> None:
        self.owner = owner()
        self.interrupted = False
        #: What it reads through. Its link may have another by now.
        self.client: Client | None = None
        self.failure: StatsUnavailableError | None = None
        self.tick = Pauses().tick
        self._pipeline: Any = None

    def _ticking(self, parse: Callable[..., Any]) -> Callable[..., Any]:
        tick = self.tick

        def parse_and_tick(*args: Any, **options: Any) -> Any:
            tick()
            return parse(*args, **options)

        return parse_and_tick

    def check(self) -> None:
        """Begin nothing more after `interrupt`."""
        if self.interrupted:
            raise TimeoutError("interrupted")

    def execute(self, client: Redis, commands: Sequence[Command], *, check_role: bool) -> list[Any]:
        """Exchange one chunk of commands for their replies, in one round trip."""
        pipeline: Any = client.pipeline(transaction=False)
        self._pipeline = pipeline
        try:
            if check_role:
                pipeline.role()
            for method, key, args in commands:
                getattr(pipeline, method)(key, *args)
                self.tick()
            pipeline.parse_response = self._ticking(pipeline.parse_response)
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        finally:
            self._pipeline = None
        if check_role:
            _require_master(client, replies.pop(0))
        return replies

    def interrupt(self) -> None:
        """End the exchange under way, from another thread: the reader sees its socket closed."""
        self.interrupted = True
        connection = getattr(self._pipeline, "connection", None)
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()


class _Link:
    """What belongs to one process: its client, its reads under way, what it knows of the cluster."""

    def __init__(self, client: Client | None) -> None:
        # One client or none. In a dict, because of several threads that keep one at once the first wins there.
        self._clients: dict[str, Client] = {} if client is None else {"client": client}
        self.reads: set[_Read] = set()
        self.stale_slots = False
        # Names of cluster nodes whose last read failed: they are read last, not to use up the others' time.
        self.troubled: set[str] = set()

    @property
    def client(self) -> Client | None:
        return self._clients.get("client")

    def keep(self, client: Client) -> Client:
        """Keep a client, unless another thread was faster; return the one that is kept."""
        return self._clients.setdefault("client", client)

    def forget(self) -> None:
        """Let the next read make a client."""
        self._clients.clear()


class RedisStatsProvider(RedisProvider):
    """A `StatsProvider` for Redis and Valkey 5 and later: standalone, TLS, unix socket, Sentinel or Cluster.

    Args:
        url_or_client: ``redis://[user:password@]host:port/db``, ``rediss://`` (TLS), ``unix:///path?db=0``,
            ``redis+sentinel://host:port,host:port/service/db`` (``?sentinel_username=`` and ``sentinel_password=``
            for the sentinels themselves), ``redis+cluster://host:port,host:port``; ``valkey`` may stand for
            ``redis``, ``rediss`` goes with ``+sentinel`` and ``+cluster`` too, and redis-py's options may follow as
            a query. Celery's words are understood (``redis+socket://``, ``sentinel://…;sentinel://…?master_name=``,
            ``ssl_cert_reqs=CERT_NONE``) or refused by name. Or a `redis.Redis` or `redis.cluster.RedisCluster`, which
            is used as it is and never closed. Give it short timeouts and ``retry=Retry(NoBackoff(), 0)``, because
            redis-py tries ten times by default.
        queues: what `get_all_queue_stats` reads: names, or a mapping from names to `ListKey`, `ZSetKey`, `StreamKey`,
            another layout, or a key (``str`` or ``bytes``) of a plain list. ``None``: those that `layout` discovers.
        timeout: seconds for each connect and each reply, where a URL is given.
        key: key of the plain list of a queue that is given only by name; ``{queue}`` in it stands for the name. With a
            key, names that are not in `queues` are read too: by this key, or with ``key="{queue}"`` by `layout`.
            ``None``: the key is the name, and other names are refused, because a missing list looks empty.
        layout: where queues lie that are given only by name: a `backpressure.providers.layouts.Layout`, such as
            ``CeleryLayout.from_app(app)`` or ``StreamKey("jobs:{queue}", group="workers")``, or the name of a built-in
            or installed one, such as ``"rq"``.

    One read is one non-transactional pipeline of single-key commands per server and 500 commands; two or three
    pipelines where streams are read or ages are looked up. For plain keys it sends only `LLEN`, `ZCARD`, `ZCOUNT`,
    `XINFO GROUPS`, `XLEN`, `XRANGE` and `XREVRANGE`; for layouts also the commands that the guide lists. It sends
    `TYPE` once for a key of another type than said, `ROLE` where Sentinel chooses the server, and `INFO memory` once a
    second at most (a refusal of these three is ignored). redis-py sends its own commands to connect. Scores of due jobs
    are compared with this machine's wall clock.

    A mapping returned by `get_many` and `get_all_queue_stats` holds for each queue its sample or, where the queue
    could not be read, the `StatsUnavailableError`; when nothing at all could be read because the server could not
    be reached, that error is raised instead.

    Thread-safe without locks of its own, and usable in a forked child, which opens its own connections. It holds
    credentials, so it does not pickle; they are in no repr, message or log record.

    Raises:
        ConfigurationError: the URL, a queue, a key, the layout or the timeout is impossible.
        InvalidQueueError: a queue's name is impossible.

    Example:
        >>> queues = {"email-queue": ListKey("jobs:email"), "events": StreamKey("events", group="workers")}
        >>> RedisStatsProvider("redis://:secret@localhost:6379/0", queues, timeout=0.5)
        RedisStatsProvider('redis://localhost:6379/0', 2 queues)
    """

    __module__ = "backpressure"

    _client_types = (Redis, RedisCluster)
    _client_names = "a redis.Redis or a redis.cluster.RedisCluster"

    @hides_arguments
    def __init__(
        self,
        url_or_client: str | Client,
        queues: Iterable[str] | Mapping[str, Layout | str | bytes] | None = None,
        *,
        timeout: float = 1.0,
        key: str | None = None,
        layout: Layout | str | None = None,
    ) -> None:
        super().__init__(url_or_client, queues, timeout, key, layout)
        # One per process: a forked child must not touch what its parent's threads were using. setdefault is atomic.
        self._links: dict[int, _Link] = {}

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        """Read one queue, listed or not.

        Raises:
            StatsUnavailableError: it could not be read; ``error_type`` tells why.
            InvalidQueueError: the name cannot name a queue.
        """
        name = validate_queue_name(queue_name)
        outcome = self.get_many([name])[name]
        if isinstance(outcome, StatsUnavailableError):
            raise outcome
        return outcome

    def get_all_queue_stats(self) -> Mapping[str, Outcome]:
        """Read the queues this provider was made for, or those it discovers.

        Raises:
            StatsUnavailableError: nothing could be read.
        """
        return self._read(self._found(self._read(self._discovery())) if self._discovers else self._layouts)

    def get_many(self, queue_names: Iterable[str]) -> Mapping[str, Outcome]:
        """Read several queues, listed or not.

        Raises:
            StatsUnavailableError: nothing could be read.
            InvalidQueueError: a name cannot name a queue.
        """
        layouts, refused = self._layouts_of(queue_names)
        return {**refused, **self._read(layouts)}

    def _read(self, layouts: Mapping[str, Layout]) -> dict[str, Outcome]:
        self._require_open()
        link = self._link()
        read = _Read()
        link.reads.add(read)
        try:
            reading = Reading(layouts, utc_now(), redact=self._redact, types=self._types, tick=read.tick)
            rides = self._riders.boarding()
            while (commands := reading.commands()) or rides:
                replies = self._exchange(link, read, commands, rides)
                rides = []
                if commands:
                    reading.feed(replies)
        finally:
            link.reads.discard(read)
        results = self._with_memory(reading.results, lambda name: node_of(read.client, reading.keys.get(name)))
        if read.failure is not None and not any(isinstance(outcome, QueueStats) for outcome in results.values()):
            raise read.failure
        return results

    def _link(self) -> _Link:
        pid = os.getpid()
        return self._links.get(pid) or self._links.setdefault(pid, _Link(self._given))

    def _exchange(self, link: _Link, read: _Read, commands: Sequence[Command], rides: Sequence[Ride] = ()) -> list[Any]:
        """Return the reply to each command, or its error; `rides` get theirs themselves."""
        replies: list[Any] = [None] * len(commands)
        try:
            for name, client, positions, here in self._routes(link, read, commands, replies, rides):
                read.check()
                failure = self._ask(read, name, client, positions, commands, replies, here)
                if failure is not None:
                    read.failure = failure
                    fill(replies, positions, failure)
                if name:
                    answers = [*(replies[position] for position in positions), *(ride.error for ride in here)]
                    self._learn(link, name, answers, failed=failure is not None)
        except Exception as error:  # noqa: BLE001 - e.g. no node of the cluster tells where keys lie
            read.failure = self._failure(read, error)
            fill(replies, range(len(replies)), read.failure)
            for ride in rides:
                ride.fail(read.failure)
        return replies

    def _ask(
        self,
        read: _Read,
        node: str,
        client: Redis,
        positions: Sequence[int],
        commands: Sequence[Command],
        replies: list[Any],
        rides: Sequence[Ride] = (),
    ) -> StatsUnavailableError | None:
        """Fill in one server's replies; return the error that ended them."""
        check_role = is_sentinel_master(client)
        memory = self._memories.due(node)
        along = [ride for ride in rides if positions and not ride.alone]
        for start in range(0, len(positions), CHUNK):
            chunk = positions[start : start + CHUNK]
            try:
                read.check()
                asked = [commands[position] for position in chunk]
                beside = memory == "beside" and start == 0
                more = [*([ASK] if beside else []), *commands_of(along if start == 0 else ())]
                answers = read.execute(client, [*asked, *more], check_role=check_role)
                if start == 0:
                    deal(along, answers[len(asked) + beside :], self._of_fleet)
                if beside:
                    self._memories.take(node, answers[len(asked)])
                del answers[len(asked) :]
            except Exception as error:  # noqa: BLE001 - a socket closed under redis-py shows as anything
                failure = self._failure(read, _first_words(client) if str(error) == NOT_READY else error)
                for ride in rides:
                    ride.fail(failure)
                return failure
            for position, answer in zip(chunk, answers, strict=True):
                replies[position] = answer
        for ride in rides:
            if ride not in along:
                self._carry(read, client, ride, check_role=check_role)
        if memory == "alone":
            self._ask_for_memory(read, node, client)
        return None

    def _carry(self, read: _Read, client: Redis, ride: Ride, *, check_role: bool) -> None:
        """Send a fleet's commands by themselves: whatever becomes of them, the queues were read."""
        try:
            read.check()
            ride.take(read.execute(client, commands_of([ride]), check_role=check_role), self._of_fleet)
        except Exception as error:  # noqa: BLE001 - likewise
            ride.fail(self._failure(read, error))

    def _ask_for_memory(self, read: _Read, node: str, client: Redis) -> None:
        """Ask a server for its memory by itself, as it may hang up."""
        try:
            read.check()
            (reply,) = read.execute(client, [ASK], check_role=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, the queues were read
            if not read.interrupted:
                self._memories.take(node, error)
        else:
            self._memories.take(node, reply)

    def _failure(self, read: _Read, error: Exception) -> StatsUnavailableError:
        label = "deadline" if read.interrupted else None
        return unavailable(error, what=self._where, redact=self._redact, label=label)

    def _client(self, link: _Link) -> Client:
        if (kept := link.client) is not None:
            return kept
        assert self._target is not None  # noqa: S101 - only a URL leaves the client to be made
        made = self._target.connect()
        kept = link.keep(made)
        if kept is not made:  # another first reader was faster
            disconnect(made)
        return kept

    def _routes(
        self, link: _Link, read: _Read, commands: Sequence[Command], replies: list[Any], rides: Sequence[Ride]
    ) -> Iterator[tuple[str, Redis, list[int], Sequence[Ride]]]:
        """Yield for each server to ask: node name (empty outside of clusters), client, positions of commands, rides."""
        client = read.client = self._client(link)
        if not isinstance(client, RedisCluster):
            yield "", client, list(range(len(commands))), rides
            return
        cluster: Any = client
        if link.stale_slots:
            self._refresh_slots(link, cluster)
        nodes: dict[str, tuple[Any, list[int]]] = {}
        for position, command in enumerate(commands):
            try:
                node = cluster.get_node_from_key(command.key)
            except RedisClusterException as error:
                replies[position] = error
                link.stale_slots = True
                continue
            nodes.setdefault(node.name, (node, []))[1].append(position)
        carried: dict[str, list[Ride]] = {}
        for ride in rides:
            try:
                node = cluster.get_node_from_key(ride.key)
            except RedisClusterException as error:
                ride.fail(self._failure(read, error))
                link.stale_slots = True
                continue
            nodes.setdefault(node.name, (node, []))
            carried.setdefault(node.name, []).append(ride)
        for name in sorted(nodes, key=link.troubled.__contains__):
            node, positions = nodes[name]
            yield name, cluster.get_redis_connection(node), positions, carried.get(name, ())

    def _refresh_slots(self, link: _Link, cluster: Any) -> None:
        try:
            cluster.nodes_manager.initialize()
        except Exception:
            # No known node answers: begin again with the nodes of the URL.
            if self._given is None:
                link.forget()
            raise
        link.stale_slots = False
        link.troubled &= {node.name for node in cluster.get_nodes()}

    @staticmethod
    def _learn(link: _Link, name: str, answers: Sequence[Any], *, failed: bool) -> None:
        if failed:
            link.troubled.add(name)
        else:
            link.troubled.discard(name)
        if failed or any(isinstance(answer, (AskError, ClusterDownError)) for answer in answers):
            link.stale_slots = True

    def interrupt(self) -> None:
        """End the reads under way, from another thread; each of them then fails with ``error_type="deadline"``.

        Raises nothing. In a given client only connections that are reading for this provider are closed; one that
        is still being opened ends by the client's own timeout. A controller ends its own reads alone, and not those
        of others that share the provider.
        """
        link = self._links.get(os.getpid())
        if link is None:
            return
        all_reads = link.reads.copy()
        reads = owned(all_reads)
        for read in reads:
            read.interrupt()
        # This ends reads that are just connecting, too; but those of others that share the client go on.
        foreign = {read.client for read in all_reads if read not in reads}
        for client in {read.client for read in reads} - foreign:
            if client is not None and client is not self._given:
                with contextlib.suppress(Exception):
                    disconnect(client)

    def close(self) -> None:
        """Close the connections this provider opened; reads then raise `StatsUnavailableError`. Idempotent."""
        self._closed = True
        link = self._links.get(os.getpid())
        if link is not None and link.client is not None and link.client is not self._given:
            with contextlib.suppress(Exception):
                disconnect(link.client)


def _first_words(client: Redis) -> Exception:
    """Return what the server says to a new connection before it is asked, such as that it has too many of them."""
    pool: Any = client.connection_pool
    connection = pool.connection_class(**pool.connection_kwargs)
    try:
        connection.connect()
        if connection.can_read(timeout=SAID):
            connection.read_response()
    except Exception as said:  # noqa: BLE001 - whatever it is, it says more
        return said
    finally:
        connection.disconnect()
    return RedisConnectionError(NOT_READY)


def _require_master(client: Redis, role: Any) -> None:
    """Refuse the answers of a server that has been demoted; its connections still point to it."""
    if not is_master(role):
        client.connection_pool.disconnect(inuse_connections=False)
        raise demoted()
