"""What producers do about what they are told: whose jobs come back, and who waits for one before the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
#: How many offer by themselves, and how many microseconds after their last job.
Loop = tuple[int, int]


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
            count, pause_us, theirs = 0, 0, 0
            of_priority = self._behaviour.loops[priority]
            if of_priority is not None:
                waited_us = 0 if verdict is None else verdict.told_us if verdict.shed else verdict.held_us
                count, pause_us, theirs = _loops(of_priority, offers[priority], span_ms, waited_us)
                offers[priority] -= theirs
            if verdict is not None:
                shed = max(0, flow.sheds[priority] - theirs)  # loops ask again by themselves
                self._return(back, priority, shed, verdict.told_us)
            loops.append((count, pause_us))
        low, medium, high = offers
        return (low, medium, high), loops


def _loops(loops: LoopSettings, offers: int, span_ms: int, waited_us: int) -> tuple[int, int, int]:
    """Return how many loops offer, with which pause, and how many of the recorded offers were theirs."""
    time_us = loops.count * JOB * span_ms * 1_000
    if loops.pause_us is not None:
        return loops.count, loops.pause_us, min(time_us // max(1, loops.pause_us + waited_us), offers)
    if offers == 0:
        return 0, 0, 0
    cycle_us = time_us // offers
    # Who waited for all of that are not so many: without a pause there would be no end of their offers.
    pause_us = max(cycle_us - waited_us, cycle_us // _LEAST_PAUSE)
    return loops.count, min(pause_us, _LONGEST_PAUSE_US), offers
