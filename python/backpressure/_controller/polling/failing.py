"""What cannot be read now: since when, how often it failed, and when it is told again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from backpressure._model.clock import Clock

__all__ = ["REMIND_NS", "Failing", "span"]

#: Nanoseconds after which a failure that lasts is told again.
REMIND_NS = 300 * 10**9


class Failing:
    """A row of failed reads of a provider or a queue, of one or several types. It ends with a good read."""

    __slots__ = ("_is_news", "_told_ns", "cause", "count", "error", "since", "since_ns")

    def __init__(self, clock: Clock) -> None:
        self.since: datetime = clock.utc_now()
        self.since_ns = self._told_ns = clock.monotonic_ns()
        self._is_news = False
        self.count = 0
        self.error = ""
        self.cause = ""

    def note(self, error: str, cause: str) -> bool:
        """Count one more failure of type `error`; tell whether the type is another one than before."""
        is_new = error != self.error
        self.count += 1
        self._is_news = True
        self.error, self.cause = error, cause
        return is_new

    def told(self, now_ns: int) -> None:
        """Note that it was just told."""
        self._told_ns = now_ns
        self._is_news = False

    def is_due(self, now_ns: int) -> bool:
        """Tell whether it has failed again, and has not been told for long."""
        return self._is_news and now_ns - self._told_ns >= REMIND_NS

    def as_dict(self, now_ns: int) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "error": self.error,
            "since": self.since.isoformat(),
            "seconds": max(0, now_ns - self.since_ns) / 1e9,
            "count": self.count,
        }


def span(ns: int) -> str:
    """Write how long something has lasted, in words for a log: ``"12 min"``."""
    minutes = ns // (60 * 10**9)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
