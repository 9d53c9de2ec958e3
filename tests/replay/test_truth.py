"""Replays come near to what a policy really does to a queue, told from a recording without it, or with another one."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import ENGINE, BackpressureConfig, PollingConfig, Recording
from backpressure._engine.laws.registry import sampled_law_of
from backpressure._recommend.candidates import TWICE
from backpressure._recording.book import Book
from backpressure.replay import Behaviour, Loops, Replay, ReplayedQueue, recommend
from replay.truth import LOW, MEDIUM, POLL, Scenario, Truth

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = BackpressureConfig(polling=PollingConfig(interval=POLL, busy_interval=POLL, jitter=0))
LAW = sampled_law_of(CONFIG)
HOURS = 10_800


def offers(second: int) -> tuple[float, float, float]:
    """Return a day in three hours, in which LOW jobs flood the queue for eight minutes."""
    day = 0.6 + 0.4 * math.sin(2 * math.pi * (second / HOURS - 0.25))
    return 40 * day * (3 if 5_000 <= second < 5_500 else 1), 25 * day, 10 * day


def drain(second: int) -> float:
    """Return what workers take; half of them are away for five minutes."""
    return 45 if 7_500 <= second < 7_800 else 100


SCENARIOS = {
    "open": (Scenario(HOURS, offers, drain), Behaviour()),
    "returns": (Scenario(HOURS, offers, drain, returns=0.5), Behaviour(returns=0.5)),
    "loops": (
        Scenario(HOURS, offers, drain, returns=0.5, loops=30),
        Behaviour(returns={"low": 0.5}, loops={"medium": Loops(30, pause=1)}),
    ),
}


@functools.cache
def truth(name: str, *, enforces: bool, every: int = 1) -> Truth:
    return Truth(SCENARIOS[name][0], LAW, enforces=enforces, every=every)


def replayed(folder: Path, rows: list[Any], config: BackpressureConfig, **more: Any) -> ReplayedQueue:
    """Record rows, of which policy 1 was the one of the tests, and replay them."""
    told = CONFIG.to_dict()
    policy = {part: told[part] for part in ("thresholds", "curve", "mode")} | {"mode": more.pop("mode", "enforce")}
    book = Book(folder / "made.bpr")
    text = str(policy).replace("'", '"').replace("True", "true").replace("False", "false").replace("None", "null")
    book.write({"mail": rows}, {1: text}, rows[-1].at_ms, 10**12)
    return Replay(Recording(book.path), config, **more).queue("mail")


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize(("mode", "every", "peak_within"), [("observe", 1, 0.15), ("enforce", POLL, 0.2)])
def test_with_behaviour_it_is_the_truth(
    tmp_path: Path, engine_name: str, name: str, mode: str, every: int, peak_within: float
) -> None:
    """Sheds are within 5 % of the truth, and the peak of the backlog is within 15 % of it.

    If the recorded policy was enforced, little is seen of how fast workers can be: then that is within 20 %.
    """
    true = truth(name, enforces=True)
    recorded = truth(name, enforces=mode == "enforce", every=every)
    found = replayed(tmp_path, recorded.rows, CONFIG, behaviour=SCENARIOS[name][1], mode=mode, _engine=engine_name)
    answer = found.behaviour
    assert answer is not None
    low, medium = answer.priorities["low"], answer.priorities["medium"]
    assert low.sheds == pytest.approx(true.sheds[LOW], rel=0.05)
    assert answer.peak_backlog == pytest.approx(true.peak, rel=peak_within)
    assert low.offers == pytest.approx(true.offers[LOW], rel=0.03)
    assert medium.offers == pytest.approx(true.offers[MEDIUM], rel=0.03)
    assert medium.delays == pytest.approx(true.delays[MEDIUM], rel=0.1)
    assert answer.longest_wait == pytest.approx(true.longest_wait, rel=0.2)
    assert medium.sheds == 0
    assert true.sheds[LOW] > 10_000


@pytest.mark.skipif(ENGINE == "pure", reason="eighty replays of hours take minutes in Python")
@pytest.mark.parametrize("name", ["returns", "loops"])
@pytest.mark.parametrize("target", [None, 30])
def test_what_is_recommended_is_better_in_truth_too(tmp_path: Path, name: str, target: float | None) -> None:
    """The queue is simulated job by job under what is recommended, and under the rule of thumb."""
    book = Book(tmp_path / "observed.bpr")
    rows = truth(name, enforces=False).rows
    book.write({"mail": rows}, {1: '{"mode": "observe"}'}, rows[-1].at_ms, 10**12)
    behaviour = SCENARIOS[name][1]
    (queue,) = recommend(Recording(book.path), target_age=target, behaviour=behaviour, base=CONFIG).queues
    assert queue.best is not None
    rule = next(it for it in queue.candidates if it.name == TWICE)
    true = {}
    for it in (queue.best, rule):
        config = CONFIG.evolve({f"queues.mail.{part}": value for part, value in it.settings.items()})
        true[it.name] = Truth(SCENARIOS[name][0], sampled_law_of(config, "mail"), enforces=True)
        assert it.sheds["low"] == pytest.approx(true[it.name].sheds[LOW], rel=0.05, abs=50)
        assert it.longest_wait == pytest.approx(true[it.name].longest_wait, rel=0.1)
    best, thumb = true[queue.best.name], true[rule.name]
    if target is None:
        assert best.sheds[LOW] <= thumb.sheds[LOW]
        assert best.longest_wait <= thumb.longest_wait
        assert name != "loops" or best.longest_wait < 0.8 * thumb.longest_wait
    else:
        assert best.longest_wait < 0.2 * thumb.longest_wait


def test_what_observe_mode_counts_overstates(tmp_path: Path, engine_name: str) -> None:
    true = truth("open", enforces=True)
    found = replayed(tmp_path, truth("open", enforces=False).rows, CONFIG, mode="observe", _engine=engine_name)
    assert found.feedback is not None
    recorded, feedback = (answer.priorities["low"].sheds for answer in (found.recorded, found.feedback))
    assert recorded is not None
    assert recorded > 1.7 * true.sheds[LOW]
    assert feedback == pytest.approx(true.sheds[LOW], rel=0.05)
    assert found.recorded.peak_backlog == truth("open", enforces=False).peak


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_a_row_for_each_reading_gives_the_recorded_decisions(tmp_path: Path, engine_name: str, mode: str) -> None:
    rows = truth("loops", enforces=mode == "enforce", every=POLL).rows
    parity = replayed(tmp_path, rows, CONFIG, mode=mode, _engine=engine_name).parity
    assert parity is not None
    assert parity.off == 0
    assert parity.replayed == parity.recorded
    assert sum(delays for delays, _ in parity.recorded.values()) > 10_000
    assert (parity.recorded["low"][1] > 10_000) == (mode == "enforce")


def test_rows_between_readings_differ_a_little(tmp_path: Path, engine_name: str) -> None:
    found = replayed(tmp_path, truth("open", enforces=True).rows, CONFIG, _engine=engine_name)
    assert found.parity is not None
    assert 0.02 < found.parity.off < 0.1
    assert any("the policy in force, replayed, differs in" in caveat for caveat in found.caveats)


def test_a_policy_that_does_nothing_gives_the_recorded_backlog(tmp_path: Path, engine_name: str) -> None:
    most = 2**53 - 1
    window = {"green_max": most - 2, "yellow_max": most - 1, "red_max": most}
    idle = CONFIG.evolve({f"thresholds.{name}_priority": window for name in ("low", "medium", "high")})
    found = replayed(tmp_path, truth("loops", enforces=False).rows, idle, mode="observe", _engine=engine_name)
    assert found.feedback is not None
    assert found.feedback.peak_backlog == pytest.approx(found.recorded.peak_backlog, rel=0.01)
    assert found.feedback.priorities["low"].sheds == 0
    for mine, theirs in zip(found.feedback.trail, found.recorded.trail, strict=True):
        assert mine == pytest.approx(theirs, abs=300)
