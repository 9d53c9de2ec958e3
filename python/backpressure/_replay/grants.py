"""What a budget's answer grants to the callers of one priority: as `_age.lease` has it, in millionths of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backpressure._age.protocol import MILLION
from backpressure._replay.jobs import JOB, MOST

if TYPE_CHECKING:
    from backpressure._age.protocol import Terms
    from backpressure._replay.producers import Loop

__all__ = ["Line", "Passed", "Share", "whole"]

#: More than that no report tells.
_MOST_TOLD = 10**9


def whole(jobs: int) -> int:
    """Return whole jobs, as many as a report takes."""
    return min(max(0, jobs) // JOB, _MOST_TOLD)


class Passed(NamedTuple):
    """What became of offers.

    Attributes:
        goes: jobs that go now, those that waited before among them.
        delayed: offers that have to wait.
        refused: offers that are not to go.
        held: how long jobs waited meanwhile, in millionths of job-microseconds.
    """

    goes: int
    delayed: int = 0
    refused: int = 0
    held: int = 0


class Share:
    """Callers who will not wait: a share of them goes, up to a cap.

    Attributes:
        held: offers beyond the cap where all fits: they are told to the next call, and wait for its answer.
        decided: other offers since the last call.
    """

    def __init__(self, *, always: bool) -> None:
        self._always = always
        self.begin()

    def begin(self) -> None:
        """Begin without an answer."""
        self._part_ppm = self._cap = self._used = 0
        self.held = self.decided = 0

    def renew(self, terms: Terms) -> None:
        """Take new terms."""
        self._part_ppm, self._cap, self._used = min(terms.share_ppm, MILLION), terms.cap_jobs * JOB, 0

    @property
    def refuses_ppm(self) -> int:
        """Return the part of offers that is not to go."""
        return 0 if self._always else MILLION - self._part_ppm

    def is_pressed(self, more: int) -> bool:
        """Tell whether with more offers so much is asked for that a call is made early."""
        return self._part_ppm >= MILLION and 2 * (self._used + more) > self._cap

    def offer(self, jobs: int) -> Passed:
        """Offer jobs."""
        if self._always:
            self._used += jobs
            self.decided += jobs
            return Passed(jobs)
        goes = min(jobs * self._part_ppm // MILLION, max(0, self._cap - self._used))
        self._used += goes
        left = jobs - goes
        if self._part_ppm >= MILLION:
            self.held += left
            self.decided += goes
            return Passed(goes)
        self.decided += jobs
        return Passed(goes, refused=left)

    def offers_of_loops(self, loop: Loop, told_us: int, step_us: int) -> int:
        """Return how many jobs loops offer in a step of time, who after a refusal wait as told, or not at all."""
        return loop.offers(0 if loop.skips else self.refuses_ppm * told_us // MILLION, step_us)


class Line:
    """Callers who wait for their turn, first come, first served.

    Attributes:
        waiting: jobs whose callers wait.
        gone: jobs that went since the last call.
        had_to_wait: whether any had to wait since.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin without an answer, and without anybody who waits."""
        self._net = 0  # released less taken
        self._rate, self._burst = 0, 2 * JOB
        self._loops_waiting = 0
        self.waiting = self.gone = 0
        self.had_to_wait = False

    def renew(self, terms: Terms) -> int:
        """Take new terms; return how many of those who wait go at once."""
        saved = min(self._net, self._burst)
        if terms.fill:
            saved = max(saved, terms.burst_ujobs)
        before = self.waiting
        self._net = min(saved, terms.burst_ujobs)
        self._net += min(terms.go_jobs * JOB, max(0, -self._net))
        self._rate, self._burst = terms.rate_ujobs_per_s, terms.burst_ujobs
        self.waiting = max(0, -self._net)
        self._leave(before, before - self.waiting)
        return before - self.waiting

    def _leave(self, of: int, jobs: int) -> None:
        """Count off loops among so many jobs that went, of all that wanted to."""
        if of:
            self._loops_waiting -= self._loops_waiting * jobs // of

    def offers_of_loops(self, loop: Loop, others: int, step_us: int) -> int:
        """Return how many jobs loops offer in a step of time, who do not while they wait, beside other offers."""
        free = loop.offers(0, step_us)
        released, want = max(0, self._net) + self._rate * step_us // MILLION, self.waiting + others + free
        if want <= released:
            return free
        theirs = released * min(self._loops_waiting + free, want) // want
        return min(
            (max(0, loop.count * JOB - self._loops_waiting) + theirs) * step_us // (step_us + loop.pause_us), free
        )

    def offer(self, jobs: int, of_loops: int, step_us: int) -> Passed:
        """Offer jobs, and some of loops, in a step of time."""
        offers, before, begin = jobs + of_loops, self.waiting, self._net
        self._net = end = max(begin + self._rate * step_us // MILLION - offers, -MOST)
        self.waiting = max(0, -end)
        goes = before + offers - self.waiting
        self._loops_waiting += of_loops
        self._leave(before + offers, goes)
        self.gone += goes
        # The line is owed `owed` at most, and as long as it is: of what is a straight course from begin to end.
        owed, saved = max(0, -begin) + max(0, -end), max(0, begin) + max(0, end)
        if not owed:
            return Passed(goes)
        self.had_to_wait = True
        delayed, area = offers * owed // (owed + saved), owed * owed // (owed + saved)
        return Passed(goes, delayed=delayed, held=area * step_us // 2)
