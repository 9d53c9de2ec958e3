"""What the blocking and the asyncio provider of Redis share: their settings, and what they never show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias

from backpressure.errors import ConfigurationError, StatsUnavailableError
from backpressure.providers._redis_client import describe, parse_target, redactor_for
from backpressure.providers._redis_layouts import Layout, ListKey, StreamKey, ZSetKey
from backpressure.types import QueueStats, validate_queue_name

if TYPE_CHECKING:
    from backpressure.providers._redis_client import RedisTarget

__all__ = ["CHUNK", "SLICE", "Outcome", "RedisProvider", "demoted", "fill", "is_master"]

#: Commands in one round trip; a longer pipeline would hold the server and the reply buffers.
CHUNK = 500

#: Commands or replies after which others may run: some 200 µs of work. Without it a producer that wakes up during the
#: poll of many queues waits for milliseconds, for the GIL or for the event loop.
SLICE = 64

Outcome: TypeAlias = QueueStats | StatsUnavailableError


class RedisProvider:
    """Settings of a provider; how it reads is up to the subclass."""

    _client_types: ClassVar[tuple[type, ...]]
    _client_names: ClassVar[str]

    def __init__(self, url_or_client: Any, queues: Any, timeout: Any, key: Any) -> None:
        seconds = _seconds(timeout)
        self._key = _template(key)
        self._target: RedisTarget | None = None
        self._given: Any = None
        if isinstance(url_or_client, str):
            self._target = parse_target(url_or_client, seconds)
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
        self._layouts = self._read_queues(queues)
        self._types: dict[str | bytes, str] = {}
        self._closed = False

    def _read_queues(self, queues: Any) -> dict[str, Layout]:
        if isinstance(queues, (str, bytes)) or not isinstance(queues, Iterable):
            raise ConfigurationError(
                f"queues is {queues!r}: give a list of names, or a mapping from names to keys",
                field="queues",
                value=queues,
            )
        if not isinstance(queues, Mapping):
            return {name: self._plain(name) for name in map(validate_queue_name, queues)}
        layouts: dict[str, Layout] = {}
        for given, layout in queues.items():
            name = validate_queue_name(given)
            if isinstance(layout, (str, bytes)):
                layouts[name] = ListKey(layout)
            elif isinstance(layout, (ListKey, ZSetKey, StreamKey)):
                layouts[name] = layout
            else:
                raise ConfigurationError(
                    f"queues[{name!r}] is {layout!r}: give ListKey(key), ZSetKey(key) or StreamKey(key, group)",
                    field=f"queues.{name}",
                    value=layout,
                )
        return layouts

    def _plain(self, name: str) -> ListKey:
        # Not str.format: braces are also how Redis Cluster marks the part of a key that decides on its node.
        return ListKey((self._key or "{queue}").replace("{queue}", name))

    def _layouts_of(self, queue_names: Iterable[str]) -> tuple[dict[str, Layout], dict[str, Outcome]]:
        """Return where queues lie, and the errors of those that are not read."""
        layouts: dict[str, Layout] = {}
        refused: dict[str, Outcome] = {}
        for name in queue_names:
            if name in self._layouts:
                layouts[name] = self._layouts[name]
            elif self._key is not None:
                layouts[name] = self._plain(validate_queue_name(name))
            else:
                refused[name] = StatsUnavailableError(
                    f"queue {name!r} is not among the queues of this provider: add it to queues=, or give key=",
                    queue_name=name,
                )
        return layouts, refused

    def _require_open(self) -> None:
        if self._closed:
            raise StatsUnavailableError("this provider is closed: make a new one")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where!r}, {len(self._layouts)} queues)"

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
    """Read a reply to ``ROLE``; a refusal of it says nothing."""
    return not isinstance(role, (list, tuple)) or not role or role[0] in {b"master", "master"}


def demoted() -> StatsUnavailableError:
    """Return the error of a server that sentinels have replaced."""
    return StatsUnavailableError(
        "the server is no longer the master: the next read asks the sentinels again", error_type="failover"
    )


def _seconds(timeout: Any) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise ConfigurationError(f"timeout is {timeout!r}: give seconds above 0", field="timeout", value=timeout)
    return float(timeout)


def _template(key: Any) -> str | None:
    if key is not None and not (isinstance(key, str) and "{queue}" in key):
        raise ConfigurationError(f"key is {key!r}: give a str with {{queue}} in it", field="key", value=key)
    return key
