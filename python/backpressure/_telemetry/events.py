"""What a controller announces: one log line and one event per change of state, never one per call."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import attrs

from backpressure._model.clock import Clock
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.vocabulary import Priority
from backpressure._runtime.foreign import Foreign

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
    "lease",
    "memory",
    "fleet",
]


@repr_when_half_built
@attrs.frozen
class StateChange:
    """Something changed.

    Attributes:
        kind: what changed.
        queue_name: the queue that changed, ``None`` if it is about all.
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
    """Logs changes and tells listeners of them. Thread-safe: listeners run in the thread that caused the change.

    Nothing that a log handler or a listener raises gets out of here, see `foreign`: the change has happened, and the
    caller that caused it has a job to do.
    """

    def __init__(self, foreign: Foreign, clock: Clock) -> None:
        self._foreign = foreign
        self._clock = clock
        self._listeners: tuple[Callable[[StateChange], object], ...] = ()

    def add_listener(self, listener: Callable[[StateChange], object]) -> None:
        """Call `listener` with every later change; if it raises, that is logged once and disturbs nobody."""
        self._listeners = (*self._listeners, listener)

    def poller_failed(self, error: Exception) -> None:
        """Log an exception that nobody expected: a defect of this package."""
        fields = {"change": None, "queue_name": None}
        message = "the poller failed unexpectedly; it goes on"
        self._foreign.log(logging.ERROR, message, kind="poller failed", exc_info=error, extra=fields)

    def remind(self, kind: Kind, message: str, *, level: int, **extra: Any) -> None:
        """Log that a change still lasts; listeners heard of it when it came."""
        fields = {"change": None, "queue_name": None, "lasting": kind, **extra}
        self._foreign.log(level, "%s", message, kind=f"lasting {kind}", extra=fields)

    def caution(self, message: str, queue_name: str | None = None, *, level: int = logging.WARNING) -> None:
        """Log what stands in the way of what was asked for; nothing has changed, so listeners are told nothing."""
        fields = {"change": None, "queue_name": queue_name}
        self._foreign.log(level, "%s", message, kind="caution", extra=fields)

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
        self._foreign.log(level, "%s", message, kind=kind, extra=fields)
        change = StateChange(kind, queue_name, old, new, self._clock.utc_now(), priority)
        for number, listener in enumerate(self._listeners):
            try:
                listener(change)
            except BaseException as error:  # noqa: BLE001 - whatever its class, see `Foreign`
                told = "listener %r raised on a change of %s; it stays registered, and this is told once"
                self._foreign.raised(error, ("listener", number, kind), told, listener, kind, **fields)
