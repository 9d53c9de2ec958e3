"""What is told of a queue: candidates in their order with what became of the queue, and how sure that is."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from backpressure._replay.values import ReplayAnswer

__all__ = ["Candidate", "RecommendedQueue"]


@attrs.frozen(kw_only=True)
class Candidate:
    """A policy for one queue, and what became of the queue under it, replayed. Immutable. Made by ``recommend``.

    Attributes:
        name: what it goes by.
        settings: the queue's section of the configuration.
        reasons: why its numbers are what they are, by the path of each, as in ``thresholds.low_priority.red_max``.
        sheds: jobs that were refused, by priority.
        longest_wait: the longest that a job waited in the queue, in seconds.
        usual_wait: seconds of work in the queue, on average of the highest backlog of each few minutes.
        held: seconds that a job waited before it was enqueued, on average.
        keeps: whether no job waited longer than it was to; ``None``: no target age was given.
        answer: all that was replayed.

    Example:
        >>> candidate = Candidate(
        ...     name="the defaults", settings={}, reasons={}, sheds={"low": 3}, longest_wait=9.5, usual_wait=0.5,
        ...     held=0.1, keeps=None, answer=ReplayAnswer(
        ...         seconds=60.0, priorities={}, peak_backlog=95, peak_at_ms=0, longest_wait=9.5, trail=(95,)))
        >>> candidate.waits
        0.6
    """

    name: str
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    sheds: Mapping[str, int]
    longest_wait: float
    usual_wait: float
    held: float
    keeps: bool | None
    answer: ReplayAnswer

    @property
    def waits(self) -> float:
        """How many seconds a job waits on average, before it is enqueued and in the queue."""
        return self.usual_wait + self.held


@attrs.frozen(kw_only=True)
class RecommendedQueue:
    """What is recommended for one queue. Immutable. Made by ``recommend``.

    Attributes:
        queue_name: the queue.
        confidence: how sure it is: ``"none"`` below a day, or below 120 minutes in which workers had jobs all along,
            ``"low"`` below seven days, else ``"normal"``.
        missing: why nothing can be recommended; ``None``: something is.
        come_back_ms: when to ask again for more confidence, in milliseconds of Unix time, if things go on as they did;
            ``None``: there is enough.
        candidates: policies, the best first; empty where nothing can be recommended.
        facts: sentences about the queue that they were made from.
        notes: sentences about what to mind, the replay's caveats among them.

    Example:
        >>> RecommendedQueue(queue_name="mail", confidence="none", missing="offers were not recorded",
        ...     come_back_ms=None, candidates=(), facts=(), notes=()).best is None
        True
    """

    queue_name: str
    confidence: Literal["none", "low", "normal"]
    missing: str | None
    come_back_ms: int | None
    candidates: tuple[Candidate, ...]
    facts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> Candidate | None:
        """What is recommended; ``None``: nothing can be."""
        return self.candidates[0] if self.candidates else None
