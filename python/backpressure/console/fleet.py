"""What the fleet's processes and operators tell, read again and again for all viewers; and the switches turned here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from backpressure._engine.sync import ForkLock
from backpressure.console.names import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._fleet.entries import Switch
    from backpressure._fleet.operator import Control, Operator
    from backpressure._fleet.presence import Presence

__all__ = ["Fleet"]

#: Members and lines of the audit that a page is given.
MOST_MEMBERS = 500
MOST_LINES = 200


@attrs.frozen
class _Seen:
    """What was read last, and when by the system's clock."""

    control: Control
    members: tuple[Presence, ...]
    at: float


@attrs.define
class _Told:
    """What producers told of one queue."""

    rates: list[float] = attrs.field(factory=lambda: [0.0] * 6)
    states: dict[str, int] = attrs.field(factory=dict)
    probes: list[int] = attrs.field(factory=list)

    def to_dict(self, seen: _Seen) -> dict[str, Any]:
        return {
            "states": self.states,
            "of": len(seen.members),
            # To the second, so that it is no other one each time that it is told.
            "probe": round(seen.at + min(self.probes) / 1_000) if self.probes else None,
            "rates": [round(rate, 1) for rate in self.rates],
        }


class Fleet:
    """Reads on the thread that calls `read`, keeps what was read last, and may be asked from any thread.

    Args:
        name: of the fleet.
        operator: returns who reads, and writes; may raise what a client raises.
        trouble: says what such an error means, without credentials.
        now: seconds of Unix time; a test may move it.
    """

    def __init__(
        self,
        name: str,
        operator: Callable[[], Operator],
        trouble: Callable[[Exception], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.operator = operator
        self.trouble = trouble
        self._now = now
        self._lock = ForkLock()
        self._seen: _Seen | None = None
        self._problem: str | None = "it has not been read yet"

    def read(self) -> None:
        """Ask the server once; what goes wrong is kept as the problem, beside what was known before."""
        try:
            operator = self.operator()
            control, members = operator.control(), tuple(operator.members())
        except Exception as error:  # noqa: BLE001 - whatever the client raises is shown
            with self._lock():
                self._problem = self.trouble(error)
            return
        with self._lock():
            self._seen, self._problem = _Seen(control, members, self._now()), None

    def told(self) -> dict[str, Any]:
        """Return how the fleet stands, for pages. A switch that was known holds until its time, also unread."""
        with self._lock():
            seen, problem = self._seen, self._problem
        about: dict[str, Any] = {"name": self.name, "problem": problem}
        if seen is None:
            return {**about, "read": None, "switches": [], "problems": [], "members": None, "rates": None}
        return {
            **about,
            "read": seen.at,
            "switches": [
                told for switch in seen.control.switches if (told := _told(switch, seen))["until"] > self._now()
            ],
            "problems": [*seen.control.problems[:20]],
            "members": len(seen.members),
            "rates": {
                name: round(sum(getattr(member, name) for member in seen.members), 2)
                for name in ("offers", "delays", "sheds")
            },
        }

    def members(self) -> dict[str, Any]:
        """Return what the processes tell of themselves."""
        with self._lock():
            seen = self._seen
        members = () if seen is None else seen.members
        return {
            "count": len(members),
            "read": None if seen is None else seen.at,
            "members": [
                {
                    **member.to_dict(),
                    "circuits": {visible(name): state for name, state in member.circuits.items()},
                    "started": 0 if seen is None else member.started_ms / 1_000 + _skew(seen),
                }
                for member in members[:MOST_MEMBERS]
            ],
        }

    def queues(self) -> dict[str, dict[str, Any]]:
        """Return what producers told of queues, by name: delays and sheds a second, circuits that are not closed."""
        with self._lock():
            seen = self._seen
        found: dict[str, _Told] = {}
        for member in () if seen is None else seen.members:
            for name, rates in member.queues.items():
                told = found.setdefault(name, _Told())
                told.rates = [sum(both) for both in zip(told.rates, rates, strict=True)]
            for name, state in member.circuits.items():
                told = found.setdefault(name, _Told())
                told.states[state] = told.states.get(state, 0) + 1
                if (left_ms := member.probes_ms.get(name)) is not None:
                    told.probes.append(left_ms)
        return {} if seen is None else {name: told.to_dict(seen) for name, told in found.items()}

    def audit(self) -> list[dict[str, Any]]:
        """Read the latest lines of the audit; raises what the client raises."""
        with self._lock():
            skew = 0.0 if self._seen is None else _skew(self._seen)
        lines = self.operator().audit(MOST_LINES)
        return [
            {
                **line.to_dict(),
                "field": visible(line.field),
                "at": line.at_ms / 1_000 + skew,
                "until": line.until_ms / 1_000 + skew if line.until_ms else None,
            }
            for line in lines
        ]


def _skew(seen: _Seen) -> float:
    """Return by how much this system's clock is ahead of the server's."""
    return seen.at - seen.control.now_ms / 1_000


def _told(switch: Switch, seen: _Seen) -> dict[str, Any]:
    return {
        "kind": switch.kind,
        "queue": None if switch.queue_name is None else visible(switch.queue_name),
        "action": switch.action,
        "until": switch.until_ms / 1_000 + _skew(seen),
        "by": switch.by,
        "reason": switch.reason,
    }
