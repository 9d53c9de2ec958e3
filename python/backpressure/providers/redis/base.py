"""What the blocking and the asyncio provider of Redis share: their settings, and how they hide credentials."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import attrs

from backpressure._model.arguments import shown, validate_queue_name
from backpressure._model.errors import ConfigurationError, InvalidQueueError, StatsUnavailableError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.hidden import hides_arguments
from backpressure._model.stats import QueueStats
from backpressure.providers.arguments import seconds
from backpressure.providers.layouts import (
    DiscoveringLayout,
    Layout,
    ListKey,
    StreamKey,
    ZSetKey,
    is_layout,
    layout_named,
)
from backpressure.providers.linked import Outcome
from backpressure.providers.redis import objects
from backpressure.providers.redis.client import RedisTarget, describe, parse_target, redactor_for
from backpressure.providers.redis.errors import unavailable
from backpressure.providers.redis.memory import Memories
from backpressure.providers.redis.riders import Riders

if TYPE_CHECKING:
    from datetime import datetime

    from backpressure._fleet.ride import Rider
    from backpressure.providers.layouts import Steps
    from backpressure.providers.layouts._steps import Key
    from backpressure.providers.redis.objects import Source

__all__ = ["CHUNK", "NOT_READY", "SAID", "SLICE", "Outcome", "RedisProvider", "demoted", "fill", "is_master", "node_of"]

#: Commands in one round trip; a longer pipeline would hold the server and the reply buffers.
CHUNK = 500

#: Commands or replies after which other threads and tasks may run: some 200 µs of work. Without it a producer that
#: wakes up during the poll of many queues waits for milliseconds, for the GIL or for the event loop.
SLICE = 64

#: All that pools of redis-py say of a server that speaks before it is asked. Without HELLO nobody has listened by then.
NOT_READY = "Connection not ready"

#: Seconds in which such a server says so again.
SAID = 0.1

_PLAIN = (ListKey, ZSetKey, StreamKey)


@repr_when_half_built
class RedisProvider:
    """Settings of a provider; how it reads is up to the subclass."""

    #: See `backpressure.StatsProvider`.
    shares_server: ClassVar[bool] = True

    _client_types: ClassVar[tuple[type, ...]]
    _client_names: ClassVar[str]

    def __init__(self, url_or_client: Any, queues: Any, timeout: Any, key: Any, layout: Any) -> None:
        seconds_each = seconds(timeout)
        self._layout = _default_layout(key, layout)
        self._reads_any = key is not None or queues is None
        self._target: RedisTarget | None = None
        self._given: Any = None
        if isinstance(url_or_client, (str, RedisTarget)):
            self._target = (
                url_or_client if isinstance(url_or_client, RedisTarget) else parse_target(url_or_client, seconds_each)
            )
            self._where, self._redact = str(self._target), self._target.redactor()
        elif isinstance(url_or_client, self._client_types):
            self._given = url_or_client
            self._where, self._redact = describe(self._given), redactor_for(self._given)
        else:
            raise ConfigurationError(
                f"url_or_client is a {type(url_or_client).__module__}.{type(url_or_client).__name__}: "
                f"give a URL, {self._client_names}",
                field="url_or_client",
            )
        self._discovers = queues is None
        self._layouts = {} if self._discovers else self._read_queues(queues)
        if self._discovers and not isinstance(self._layout, DiscoveringLayout):
            raise ConfigurationError(
                f"queues is missing, and {self._layout!r} keeps no list of its queues: give their names",
                field="queues",
            )
        self._types: dict[str, tuple[str | bytes, str]] = {}
        self._memories = Memories(self._where)
        self._riders = Riders()
        self._closed = False

    def memory_cautions(self) -> list[tuple[int, str]]:
        """Return what users should know of the servers' limits of memory, with levels of the log, as read by now."""
        return self._memories.cautions()

    def _with_memory(self, outcomes: dict[str, Outcome], node_of: Callable[[str], str]) -> dict[str, Outcome]:
        """Return samples that tell how much memory the servers of their queues use, where that is limited."""
        if not self._memories.limited:
            return outcomes
        for name, outcome in outcomes.items():
            if isinstance(outcome, QueueStats) and (used := self._memories.used(node_of(name))) is not None:
                outcomes[name] = attrs.evolve(outcome, memory_used=used)
        return outcomes

    def budget_store(self, _queue_name: str) -> Any:
        """Return what keeps the budget of a queue whose age is held: a target, or the client that was given."""
        return self._target or self._given

    def carry(self, rider: Rider, target: RedisTarget | None = None) -> bool:
        """Have the reads to come carry a fleet's commands, if this provider's server is `target`; tell whether it is.

        Without a target it is.
        """
        if target is not None and (self._target is None or not self._target.is_same(target)):
            return False
        self._riders.add(rider)
        return True

    def _of_fleet(self, error: Exception) -> StatsUnavailableError:
        """Return what people are told of an error reply to a fleet's command."""
        return unavailable(error, what=f"fleet at {self._where}", redact=self._redact)

    @classmethod
    @hides_arguments
    def from_celery(cls, app: Any, queues: Any = None, *, timeout: float = 1.0) -> Self:
        """Return a provider that reads where a ``celery.Celery`` sends, however its broker is set up.

        Args:
            app: its configuration is read now, so it must be there or ready to be loaded.
            queues: what is polled from the start; default ``task_default_queue``, ``task_queues`` and those that
                ``task_routes`` name.
            timeout: seconds for each connect and each reply.

        URL, user, TLS words, sentinels, database, priority steps and prefix are the app's. The provider opens
        connections of its own. Any other queue is read too, once it is asked for.

        Raises:
            ConfigurationError: the broker is not Redis, or is not known.

        Example:
            >>> from celery import Celery
            >>> app = Celery("shop", broker="redis://:secret@localhost:6379/1", set_as_current=False)
            >>> RedisStatsProvider.from_celery(app, ["mail"])
            RedisStatsProvider('redis://localhost:6379/1', 1 queues)
        """
        return cls._of(objects.celery_source(app, seconds(timeout)), queues, timeout)

    @classmethod
    @hides_arguments
    def from_rq(cls, connection: Any, queues: Any = None, *, timeout: float = 1.0) -> Self:
        """Return a provider that reads where RQ enqueues by `connection`, a `redis.Redis`; as `from_celery`.

        Args:
            queues: default all that RQ keeps a list of, looked up at each poll.
            timeout: seconds for each connect and each reply.
        """
        return cls._of(objects.rq_source(connection, seconds(timeout)), queues, timeout)

    @classmethod
    @hides_arguments
    def from_dramatiq(cls, broker: Any, queues: Any = None, *, timeout: float = 1.0) -> Self:
        """Return a provider that reads where a ``RedisBroker`` of Dramatiq enqueues; as `from_celery`.

        Args:
            queues: default those that are declared by now.
            timeout: seconds for each connect and each reply.
        """
        return cls._of(objects.dramatiq_source(broker, seconds(timeout)), queues, timeout)

    @classmethod
    @hides_arguments
    def from_huey(cls, huey: Any, queues: Any = None, *, timeout: float = 1.0) -> Self:
        """Return a provider that reads where a ``RedisHuey`` or a related class enqueues; as `from_celery`.

        Args:
            queues: default its own. Give the names of others that are made like it.
            timeout: seconds for each connect and each reply.
        """
        return cls._of(objects.huey_source(huey, seconds(timeout)), queues, timeout)

    @classmethod
    @hides_arguments
    def from_saq(cls, queue: Any, queues: Any = None, *, timeout: float = 1.0) -> Self:
        """Return a provider that reads where a ``saq.Queue`` in Redis enqueues; as `from_celery`.

        Args:
            queues: default its own.
            timeout: seconds for each connect and each reply.
        """
        return cls._of(objects.saq_source(queue, seconds(timeout)), queues, timeout)

    @classmethod
    @hides_arguments
    def from_arq(cls, pool_or_settings: Any, queues: Any = None, *, timeout: float = 1.0) -> Self:
        """Return a provider that reads where an ``ArqRedis``, or one of these ``RedisSettings``, enqueues.

        As `from_celery`.

        Args:
            queues: default the pool's default queue.
            timeout: seconds for each connect and each reply.
        """
        return cls._of(objects.arq_source(pool_or_settings, seconds(timeout)), queues, timeout)

    @classmethod
    @hides_arguments
    def from_taskiq(cls, broker: Any, queues: Any = None, *, timeout: float = 1.0) -> Self:
        """Return a provider that reads where a list or stream broker of taskiq-redis enqueues; as `from_celery`.

        Args:
            queues: default the broker's own.
            timeout: seconds for each connect and each reply.
        """
        return cls._of(objects.taskiq_source(broker, seconds(timeout)), queues, timeout)

    @classmethod
    def _of(cls, source: Source, queues: Any, timeout: float) -> Self:
        make: Any = cls  # a subclass must take these arguments
        made: Self = make(
            source.target,
            source.queues if queues is None else queues,
            timeout=timeout,
            key="{queue}",
            layout=source.layout,
        )
        return made

    def _read_queues(self, queues: Any) -> dict[str, Layout]:
        if isinstance(queues, (str, bytes)) or not isinstance(queues, Iterable):
            raise ConfigurationError(
                f"queues is {shown(queues)}: give a list of names, or a mapping from names to keys",
                field="queues",
                value=queues,
            )
        if not isinstance(queues, Mapping):
            return {name: _filled(self._layout, name) for name in map(validate_queue_name, queues)}
        layouts: dict[str, Layout] = {}
        for given, layout in queues.items():
            name = validate_queue_name(given)
            if isinstance(layout, (str, bytes)):
                layouts[name] = ListKey(layout)
            elif is_layout(layout):
                layouts[name] = layout
            else:
                raise ConfigurationError(
                    f"queues[{name!r}] is {shown(layout)}: give ListKey(key), ZSetKey(key), StreamKey(key, group) or "
                    "another Layout",
                    field=f"queues.{name}",
                    value=layout,
                )
        return layouts

    def adopt(self, other: Self) -> None:
        """Read, from now on, what `other` was made for too: a provider of the same server that has not read yet."""
        self._layouts = {**self._layouts, **other._layouts}

    def _names(self) -> list[str]:
        """Return the queues that it was made for."""
        return list(self._layouts)

    def _layout_of(self, queue_name: str) -> Layout | None:
        """Return where a queue lies, ``None`` where it is not read."""
        known = self._layouts.get(queue_name)
        if known is None and self._reads_any:
            known = _filled(self._layout, validate_queue_name(queue_name))
        return known

    def _layouts_of(self, queue_names: Iterable[str]) -> tuple[dict[str, Layout], dict[str, Outcome]]:
        """Return where queues lie, and the errors of those that are not read."""
        layouts: dict[str, Layout] = {}
        refused: dict[str, Outcome] = {}
        for name in map(validate_queue_name, queue_names):
            layout = self._layout_of(name)
            if layout is not None:
                layouts[name] = layout
            else:
                refused[name] = StatsUnavailableError(
                    f"queue {name!r} is not among the queues of this provider, so its backlog is unknown: add it to "
                    'queues=, or give key="{queue}" if any name is to be read',
                    error_type="missing",
                    queue_name=name,
                )
        return layouts, refused

    def _found(self, outcomes: Mapping[str, Any]) -> dict[str, Layout]:
        """Return where the queues lie that a read of `_discovery` found.

        Raises:
            StatsUnavailableError: it could not be read.
        """
        (found,) = outcomes.values()
        if isinstance(found, StatsUnavailableError):
            found.queue_name = None
            raise found
        layouts: dict[str, Layout] = {}
        for name in found:
            # No producer can ask about a name that cannot name a queue.
            with contextlib.suppress(InvalidQueueError):
                layouts[validate_queue_name(name)] = self._layout
        return layouts

    def _discovery(self) -> dict[str, Layout]:
        """Return what to read in order to find the queues."""
        return {"(all)": _Discovery(self._layout)}

    def _require_open(self) -> None:
        if self._closed:
            raise StatsUnavailableError("this provider is closed: make a new one")

    def __repr__(self) -> str:
        queues = f"queues of {self._layout!r}" if self._discovers else f"{len(self._layouts)} queues"
        return f"{type(self).__name__}({self._where!r}, {queues})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} does not pickle, for it holds credentials and connections: make one per process"
        )


def fill(replies: list[Any], positions: Iterable[int], failure: StatsUnavailableError) -> None:
    """Put `failure` where there is no reply."""
    for position in positions:
        if replies[position] is None:
            replies[position] = failure


def is_master(role: Any) -> bool:
    """Tell whether a reply to ``ROLE`` is a master's; a server that refuses to tell counts as one."""
    return not isinstance(role, (list, tuple)) or not role or role[0] in {b"master", "master"}


def node_of(client: Any, key: Key | None) -> str:
    """Return the name of the node where a key lies; empty outside of clusters, and where that is not known."""
    find = getattr(client, "get_node_from_key", None)
    if find is None or key is None:
        return ""
    try:
        return str(find(key).name)
    except Exception:  # noqa: BLE001 - e.g. no node has its slot now
        return ""


def demoted() -> StatsUnavailableError:
    """Return the error of a server that sentinels have replaced."""
    return StatsUnavailableError(
        "the server is no longer the master: the next read asks the sentinels again", error_type="failover"
    )


@attrs.frozen
class _Discovery:
    """Finds queues the way samples are read: its "sample" is their names."""

    layout: Any

    def read(self, queue_name: str, now: datetime) -> Steps:  # noqa: ARG002 - it is not a queue
        steps: Steps = self.layout.discover()
        return steps


def _default_layout(key: Any, layout: Any) -> Layout:
    """Return the layout of queues that are given only by name."""
    if layout is None:
        if key is not None and not (isinstance(key, str) and "{queue}" in key):
            raise ConfigurationError(f"key is {shown(key)}: give a str with {{queue}} in it", field="key", value=key)
        return ListKey(key or "{queue}")
    if key not in {None, "{queue}"}:
        raise ConfigurationError("key and layout are both given: give one of them", field="layout")
    if isinstance(layout, str):
        return layout_named(layout)
    if not is_layout(layout):
        raise ConfigurationError(
            f'layout is {shown(layout)}: give a Layout, or its name, e.g. "rq"', field="layout", value=layout
        )
    if isinstance(layout, _PLAIN) and _filled(layout, "?") == layout:
        raise ConfigurationError(
            f"layout is {shown(layout)}, the same for all queues: put {{queue}} into its keys",
            field="layout",
            value=layout,
        )
    known: Layout = layout
    return known


def _filled(layout: Layout, name: str) -> Layout:
    """Return a layout for one queue: ``{queue}`` in the keys of a plain one is replaced by its name."""
    if not isinstance(layout, _PLAIN):
        return layout
    # Not str.format: braces are also how Redis Cluster marks the part of a key that decides on its node.
    keys = {field: getattr(layout, field, None) for field in ("key", "processing_key")}
    filled: dict[str, Any] = {
        field: key.replace(b"{queue}", name.encode()) if isinstance(key, bytes) else key.replace("{queue}", name)
        for field, key in keys.items()
        if key is not None
    }
    return attrs.evolve(layout, **filled)
