"""What a fleet's operators want of this process, until when by its own clock. No I/O, no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backpressure._fleet.entries import LONGEST_SECONDS, switches_of
from backpressure._fleet.keys import CONFIG
from backpressure._model.units import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from backpressure._fleet.entries import Switch

__all__ = ["Change", "Wanted", "Wish"]

_APART = frozenset({CONFIG})
_MS = 1_000_000
_LONGEST_NS = nanoseconds(LONGEST_SECONDS)
# Two readings of the server's clock differ by less; to follow each would void all ready answers at each poll.
_JITTER_NS = 200 * _MS


class Wish(NamedTuple):
    """A switch, and the monotonic nanosecond at which it is over."""

    switch: Switch
    until_ns: int


class Change(NamedTuple):
    """A field whose wish is another one; ``now`` is ``None`` where its time is up."""

    field: str
    before: Wish | None
    now: Wish | None


class Wanted:
    """Of one process. What it holds lasts until its own time, whether or not it can be read again."""

    def __init__(self, fleet: str, key: bytes | None) -> None:
        self._fleet = fleet
        self._key = key
        self._known: dict[str, Wish] = {}
        #: What is wrong with fields that are not understood, a sentence by field.
        self.wrong: dict[str, str] = {}

    def known(self) -> dict[str, Wish]:
        """Return what is wanted, by field."""
        return self._known.copy()

    def take(self, control: Mapping[str, Any], now_ms: int, at_ns: int) -> list[Change]:
        """Take the fields of the control hash, read when the server's clock said `now_ms`, at `at_ns` here.

        Unknown is not off: a field that is lost, or not understood, leaves what is known of it as it was.
        """
        switches, self.wrong = switches_of(control, self._fleet, self._key, _APART)
        known, changes = self._known.copy(), list[Change]()
        for field, switch in switches.items():
            before = known.get(field)
            left_ns = min((switch.until_ms - now_ms) * _MS, _LONGEST_NS)
            wish = Wish(switch, at_ns + left_ns)
            if before is not None and before.switch == switch and abs(before.until_ns - wish.until_ns) < _JITTER_NS:
                continue
            if left_ns <= 0 or switch.action == "off":
                if known.pop(field, None) is not None:
                    changes.append(Change(field, before, None if left_ns <= 0 else wish))
                continue
            known[field] = wish
            changes.append(Change(field, before, wish))
        self._known = known
        return changes

    def expire(self, now_ns: int) -> list[Change]:
        """Take away what is over, and return it."""
        over = {field: wish for field, wish in self._known.items() if wish.until_ns <= now_ns}
        if over:
            self._known = {field: wish for field, wish in self._known.items() if field not in over}
        return [Change(field, wish, None) for field, wish in over.items()]

    def next_end_ns(self) -> int | None:
        """Return when the first of them is over."""
        return min((wish.until_ns for wish in self._known.values()), default=None)
