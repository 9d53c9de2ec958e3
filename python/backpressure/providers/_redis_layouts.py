"""How queues lie in Redis: which single-key commands to send, and how their replies become a `QueueStats`.

Nothing here does I/O. A layout's `read` is a generator: it yields the commands of one round trip, is sent their
replies (an error reply is an exception object in its place) and returns the sample; `Reading` runs many of them in
step, so that a driver, blocking or not, only has to exchange commands for replies:

    reading = Reading(layouts, now, redact=...)
    while commands := reading.commands():
        reading.feed(replies_to(commands))
    reading.results
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeGuard

import attrs

from backpressure.errors import ConfigurationError, StatsUnavailableError
from backpressure.providers._redis_errors import NOTHING_SECRET, Redactor, error_type, unavailable
from backpressure.types import MAX_BACKLOG, QueueStats

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

__all__ = ["Command", "Layout", "ListKey", "Reading", "StreamKey", "ZSetKey"]

Key: TypeAlias = str | bytes

# Stream ids begin with milliseconds since 1970 unless a producer numbers entries itself; smaller ones are not times.
_FIRST_TIME_MS = 10**12
_MAX_SEQUENCE = 2**64 - 1


class Command(NamedTuple):
    """One command on one key: a method of redis-py's pipelines and its arguments."""

    method: str
    key: Key
    args: tuple[str | int, ...] = ()


Steps: TypeAlias = Generator[tuple[Command, ...], list[Any], QueueStats]


class _ErrorReply(Exception):  # noqa: N818 - never leaves this module
    """An error reply to a command on `key`."""

    def __init__(self, key: Key, error: BaseException) -> None:
        super().__init__(key)
        self.key = key
        self.error = error


def _malformed(command: str, key: Key, reply: object) -> StatsUnavailableError:
    shown = repr(reply)[:24] if isinstance(reply, int) else f"a {type(reply).__name__}"
    return StatsUnavailableError(
        f"cannot read key {_text(key)!r}: {command} was answered by {shown}; check that this is Redis or Valkey",
        error_type="protocol",
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _checked(reply: Any, key: Key) -> Any:
    if isinstance(reply, BaseException):
        raise _ErrorReply(key, reply)
    return reply


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_BACKLOG


def _count(reply: Any, command: str, key: Key) -> int:
    value = _checked(reply, key)
    if _is_count(value):
        return value
    raise _malformed(command, key, reply)


def _valid_key(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not (isinstance(value, (str, bytes)) and value):
        field = attribute.name
        raise ConfigurationError(f"{field} is {value!r}: give a Redis key, a str or bytes", field=field, value=value)


@attrs.frozen
class ListKey:
    """A queue that is a LIST.

    Args:
        key: the list of waiting jobs.
        processing_key: the list workers move jobs to while they run (``LMOVE``), if any.

    Immutable.

    Raises:
        ConfigurationError: a key is impossible.

    Example:
        >>> ListKey("jobs:email", processing_key="jobs:email:running")
        ListKey(key='jobs:email', processing_key='jobs:email:running')
    """

    key: Key = attrs.field(validator=_valid_key)
    processing_key: Key | None = attrs.field(default=None, validator=attrs.validators.optional(_valid_key))

    kind = "list"

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count waiting jobs and, where there is a second list, running ones."""
        if self.processing_key is None:
            (waiting,) = yield (Command("llen", self.key),)
            return QueueStats(queue_name, _count(waiting, "LLEN", self.key), last_updated=now)
        waiting, running = yield (Command("llen", self.key), Command("llen", self.processing_key))
        return QueueStats(
            queue_name,
            _count(waiting, "LLEN", self.key),
            processing_count=_count(running, "LLEN", self.processing_key),
            last_updated=now,
        )


@attrs.frozen
class ZSetKey:
    """A queue that is a sorted set.

    Args:
        key: the sorted set.
        due: ``None`` when every member waits; ``"seconds"`` or ``"milliseconds"`` when the score is the Unix time
            at which a job is due: members due by now wait, later ones are delayed. *Now* is this machine's clock,
            so keep it in step with those of the producers.

    Immutable.

    Raises:
        ConfigurationError: the key or the unit is impossible.

    Example:
        >>> ZSetKey("jobs:scheduled", due="seconds")
        ZSetKey(key='jobs:scheduled', due='seconds')
    """

    key: Key = attrs.field(validator=_valid_key)
    due: Literal["seconds", "milliseconds"] | None = attrs.field(default=None)

    kind = "zset"

    @due.validator
    def _known_unit(self, _: Any, value: Any) -> None:
        if value not in {None, "seconds", "milliseconds"}:
            raise ConfigurationError(
                f'due is {value!r}: give None, "seconds" or "milliseconds"', field="due", value=value
            )

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the members, or those due and those not."""
        if self.due is None:
            (waiting,) = yield (Command("zcard", self.key),)
            return QueueStats(queue_name, _count(waiting, "ZCARD", self.key), last_updated=now)
        limit = f"{now.timestamp():.6f}" if self.due == "seconds" else str(int(now.timestamp() * 1000))
        waiting, delayed = yield (
            Command("zcount", self.key, ("-inf", limit)),
            Command("zcount", self.key, (f"({limit}", "+inf")),
        )
        return QueueStats(
            queue_name,
            _count(waiting, "ZCOUNT", self.key),
            delayed_count=_count(delayed, "ZCOUNT", self.key),
            last_updated=now,
        )


@attrs.frozen
class StreamKey:
    """A queue that is a STREAM read by one consumer group.

    Args:
        key: the stream.
        group: the consumer group. While it does not exist yet, every entry waits.
        acked_entries_are_deleted: whether consumers delete (``XDEL``) what they acknowledge, so that the stream's
            length less the pending entries is the backlog.
        count_limit: how many entries are counted one by one when nothing else tells the backlog.

    Waiting entries are the group's ``lag``. Where the server does not know it (before 7.0, after ``XDEL`` of an
    undelivered entry, in a group created in the middle of the stream), entries after the last delivered one are
    counted up to `count_limit`; when there are more, the rest is estimated from the rate at which the counted ones
    were added, at most the stream's length: an overload is never reported as `count_limit`.

    Immutable.

    Raises:
        ConfigurationError: a key, or the limit, is impossible.

    Example:
        >>> StreamKey("events", group="workers", acked_entries_are_deleted=True).count_limit
        1000
    """

    key: Key = attrs.field(validator=_valid_key)
    group: Key = attrs.field(validator=_valid_key)
    acked_entries_are_deleted: bool = False
    count_limit: int = attrs.field(default=1000)

    kind = "stream"

    @count_limit.validator
    def _positive(self, _: Any, value: Any) -> None:
        if type(value) is not int or not 1 <= value <= 100_000:
            raise ConfigurationError(
                f"count_limit is {value!r}: give an integer from 1 to 100000", field="count_limit", value=value
            )

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Find the group's backlog, pending entries and the age of its next entry."""
        (groups,) = yield (Command("xinfo_groups", self.key),)
        if isinstance(groups, BaseException) and "no such key" in str(groups):
            return QueueStats(queue_name, 0, processing_count=0, last_updated=now)
        group = self._group(_checked(groups, self.key))
        if group is None:
            length, first = yield (Command("xlen", self.key), self._next("-"))
            return self._sample(queue_name, now, _count(length, "XLEN", self.key), 0, first)

        pending = _count(group.get("pending"), "XINFO GROUPS", self.key)
        start = _following(group.get("last-delivered-id"))
        lag = group.get("lag")  # absent before 7.0, nil when unknown; a few releases also got it below zero
        if _is_count(lag):
            if lag == 0:
                return QueueStats(queue_name, 0, processing_count=pending, last_updated=now)
            (first,) = yield (self._next(start or "-"),)
            return self._sample(queue_name, now, lag, pending, first)
        if self.acked_entries_are_deleted:
            length, first = yield (Command("xlen", self.key), self._next(start or "-"))
            waiting = max(0, _count(length, "XLEN", self.key) - pending)
            return self._sample(queue_name, now, waiting, pending, first)
        if start is None:
            raise _malformed("XINFO GROUPS", self.key, group)
        counted, length, newest = yield (
            Command("xrange", self.key, (start, "+", self.count_limit + 1)),
            Command("xlen", self.key),
            Command("xrevrange", self.key, ("+", "-", 1)),
        )
        entries = _entries(_checked(counted, self.key), self.key)
        waiting = len(entries)
        if waiting > self.count_limit:
            length = _count(length, "XLEN", self.key)
            waiting = _extrapolate(entries, _entries(_checked(newest, self.key), self.key), length)
        return self._sample(queue_name, now, waiting, pending, entries)

    def _next(self, start: str) -> Command:
        return Command("xrange", self.key, (start, "+", 1))

    def _group(self, groups: Any) -> dict[str, Any] | None:
        if not isinstance(groups, (list, tuple)):
            raise _malformed("XINFO GROUPS", self.key, groups)
        for group in groups:
            if not isinstance(group, dict):
                raise _malformed("XINFO GROUPS", self.key, groups)
            fields = {_text(name): value for name, value in group.items()}
            if _text(fields.get("name")) == _text(self.group):
                return fields
        return None

    def _sample(self, queue_name: str, now: datetime, waiting: int, pending: int, entries: Any) -> QueueStats:
        # The age is a bonus: where its one extra command fails, the counts still stand.
        added = _added_ms(entries[0]) if isinstance(entries, (list, tuple)) and entries else None
        age = None
        if waiting and added is not None and added >= _FIRST_TIME_MS:
            age = max(0.0, now.timestamp() - added / 1000)
        return QueueStats(queue_name, waiting, processing_count=pending, oldest_age=age, last_updated=now)


Layout: TypeAlias = ListKey | ZSetKey | StreamKey

_SPECS = {"list": "ListKey({key!r})", "zset": "ZSetKey({key!r})", "stream": "StreamKey({key!r}, group=...)"}


def _stream_id(value: Any) -> tuple[int, int] | None:
    milliseconds, _, sequence = _text(value).partition("-")
    if len(milliseconds) + len(sequence) > 40 or not (milliseconds + sequence).isascii():
        return None
    if not (milliseconds.isdigit() and sequence.isdigit()):
        return None
    return int(milliseconds), int(sequence)


def _following(value: Any) -> str | None:
    """Return the id right after `value`; servers before 6.2 have no exclusive ranges."""
    parts = _stream_id(value)
    if parts is None:
        return None
    milliseconds, sequence = parts
    return f"{milliseconds}-{sequence + 1}" if sequence < _MAX_SEQUENCE else f"{milliseconds + 1}-0"


def _added_ms(entry: Any) -> int | None:
    parts = _stream_id(entry[0]) if isinstance(entry, (list, tuple)) and entry else None
    return None if parts is None or parts[0] > MAX_BACKLOG else parts[0]


def _entries(reply: Any, key: Key) -> Sequence[Any]:
    if not isinstance(reply, (list, tuple)):
        raise _malformed("XRANGE", key, reply)
    return reply


def _extrapolate(entries: Sequence[Any], newest: Sequence[Any], length: int) -> int:
    """Estimate how many entries lie from the first of `entries` to the newest, knowing those in `entries`."""
    known = len(entries)
    first, last = _added_ms(entries[0]), _added_ms(entries[-1])
    end = _added_ms(newest[0]) if newest else None
    if first is None or last is None or end is None or last <= first:
        return max(known, length)
    return max(known, min(length, known * (end - first) // (last - first)))


class Reading:
    """One read of several queues, in rounds.

    Args:
        layouts: queue name -> where it lies.
        now: aware wall time at which the read began: the date of its samples and the limit of due scores.
        redact: takes credentials out of messages.
        types: types found by earlier probes of keys with a wrong type; kept up by this read.
        tick: called once per queue and round, so that a driver can let others run; does nothing by default.
    """

    def __init__(
        self,
        layouts: Mapping[str, Layout],
        now: datetime,
        *,
        redact: Redactor = NOTHING_SECRET,
        types: dict[Key, str] | None = None,
        tick: Callable[[], object] = tuple,
    ) -> None:
        self.results: dict[str, QueueStats | StatsUnavailableError] = {}
        self._redact = redact
        self._tick = tick
        self._types: dict[Key, str] = {} if types is None else types
        self._open: list[tuple[str, Layout, Steps, tuple[Command, ...]]] = []
        for name, layout in layouts.items():
            self._advance(name, layout, layout.read(name, now), None)

    def commands(self) -> list[Command]:
        """Return what to send now; empty when every queue has its result."""
        return [command for *_, commands in self._open for command in commands]

    def feed(self, replies: Sequence[Any]) -> None:
        """Take the replies to `commands()`, in its order."""
        waiting, self._open = self._open, []
        position = 0
        for name, layout, steps, commands in waiting:
            end = position + len(commands)
            self._advance(name, layout, steps, list(replies[position:end]))
            position = end

    def _advance(self, name: str, layout: Layout, steps: Steps, replies: list[Any] | None) -> None:
        self._tick()
        try:
            # send(None) is how a generator starts; its type does not say so.
            commands = steps.send(replies)  # type: ignore[arg-type]
        except StopIteration as finished:
            self.results[name] = finished.value
            if self._types:
                self._types.pop(layout.key, None)
        except _ErrorReply as reply:
            self._advance(name, layout, self._explain(name, layout, reply.key, reply.error), None)
        except StatsUnavailableError as error:
            error.queue_name = error.queue_name or name
            # Neither context nor frames: they hold redis-py's exceptions, which may quote credentials.
            error.__context__ = None
            self.results[name] = error.with_traceback(None)
        else:
            self._open.append((name, layout, steps, commands))

    def _explain(self, name: str, layout: Layout, key: Key, error: BaseException) -> Steps:
        """Find out what is wrong with a queue, and raise it."""
        if error_type(error) != "wrongtype":
            what = f"key {_text(key)!r} of queue {name!r}"
            raise unavailable(error, what=what, queue_name=name, redact=self._redact)
        found = self._types.get(key)
        if found is None:
            (probe,) = yield (Command("type", key),)
            found = "something else" if isinstance(probe, BaseException) else _text(probe)[:32]
            self._types[key] = found
        if found in _SPECS and found != layout.kind:
            advice = f"give {_SPECS[found].format(key=_text(key))} for this queue"
        else:
            advice = "it is no queue: correct the key"
        raise StatsUnavailableError(
            f"key {_text(key)!r} of queue {name!r} holds a {found}, not a {layout.kind}: {advice}",
            error_type="wrongtype",
            queue_name=name,
        )
