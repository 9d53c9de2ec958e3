"""Whether producers wait as advised: counted from the advice whose outcome they report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._pure.counters import Tally
from backpressure.types import OTHER_QUEUES, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure.types import ThrottleDecision

__all__ = ["Compliance"]

# Reporting a little early is no violation: clocks and sleeps are not exact.
_TOLERANCE = 0.95


class _Tallies:
    def __init__(self) -> None:
        self.honoured = Tally()
        self.violated = Tally()


class Compliance:
    """Counts by queue. Thread-safe."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._queues: dict[str, _Tallies] = {}
        self._forgotten: list[_Tallies] = []

    def honoured(self, decision: ThrottleDecision) -> None:
        """Count advice, throttled, that was waited out by construction."""
        self._of(decision).honoured.add()

    def reported(self, decision: ThrottleDecision) -> None:
        """Count advice whose outcome its caller reports: too early, and it was not waited out."""
        if decision.delay <= 0 or decision.should_shed:
            return
        waited_ns = self._now_ns() - decision._issued_ns  # noqa: SLF001 - when it was given, for this purpose
        tallies = self._of(decision)
        (tallies.honoured if waited_ns >= decision.delay * _TOLERANCE * 1e9 else tallies.violated).add()

    def forget(self, queue_name: str) -> None:
        """Count an evicted queue's under ``__other__`` from now on."""
        gone = self._queues.pop(queue_name, None)
        if gone is not None:
            self._forgotten.append(gone)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return by queue how much advice was honoured, and of how much the outcome was reported."""
        queues = self._queues.copy()
        other = [*self._forgotten, *([queues.pop(OTHER_QUEUES)] if OTHER_QUEUES in queues else [])]
        counts = {name: _counts([tallies]) for name, tallies in queues.items()}
        return {**counts, OTHER_QUEUES: _counts(other)} if other else counts

    def _of(self, decision: ThrottleDecision) -> _Tallies:
        # Names without state are without end.
        queue_name = OTHER_QUEUES if decision.reason is Reason.UNTRACKED else decision.queue_name
        return self._queues.get(queue_name) or self._queues.setdefault(queue_name, _Tallies())


def _counts(many: list[_Tallies]) -> tuple[int, int]:
    honoured = sum(tallies.honoured.value for tallies in many)
    return honoured, honoured + sum(tallies.violated.value for tallies in many)
