"""The mode: configuration and manual switches at one moment, replaced whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure._engine.sync import ForkLock
from backpressure._model.vocabulary import Reason

if TYPE_CHECKING:
    from backpressure._engine.settings import EngineSettings


class Mode(NamedTuple):
    """Configuration and switches at one moment. Replaced whole: a new object is a new epoch, voiding all `Ready`."""

    settings: EngineSettings
    running: bool = False
    override_until_ns: float | None = None  # None: off; inf: until switched off
    emergency_until_ns: float | None = None  # likewise

    def switch(self) -> Reason | None:
        """Return the reason to let everything pass, if one of the manual switches is on."""
        if self.override_until_ns is not None:
            return Reason.MANUAL_OVERRIDE
        return None if self.emergency_until_ns is None else Reason.EMERGENCY_MODE

    def ends_at(self, now_ns: float) -> bool:
        """Tell whether the time of a switch is up."""
        ends = (self.override_until_ns, self.emergency_until_ns)
        return any(until_ns is not None and until_ns <= now_ns for until_ns in ends)

    def at(self, now_ns: float) -> Mode:
        """Return the same without the switches whose time is up."""
        override_ns, emergency_ns = self.override_until_ns, self.emergency_until_ns
        return self._replace(
            override_until_ns=None if override_ns is None or override_ns <= now_ns else override_ns,
            emergency_until_ns=None if emergency_ns is None or emergency_ns <= now_ns else emergency_ns,
        )


class Switches:
    """What holds the mode and replaces it. Thread-safe; a signal handler finds the mode before a change or after it."""

    def __init__(self, settings: EngineSettings) -> None:
        #: The mode that holds, but for switches whose time is up.
        self.mode = Mode(settings)
        self._mode_lock = ForkLock()

    def mode_at(self, now_ns: int) -> tuple[Mode, bool]:
        """Return the mode that holds at `now_ns`, and whether this call ended an override whose time was up."""
        while (mode := self.mode).ends_at(now_ns):
            left = mode.at(now_ns)
            if self._swap(mode, left):
                return left, left.override_until_ns is None and mode.override_until_ns is not None
        return mode, False

    def mode_due(self, now_ns: int) -> Mode:
        """Return the mode that `mode_at` would leave, without ending a switch."""
        mode = self.mode
        return mode.at(now_ns) if mode.ends_at(now_ns) else mode

    def configure(self, settings: EngineSettings) -> None:
        """Swap the configuration."""
        self._change(settings=settings)

    def set_running(self, running: bool) -> None:
        """Start or stop answering."""
        self._change(running=running)

    def set_override(self, enabled: bool, until_ns: int | None = None) -> None:
        """Turn the override on, without an end or until an instant, or off."""
        self._change(override_until_ns=(math.inf if until_ns is None else until_ns) if enabled else None)

    def set_emergency(self, enabled: bool, until_ns: int | None = None) -> None:
        """Turn emergency mode on, without an end or until an instant, or off."""
        self._change(emergency_until_ns=(math.inf if until_ns is None else until_ns) if enabled else None)

    def void_ready(self) -> None:
        """Void all ready answers."""
        self._change()

    def _change(self, **changes: Any) -> None:
        while True:
            mode = self.mode
            if self._swap(mode, mode._replace(**changes)):
                return

    def _swap(self, old: Mode, new: Mode) -> bool:
        """Put `new` in the place of `old`, if that is still there."""
        # The lock is against other threads: signal handlers run between calls, never between the two lines inside.
        with self._mode_lock():
            if self.mode is not old:
                return False
            self.mode = new
        return True
