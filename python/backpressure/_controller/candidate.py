"""A candidate: a second policy that is judged beside the real one, once per poll, by what was counted since the last.

No decision costs more by it. What was offered between two polls is judged by the candidate's law at the backlog that
was in force then. Nothing that it would have refused comes back, and the backlog stays what the real policy makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure._engine.laws.registry import sampled_law_of
from backpressure._engine.sample import Sample
from backpressure._engine.sync import ForkLock
from backpressure._engine.totals import REASONS
from backpressure._model.vocabulary import AGE_REASONS, LAW_REASONS, OTHER_QUEUES, SHEDS, Priority, Reason
from backpressure._runtime.pauses import paced

if TYPE_CHECKING:
    from backpressure._engine.border import Engine
    from backpressure._engine.laws.law import Law
    from backpressure._engine.totals import Totals
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["Candidate", "Compared", "candidate_advice", "candidate_law"]

_JUDGED = [REASONS.index(reason) for reason in (*LAW_REASONS, *sorted(AGE_REASONS))]
_SHED = [REASONS.index(reason) for reason in SHEDS]
_DELAYED = [REASONS.index(reason) for reason in (Reason.BACKLOG_YELLOW, Reason.BACKLOG_RED, Reason.AGE_WAIT)]

_Key = tuple[str, int]


class Compared(NamedTuple):
    """What two policies say of the same offers: how many they delay and shed. All integers, so that they add up.

    Attributes:
        offers: decisions that the real law made on a sample.
        delays, sheds: those of them that the candidate would delay, and would shed.
        real_delays, real_sheds: those that the real law delayed, and shed; in observe mode, that it would have.
    """

    offers: int = 0
    delays: int = 0
    sheds: int = 0
    real_delays: int = 0
    real_sheds: int = 0

    def plus(self, other: Compared) -> Compared:
        """Return both added up."""
        return Compared._make(mine + its for mine, its in zip(self, other, strict=True))

    def minus(self, other: Compared) -> Compared:
        """Return what came after `other`."""
        return Compared._make(mine - its for mine, its in zip(self, other, strict=True))


_NONE = Compared()
_NOTHING = (0, 0, 0)


class Candidate:
    """Of one controller. Thread-safe."""

    def __init__(self, engine: Engine, config: BackpressureConfig) -> None:
        self._engine = engine
        self._lock = ForkLock()
        self._judging = False
        self._config = config.with_candidate()
        self._laws: dict[str, tuple[Law, Any] | None] = {}
        # What the engine had counted when it was last looked at: offers, delays and sheds of the real law.
        self._seen: dict[_Key, tuple[int, int, int]] = {}
        self._counts: dict[_Key, Compared] = {}
        # What was counted before the present configuration.
        self._before: dict[_Key, Compared] = {}
        # Queues that have lost their state since the last look.
        self._gone: set[str] = set()

    def configure(self, config: BackpressureConfig) -> None:
        """Judge by another configuration from now on; what was offered until now is judged by the one before."""
        candidate = config.with_candidate()
        with self._lock():  # a poll may judge at any moment
            self.settle()
            was_judged = self._config is not None
            self._config, self._laws = candidate, {}
            if not was_judged:
                self.leave()
            self._before = self._counts.copy()

    def leave(self) -> None:
        """Leave what was offered until now to others: in a forked child to its parent."""
        if self._config is not None:
            self._seen = self._counted()

    def settle(self) -> None:
        """Judge what was offered since the last time; called before samples are replaced."""
        if self._config is None and not self._gone:
            return
        with self._lock():
            if self._judging:  # a signal handler that stops the controller came between
                return
            self._judging = True
            try:
                self._fold()
                if self._config is not None:
                    self._settle()
            finally:
                self._judging = False

    def _settle(self) -> None:
        seen, self._seen = self._seen, self._counted()
        samples: dict[str, Sample | None] = {}
        for key, now in self._seen.items():
            before = seen.get(key, _NOTHING)
            if now == before:
                continue
            name, priority = key
            if name not in samples:
                samples[name] = self._sample(name)
            law, sample = self._law(name), samples[name]
            if law is None or sample is None:
                continue
            offers, delays, sheds = (max(0, new - old) for new, old in zip(now, before, strict=True))
            advice = law[0].advise(sample, priority, law[1])
            delayed = advice.delay_ns > 0 and not advice.shed
            more = Compared(offers, offers * delayed, offers * advice.shed, delays, sheds)
            self._counts[key] = self._counts.get(key, _NONE).plus(more)

    def _counted(self) -> dict[_Key, tuple[int, int, int]]:
        return {key: _judged(total) for key, total in paced(self._engine.totals().items()) if key[0] != OTHER_QUEUES}

    def _law(self, name: str) -> tuple[Law, Any] | None:
        """Return the candidate's law of a queue, and its state; ``None`` where an age is to be held."""
        if name not in self._laws:
            law = None if self._config is None else candidate_law(self._config, name)
            self._laws[name] = None if law is None else (law, law.new_state())
        return self._laws[name]

    def _sample(self, name: str) -> Sample | None:
        found = self._engine.sample(name)
        if found is None:
            return None
        backlog, as_of_ns, oldest_age_ns, _, memory_permille = found
        return Sample(backlog, as_of_ns, oldest_age_ns, memory_permille)

    def forget(self, queue_name: str) -> None:
        """Count a queue that lost its state among the others, from the next look on. Called under any lock."""
        if self._config is not None or self._counts:
            self._gone.add(queue_name)

    def _fold(self) -> None:
        while self._gone:
            name = self._gone.pop()
            self._laws.pop(name, None)
            for priority in Priority:
                key, other = (name, priority.value), (OTHER_QUEUES, priority.value)
                self._seen.pop(key, None)
                for counts in (self._counts, self._before):
                    gone = counts.pop(key, None)
                    if gone is not None:
                        counts[other] = counts.get(other, _NONE).plus(gone)

    def counts(self) -> dict[_Key, Compared]:
        """Return what was counted of every (queue, value of the priority), by all candidates that there were."""
        return self._counts.copy()

    def of_queue(self, queue_name: str) -> dict[str, dict[str, Any]] | None:
        """Say what was counted of a queue by the present configuration, and what it says now, by priority."""
        config = self._config
        law = None if config is None else candidate_law(config, queue_name)
        if law is None:
            return None
        sample = self._sample(queue_name)
        advice = {} if sample is None else candidate_advice(law, sample)
        told: dict[str, dict[str, Any]] = {}
        for priority in Priority:
            key = queue_name, priority.value
            counts = self._counts.get(key, _NONE).minus(self._before.get(key, _NONE))
            told[str(priority)] = {**counts._asdict(), "advice": advice.get(str(priority))}
        return told


def _judged(total: Totals) -> tuple[int, int, int]:
    reasons = total.reasons
    offers, delays, sheds = (sum(reasons[place] for place in places) for places in (_JUDGED, _DELAYED, _SHED))
    return offers, delays, sheds


def candidate_law(candidate: BackpressureConfig, queue_name: str) -> Law | None:
    """Return the law of a queue by a candidate as a whole configuration.

    ``None`` where it holds an age: how long jobs wait depends on which of them go, so it cannot be judged beside.
    """
    return None if candidate.age_of(queue_name).target is not None else sampled_law_of(candidate, queue_name)


def candidate_advice(law: Law, sample: Sample) -> dict[str, dict[str, Any]]:
    """Return what a candidate says of a sample, by priority; a refused job has no delay."""
    found = {}
    for priority in Priority:
        zone, delay_ns, shed, reason, _ = law.foresee(sample, priority.value, law.new_state())
        delay = None if shed else delay_ns / 1e9
        found[str(priority)] = {"zone": str(zone), "delay": delay, "should_shed": shed, "reason": str(reason)}
    return found
