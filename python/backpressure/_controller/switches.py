"""The manual override and emergency mode: what is wanted here, and what is wanted of the fleet, joined by *or*."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.border import Engine
    from backpressure._model.clock import Clock

__all__ = ["SwitchKind", "Switches"]

SwitchKind = Literal["override", "emergency"]


class Switches:
    """Of one controller. Thread-safe, without a lock: a signal handler may switch at any instruction.

    Instants are monotonic nanoseconds: until when a switch is on, infinite without an end, ``None`` while it is off.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._here: dict[SwitchKind, float | None] = {"override": None, "emergency": None}
        self._of_fleet: dict[SwitchKind, float | None] = {"override": None, "emergency": None}
        self._set: dict[SwitchKind, Callable[[bool, int | None], object]] = {
            "override": engine.set_override,
            "emergency": engine.set_emergency,
        }

    def set_here(self, kind: SwitchKind, until_ns: float | None) -> None:
        """Switch what this process wants by itself."""
        self._here[kind] = until_ns
        self._apply(kind)

    def set_of_fleet(self, kind: SwitchKind, until_ns: float | None) -> None:
        """Switch what the fleet's operators want."""
        if self._of_fleet[kind] != until_ns:  # else each poll would void all ready answers
            self._of_fleet[kind] = until_ns
            self._apply(kind)

    def is_of_fleet(self, kind: SwitchKind) -> bool:
        """Tell whether the fleet's operators want it now."""
        return self._lasts(self._of_fleet[kind]) is not None

    def is_passing(self) -> bool:
        """Tell whether one of the two lets everything pass."""
        return self._engine.override() or self._engine.emergency()

    def end_here(self) -> bool:
        """Take note that the engine has ended the override; tell whether that was one of this process's own."""
        until_ns = self._here["override"]
        if until_ns is None or self._lasts(until_ns) is not None:
            return False
        self._here["override"] = None
        return True

    def _lasts(self, until_ns: float | None) -> float | None:
        """Return `until_ns`, unless it is over."""
        return until_ns if until_ns is not None and until_ns > self._clock.monotonic_ns() else None

    def _wanted(self, kind: SwitchKind) -> float | None:
        wanted = [until for until in (self._here[kind], self._of_fleet[kind]) if self._lasts(until) is not None]
        return max((until for until in wanted if until is not None), default=None)

    def _apply(self, kind: SwitchKind) -> None:
        """Have the engine do what is wanted, also where another thread, or a signal, changes that meanwhile."""
        while True:
            until_ns = self._wanted(kind)
            self._set[kind](until_ns is not None, None if until_ns in {None, math.inf} else int(until_ns or 0))
            if self._wanted(kind) == until_ns:
                return
