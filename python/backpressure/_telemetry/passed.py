"""What hooks of frameworks let pass without asking, counted by queue and by why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from backpressure._engine.sync import Tally
from backpressure._model.arguments import validate_queue_name
from backpressure._model.errors import InvalidQueueError
from backpressure._model.vocabulary import OTHER_QUEUES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Passed", "Why"]

#: Enqueued by code that runs in a worker, scheduler or consumer; sent again; run at once, in a mode of the framework;
#: due so much later that the present backlog says nothing about it; or let pass by ``passing()``.
Why: TypeAlias = Literal["worker", "retry", "immediate", "scheduled", "passing"]


class Passed:
    """Counts by queue and why; queues beyond `most` together. Thread-safe."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._names: set[str] = set()

    def add(self, queue_name: object, why: Why) -> None:
        """Count one job, with any queue name: it passes in any case."""
        try:
            name = validate_queue_name(queue_name)
        except InvalidQueueError:
            name = OTHER_QUEUES
        if name not in self._names:
            if len(self._names) < self._most():
                self._names.add(name)
            else:
                name = OTHER_QUEUES
        key = (name, why)
        (self._tallies.get(key) or self._tallies.setdefault(key, Tally())).add()

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many passed, by queue and why."""
        return {key: tally.value for key, tally in self._tallies.copy().items()}
