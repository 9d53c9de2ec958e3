"""The parts of a layout: commands on single keys, rounds that exchange them for replies, and checks of the replies.

A layout's `read` is a generator: it yields the commands of one round trip, is sent their replies (an error reply is an
exception object in its place) and returns the sample. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeGuard, TypeVar, runtime_checkable

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError, StatsUnavailableError
from backpressure._model.stats import MAX_BACKLOG, QueueStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    import attrs

__all__ = [
    "COUNTED",
    "Command",
    "DiscoveringLayout",
    "ErrorReply",
    "Key",
    "Layout",
    "Rounds",
    "Steps",
    "ask",
    "checked",
    "count",
    "is_count",
    "items",
    "malformed",
    "members",
    "text",
    "together",
    "valid_key",
]

Key: TypeAlias = str | bytes

T = TypeVar("T")

#: Commands whose reply is a count -> the type of key that they read.
COUNTED = {"llen": "list", "zcard": "zset", "zcount": "zset", "hlen": "hash", "scard": "set", "xlen": "stream"}


class Command(NamedTuple):
    """One command on one key: a method of redis-py's pipelines and its arguments."""

    method: str
    key: Key
    args: tuple[str | int, ...] = ()


Rounds: TypeAlias = Generator[tuple[Command, ...], list[Any], T]
Steps: TypeAlias = Rounds[QueueStats]


@runtime_checkable
class Layout(Protocol):
    """Where the jobs of queues lie in Redis.

    Immutable, because providers share one between threads. A layout that also has `discover` lets a provider find the
    queues by itself: see `DiscoveringLayout`.

    Example:
        >>> class Jobs:  # nothing to inherit from
        ...     def read(self, queue_name, now):
        ...         waiting, delayed = yield from ask(
        ...             Command("llen", f"jobs:{queue_name}"), Command("zcard", f"jobs:{queue_name}:later")
        ...         )
        ...         return QueueStats(queue_name, waiting, delayed_count=delayed, last_updated=now)
        >>> RedisStatsProvider("redis://localhost", ["email-queue"], layout=Jobs())
        RedisStatsProvider('redis://localhost:6379/0', 1 queues)
    """

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Yield the commands of each round trip in turn, and return the sample.

        Each command reads one key, so that it works on a cluster; `ask` checks the replies. `now` is the aware time at
        which the read began, by this machine's clock.
        """
        ...


@runtime_checkable
class DiscoveringLayout(Layout, Protocol):
    """A `Layout` that keeps a list of its queues."""

    def discover(self) -> Rounds[Iterable[str]]:
        """Yield commands as `read` does, and return the names of all queues."""
        ...


class ErrorReply(Exception):  # noqa: N818 - ends a generator; no caller of a provider ever sees it
    """An error reply to `command`."""

    def __init__(self, command: Command, error: BaseException) -> None:
        super().__init__(command)
        self.command = command
        self.error = error


def ask(*commands: Command) -> Rounds[list[Any]]:
    """Exchange commands for replies. Counts are checked; another reply is ``None`` where the server refused it.

    Without its counts a queue could not be read. Other replies only tell the age, which is optional.

    Raises:
        StatsUnavailableError: the reply to a counting command is not a count.
    """
    replies = yield commands
    return [
        count(reply, command) if command.method in COUNTED else _or_none(reply)
        for command, reply in zip(commands, replies, strict=True)
    ]


def _or_none(reply: Any) -> Any:
    return None if isinstance(reply, BaseException) else reply


def members(key: Key) -> Rounds[list[str]]:
    """Return what a set holds, as text."""
    command = Command("smembers", key)
    (reply,) = yield (command,)
    found = checked(reply, command)
    if not isinstance(found, (set, frozenset, list, tuple)):
        raise malformed(command, found)
    return sorted(map(text, found))


def together(*steps: Rounds[Any]) -> Rounds[list[Any]]:
    """Run generators together, so that they share round trips; return the result of each."""
    results: dict[int, Any] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(steps)))
    while answers:
        asked: dict[int, tuple[Command, ...]] = {}
        for index, answer in answers.items():
            try:
                asked[index] = steps[index].send(answer)
            except StopIteration as finished:
                results[index] = finished.value
        if not asked:
            break
        replies = iter((yield tuple(command for commands in asked.values() for command in commands)))
        answers = {index: [next(replies) for _ in commands] for index, commands in asked.items()}
    return [results[index] for index in range(len(steps))]


def checked(reply: Any, command: Command) -> Any:
    """Return the reply, unless it is an error."""
    if isinstance(reply, BaseException):
        raise ErrorReply(command, reply)
    return reply


def is_count(value: Any) -> TypeGuard[int]:
    """Tell whether `value` can be the length of something."""
    return type(value) is int and 0 <= value <= MAX_BACKLOG


def items(reply: Any) -> Sequence[Any]:
    """Return the items of a list; none where the reply is not a list."""
    return reply if isinstance(reply, (list, tuple)) else ()


def count(reply: Any, command: Command) -> int:
    """Return the reply if it is a count."""
    if is_count(reply):
        return reply
    raise malformed(command, checked(reply, command))


def malformed(command: Command, reply: object) -> StatsUnavailableError:
    """Return the error for a reply that Redis would never give."""
    shown = repr(reply)[:24] if isinstance(reply, int) else f"a {type(reply).__name__}"
    name = command.method.upper().replace("_", " ")
    return StatsUnavailableError(
        f"cannot read key {text(command.key)!r}: {name} was answered by {shown}; check that this is Redis or Valkey",
        error_type="protocol",
    )


def text(value: Any) -> str:
    """Return a reply as text, whether or not the client decodes replies."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def valid_key(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse a value that cannot be a key."""
    if not (isinstance(value, (str, bytes)) and value):
        field = attribute.name
        raise ConfigurationError(
            f"{field} is {shown(value)}: give a Redis key, a str or bytes", field=field, value=value
        )
