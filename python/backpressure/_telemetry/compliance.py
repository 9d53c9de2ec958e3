"""Whether producers wait as advised: counted from the advice whose outcome they report."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from backpressure._engine.sync import ForkLock, Tally
from backpressure._model.vocabulary import OTHER_QUEUES

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._model.decision import ThrottleDecision

__all__ = ["Compliance"]

# Reporting a little early is no violation: clocks and sleeps are not exact.
_TOLERANCE = 0.95
# Evicted queues whose tallies are still kept: a thread may be about to count one more.
_MAX_FORGOTTEN = 1_000


class _Tallies:
    def __init__(self) -> None:
        self.honoured = Tally()
        self.violated = Tally()


class Compliance:
    """Counts by queue. Thread-safe.

    Args:
        now_ns: reads the controller's clock.
        is_tracked: tells whether the engine has state for a queue.
    """

    def __init__(self, now_ns: Callable[[], int], is_tracked: Callable[[str], bool]) -> None:
        self._now_ns = now_ns
        self._is_tracked = is_tracked
        self._queues: dict[str, _Tallies] = {}
        self._lock = ForkLock()  # of the two below
        self._forgotten: deque[_Tallies] = deque()
        self._folded = (0, 0)

    def honoured(self, decision: ThrottleDecision) -> None:
        """Count throttled advice that this package itself waited for."""
        self._of(decision).honoured.add()

    def reported(self, decision: ThrottleDecision) -> None:
        """Count advice whose outcome its caller reports; a report that comes too early shows that it did not wait."""
        issued_ns = decision._issued_ns  # noqa: SLF001 - kept for this purpose
        if issued_ns is None or decision.delay <= 0 or decision.should_shed:
            return
        waited_ns = self._now_ns() - issued_ns
        tallies = self._of(decision)
        (tallies.honoured if waited_ns >= decision.delay * _TOLERANCE * 1e9 else tallies.violated).add()

    def forget(self, queue_name: str) -> None:
        """Count the advice of an evicted queue under ``__other__`` from now on."""
        with self._lock():
            gone = self._queues.pop(queue_name, None)
            if gone is not None:
                self._forgotten.append(gone)
            if len(self._forgotten) > _MAX_FORGOTTEN:
                self._folded = _counts([self._forgotten.popleft()], self._folded)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return by queue how much advice was honoured, and of how much the outcome was reported."""
        with self._lock():
            queues, other, folded = self._queues.copy(), list(self._forgotten), self._folded
        if OTHER_QUEUES in queues:
            other.append(queues.pop(OTHER_QUEUES))
        counts = {name: _counts([tallies]) for name, tallies in queues.items()}
        return {**counts, OTHER_QUEUES: _counts(other, folded)} if other else counts

    def _of(self, decision: ThrottleDecision) -> _Tallies:
        """Return where to count, for now: there is no end to names that have no state, or have lost it."""
        name = decision.queue_name
        known = self._queues.get(name)
        if known is not None:
            return known
        if not self._is_tracked(name):
            name = OTHER_QUEUES
        tallies = self._queues.setdefault(name, _Tallies())
        if name != OTHER_QUEUES and not self._is_tracked(name):
            self.forget(name)  # it was evicted meanwhile, perhaps before there was anything to forget
        return tallies


def _counts(many: list[_Tallies], more: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    honoured = sum(tallies.honoured.value for tallies in many)
    reported = honoured + sum(tallies.violated.value for tallies in many)
    return more[0] + honoured, more[1] + reported
