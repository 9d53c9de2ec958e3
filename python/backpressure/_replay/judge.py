"""Asks a law what it says of a backlog, and asks again only when that is another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backpressure._engine.sample import Sample
from backpressure._model.vocabulary import Zone

if TYPE_CHECKING:
    from backpressure._engine.laws.law import Law

__all__ = ["UNBOUNDED", "Judge", "Verdict"]

#: As many jobs as nobody offers between two reads.
UNBOUNDED = 10**12

_ZONES = tuple(Zone)


class Verdict(NamedTuple):
    """What a law says of jobs of one priority.

    Attributes:
        shed: whether they are refused.
        waits: whether they are to wait.
        told_us: microseconds that they are to wait, or, where they are refused, until another attempt.
        held_us: how long they wait, as producers sleep.
        zone: its place among all.
        room: jobs that may be let in before the queue is read before its time.
    """

    shed: bool
    waits: bool
    told_us: int
    held_us: int
    zone: int
    room: int


class Judge:
    """A law with its latest verdicts, LOW first."""

    def __init__(self, law: Law, sleep_permille: int) -> None:
        self._law = law
        self._state = law.new_state()
        self._sleep_permille = sleep_permille
        self._sample: tuple[int, int | None] | None = None
        self.verdicts: tuple[Verdict, ...] = ()

    def judge(self, backlog: int, memory_permille: int | None) -> tuple[Verdict, ...]:
        """Return what the law says of so many waiting jobs."""
        if memory_permille is not None:
            memory_permille = max(0, memory_permille)
        if (backlog, memory_permille) != self._sample:
            self._sample = backlog, memory_permille
            sample = Sample(backlog, 0, None, memory_permille)
            self.verdicts = tuple(self._verdict(sample, priority) for priority in range(3))
        return self.verdicts

    def room(self) -> int:
        """Return how many jobs may be let in before the latest verdicts are likely to be others."""
        return min(verdict.room for verdict in self.verdicts)

    def is_busy(self) -> bool:
        """Tell whether the latest zones are not all green, so that the queue is read more often."""
        return any(verdict.zone for verdict in self.verdicts)

    def _verdict(self, sample: Sample, priority: int) -> Verdict:
        advice = self._law.advise(sample, priority, self._state)
        told_us = advice.delay_ns // 1_000
        waits = advice.delay_ns > 0 and not advice.shed
        held_us = told_us * self._sleep_permille // 1_000 if waits else 0
        room = UNBOUNDED if advice.room is None else min(advice.room, UNBOUNDED)
        return Verdict(advice.shed, waits, told_us, held_us, _ZONES.index(advice.zone), room)
