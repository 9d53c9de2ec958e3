"""What producers do about what they are told: whose jobs come back, and who waits for one before the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure._replay.jobs import FLOW, JOB
from backpressure._replay.later import Later

if TYPE_CHECKING:
    from backpressure._recording.row import Row
    from backpressure._replay.flow import Flow
    from backpressure._replay.judge import Verdict
    from backpressure._replay.settings import BehaviourSettings, LoopSettings

__all__ = ["Loop", "Producers"]

_PRIORITIES = range(3)
_LONGEST_PAUSE_US = 10**15
#: So many pauses are as long as the time from one job to the next at most.
_LEAST_PAUSE = 10


@attrs.frozen
class Loop:
    """Who offers by themselves; see `LoopSettings`.

    Attributes:
        count: how many.
        pause_us: microseconds after their last job.
        paced: whether that is the time from offer to offer, unless a job took longer.
        skips: whether they wait for nothing after a job that is shed.
    """

    count: int = 0
    pause_us: int = 0
    paced: bool = False
    skips: bool = False

    def waits_us(self, verdict: Verdict) -> int:
        """Return how long one waits for a job."""
        if verdict.shed:
            return 0 if self.skips else verdict.told_us
        return verdict.held_us

    def cycle_us(self, waits_us: int) -> int:
        """Return the time from offer to offer of who waits so long for each job."""
        return max(1, max(self.pause_us, waits_us) if self.paced else self.pause_us + waits_us)

    def offers(self, waits_us: int, step_us: int) -> int:
        """Return how many jobs they offer in a step of time."""
        return min(self.count * JOB * step_us // self.cycle_us(waits_us), FLOW)


class Producers:
    """Millionths of jobs; triples are LOW, MEDIUM, HIGH."""

    def __init__(self, behaviour: BehaviourSettings) -> None:
        self._behaviour = behaviour
        self._back = tuple(Later() for _ in _PRIORITIES)
        # Those of jobs that were shed while the recording was made: they are among its offers.
        self._recorded_back = tuple(Later() for _ in _PRIORITIES)

    def begin(self, now_ms: int) -> None:
        """Begin anew: nobody comes back."""
        for later in (*self._back, *self._recorded_back):
            later.clear(now_ms)

    def with_back(self, priority: int, jobs: int, now_ms: int) -> int:
        """Return offers with those of who comes back by now."""
        return min(jobs + self._back[priority].take(now_ms), FLOW)

    def shed(self, priority: int, jobs: int, told_us: int) -> None:
        """Have some of shed jobs come back."""
        self._return(self._back[priority], priority, jobs, told_us)

    def _return(self, later: Later, priority: int, jobs: int, told_us: int) -> None:
        behaviour = self._behaviour
        after_us = told_us if behaviour.return_after_us is None else behaviour.return_after_us
        later.put_later(jobs * behaviour.returns_ppm[priority] // JOB, after_us)

    def apart(
        self, before: Row, span_ms: int, flow: Flow, in_force: tuple[Verdict, ...] | None
    ) -> tuple[tuple[int, int, int], list[Loop]]:
        """Return the offers that come whatever is advised, and by priority how many loops offer, with which pause.

        Recorded offers are both, and those of jobs that had been shed and came back.
        """
        offers = list(flow.offers or (0, 0, 0))
        loops: list[Loop] = []
        for priority in _PRIORITIES:
            verdict = None if in_force is None else in_force[priority]
            back = self._recorded_back[priority]
            offers[priority] = max(0, offers[priority] - back.take(before.at_ms))
            loop, theirs = Loop(), 0
            of_priority = self._behaviour.loops[priority]
            if of_priority is not None:
                loop, theirs = _loop(of_priority, offers[priority], span_ms, verdict)
                offers[priority] -= theirs
            if verdict is not None:
                shed = max(0, flow.sheds[priority] - theirs)  # loops ask again by themselves
                self._return(back, priority, shed, verdict.told_us)
            loops.append(loop)
        low, medium, high = offers
        return (low, medium, high), loops


def _loop(given: LoopSettings, offers: int, span_ms: int, verdict: Verdict | None) -> tuple[Loop, int]:
    """Return who offers by themselves, and how many of the recorded offers were theirs."""
    loop = Loop(given.count, given.pause_us or 0, given.paced, given.skips)
    waited_us = 0 if verdict is None else loop.waits_us(verdict)
    time_us = given.count * JOB * span_ms * 1_000
    if given.pause_us is not None:
        return loop, min(time_us // loop.cycle_us(waited_us), offers)
    if offers == 0:
        return Loop(), 0
    cycle_us = time_us // offers
    # Who waited for all of that are not so many: without a pause there would be no end of their offers.
    pause_us = cycle_us if given.paced else max(cycle_us - waited_us, cycle_us // _LEAST_PAUSE)
    return attrs.evolve(loop, pause_us=min(pause_us, _LONGEST_PAUSE_US)), offers
