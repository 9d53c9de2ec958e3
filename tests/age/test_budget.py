"""What holds of every budget, whatever is reported. The script computes the same: see test_twin.py."""

from __future__ import annotations

import copy
import heapq
import random

import attrs
import pytest

from backpressure._age.budget import Budget
from backpressure._age.protocol import HIGH, LEVELS, MILLION, NO_SAMPLER, BacklogSeen, Demand, Report, Terms
from backpressure._model.budget import BudgetSettings
from support.budgets import SETTINGS, START_MS, any_calls, any_settings

SEEDS = range(40)
CALLS = 100
MEDIUM, LOW = 1, 2


class Watched(Budget):
    """A budget that looks at itself after each tick and each lease."""

    def _set_shares(self, limit: int) -> None:
        super()._set_shares(limit)
        self.dealt_to_high = 0
        floors = (0, self.settings.medium_floor_permille, self.settings.low_floor_permille)
        kept = [self.demand[level] * floors[level] // 1_000 for level in LEVELS]
        shares = [min(share, MILLION) for share in self.share]
        granted = sum(self.demand[level] * shares[level] // MILLION for level in LEVELS)
        assert granted <= self.budget + sum(kept)
        for level in (MEDIUM, LOW):
            floor = kept[level] * MILLION // max(1, self.demand[level])
            assert self.demand[level] == 0 or shares[level] <= max(shares[level - 1], floor)

    def _terms(self, level: int, it: Demand, decided: int, gone: int, since: int, interval: int) -> Terms:
        before = self.promised
        terms = super()._terms(level, it, decided, gone, since, interval)
        self.dealt_to_high = getattr(self, "dealt_to_high", 0) + (1_000 * terms.go_jobs if level == HIGH else 0)
        promised = self.promised - self.dealt_to_high
        assert promised <= self._promisable() or self.promised == before
        assert self.promised_rate <= self.budget * self.gap * 3 // 2_000
        assert self.promised_spare <= self.spare * self.gap // 1_000
        assert 0 <= terms.share_ppm <= MILLION
        assert 0 <= terms.remainder_ppm < MILLION
        assert terms.go_jobs <= it.held + it.held_patient + it.waiting
        return terms


@pytest.mark.parametrize("seed", SEEDS)
def test_no_tick_promises_more_than_it_may_and_priorities_are_kept(seed: int) -> None:
    draw = random.Random(seed)
    settings = any_settings(draw)
    budget = Watched(settings)
    for now_ms, report in any_calls(draw, settings, CALLS):
        budget.call(now_ms, report)


def busy(backlog: int = 1_000, *, gone: int = 200, ticks: int = 30, kind: type[Budget] = Budget) -> Budget:
    """Return the budget of a queue from which 200 jobs leave a second, and that holds so many."""
    budget = kind(BudgetSettings.of(5.0))
    for tick in range(ticks):
        budget.call(START_MS + 1_000 * tick, report(gone=gone, seen=backlog))
    return budget


def report(*, gone: int = 200, seen: int | None = 1_000, since_ms: int = 1_000, producer_id: str = "a1") -> Report:
    return Report(
        producer_id=producer_id,
        since_ms=since_ms,
        demands=(Demand(), Demand(gone=gone, waiting=10), Demand()),
        enqueued=gone,
        seen=None if seen is None else BacklogSeen(seen, None, 0),
    )


def test_the_budget_falls_as_jobs_wait_longer() -> None:
    resting = busy()
    budgets = []
    for backlog in range(100, 5_000, 50):
        budget = copy.deepcopy(resting)
        budget.backlog, budget.settings = backlog, attrs.evolve(budget.settings, trims=False)
        budget._measure_age(START_MS + 31_000, steady=False)
        budget._set_budget(START_MS + 31_000, 1_000, 0, 1_000, sampled=True)
        budgets.append(budget.budget)
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[0] > resting.drain > budgets[-1] == resting.drain * 50 // 1_000


def test_memory_cuts_the_budget() -> None:
    budget = busy()
    whole = copy.deepcopy(budget).call(START_MS + 30_000, report()).budget_mjobs_per_s
    cut = budget.call(START_MS + 30_000, attrs.evolve(report(), limit_permille=300)).budget_mjobs_per_s
    assert cut == whole * 300 // 1_000


def test_without_memory_nothing_passes_but_high() -> None:
    budget = busy()
    low = Demand(decided=500)
    told = attrs.evolve(report(), demands=(Demand(gone=10), Demand(gone=200), low))
    without = attrs.evolve(told, limit_permille=0)
    *_, answer = [budget.call(START_MS + 1_000 * tick, without) for tick in range(30, 35)]
    assert answer.budget_mjobs_per_s == 0
    assert answer.shares_ppm[1:] == (0, 0), "floors end, too"
    assert [terms.share_ppm for terms in answer.terms[1:]] == [0, 0]
    assert [terms.go_jobs + terms.fill for terms in answer.terms[1:]] == [0, 0]


def test_without_workers_nothing_is_granted_until_one_takes_jobs() -> None:
    budget = Budget(SETTINGS)
    answers = []
    for second, backlog in enumerate([*[50] * 30, *range(40, -1, -10)]):
        waits = (Demand(), Demand(waiting=20), Demand())
        seen = BacklogSeen(backlog, None, 0)
        report = Report(producer_id="p0", since_ms=1_000, demands=waits, enqueued=50 if second == 0 else 0, seen=seen)
        answers.append(budget.call(START_MS + 1_000 * second, report))
    assert {answer.budget_mjobs_per_s for answer in answers[10:30]} == {0}
    assert answers[20].demand_mjobs_per_s == (0, 20_000, 0)  # who waits asks again each tick
    assert answers[30].budget_mjobs_per_s > 0
    assert answers[-1].drain_mjobs_per_s > 5_000


def test_while_nobody_sees_the_queue_no_more_is_granted_than_it_drains() -> None:
    budget = busy(backlog=300)
    unseen = report(seen=None, producer_id=NO_SAMPLER)
    answers = [budget.call(START_MS + 29_000 + 1_000 * tick, unseen) for tick in range(1, 9)]
    assert answers[1].budget_mjobs_per_s > answers[1].drain_mjobs_per_s
    assert answers[-1].budget_mjobs_per_s == answers[-1].drain_mjobs_per_s


def test_who_brings_most_of_the_demand_becomes_the_sampler() -> None:
    budget = busy()
    assert not budget.call(START_MS + 29_100, report(gone=5, seen=None, producer_id="b2")).is_sampler
    assert budget.call(START_MS + 29_200, report(gone=150, seen=None, producer_id="c3")).is_sampler


def test_a_sampler_not_heard_of_is_followed_sooner_while_ticks_are_short() -> None:
    budget = busy()
    idle = Report(producer_id="b2", since_ms=1_000, demands=(Demand(), Demand(), Demand()))
    assert not copy.deepcopy(budget).call(START_MS + 29_400, idle).is_sampler
    assert copy.deepcopy(budget).call(START_MS + 31_600, idle).is_sampler
    budget.gap, budget.calm = 125, 0
    assert not copy.deepcopy(budget).call(START_MS + 29_300, idle).is_sampler
    assert budget.call(START_MS + 29_400, idle).is_sampler


def impatient(jobs: int, *, since_ms: int = 1_000, producer_id: str = "a1", seen: int | None = None) -> Report:
    return Report(
        producer_id=producer_id,
        since_ms=since_ms,
        demands=(Demand(), Demand(), Demand(decided=jobs)),
        enqueued=jobs,
        seen=None if seen is None else BacklogSeen(seen, None, 0),
    )


def calm() -> Budget:
    """Return the budget of a queue that ten processes bring ten jobs a second each, and that is empty."""
    budget = Budget(BudgetSettings.of(5.0))
    for tenth in range(300):
        report = impatient(10, producer_id=f"p{tenth % 10}", seen=0 if tenth % 10 == 0 else None)
        budget.call(START_MS + 100 * tenth, report)
    assert budget.processes == 10
    assert budget.share[LOW] > MILLION
    return budget


def test_only_as_many_processes_as_are_known_get_jobs_unasked() -> None:
    budget = calm()
    caps = []
    for number in range(30):
        new = impatient(0, since_ms=0, producer_id=f"new{number}")
        caps.append(budget.call(START_MS + 30_000 + number, new).terms[LOW].cap_jobs)
    assert caps[0] > 0
    assert caps.index(0) <= 11
    assert not any(caps[11:])


def test_who_brings_a_jump_is_promised_what_it_brought_and_no_multiple() -> None:
    budget = calm()
    usual = copy.deepcopy(budget).call(START_MS + 30_100, impatient(10, since_ms=500)).terms[LOW]
    assert usual.cap_jobs >= 2 * 10 * 2
    jumped = budget.call(START_MS + 30_100, impatient(250, since_ms=500)).terms[LOW]
    assert 250 <= jumped.cap_jobs < 2 * 250


def test_who_was_away_brings_no_more_than_an_interval() -> None:
    budget = busy()
    away = report(gone=200 * 60, since_ms=60_000)
    answer = budget.call(START_MS + 30_000, away)
    assert answer.drain_mjobs_per_s < 1.1 * 200_000
    assert budget.demand[MEDIUM] < 1.2 * 210_000


@pytest.mark.parametrize(("processes", "calls"), [(50, 1_000), (1_000, 100), (3_000, 200)])
def test_intervals_sum_to_no_more_calls_than_a_queue_may_cost(processes: int, calls: int) -> None:
    budget = Budget(BudgetSettings.of(5.0, calls=calls))
    first = [(START_MS + 1_000 * number // processes, number, 0) for number in range(processes)]
    heapq.heapify(first)
    counted = [0] * 60
    while first[0][0] < START_MS + 60_000:
        now_ms, number, last_ms = heapq.heappop(first)
        told = report(
            gone=1,
            seen=1_000 if number == 0 else None,
            since_ms=now_ms - last_ms if last_ms else 0,
            producer_id="a1" if number == 0 else NO_SAMPLER,
        )
        answer = budget.call(now_ms, told)
        counted[(now_ms - START_MS) // 1_000] += 1
        heapq.heappush(first, (now_ms + answer.wait_ms, number, now_ms))
    steady = counted[-20:]
    assert max(steady) <= 1.05 * calls + 2
    assert sum(steady) >= 0.9 * 20 * min(calls, processes)


class Hasty(Budget):
    """Measures the drain over any time."""

    def _measure_delay(self, now: int, dt: int) -> None:
        super()._measure_delay(now, dt)
        self.unheard = 0


def test_a_drain_is_not_measured_over_less_time_than_jobs_take_to_be_told() -> None:
    drains = []
    for kind in (Budget, Hasty):
        budget = busy(kind=kind)
        budget.unheard, budget.gap = 1_000, 125
        before = budget.drain
        # 100 jobs more than a moment ago, of which no report tells yet: no workers that stand still.
        drains.append(budget.call(START_MS + 29_125, report(gone=0, seen=1_100)).drain_mjobs_per_s)
        assert drains[0] == before
    assert drains[1] < drains[0]


def test_one_odd_interval_is_not_believed() -> None:
    budget = busy(backlog=6_000)
    before = budget.drain
    answer = budget.call(START_MS + 30_000, report(seen=500))
    assert before < answer.drain_mjobs_per_s <= before + (4 - 1) * before * 1_000 // 4_000


def test_who_is_cut_short_keeps_only_the_part_of_a_job() -> None:
    budget = busy(backlog=2_000)
    remainders = []
    for part in (100_000, 700_000):
        held = attrs.evolve(
            report(seen=None), demands=(Demand(), Demand(held_patient=9_000, remainder_ppm=part), Demand())
        )
        (_, terms, _) = budget.call(START_MS + 29_500, held).terms
        assert terms.go_jobs < 9_000 * terms.share_ppm // MILLION
        remainders.append(terms.remainder_ppm)
    assert remainders[0] != remainders[1]


def test_idle_processes_take_nothing_from_a_busy_one() -> None:
    def terms_of_the_busy(idle: int) -> int:
        budget = busy(backlog=0, gone=20)
        budget.settings = attrs.evolve(budget.settings, calls_per_second=10**6)  # so that intervals do not grow
        budget.spare, budget.promised_rate, budget.promised_spare = 100_000, 0, 0
        budget.share = [4 * MILLION] * 3
        for number in range(idle):
            nothing = Report(producer_id=f"idle-{number}", since_ms=1_000)
            budget.call(START_MS + 29_000, nothing)
        (_, medium, _) = budget.call(START_MS + 29_001, report(gone=20, seen=None)).terms
        return medium.rate_ujobs_per_s

    assert terms_of_the_busy(idle=0) == terms_of_the_busy(idle=200) > 0
