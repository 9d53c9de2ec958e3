"""What a poll carries for a fleet: three commands beside those of the queues, and what the server says to them.

Nothing here does I/O. A process has one `Rider`; whoever polls asks it for a `Ride`, sends its commands, and gives it
their replies.
"""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from backpressure._fleet.keys import control_key, members_key, presence_key
from backpressure._fleet.presence import FORGOTTEN_MS
from backpressure._fleet.texts import text_of
from backpressure._runtime.identity import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Heard", "Ride", "Rider"]

_MS = 1_000_000
#: Between two entries of an id among the members.
_REGISTER_NS = 60_000 * _MS
#: Members whose last entry is older are not counted.
_COUNTED_MS = 150_000
# A server that answers at all answers within that.
_LONGEST_NS = 1_000 * _MS

Arguments = tuple[str | int, ...]


@attrs.frozen
class Heard:
    """What became of a ride.

    Attributes:
        number: of the ride.
        at_ns: monotonic instant, halfway between sending and hearing: what the server told was true then.
        now_ms: the server's clock at that instant; ``None`` if it did not tell.
        control: the fields of the control hash; ``None`` if they could not be read.
        members: about how many processes there are; ``None`` if that was not asked, or not told.
        error: why it could not be read.
        presence_error: why this process could not tell of itself.
    """

    number: int
    at_ns: int
    now_ms: int | None = None
    control: Mapping[str, Any] | None = None
    members: int | None = None
    error: Exception | None = None
    presence_error: Exception | None = None


class _Wish(NamedTuple):
    """What is to be told in the next ride."""

    number: int
    presence: str
    ttl_ms: int
    wall_ms: int


class Rider:
    """One process's passenger of polls. Thread-safe; a forked child has an id of its own.

    Args:
        fleet: its name.
        now_ns: the clock, in monotonic nanoseconds.
    """

    def __init__(self, fleet: str, now_ns: Callable[[], int]) -> None:
        self.fleet = fleet
        self._now_ns = now_ns
        self._number = 0
        self._wishes: collections.deque[_Wish] = collections.deque(maxlen=1)
        self._heard: Heard | None = None
        self._ids: dict[int, str] = {}
        # The process that is among the members, until when, and whether by the server's clock.
        self._registered: tuple[int, float, bool] = (0, 0.0, False)
        #: Whether its commands are to be sent after all others, by themselves: some proxies hang up at such commands.
        self.alone = True

    @property
    def member_id(self) -> str:
        """The id of this process."""
        pid = os.getpid()
        return self._ids.get(pid) or self._ids.setdefault(pid, new_id(pid))

    def arm(self, presence: str, ttl_ms: int, wall_ms: int) -> None:
        """Have the next read carry what this process tells; `wall_ms` stands for the server's clock if need be."""
        self._number += 1
        self._wishes.append(_Wish(self._number, presence, ttl_ms, wall_ms))

    def is_armed(self) -> bool:
        """Tell whether nobody has carried it since it was armed."""
        return bool(self._wishes)

    def board(self) -> Ride | None:
        """Return what is to be carried, once for each `arm`."""
        try:
            wish = self._wishes.pop()
        except IndexError:
            return None
        member_id, heard, now_ns = self.member_id, self._heard, self._now_ns()
        commands: list[Arguments] = [
            ("HGETALL", control_key(self.fleet)),
            ("TIME",),
            ("SET", presence_key(self.fleet, member_id), wish.presence, "PX", wish.ttl_ms),
        ]
        knows_time = heard is not None and heard.now_ms is not None
        pid, until_ns, was_by_server = self._registered
        if pid != os.getpid() or now_ns >= until_ns or (knows_time and not was_by_server):
            self._registered = (os.getpid(), now_ns + _REGISTER_NS, knows_time)
            now_ms = wish.wall_ms
            key = members_key(self.fleet)
            if heard is not None and heard.now_ms is not None:
                now_ms = heard.now_ms + (now_ns - heard.at_ns) // _MS
                # By a clock of its own it would perhaps forget the others.
                commands.append(("ZREMRANGEBYSCORE", key, "-inf", now_ms - FORGOTTEN_MS))
            commands.append(("ZADD", key, now_ms, member_id))
            commands.append(("ZCOUNT", key, now_ms - _COUNTED_MS, "+inf"))
        return Ride(self, wish.number, tuple(commands), now_ns)

    def take(self, heard: Heard) -> None:
        """Take what became of a ride, unless a later one is known: some hang."""
        if self._heard is None or heard.number > self._heard.number:
            self._heard = heard

    def heard(self) -> Heard | None:
        """Return what became of the latest ride that has ended; ``None`` before the first."""
        return self._heard

    def failed(self) -> None:
        """Begin again: the next ride goes alone, and names this process anew."""
        self.alone = True
        self._registered = (0, 0.0, False)


class Ride:
    """Commands that are carried once.

    Attributes:
        key: decides on the node of a cluster.
        commands: names and arguments.
        over: whether it has ended.
        error: why nothing could be read; ``None`` before it has ended, or if all could.
        presence_error: likewise, why this process could not tell of itself.
    """

    def __init__(self, rider: Rider, number: int, commands: tuple[Arguments, ...], sent_ns: int) -> None:
        self._rider = rider
        self._number = number
        self._sent_ns = sent_ns
        self.key = control_key(rider.fleet)
        self.commands = commands
        self.over = False
        self.error: Exception | None = None
        self.presence_error: Exception | None = None

    @property
    def alone(self) -> bool:
        """Whether it is to go after all others, by itself."""
        return self._rider.alone

    def take(self, replies: Sequence[Any], explained: Callable[[Exception], Exception]) -> None:
        """Take the reply to each command, or the error in its place, which is `explained` to people.

        Raises nothing, and counts once.
        """
        if self.over:
            return
        self.over = True
        rider, (control, time, *others) = self._rider, replies
        took_ns = rider._now_ns() - self._sent_ns  # noqa: SLF001 - they are one
        # Who was stopped meanwhile, and not by the server, heard of an instant just after sending.
        at_ns = self._sent_ns + min(took_ns, _LONGEST_NS) // 2
        self.error = next((reply for reply in (control, time) if isinstance(reply, Exception)), None)
        self.presence_error = next((reply for reply in others if isinstance(reply, Exception)), None)
        now_ms = fields = None
        if self.error is None:
            try:
                seconds, microseconds = time
                now_ms = int(seconds) * 1_000 + int(microseconds) // 1_000
                fields = {text_of(name): raw for name, raw in control.items()}
            except (TypeError, ValueError, AttributeError) as error:  # a server that is none
                now_ms, self.error = None, error
        counted = others[-1] if len(others) > 1 and isinstance(others[-1], int) else None
        if self.presence_error is not None:
            rider.failed()
        rider.alone = False
        unread, unseen = (each and explained(each) for each in (self.error, self.presence_error))
        rider.take(Heard(self._number, at_ns, now_ms, fields, counted, unread, unseen))

    def fail(self, error: Exception) -> None:
        """Take the error that ended the exchange."""
        if self.over:
            return
        self.over, self.error = True, error
        self._rider.failed()
        self._rider.take(Heard(self._number, self._rider._now_ns(), error=error))  # noqa: SLF001 - they are one
