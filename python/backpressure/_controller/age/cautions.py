"""What answers of the store show that stands in the law's way: logged once for each queue, when it lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._age.protocol import MILLION
from backpressure._model.budget import FEW_JOBS
from backpressure._model.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._age.protocol import Answer, BacklogSeen

__all__ = ["Cautions"]

#: So many answers in a row must show it: a jump of the demand is over sooner, and so is an odd sample.
_LASTS = 10


class Cautions:
    """`note` is called by one thread at a time, `forget` by any.

    Args:
        say: logs a sentence about a queue: the sentence, and the queue's name.
    """

    def __init__(self, say: Callable[[str, str], object]) -> None:
        self._say = say
        self._shown: dict[tuple[str, str], int] = {}

    def note(self, queue_name: str, target_ms: int, answer: Answer, seen: BacklogSeen | None) -> None:
        """Take note of an answer, and of what this process had newly read of the queue before it."""
        jobs = answer.drain_mjobs_per_s * target_ms / MILLION
        high, budget = answer.demand_mjobs_per_s[0], answer.budget_mjobs_per_s
        # While all that is asked for fits, workers are idle, and nobody knows what they could do.
        if self._lasts(queue_name, "few", shown=0 < jobs < FEW_JOBS and sum(answer.demand_mjobs_per_s) > budget):
            self._say(
                f"age.target of queue {queue_name!r} is the time of {jobs:.2g} jobs, so the age swings with each of "
                f"them: a target of {FEW_JOBS} jobs or more is held better",
                queue_name,
            )
        if self._lasts(queue_name, "high", shown=high > budget):
            self._say(
                f"HIGH alone asks queue {queue_name!r} for {high / 1_000:.4g} jobs a second, where "
                f"{budget / 1_000:.4g} fit, and is never refused: the age cannot be held: add workers, or see who "
                "sends HIGH",
                queue_name,
            )
        if seen is not None and self._lasts(queue_name, "old", shown=seen.ago_ms > target_ms):
            self._say(
                f"statistics of queue {queue_name!r} are {duration(seen.ago_ms / 1_000)} old, more than its age.target "
                f"of {duration(target_ms / 1_000)}: the budget follows slowly: read them where they are newer, or set "
                "a longer target",
                queue_name,
            )

    def _lasts(self, queue_name: str, what: str, *, shown: bool) -> bool:
        """Tell whether it has lasted long enough now; once."""
        key = queue_name, what
        before = self._shown.get(key, 0)
        if before >= _LASTS:
            return False
        self._shown[key] = before + 1 if shown else 0
        return self._shown[key] == _LASTS

    def forget(self, queue_name: str) -> None:
        """Drop what is known of a queue that lost its state."""
        for key in self._shown.copy():
            if key[0] == queue_name:
                self._shown.pop(key, None)
