"""A queue that is a stream read by one consumer group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import MAX_BACKLOG, QueueStats
from backpressure.providers.layouts._steps import (
    Command,
    Key,
    Steps,
    ask,
    checked,
    count,
    is_count,
    items,
    malformed,
    text,
    valid_key,
)
from backpressure.providers.layouts._times import age

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["StreamKey"]

_MAX_SEQUENCE = 2**64 - 1


@repr_when_half_built
@attrs.frozen
class StreamKey:
    """A queue that is a STREAM read by one consumer group.

    Args:
        key: the stream.
        group: the consumer group. While it does not exist yet, every entry waits.
        acked_entries_are_deleted: whether consumers delete (``XDEL``) the entries that they acknowledge. The backlog is
            then the stream's length minus the pending entries.
        count_limit: how many entries are counted one by one when nothing else tells the backlog.

    The group's ``lag`` is the number of waiting entries. Some servers do not know it: before 7.0, after ``XDEL`` of an
    undelivered entry, or in a group created in the middle of the stream. Then the entries after the last delivered one
    are counted, up to `count_limit`. When there are more, the rest is estimated from the rate at which the counted ones
    were added, up to the stream's length. So an overload is never reported as `count_limit`.

    Immutable.

    Raises:
        ConfigurationError: a key, or the limit, is impossible.

    Example:
        >>> StreamKey("events", group="workers", acked_entries_are_deleted=True).count_limit
        1000
    """

    key: Key = attrs.field(validator=valid_key)
    group: Key = attrs.field(validator=valid_key)
    acked_entries_are_deleted: bool = False
    count_limit: int = attrs.field(default=1000)

    @count_limit.validator
    def _positive(self, _: Any, value: Any) -> None:
        if type(value) is not int or not 1 <= value <= 100_000:
            raise ConfigurationError(
                f"count_limit is {shown(value)}: give an integer from 1 to 100000", field="count_limit", value=value
            )

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Find the group's backlog, pending entries and the age of its next entry."""
        info = Command("xinfo_groups", self.key)
        (groups,) = yield (info,)
        if isinstance(groups, BaseException) and "no such key" in str(groups):
            return QueueStats(queue_name, 0, processing_count=0, last_updated=now)
        group = self._group(checked(groups, info), info)
        if group is None:
            length, first = yield from ask(self._length, self._next("-"))
            return _sample(queue_name, now, length, 0, first)

        pending = count(group.get("pending"), info)
        start = _following(group.get("last-delivered-id"))
        lag = group.get("lag")  # absent before 7.0, nil when unknown; a few releases also made it negative
        if is_count(lag):
            if lag == 0:
                return QueueStats(queue_name, 0, processing_count=pending, last_updated=now)
            (first,) = yield from ask(self._next(start or "-"))
            return _sample(queue_name, now, lag, pending, first)
        if self.acked_entries_are_deleted:
            length, first = yield from ask(self._length, self._next(start or "-"))
            return _sample(queue_name, now, max(0, length - pending), pending, first)
        if start is None:
            raise malformed(info, group)
        following = Command("xrange", self.key, (start, "+", self.count_limit + 1))
        newest = Command("xrevrange", self.key, ("+", "-", 1))
        counted, length, last = yield (following, self._length, newest)
        entries = _entries(counted, following)
        waiting = len(entries)
        if waiting > self.count_limit:
            waiting = _extrapolate(entries, _entries(last, newest), count(length, self._length))
        return _sample(queue_name, now, waiting, pending, entries)

    @property
    def _length(self) -> Command:
        return Command("xlen", self.key)

    def _next(self, start: str) -> Command:
        return Command("xrange", self.key, (start, "+", 1))

    def _group(self, groups: Any, info: Command) -> dict[str, Any] | None:
        if not isinstance(groups, (list, tuple)):
            raise malformed(info, groups)
        for group in groups:
            if not isinstance(group, dict):
                raise malformed(info, groups)
            fields = {text(name): value for name, value in group.items()}
            if text(fields.get("name")) == text(self.group):
                return fields
        return None


def _sample(queue_name: str, now: datetime, waiting: int, pending: int, entries: Any) -> QueueStats:
    added = _added_ms(entries[0]) if waiting and items(entries) else None
    oldest_age = age(now, None if added is None else added / 1000)
    return QueueStats(queue_name, waiting, processing_count=pending, oldest_age=oldest_age, last_updated=now)


def _stream_id(value: Any) -> tuple[int, int] | None:
    milliseconds, _, sequence = text(value).partition("-")
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
    parts = _stream_id(entry[0]) if items(entry) else None
    return None if parts is None or parts[0] > MAX_BACKLOG else parts[0]


def _entries(reply: Any, command: Command) -> Sequence[Any]:
    if not isinstance(checked(reply, command), (list, tuple)):
        raise malformed(command, reply)
    return reply  # type: ignore[no-any-return]


def _extrapolate(entries: Sequence[Any], newest: Sequence[Any], length: int) -> int:
    """Estimate, from the ones in `entries`, how many entries there are from the first of them to the newest."""
    known = len(entries)
    first, last = _added_ms(entries[0]), _added_ms(entries[-1])
    end = _added_ms(newest[0]) if newest else None
    if first is None or last is None or end is None or last <= first:
        return max(known, length)
    return max(known, min(length, known * (end - first) // (last - first)))
