"""What a law is: it turns a sample of a queue into advice for jobs of one priority, and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._engine.sample import Sample
    from backpressure._model.vocabulary import Reason, Zone


class Advice(NamedTuple):
    """What a law says of one sample for one priority.

    Attributes:
        zone: for display, and for the news that it changed.
        delay_ns: nanoseconds to wait; where shedding is advised, those that the job would wait.
        shed: whether the job is to be refused.
        reason: why, as the decision and its count tell.
        room: jobs that may come before the advice is of another kind, when the queue is read before its time; ``None``
            if more jobs make no difference.
    """

    zone: Zone
    delay_ns: int
    shed: bool
    reason: Reason
    room: int | None = None


class Law(Protocol):
    """Turns samples into advice. A law is a value: its settings in integers, which the native engine reads.

    All methods may be called on any thread, `advise` on many at once: a law's own objects never change, and what it
    keeps between calls lies in a state, which it has to make safe itself. Priorities are 0 low, 1 medium, 2 high.
    """

    #: The parts of the configuration that set it; a queue may have its own of each.
    sections: ClassVar[tuple[str, ...]]

    @classmethod
    def of(cls, *parts: Any, **_: Any) -> Law:
        """Make the law of the parts in `sections`, in their order."""
        ...

    def new_state(self) -> Any:
        """Return what the law keeps of one queue between calls; ``None`` if the same sample always has the same advice.

        The engine keeps it with the queue and makes it anew where another law holds for the queue.
        """
        ...

    def advise(self, sample: Sample, priority: int, state: Any, /) -> Advice:
        """Judge `sample` for jobs of `priority`; may be asked more than once about one sample."""
        ...

    def foresee(self, sample: Sample, priority: int, state: Any, /) -> Advice:
        """Return what `advise` would; leaves the state alone."""
        ...

    def explain(self, sample: Sample, priority: int, state: Any, /) -> str:
        """Say in one sentence, with its numbers, why `advise` says what it does; leaves the state alone."""
        ...

    def turning_points(self) -> Sequence[Sample]:
        """Return samples at which the advice turns, and some between them: the rows of a table, in order."""
        ...
