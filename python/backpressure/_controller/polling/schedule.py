"""When the poller reads what: everything once an interval, queues outside of green more often, some in a hurry."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from backpressure._model.units import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._model.clock import Clock
    from backpressure._model.config.polling import PollingConfig

__all__ = ["Schedule"]

# Least time between two reads of any queues before their time.
_GAP_NS = 50_000_000


def _no_gap(_: str) -> float:
    return 0.0


class Schedule:
    """What one thread of the poller reads when. `hurry` and `poll_now` may be called on any thread.

    It holds nothing of the controller's: the thread holds it while nobody holds the controller.

    Args:
        clock: tells the time.
        gap_of: returns the least seconds between two reads of a queue before its time; infinite for a queue that is
            read in its time alone.
    """

    def __init__(
        self,
        clock: Clock,
        gap_of: Callable[[str], float] = _no_gap,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._gap_of = gap_of
        self._uniform = uniform
        self._poll_at_ns: float = -math.inf
        self._busy_at_ns: dict[str, float] = {}
        # No read before its time comes before this.
        self._early_at_ns: float = -math.inf
        self._hurried: dict[str, None] = {}

    def hurry(self, queue_name: str) -> None:
        """Have a queue read before its time."""
        self._hurried[queue_name] = None

    def poll_now(self) -> None:
        """Have everything read at once."""
        self._poll_at_ns = -math.inf

    def due(self) -> list[str] | None:
        """Return the queues to read now, ``None`` for everything. What is returned is not due any more."""
        now_ns = self._clock.monotonic_ns()
        if now_ns >= self._poll_at_ns:
            self._poll_at_ns = math.inf  # until it has been read, or `poll_now` comes meanwhile
            self._early_at_ns = now_ns + _GAP_NS
            self._hurried.clear()
            self._busy_at_ns.clear()
            return None
        if now_ns < self._early_at_ns:
            return []
        names = {name: None for name, at_ns in self._busy_at_ns.items() if at_ns <= now_ns} | self._hurried
        for name in names:
            self._busy_at_ns.pop(name, None)
            self._hurried.pop(name, None)
        gaps = {name: gap for name in names if (gap := self._gap_of(name)) < math.inf}
        if gaps:
            self._early_at_ns = now_ns + max(_GAP_NS, nanoseconds(max(gaps.values())))
        return list(gaps)

    def polled(self, pause: float) -> None:
        """Have everything read again in `pause` seconds."""
        if self._poll_at_ns == math.inf:
            self._poll_at_ns = self._clock.monotonic_ns() + nanoseconds(pause)

    def rest(self, config: PollingConfig, busy: Mapping[str, float]) -> float:
        """Return seconds until something is due.

        `busy` names the queues outside of green, each with the monotonic instant, in nanoseconds, by which it is to be
        read again if that comes before its interval is over.
        """
        now_ns = self._clock.monotonic_ns()
        for name in self._busy_at_ns.keys() - busy.keys():
            del self._busy_at_ns[name]
        spread = config.jitter * config.busy_interval / config.interval
        latest_ns = now_ns + nanoseconds(config.busy_interval + self._uniform(-spread, spread))
        for name, at_ns in busy.items():
            self._busy_at_ns[name] = min(self._busy_at_ns.get(name, latest_ns), at_ns)
        early_at_ns = min([now_ns] if self._hurried else self._busy_at_ns.values(), default=math.inf)
        return max(0.0, (min(self._poll_at_ns, max(early_at_ns, self._early_at_ns)) - now_ns) / 1e9)

    def rest_from_failure(self) -> float:
        """As `rest`, while nothing can be read: only everything is due, in its time."""
        self._hurried.clear()
        self._busy_at_ns.clear()
        return max(0.0, (self._poll_at_ns - self._clock.monotonic_ns()) / 1e9)
