"""One process that stands for all producers of a queue whose age is held: it reports, and goes by the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._age.budget import Budget
from backpressure._age.protocol import MILLION, BacklogSeen, Demand, Report
from backpressure._replay.grants import Line, Passed, Share, whole
from backpressure._replay.jobs import JOB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._age.protocol import Answer
    from backpressure._engine.laws.age import AgeLaw

__all__ = ["Process"]

_LOW, _MEDIUM, _HIGH = range(3)
_NEVER_MS = 1 << 62
_LONGEST_RETRY_MS = 60_000


class Process:
    """HIGH goes at once, LOW by its share, and MEDIUM waits for its turn. Triples are LOW, MEDIUM, HIGH.

    Where decisions are only observed, MEDIUM goes by its share too, and what is refused goes all the same.

    Attributes:
        call_at_ms: when it calls again.
        enqueued: millionths of jobs that went since the last call; what is dealt is counted by the budget.
        zone: place of the zone of the age among all.
        told_us: microseconds until another attempt, which refused jobs are told.
    """

    def __init__(self, law: AgeLaw, *, observes: bool) -> None:
        self._law = law
        self._budget = Budget(law.budget)
        self.shares = tuple(Share(always=priority == _HIGH) for priority in range(3))
        self.line = None if observes else Line()
        self._remainders = [MILLION // 2] * 3
        self.begin(0)

    def begin(self, now_ms: int) -> None:
        """Begin as a new process, with the budget that there is."""
        for share in self.shares:
            share.begin()
        if self.line is not None:
            self.line.begin()
        self._called_ms: int | None = None
        self.call_at_ms, self.enqueued, self.zone = now_ms, 0, 0
        self.told_us = self._law.budget.target_ms * 1_000

    def call(self, now_ms: int, jobs: int, oldest_ms: int | None, memory_permille: int | None) -> tuple[Passed, ...]:
        """Report, and take the answer; return what becomes of those who were held or waited."""
        oldest_ms = None if oldest_ms is None else min(oldest_ms, 10**9)
        answer = self._budget.call(
            now_ms, self._report(now_ms, BacklogSeen(whole(jobs), oldest_ms, 0), memory_permille)
        )
        dealt = [self._take(priority, answer) for priority in range(3)]
        tick_ms, target_ms = self._law.budget.tick_ms, self._law.budget.target_ms
        self._called_ms, self.call_at_ms = now_ms, now_ms + answer.wait_ms
        self.zone = 0 if 2 * answer.age_ms < target_ms else 1 if answer.age_ms <= target_ms else 2
        self.told_us = 1_000 * min(max(answer.age_ms, tick_ms), _LONGEST_RETRY_MS)
        return tuple(dealt)

    def _report(self, now_ms: int, seen: BacklogSeen, memory_permille: int | None) -> Report:
        high, medium, low = (self._demand(priority) for priority in (_HIGH, _MEDIUM, _LOW))
        enqueued = whole(self.enqueued)
        self.enqueued = min(self.enqueued - enqueued * JOB, JOB)
        return Report(
            producer_id="replay",
            since_ms=0 if self._called_ms is None else max(1, now_ms - self._called_ms),
            demands=(high, medium, low),
            enqueued=enqueued,
            seen=seen,
            limit_permille=self._law.limit_permille(None if memory_permille is None else max(0, memory_permille)),
        )

    def _demand(self, priority: int) -> Demand:
        share, remainder = self.shares[priority], self._remainders[priority]
        if priority == _MEDIUM and self.line is not None:
            line, gone = self.line, whole(self.line.gone)
            line.gone %= JOB
            waiting = max(whole(line.waiting), int(line.had_to_wait))
            line.had_to_wait = False
            return Demand(gone=gone, waiting=waiting, remainder_ppm=remainder)
        decided = whole(share.decided)
        share.decided %= JOB
        return Demand(decided=decided, held=whole(share.held), remainder_ppm=remainder)

    def _take(self, priority: int, answer: Answer) -> Passed:
        terms = answer.terms[_HIGH - priority]
        self._remainders[priority] = terms.remainder_ppm
        if priority == _MEDIUM and self.line is not None:
            goes, refused = self.line.renew(terms), 0
            self.line.gone += goes
        else:
            share = self.shares[priority]
            share.renew(terms)
            goes = min(terms.go_jobs, whole(share.held)) * JOB
            refused = share.held - share.held % JOB - goes
            share.held %= JOB
        self.enqueued += goes - terms.go_jobs * JOB
        return Passed(goes, refused=refused)

    def is_pressed(self, more: Sequence[int]) -> bool:
        """Tell whether with more offers the next call comes early."""
        return any(share.is_pressed(jobs) for share, jobs in zip(self.shares, more, strict=True))

    @property
    def hurry_ms(self) -> int:
        """Return how soon after a call another one comes at the earliest."""
        return max(1, self._law.budget.tick_ms // 8)

    def look(self, now_ms: int) -> None:
        """Call early if more is asked for than was."""
        if self._called_ms is not None and (self.is_pressed((0, 0, 0)) or any(it.held >= JOB for it in self.shares)):
            self.call_at_ms = min(self.call_at_ms, max(now_ms, self._called_ms + self.hurry_ms))
