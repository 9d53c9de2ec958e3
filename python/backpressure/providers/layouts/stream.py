"""A queue that is a stream read by one consumer group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

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

    from backpressure.providers.layouts._steps import Rounds

__all__ = ["StreamKey"]

_Id: TypeAlias = tuple[int, int]

_MAX_PART = 2**64 - 1

# Entries that are looked at although the group's lag is believed; fewer are counted exactly, whatever it says.
_PROBED = 100


@repr_when_half_built
@attrs.frozen
class StreamKey:
    """A queue that is a STREAM read by one consumer group.

    Args:
        key: the stream.
        group: the consumer group. While it does not exist yet, every entry waits.
        acked_entries_are_deleted: whether consumers delete (``XDEL``) the entries that they acknowledge. The backlog is
            then the stream's length minus the pending entries.
        count_limit: how many entries are counted one by one, from either end, when the group's lag cannot be right for
            certain. A count transfers the entries, so it costs the server and this process as much as a read of them.

    The waiting entries are those after the last delivered one. Their number is never more than the stream holds, and 0
    where nothing lies there. Up to 100 are counted at each read. Beyond that the group's ``lag`` is believed if nothing
    was ever trimmed or deleted, or, where consumers delete what they acknowledge, if the length and the pending entries
    tell the same. Otherwise the server may be wrong. It tells no lag before 7.0, after ``XDEL`` of a waiting entry, and
    in a group that was created in the middle of the stream; Redis 7.0 tells a wrong one after a trim that went past the
    group. Then the waiting entries are counted up to `count_limit`, and so are the delivered ones that are still there:
    the backlog is exact if either are no more. If both are more, it is the lag where that is possible, else an estimate
    from the rate at which the counted entries were added. So an overload is never reported as `count_limit`.

    Since 7.0 the group also knows how many entries came and how many were delivered, which recordings keep: what it has
    read, and that with its lag. After what makes it lose them they are unknown until it has caught up.

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
        groups, length_reply = yield (info, self._length)
        if isinstance(groups, BaseException) and "no such key" in str(groups):
            return QueueStats(queue_name, 0, processing_count=0, last_updated=now)
        fields = self._group(checked(groups, info), info)
        length = count(length_reply, self._length)
        if fields is None:
            (first,) = yield from ask(Command("xrange", self.key, ("-", "+", 1)))
            return _sample(queue_name, now, length, 0, first)

        pending = count(fields.get("pending"), info)
        last = _stream_id(fields.get("last-delivered-id"))
        if last is None:
            raise malformed(info, fields)
        lag = fields.get("lag")  # absent before 7.0, nil when unknown; a few releases also made it negative
        read = fields.get("entries-read")
        if not is_count(lag):
            lag = None
        deleted = self.acked_entries_are_deleted and lag == length - pending
        certain = deleted or (lag is not None and is_count(read) and read + lag <= length)
        waiting, first = yield from self._count(last, lag, pending, certain=certain)
        left = read if is_count(read) else None
        # The lag is by definition what was ever added less what the group has read.
        entered = None if lag is None or left is None else left + lag
        return attrs.evolve(_sample(queue_name, now, waiting, pending, first), entered=entered, left=left)

    def _count(self, last: _Id, lag: int | None, pending: int, *, certain: bool) -> Rounds[tuple[int, Any]]:
        """Return how many entries lie after `last`, and the first of them."""
        start = _following(last)
        if start is None:
            return 0, ()
        limit = self.count_limit
        probed = min(_PROBED, limit)
        if certain and lag is not None:
            probed = min(probed, lag)
        probe = Command("xrange", self.key, (start, "+", probed + 1))
        (reply,) = yield (probe,)
        if certain and lag is not None and isinstance(reply, BaseException):
            return lag, ()  # only the age needs the entry
        following = _entries(reply, probe)
        if len(following) <= probed:
            return len(following), following
        if certain and lag is not None and lag >= len(following):
            return lag, following

        if lag is None or lag <= limit:
            following = yield from self._after(start)
            if len(following) <= limit:
                return len(following), following
        before = Command("xrange", self.key, ("-", f"{last[0]}-{last[1]}", limit + 1))
        delivered, length_reply = yield (before, self._length)
        length = count(length_reply, self._length)
        kept = len(_entries(delivered, before))
        if kept <= limit:
            return max(0, length - kept), following
        if len(following) <= limit:
            following = yield from self._after(start)
            if len(following) <= limit:
                return len(following), following
        most = max(limit + 1, length - kept)
        if lag is not None and limit < lag <= most:
            return lag, following
        if self.acked_entries_are_deleted and limit < length - pending <= most:
            return length - pending, following
        newest = Command("xrevrange", self.key, ("+", "-", 1))
        (reply,) = yield (newest,)
        return min(most, _extrapolate(following, _entries(reply, newest), length)), following

    def _after(self, start: str) -> Rounds[Sequence[Any]]:
        command = Command("xrange", self.key, (start, "+", self.count_limit + 1))
        (reply,) = yield (command,)
        return _entries(reply, command)

    @property
    def _length(self) -> Command:
        return Command("xlen", self.key)

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


def _stream_id(value: Any) -> _Id | None:
    milliseconds, _, sequence = text(value).partition("-")
    if len(milliseconds) + len(sequence) > 40 or not (milliseconds + sequence).isascii():
        return None
    if not (milliseconds.isdigit() and sequence.isdigit()):
        return None
    return int(milliseconds), int(sequence)


def _following(last: _Id) -> str | None:
    """Return the id right after `last`, if there is any; servers before 6.2 have no exclusive ranges."""
    milliseconds, sequence = last
    if sequence < _MAX_PART:
        return f"{milliseconds}-{sequence + 1}"
    return f"{milliseconds + 1}-0" if milliseconds < _MAX_PART else None


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
