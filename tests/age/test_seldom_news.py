"""News of the queue that come less often than ticks, and old ones: by the script on a real server and by its twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from backpressure._age.budget import Budget
from backpressure._age.protocol import MILLION, Answer, BacklogSeen, Demand, Report
from backpressure._model.budget import BudgetSettings
from support.budgets import START_MS, SharedBudget

if TYPE_CHECKING:
    import redis

MEDIUM, DRAIN = 1, 200
Call = Callable[[int, Report], Answer]


class Producers:
    """One process whose callers wait, a call each second, and workers that take up to 200 jobs a second.

    News of the queue come each `apart` seconds, `old` seconds old; in between they are told again if `repeats`.
    """

    def __init__(self, call: Call, *, apart: int, old: int = 0, repeats: bool = False) -> None:
        self.call, self.apart, self.old, self.repeats = call, apart, old, repeats
        self.second, self.backlog, self.gone, self.part = 0, 0, 0, 0
        self.backlogs: list[int] = []
        self.idle = 0
        self.answer: Answer | None = None

    def news(self) -> BacklogSeen | None:
        since = (self.second - self.old) % self.apart
        at = self.second - self.old - since
        if at < 0 or (since and not self.repeats):
            return None
        return BacklogSeen(self.backlogs[at], None, 1_000 * (self.second - at))

    def run(self, seconds: int, *, drain: int = DRAIN) -> Answer:
        self.idle = 0
        for _ in range(seconds):
            self.backlogs.append(self.backlog)
            demands = (Demand(), Demand(gone=self.gone, waiting=200), Demand())
            report = Report(producer_id="p0", since_ms=1_000, demands=demands, enqueued=self.gone, seen=self.news())
            self.answer = self.call(START_MS + 1_000 * self.second, report)
            terms = self.answer.terms[MEDIUM]
            self.gone, self.part = divmod(terms.rate_ujobs_per_s + self.part, MILLION)
            came = self.backlog + self.gone + terms.go_jobs
            self.idle += max(0, drain - came)
            self.backlog = max(0, came - drain)
            self.second += 1
        assert self.answer is not None
        return self.answer


@pytest.fixture(params=["script", "twin"])
def make_call(request: pytest.FixtureRequest, redis_client: redis.Redis) -> Callable[[float], Call]:
    """Return what makes the call of a budget with this target."""

    def make(target: float) -> Call:
        settings = BudgetSettings.of(target)
        if request.param == "twin":
            return Budget(settings).call
        shared = SharedBudget(redis_client, "bp:{mail}:age")
        return lambda now_ms, report: shared.call(now_ms, report, settings)

    return make


@pytest.mark.parametrize(
    ("target", "apart", "old", "repeats"),
    [
        (5, 1, 0, False),
        (5, 3, 0, False),
        (5, 6, 0, False),
        (5, 15, 0, False),
        (5, 15, 15, True),
        (5, 15, 30, False),
        (5, 60, 0, False),
        (60, 15, 0, False),
        (60, 60, 60, False),
        (300, 60, 30, True),
    ],
)
def test_the_drain_is_seen_however_far_news_lie_apart(
    make_call: Callable[[float], Call], target: int, apart: int, old: int, repeats: bool
) -> None:
    producers = Producers(make_call(target), apart=apart, old=old, repeats=repeats)
    producers.run(16 * (apart + old) + 2 * target)
    answer = producers.run(4 * apart)
    assert abs(answer.drain_mjobs_per_s / 1_000 - DRAIN) < DRAIN / 20
    assert producers.idle < DRAIN * 4 * apart / 10
    within = producers.backlogs[-4 * apart :]
    assert max(within) < DRAIN * (1.1 * target + (apart + old) / 10 + 1)


def test_a_hole_of_the_ticks_is_not_measured(make_call: Callable[[float], Call]) -> None:
    producers = Producers(make_call(60), apart=15)
    before = producers.run(16 * 15 + 1).drain_mjobs_per_s
    producers.second += 6  # the store was away, and jobs of which no report tells came meanwhile
    producers.backlogs += [producers.backlog + 2_000] * 6
    producers.backlog += 2_000
    assert producers.run(15).drain_mjobs_per_s == before
    assert producers.run(60).drain_mjobs_per_s == pytest.approx(before, rel=0.02)


def test_ten_minutes_are_not_measured(make_call: Callable[[float], Call]) -> None:
    drains = []
    for apart in (590, 610):
        producers = Producers(make_call(3_600), apart=apart)
        drains.append(producers.run(2 * apart + 1).drain_mjobs_per_s)
    assert drains[0] > 0 == drains[1]


def test_news_that_are_told_again_are_no_second_news(make_call: Callable[[float], Call]) -> None:
    """Else the budget of a queue that runs dry would double each second."""
    once, again = (Producers(make_call(5), apart=60, old=1, repeats=repeats) for repeats in (False, True))
    told_once, told_again = once.run(60).budget_mjobs_per_s, again.run(60).budget_mjobs_per_s
    assert told_again <= 2 * told_once


def test_overdue_news_let_in_no_more_than_the_drain(make_call: Callable[[float], Call]) -> None:
    producers = Producers(make_call(60), apart=15)
    producers.run(8 * 15)
    producers.apart = 10**6
    answer = producers.run(35)
    assert answer.budget_mjobs_per_s == answer.drain_mjobs_per_s


def test_workers_that_become_fewer_are_followed(make_call: Callable[[float], Call]) -> None:
    producers = Producers(make_call(5), apart=15)
    producers.run(240)
    answer = producers.run(120, drain=80)
    assert abs(answer.drain_mjobs_per_s / 1_000 - 80) < 4
    assert max(producers.backlogs) < 200 * 5 + (200 - 80) * 20
    assert abs(producers.backlog / 80 - 5) < 1.5
