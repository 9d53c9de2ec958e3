"""What an engine remembers of a queue: its sample, the computed advice, and answers ready to be handed out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._engine.pure.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backpressure._engine.pure.breaker import Breaker
    from backpressure._engine.pure.laws.three_zone import Advice
    from backpressure._engine.settings import EngineSettings
    from backpressure._engine.sync import ForkLock
    from backpressure._model.decision import ThrottleDecision


class Sample:
    """What was read of a queue: waiting jobs, the monotonic instant at which that was true, the oldest job's age then.

    Each object is a snapshot number of its own.
    """

    __slots__ = ("as_of_ns", "backlog", "oldest_age_ns")

    def __init__(self, backlog: int, as_of_ns: int, oldest_age_ns: int | None) -> None:
        self.backlog = backlog
        self.as_of_ns = as_of_ns
        self.oldest_age_ns = oldest_age_ns

    def age_ns(self, now_ns: int) -> int:
        """Return how old the sample is."""
        return max(0, now_ns - self.as_of_ns)


class Computed:
    """The law's advice on one sample under one configuration."""

    __slots__ = ("advice", "sample", "settings", "timestamp")

    def __init__(self, sample: Sample, settings: EngineSettings, advice: Advice, timestamp: datetime) -> None:
        self.sample = sample
        self.settings = settings
        self.advice = advice
        self.timestamp = timestamp


class Ready:
    """A finished answer, good for every caller while nothing that it was made from has changed."""

    __slots__ = ("breaker", "count", "decision", "epoch", "queue", "sample", "until_ns", "word")

    def __init__(
        self,
        decision: ThrottleDecision,
        queue: Queue,
        breaker: Breaker,
        *,
        epoch: object,
        sample: Sample | None,
        word: int,
        until_ns: float,
        count: Callable[[], Any],
    ) -> None:
        self.decision = decision
        self.queue = queue
        self.breaker = breaker
        self.epoch = epoch
        self.sample = sample
        self.word = word
        self.until_ns = until_ns
        self.count = count


class Queue:
    """One queue's state."""

    __slots__ = ("_lock", "breaker", "computed", "counters", "failed_ns", "name", "sample", "touched_ns")

    def __init__(self, name: str, breaker: Breaker, now_ns: int, lock: ForkLock) -> None:
        self.name = name
        self.breaker = breaker
        self.sample: Sample | None = None
        self.computed: list[Computed | None] = [None, None, None]
        self.counters = (Counters(), Counters(), Counters())
        # When a read on a caller's path failed, until there is a sample.
        self.failed_ns: int | None = None
        # Last asked for, to within the time an answer stays ready.
        self.touched_ns = now_ns
        self._lock = lock  # of all queues of an engine

    def put_computed(self, index: int, computed: Computed) -> Computed | None:
        """Keep what was computed for the priority of this index; return what it replaces.

        Swapped, so that of callers who compute at once each sees its own predecessor and a change is told once.
        """
        with self._lock():
            before, self.computed[index] = self.computed[index], computed
        return before

    def may_read(self, settings: EngineSettings, now_ns: int) -> bool:
        """Tell whether a caller may read the provider: after a failure that is the poller's, without one it rests."""
        failed_ns = self.failed_ns
        return failed_ns is None or (not settings.polling and now_ns >= failed_ns + settings.check_every_ns)
