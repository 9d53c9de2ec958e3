"""Seeded simulations hold what was measured of the law, and what each of its cures cures runs away without it.

`python -m benches.control` shows the same scenarios, and many more, as a table.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from benches.control import processes
from benches.control.figures import figures
from benches.control.picture import draw
from benches.control.scenario import WEB, Phase, Scenario, steady
from benches.control.scenarios import GROUPS
from benches.control.simulation import Simulation

from backpressure._age.budget import Budget
from backpressure._age.lease import Dealt, QueueLease
from backpressure._age.protocol import MILLION
from backpressure._model.budget import BudgetSettings

if TYPE_CHECKING:
    from benches.control.figures import Figures

    from backpressure._age.protocol import Answer, Demand, Terms

MINUTE = (Phase("", 0, 60, 200.0),)


FLOOD = (49.0, *(1.0,) * 49)


@pytest.mark.parametrize(("processes", "least"), [(1, 0.94), (10, 0.95), (100, 0.95)])
def test_each_tenant_gets_its_part_and_the_age_is_held(processes: int, least: float) -> None:
    """One of fifty makes half of all offers, at three times the drain."""
    fair = Scenario(
        name="tenants",
        seconds=120,
        phases=(Phase("", 0, 120, 200.0),),
        processes=processes,
        loops=0,
        offers=steady(600.0),
        mix=(0.0, 0.0),
        tenants=FLOOD,
    )
    told, untold = Simulation(fair).run(), Simulation(attrs.evolve(fair, tenants=())).run()
    went = [count / 120 for count in told.went]
    assert sum(went) ** 2 / (len(went) * sum(rate * rate for rate in went)) >= least
    assert went[0] <= 2.5 * sum(went) / len(went)
    assert told.admitted[2] == pytest.approx(untold.admitted[2], rel=0.03)
    assert figures(told, fair.phases[0]).age == pytest.approx(figures(untold, fair.phases[0]).age, abs=0.3)


@pytest.mark.parametrize("processes", [10, 100])
def test_who_weighs_four_times_as_much_gets_four_times_as_much(processes: int) -> None:
    """Ten make as many offers each; two of them weigh 4."""

    def went(seconds: float) -> list[int]:
        phases = (Phase("", 0, seconds, 200.0),)
        weighed = Scenario(
            name="weights",
            seconds=seconds,
            phases=phases,
            processes=processes,
            loops=0,
            offers=steady(600.0),
            mix=(0.0, 0.0),
            tenants=(1.0,) * 10,
            heavy=2,
        )
        return Simulation(weighed).run().went

    at_rest = [later - first for first, later in zip(went(40), went(110), strict=True)]
    assert sum(at_rest[:2]) / 2 == pytest.approx(4 * sum(at_rest[2:]) / 8, rel=0.05)


def judged(scenario: Scenario, budget: type[Budget] = Budget) -> list[Figures]:
    """Run a scenario and judge each of its phases."""
    run = Simulation(scenario, 1, budget).run()
    return [figures(run, phase) for phase in scenario.phases]


def named(group: str, name: str) -> Scenario:
    """Return a scenario of the table, with no more processes than it takes to see its point."""
    (found,) = (scenario for scenario in GROUPS[group]() if scenario.name == name)
    return attrs.evolve(found, processes=min(found.processes, 20)) if group in {"odd", "loss"} else found


# What a row holds: age at rest from and to, and the peak in seconds of work.
@pytest.mark.parametrize(
    ("group", "name", "age", "peak"),
    [
        ("cold", "1.5 times the drain, 10 processes", (4.8, 5.2), 5.6),
        ("cold", "7.5 times the drain, 10 processes", (4.8, 5.2), 5.8),
        ("cold", "20 times the drain, 10 processes", (4.8, 5.2), 6.5),
        ("cold", "3 times the drain, 100 processes", (4.7, 5.2), 5.8),
        ("start", "loops, 1 processes", (4.9, 5.1), 5.3),
        ("start", "loops, 2 processes", (4.8, 5.4), 6.0),
        ("start", "loops, 100 processes", (4.9, 5.2), 6.1),
        ("hot", "20 loops beside 100 idle processes", (4.9, 5.1), 5.3),
        ("crowded", "loops, 160 jobs a second by 80 calls, 400 processes", (4.5, 5.3), 6.0),
        ("few", "25 jobs in the target, 5 processes", (4.4, 5.3), 10.0),
        ("odd", "statistics 8 s old", (4.8, 5.3), 6.0),
        ("odd", "30 % of jobs from others", (4.7, 5.2), 5.8),
        ("odd", "batches of 2 s", (5.0, 6.5), 9.5),
        ("odd", "callers take no answer, 3 times the drain", (4.7, 5.2), 5.8),
        ("loss", "wiped at 80 and 100 s", (4.8, 5.2), 5.5),
    ],
)
def test_the_age_is_held(group: str, name: str, age: tuple[float, float], peak: float) -> None:
    (it,) = judged(named(group, name))
    assert age[0] <= it.age <= age[1]
    assert it.peak <= peak
    assert it.used > 99
    for shed, needed in zip(it.shed, it.needed, strict=True):
        assert abs(shed - needed) < 3


# The situations of the guide's page, in its order: group, scenario and phase.
OF_THE_GUIDE = [
    ("cold", "7.5 times the drain, 10 processes", 0),
    ("cold", "20 times the drain, 10 processes", 0),
    ("jump", "30 a second, then 20 times the drain, 10 processes", 0),
    ("jump", "150 a second, then 5 times the drain, 10 processes", 0),
    ("jump", "150 a second, then 20 times the drain, 10 processes", 0),
    ("steps", "loops, 10 processes", 1),
    ("few", "50 jobs in the target, 5 processes", 0),
    ("few", "5 jobs in the target, 5 processes", 0),
    ("odd", "workers 5 s on, 5 s off", 0),
    ("odd", "workers 20 s on, 20 s off", 0),
    ("odd", "batches of 2 s", 0),
    ("odd", "a tenth of noise on the backlog", 0),
    ("odd", "30 % of jobs from others", 0),
    ("odd", "the same, no oldest age", 0),
]
GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "age-law.md").read_text("utf-8")
EXPECTED = re.findall(r"^\| [^|]+ \| ([\d.]+) ± ([\d.]+) \| (\d+) \|$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize(
    ("group", "name", "phase", "told"),
    [(*scenario, told) for scenario, told in zip(OF_THE_GUIDE, EXPECTED, strict=True)],
)
def test_what_the_guide_says_is_to_be_expected(group: str, name: str, phase: int, told: tuple[str, ...]) -> None:
    age, spread, worst = map(float, told)
    it = judged(named(group, name))[phase]
    assert abs(it.age - age) < 0.1 + spread / 4
    assert it.spread < 1.3 * spread + 0.05
    assert it.worst <= worst
    assert it.used > 99


# What the guide says of news that come seldom, in its order.
SELDOM = [
    "target 5 s, news each 15 s",
    "target 60 s, news each 15 s",
    "target 5 s, scraped each 15 s",
    "target 5 s, news each 60 s",
    "target 60 s, news each 60 s, 60 s old",
]
EXPECTED_SELDOM = re.findall(r"^\| [^|]+ \| (\d+) \| ([\d.]+) ± ([\d.]+) \| (\d+) \| (\d+) \|$", GUIDE, re.MULTILINE)


def busy_after(run: Simulation) -> float:
    """Return when the workers began to do nine tenths of what they can, for 15 seconds at least."""
    ahead = (run.seconds[number : number + 15] for number in range(len(run.seconds)))
    return next(
        it[0].at for it in ahead if sum(second.taken for second in it) >= 0.9 * sum(second.capacity for second in it)
    )


@pytest.mark.parametrize(("name", "told"), list(zip(SELDOM, EXPECTED_SELDOM, strict=True)))
def test_what_the_guide_says_of_seldom_news(name: str, told: tuple[str, ...]) -> None:
    scenario = named("seldom", name)
    target, age, spread, worst, busy = map(float, told)
    run = Simulation(scenario, 1).run()
    start, rest = (figures(run, phase) for phase in scenario.phases)
    assert scenario.target == target
    assert abs(rest.age - age) < 0.1 + target / 100
    assert rest.spread < 1.3 * spread + 0.05
    assert max(start.worst, rest.worst) <= worst
    assert busy_after(run) <= 1.1 * busy
    assert rest.used > 99


class Shortsighted(Budget):
    """Takes the backlog that was last told for that of now."""

    def _foresees(self) -> bool:
        return False


class Boundless(Budget):
    """Doubles the budget of a queue that runs dry beyond what is asked for."""

    def _explore(self, apart: int, old: int, *, was_dry: bool) -> None:
        super()._explore(apart, old, was_dry=was_dry)
        self.held = self.held and 2 * self.budget


def test_a_backlog_is_reckoned_on_between_seldom_news() -> None:
    scenario = named("seldom", "target 0.5 s, news each 15 s")
    (_, cured), (_, uncured) = judged(scenario), judged(scenario, Shortsighted)
    assert cured.used > 99
    assert cured.worst < 1
    assert uncured.used < 90
    assert uncured.worst > 2


def test_a_jump_between_seldom_news_is_bounded() -> None:
    scenario = named("seldom", "news each 15 s, 150 a second, then 5 times the drain")
    (_, cured), (_, uncured) = judged(scenario), judged(scenario, Boundless)
    assert cured.used > 99
    assert cured.peak < 11
    assert uncured.peak > 13


def test_a_step_of_the_drain_is_followed() -> None:
    usual, less, more = judged(named("steps", "loops, 10 processes"))
    assert all(4.8 < it.age < 5.3 for it in (usual, less, more))
    assert all(it.settled < 30 for it in (usual, less, more))
    assert less.worst < 16


def test_a_jump_is_bounded() -> None:
    (it,) = judged(named("jump", "30 a second, then 20 times the drain, 10 processes"))
    assert it.peak < 6.5
    assert 4.8 < it.age < 5.2


def test_while_the_store_is_away_less_is_let_in_than_was_before() -> None:
    away, back = judged(named("loss", "store away 80 to 140 s"))
    assert 165 < away.admitted < 195
    assert away.peak < 5.2
    assert 4.8 < back.age < 5.2


def test_where_all_fitted_little_is_lost_with_the_store() -> None:
    away, back = judged(named("loss", "the same, half the drain, 100 processes"))
    assert away.admitted > 90
    assert sum(back.shed) == 0


def test_a_large_fleet_calls_no_more_than_a_queue_may_cost() -> None:
    # 200 processes and 40 calls a second for 4 jobs: what 10 000 and 2 000 are for 200.
    fleet = Scenario(
        name="",
        seconds=75,
        phases=(Phase("", 0, 75, 4.0),),
        drain=steady(4.0),
        processes=200,
        settings=BudgetSettings.of(5.0, calls=40),
    )
    (it,) = judged(fleet)
    assert 4.2 < it.age < 5.5
    assert it.calls < 42
    assert it.used > 99


class WithoutRing(Budget):
    """Holds an old sample against the jobs of now."""

    def _enqueued_by(self, instant: int, now: int) -> int | None:
        del instant, now
        return self.total


class WithoutAge(Budget):
    """Acts on old news as on fresh."""

    def _set_budget(self, now: int, dt: int, old: int, limit: int, *, sampled: bool) -> None:
        del old
        self.delay = 0
        super()._set_budget(now, dt, 0, limit, sampled=sampled)


@pytest.mark.parametrize(
    ("sample_age", "uncured", "held", "lost"), [(2.0, WithoutRing, 7.0, 10.0), (8.0, WithoutAge, 15.0, 40.0)]
)
def test_old_statistics_do_not_run_away(sample_age: float, uncured: type[Budget], held: float, lost: float) -> None:
    scenario = Scenario(name="", seconds=60, phases=MINUTE, processes=20, sample_age=sample_age)
    (cured,), (ran_away,) = judged(scenario), judged(scenario, uncured)
    assert cured.peak < held < lost < ran_away.peak


class Overcharged(Budget):
    """Charges its sampler, who calls each tick, for an interval of the others."""

    def _terms(self, level: int, it: Demand, decided: int, gone: int, since: int, interval: int) -> Terms:
        if interval == self.gap:
            interval = max(1, self.next_call // 1_000 - self.sampled_at)
        return super()._terms(level, it, decided, gone, since, interval)


def test_a_busy_sampler_does_not_use_up_what_all_may_be_promised() -> None:
    scenario = attrs.evolve(named("crowded", "loops, 400 jobs a second by 80 calls, 400 processes"), seconds=60)
    scenario = attrs.evolve(scenario, phases=(Phase("", 0, 60, 400.0),))
    (cured,), (starved,) = judged(scenario), judged(scenario, Overcharged)
    assert cured.used > 99
    assert cured.fairness > 0.5
    assert starved.used < 60


class Unstinting(Budget):
    """Lets go unasked jobs of every process that calls, though more call than it knows of."""

    def _terms(self, level: int, it: Demand, decided: int, gone: int, since: int, interval: int) -> Terms:
        heard, self.sum_since = self.sum_since, 0
        terms = super()._terms(level, it, decided, gone, since, interval)
        self.sum_since = heard
        return terms


def test_a_jump_in_many_idle_processes_is_not_let_in_unasked() -> None:
    scenario = Scenario(
        name="",
        seconds=35,
        phases=(Phase("", 20, 35, 50.0),),
        drain=steady(50.0),
        processes=250,
        loops=0,
        offers=lambda now: 7.5 if now < 20 else 1_000.0,
        mix=(0.02, 0.38),
        patient=WEB,
    )
    (cured,), (flooded,) = judged(scenario), judged(scenario, Unstinting)
    assert cured.peak < 6.0
    assert flooded.peak > 8.0


class Leaving(QueueLease):
    """Leaves the duty to read the queue after ten ticks of its own without a job, whatever others bring."""

    def renew(self, now_us: int, answer: Answer, spread_ppm: int = MILLION) -> tuple[Dealt, Dealt, Dealt]:
        return super().renew(now_us, attrs.evolve(answer, demand_mjobs_per_s=(0, 0, 0)), spread_ppm)


def test_a_fleet_of_sparse_producers_does_not_lose_sight_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    # An offer of each process in 13 s.
    scenario = Scenario(
        name="",
        seconds=60,
        phases=(Phase("", 0, 60, 50.0),),
        drain=steady(50.0),
        processes=1_000,
        loops=0,
        offers=steady(75.0),
        patient=WEB,
    )
    (cured,) = judged(scenario)
    monkeypatch.setattr(processes, "QueueLease", Leaving)
    (blind,) = judged(scenario)
    cured_off, blind_off = (
        max(abs(shed - needed) for shed, needed in zip(it.shed, it.needed, strict=True)) for it in (cured, blind)
    )
    assert cured_off < 1.5
    assert blind_off > 3


class Keeping(QueueLease):
    """Keeps for itself what the state counted and nobody took."""

    def _deal(self, level: int, now_us: int, answer: Answer) -> Dealt:
        before = self._enqueued
        dealt = super()._deal(level, now_us, answer)
        self._enqueued = before
        return dealt


def test_what_nobody_took_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(
        name="",
        seconds=60,
        phases=MINUTE,
        loops=0,
        offers=steady(600.0),
        patient=WEB,
        held_for=0.05,
        latency=0.1,
    )
    (cured,) = judged(scenario)
    monkeypatch.setattr(processes, "QueueLease", Keeping)
    (ran_away,) = judged(scenario)
    assert cured.peak < 6.0
    assert ran_away.peak > 7.5


def test_an_autoscaler_on_the_demand_and_the_budget_do_not_fight() -> None:
    (of_the_table, *_) = GROUPS["scaled"]()
    scenario = attrs.evolve(
        of_the_table,
        seconds=180,
        phases=(Phase("", 0, 60, 22.0), Phase("", 60, 180, 132.0)),
        offers=lambda now: 20.0 if now < 60 else 120.0,
    )
    run = Simulation(scenario).run()
    assert max(figures(run, phase).worst for phase in scenario.phases) < 8
    late = [second for second in run.seconds if second.at > 130]
    assert late[-1].refused == late[0].refused
    assert late[-1].waited < 0.5


def test_a_seed_repeats_a_run() -> None:
    scenario = attrs.evolve(named("cold", "3 times the drain, 10 processes"), seconds=20)
    first, again, other = (Simulation(scenario, seed).run().seconds for seed in (1, 1, 2))
    assert first == again != other


def test_every_group_can_be_drawn(tmp_path: Path) -> None:
    runs = {group: [Simulation(attrs.evolve(make()[0], seconds=3)).run()] for group, make in GROUPS.items()}
    draw(runs, tmp_path / "control.svg")
    assert (tmp_path / "control.svg").stat().st_size > 1_000
