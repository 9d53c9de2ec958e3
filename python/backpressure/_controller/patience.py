"""Patience: a job that is refused waits until trying again makes sense, and asks again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._controller.admission import raise_rejection
from backpressure._model.arguments import longest_wait
from backpressure._model.vocabulary import SHEDS

if TYPE_CHECKING:
    from backpressure._controller.admission import Admission
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.vocabulary import Priority

__all__ = ["Patience"]

# Seconds until a shed job asks again where the law gives no delay, and the least pause between two questions.
_UNTOLD = 1.0
_LEAST = 0.01


class Patience:
    """One job's: how it waits for a decision, and how many seconds of its ``max_wait`` are left for that.

    Raises:
        ConfigurationError: `max_wait` is none.
    """

    __slots__ = ("_admission", "_left")

    def __init__(self, admission: Admission, priority: Priority, max_wait: object) -> None:
        self._admission = admission
        self._left = longest_wait(max_wait, priority, patient=True)

    @property
    def left(self) -> float | None:
        """How many seconds it may still wait; ``None`` for any time."""
        return self._left

    def wait(self, decision: ThrottleDecision) -> float:
        """Return how long to sleep for a planned decision, or after a refused one, in seconds.

        Raises:
            JobShedError: it was refused, and would have to wait longer than is left, or nobody knows for how long.
            ThrottledError: its delay is longer than what is left.
        """
        if decision.should_shed:
            seconds = self._until_next(decision)
        else:
            seconds = self._admission.accept(decision, self._left, awaited=True, patient=True)
        if self._left is not None:
            self._left = max(0.0, self._left - seconds)
        return seconds

    def _until_next(self, decision: ThrottleDecision) -> float:
        told = decision.retry_after
        if told is None and decision.reason in SHEDS:
            told = _UNTOLD
        seconds = max(told or 0.0, _LEAST)
        if told is None or (self._left is not None and seconds > self._left):
            raise_rejection(decision)
        jittered = self._admission.jittered(seconds, decision.queue_name)
        return jittered if self._left is None else min(jittered, self._left)
