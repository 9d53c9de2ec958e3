"""When the poller reads what: everything once an interval, queues outside of green more often, some in a hurry."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from backpressure._model.units import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._model.clock import Clock
    from backpressure._model.config.polling import PollingConfig

__all__ = ["Schedule"]

# Seconds between two reads that queues in a hurry ask for.
_GAP = 0.05


class Schedule:
    """What one thread of the poller reads when. `hurry` and `poll_now` may be called on any thread.

    It holds nothing of the controller's: the thread holds it while nobody holds the controller.

    Args:
        least_gap: seconds in which the provider has nothing new to tell.
    """

    def __init__(
        self,
        clock: Clock,
        least_gap: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._least_gap = least_gap
        self._uniform = uniform
        self._poll_at_ns: float = -math.inf
        self._busy_at_ns: float = math.inf
        self._hurry_at_ns: float = -math.inf
        self._hurried: dict[str, None] = {}

    def hurry(self, queue_name: str) -> None:
        """Have a queue read before its time."""
        self._hurried[queue_name] = None

    def poll_now(self) -> None:
        """Have everything read at once."""
        self._poll_at_ns = -math.inf

    def due(self, busy: Callable[[], list[str]]) -> list[str] | None:
        """Return the queues to read now, ``None`` for everything. What is returned is not due any more.

        `busy` returns those outside of green.
        """
        now_ns = self._clock.monotonic_ns()
        after_ns = now_ns + nanoseconds(max(self._least_gap, _GAP))
        if now_ns >= self._poll_at_ns:
            self._poll_at_ns = math.inf  # until it has been read, or `poll_now` comes meanwhile
            self._hurry_at_ns = after_ns
            self._hurried.clear()
            return None
        names: dict[str, None] = {}
        if now_ns >= self._busy_at_ns:
            self._busy_at_ns = math.inf
            names.update(dict.fromkeys(busy()))
        if self._hurried and now_ns >= self._hurry_at_ns:
            names.update(self._hurried)
            self._hurried.clear()
            self._hurry_at_ns = after_ns
        return list(names)

    def polled(self, pause: float) -> None:
        """Have everything read again in `pause` seconds."""
        if self._poll_at_ns == math.inf:
            self._poll_at_ns = self._clock.monotonic_ns() + nanoseconds(pause)

    def rest(self, config: PollingConfig, busy: Callable[[], list[str]], *, failing: bool) -> float:
        """Return seconds until something is due; `busy` as above. While it is `failing`, only everything is due."""
        now_ns = self._clock.monotonic_ns()
        if failing:
            self._hurried.clear()
            self._busy_at_ns, self._hurry_at_ns = math.inf, self._poll_at_ns
        elif self._busy_at_ns == math.inf and busy():
            spread = config.jitter * config.busy_interval / config.interval
            seconds = max(self._least_gap, config.busy_interval + self._uniform(-spread, spread))
            self._busy_at_ns = now_ns + nanoseconds(seconds)
        next_ns = min(self._poll_at_ns, self._busy_at_ns, self._hurry_at_ns if self._hurried else math.inf)
        return max(0.0, (next_ns - now_ns) / 1e9)
