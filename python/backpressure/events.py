"""News of the controller: one log line and one event per change of state, never one per call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backpressure.clock import Clock
    from backpressure.types import Priority

__all__ = ["Announcer", "StateChange"]

# A library does not print where its user has not set up logging.
logging.getLogger("backpressure").addHandler(logging.NullHandler())

Kind = Literal[
    "zone",
    "circuit",
    "forced",
    "provider",
    "queue_stats",
    "override",
    "emergency",
    "configuration",
    "poller",
    "eviction",
]


@attrs.frozen
class StateChange:
    """Something changed.

    Attributes:
        kind: what it was.
        queue_name: the queue concerned, ``None`` where it is about all.
        old: the state before, as text.
        new: the state after, as text.
        at: aware UTC time.
        priority: whose window the zone belongs to, ``None`` for all other kinds.

    Immutable.

    Example:
        >>> controller = BackpressureController(None, InMemoryStatsProvider())
        >>> changes = []
        >>> controller.add_listener(changes.append)
        >>> controller.set_manual_override(True)
        >>> [(change.kind, change.old, change.new) for change in changes]
        [('override', 'off', 'on')]
    """

    kind: Kind
    queue_name: str | None
    old: str
    new: str
    at: datetime
    priority: Priority | None = None


class Announcer:
    """Logs changes and tells listeners of them. Thread-safe: listeners run in the thread that caused the change."""

    def __init__(self, logger: logging.Logger | None, clock: Clock) -> None:
        self.logger = logger or logging.getLogger("backpressure")
        self._clock = clock
        self._listeners: tuple[Callable[[StateChange], object], ...] = ()

    def add_listener(self, listener: Callable[[StateChange], object]) -> None:
        """Call `listener` with every later change; one that raises is logged and harms nobody."""
        self._listeners = (*self._listeners, listener)

    def poller_failed(self, error: Exception) -> None:
        """Log an exception that nobody expected: a defect of ours, or a clock that raises."""
        fields = {"change": None, "queue_name": None}
        self.logger.error("the poller failed unexpectedly; it goes on", exc_info=error, extra=fields)

    def announce(
        self,
        kind: Kind,
        old: str,
        new: str,
        message: str,
        *,
        queue_name: str | None = None,
        priority: Priority | None = None,
        level: int = logging.INFO,
        **extra: Any,
    ) -> None:
        """Log `message`, which may not hold credentials, and tell the listeners."""
        fields = {"change": kind, "queue_name": queue_name, "old": old, "new": new, **extra}
        if priority is not None:
            fields["priority"] = str(priority)
        self.logger.log(level, "%s", message, extra=fields)
        change = StateChange(kind, queue_name, old, new, self._clock.utc_now(), priority)
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:
                self.logger.exception(
                    "listener %r raised on a change of %s; it stays registered", listener, kind, extra=fields
                )
