"""What an engine remembers of a queue: its sample, the computed advice, and answers ready to be handed out again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure._engine.laws.age import AgeLaw
from backpressure._engine.pure.counters import Counters
from backpressure._model.vocabulary import Zone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._age.lease import AnyLease
    from backpressure._engine.laws.law import Advice, Law
    from backpressure._engine.pure.breaker import Breaker
    from backpressure._engine.sample import Sample
    from backpressure._engine.settings import EngineSettings
    from backpressure._engine.sync import ForkLock, Tally
    from backpressure._model.decision import Answer, ThrottleDecision
    from backpressure._model.tenant import AnyTenant


class Computed:
    """The law's advice on one sample under one configuration.

    `finished` is what decisions are made of. Jobs that it lets in are counted in `row`, ``None`` if it refuses them;
    `counted` had been let in there before.
    """

    __slots__ = ("advice", "counted", "finished", "row", "sample", "settings")

    def __init__(
        self,
        sample: Sample,
        settings: EngineSettings,
        advice: Advice,
        finished: Answer,
        *,
        row: Tally | None,
        counted: int,
    ) -> None:
        self.sample = sample
        self.settings = settings
        self.advice = advice
        self.finished = finished
        self.row = row
        self.counted = counted

    def holds(self, sample: Sample, settings: EngineSettings) -> bool:
        """Tell whether it was computed of this sample, under this configuration."""
        return self.sample is sample and self.settings is settings


class Delay(NamedTuple):
    """A delay that lies ready: each of its callers gets a decision of its own.

    Attributes:
        answer: what decisions are made of.
        delay_ns: nanoseconds to wait.
        counters, row: where it counts.
        lets_go: whether observe mode lets its callers go at once, so that who plans is admitted and counted too.
    """

    answer: Answer
    delay_ns: int
    counters: Counters
    row: Tally
    lets_go: bool


class Refusal(NamedTuple):
    """What a lease refuses with.

    Attributes:
        decision: what callers get.
        tally: counts it.
    """

    decision: ThrottleDecision
    tally: Iterator[int]


class Leased(NamedTuple):
    """What lets each caller go, or refuses it if it will not wait, or else has it ask: see `Judged`."""

    lease: AnyLease
    renewal: int
    patient: bool
    refusal: Refusal | None

    def goes(self, now_ns: int) -> bool:
        """Tell whether the next job may go, which is then taken off."""
        lease = self.lease
        if self.patient:
            return lease.take_saved(now_ns // 1_000)
        return lease.renewal == self.renewal and lease.take_share()

    def place(self, tenant: AnyTenant) -> int | None:
        """Return a tenant's place; ``None`` if this is none, or no share is dealt yet."""
        tenants = self.lease.tenants()
        return None if tenants is None else tenants.place(tenant)

    def decide_for(self, place: int, *, impatient: bool) -> bool | None:
        """Tell whether the next job of a tenant goes by the share's word; ``None``: it is to ask."""
        refuses = impatient and self.refusal is not None
        return self.lease.decide_for(place, self.renewal, refuses=refuses)

    def refuses(self) -> ThrottleDecision | None:
        """Return what the next job gets if it is refused, which is then counted."""
        refusal = self.refusal
        if refusal is None or not self.lease.refuse_share(self.renewal):
            return None
        next(refusal.tally)
        return refusal.decision


class Ready:
    """A finished answer, good for every caller while nothing that it was made from has changed.

    Without a `delay` all callers get the one `decision`, as do those that a lease in its place lets go. Whoever is
    admitted by it counts that; when `count` returns `last_count`, so many jobs came that the queue is to be read.
    `goes` tells whether they may do the job, and at once.
    """

    __slots__ = (
        *("breaker", "count", "decision", "delay", "epoch", "goes", "last_count", "queue", "sample", "until_ns"),
        "word",
    )

    def __init__(
        self,
        decision: ThrottleDecision,
        queue: Queue,
        breaker: Breaker,
        *,
        delay: Delay | Leased | None,
        goes: bool,
        epoch: object,
        sample: Sample | None,
        word: int,
        until_ns: float,
        count: Iterator[int],
        last_count: float,
    ) -> None:
        self.decision = decision
        self.queue = queue
        self.breaker = breaker
        self.delay = delay
        self.goes = goes
        self.epoch = epoch
        self.sample = sample
        self.word = word
        self.until_ns = until_ns
        self.count = count
        self.last_count = last_count


class Kept(NamedTuple):
    """What a law keeps of a queue, and whose it is."""

    law: type[Law]
    state: Any


class Queue:
    """One queue's state."""

    __slots__ = (
        *("_kept", "_lock", "breaker", "computed", "counters", "failed_ns", "hurry_at_ns", "name", "sample"),
        "touched_ns",
    )

    def __init__(self, name: str, breaker: Breaker, now_ns: int, lock: ForkLock) -> None:
        self.name = name
        self.breaker = breaker
        self.sample: Sample | None = None
        self.computed: list[Computed | None] = [None, None, None]
        self.counters = (Counters(), Counters(), Counters())
        # When a read that the jobs of a priority ask for may be asked for again.
        self.hurry_at_ns: list[float] = [-math.inf] * 3
        # When a read on a caller's path failed, until there is a sample.
        self.failed_ns: int | None = None
        # Last asked for, to within the time an answer stays ready.
        self.touched_ns = now_ns
        self._kept: Kept | None = None
        self._lock = lock  # of all queues of an engine

    def put_computed(self, index: int, computed: Computed) -> Computed | None:
        """Keep what was computed for the priority of this index; return what it replaces.

        Swapped, so that of callers who compute at once each sees its own predecessor and a change is told once.
        """
        with self._lock():
            before, self.computed[index] = self.computed[index], computed
        return before

    def let_in(self, sample: Sample) -> tuple[int, int]:
        """Return how many jobs what was computed of `sample` let in, and how many priorities were ever computed."""
        jobs = priorities = 0
        for counters, computed in zip(self.counters, self.computed, strict=True):
            if computed is not None:
                priorities += 1
                if computed.row is not None and computed.sample is sample:
                    jobs += max(0, counters.let_in(computed.row) - computed.counted)
        return jobs, priorities

    def is_busy(self, settings: EngineSettings) -> bool:
        """Tell whether the sample lies outside of green for a priority that was asked for."""
        sample, law = self.sample, settings.law_of(self.name)
        if sample is None or isinstance(law, AgeLaw):
            return False  # whoever holds an age reads for that
        zones = (
            law.foresee(sample, index, self.foreseen_by(law)).zone
            for index, computed in enumerate(self.computed)
            if computed is not None
        )
        return any(zone is not Zone.GREEN for zone in zones)

    def state_of(self, law: Law) -> Any:
        """Return what `law` keeps of this queue, made when it first judges it, and anew after another law."""
        kept = self._kept
        if kept is None or kept.law is not type(law):
            kept = self._swap(Kept(type(law), law.new_state()))
        return kept.state

    def foreseen_by(self, law: Law) -> Any:
        """Return what `law` keeps of this queue, or would begin with; nothing is kept that was not before."""
        kept = self._kept
        return kept.state if kept is not None and kept.law is type(law) else law.new_state()

    def _swap(self, new: Kept) -> Kept:
        """Put `new` in the place of what another law kept; return what is kept then, which another thread may have."""
        # The lock is against other threads: signal handlers run between calls, never between the two lines inside.
        with self._lock():
            if (kept := self._kept) is None or kept.law is not new.law:
                self._kept = kept = new
        return kept

    def may_read(self, settings: EngineSettings, now_ns: int) -> bool:
        """Tell whether a caller may read the provider: after a failure that is the poller's, without one it rests."""
        failed_ns = self.failed_ns
        return failed_ns is None or (not settings.polling and now_ns >= failed_ns + settings.check_every_ns)
