"""Policies that hold an age are replayed as the budget really decides, told from a recording without it."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pytest
from benches.control.processes import SECOND_US, Caller
from benches.control.scenario import Scenario as Controlled
from benches.control.simulation import Simulation

from backpressure._age.protocol import LEVELS
from backpressure._model.budget import BudgetSettings
from backpressure.replay import Behaviour, Loops
from replay.test_replay import Replayed, offered, replayed  # noqa: F401 - a fixture
from replay.test_truth import CONFIG, LAW
from replay.test_truth import replayed as replay_of
from replay.truth import Scenario, Truth

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3_600
LOOPS = 30
#: Parts of HIGH and MEDIUM among what open producers offer.
MIX = (0.13, 0.33)
BEHAVIOUR = Behaviour(returns={"low": 0.5}, loops={"medium": Loops(LOOPS, pause=1)})


def total(second: float) -> float:
    """Return what open producers offer: a day in an hour, with a flood."""
    day = 0.6 + 0.4 * math.sin(2 * math.pi * (second / HOUR - 0.25))
    return 75 * day * (2.5 if 1_650 <= second < 1_850 else 1)


def drain(second: float, more: float = 0) -> float:
    """Return what workers take; some of them are away for a while."""
    return more + (45 if 2_500 <= second < 2_620 else 100)


def drain_with_loops(second: float) -> float:
    """Return what more workers take, for the loops."""
    return drain(second, LOOPS)


def offers(second: float) -> tuple[float, float, float]:
    high, medium = (part * total(second) for part in MIX)
    return total(second) - high - medium, medium, high


class Returning(Simulation):
    """Half of the jobs that are shed come back, and loops pause for a second."""

    def refuse(self, caller: Caller) -> None:
        super().refuse(caller)
        if self.draw.random() < 0.5:
            age_us = min(max(self.budget.age, self.settings.tick_ms), 60_000) * 1_000
            self.at(self.now_us + int(age_us * (0.5 + self.draw.random())), self._come_again, caller.level)

    def _come_again(self, level: int) -> None:
        self.offered[level] += 1
        self.draw.choice(self.processes).offer(Caller(level, self.scenario.waits(level)))

    def loop_pause_us(self) -> int:
        return SECOND_US


@functools.cache
def truth(target: float, *, returns: bool) -> Simulation:
    """Return the same queue, with the age held by five processes."""
    scenario = Controlled(
        name="truth",
        seconds=HOUR,
        phases=(),
        drain=drain_with_loops if returns else drain,
        workers="poisson",
        processes=5,
        loops=LOOPS // 5 if returns else 0,
        offers=total,
        mix=MIX,
        settings=BudgetSettings.of(target),
    )
    return (Returning if returns else Simulation)(scenario).run()


@functools.cache
def observed(*, returns: bool) -> list[Any]:
    scenario = Scenario(HOUR, offers, drain_with_loops if returns else drain, loops=LOOPS if returns else 0)
    return Truth(scenario, LAW, enforces=False).rows


@pytest.mark.parametrize("returns", [False, True], ids=["open", "returns"])
@pytest.mark.parametrize("target", [2.0, 20.0])
def test_with_behaviour_it_is_the_truth(tmp_path: Path, engine_name: str, target: float, returns: bool) -> None:
    """Sheds are within 5 % of the truth, and the highest backlog and the longest wait within 15 %, or a second."""
    true = truth(target, returns=returns)
    config = CONFIG.evolve({"age.target": target})
    behaviour = BEHAVIOUR if returns else Behaviour()
    rows = observed(returns=returns)
    found = replay_of(tmp_path, rows, config, behaviour=behaviour, mode="observe", _engine=engine_name)
    answer = found.behaviour
    assert answer is not None
    names = ("high", "medium", "low")
    sheds = [answer.priorities[name].sheds for name in names]
    told = [answer.priorities[name].offers for name in names]
    assert sheds[:2] == true.refused[:2] == [0, 0]
    assert sheds[2] == pytest.approx(true.refused[2], rel=0.05)
    for level in LEVELS:
        assert told[level] == pytest.approx(true.offered[level], rel=0.04)
    assert answer.longest_wait == pytest.approx(max(second.waited for second in true.seconds), rel=0.15, abs=1)
    assert answer.peak_backlog == pytest.approx(max(second.backlog for second in true.seconds), rel=0.15)
    assert true.refused[2] > 2_000


def test_both_engines_give_the_same(tmp_path: Path, engine_modules: dict[str, Any]) -> None:
    config = CONFIG.evolve({"age.target": 5})
    told = []
    for name in engine_modules:
        folder = tmp_path / name
        folder.mkdir()
        rows = observed(returns=True)
        found = replay_of(folder, rows, config, behaviour=BEHAVIOUR, mode="observe", _engine=name)
        told.append(found.to_dict())
    assert told[0] == told[-1]


def test_at_the_recorded_backlog_it_is_what_observe_mode_counts(tmp_path: Path, engine_name: str) -> None:
    found = replay_of(
        tmp_path, observed(returns=False), CONFIG.evolve({"age.target": 5}), mode="observe", _engine=engine_name
    )
    assert found.feedback is not None
    recorded, feedback = found.recorded.priorities, found.feedback.priorities
    assert found.recorded.peak_backlog == max(row.backlog for row in observed(returns=False))
    assert (recorded["low"].sheds or 0) > 1.5 * (feedback["low"].sheds or 0)
    # Callers of MEDIUM are not made to wait there: what does not fit would have been told to.
    assert (recorded["medium"].delays or 0) > (feedback["medium"].delays or 0)
    assert recorded["medium"].delayed_job_seconds == 0
    assert recorded["high"].delays == recorded["high"].sheds == 0
    assert sum(recorded["low"].seconds.values()) == found.recorded.seconds


def test_medium_is_shed_where_the_policy_says_so(tmp_path: Path, engine_name: str) -> None:
    config = CONFIG.evolve({"age.target": 5, "age.medium": "shed"})
    found = replay_of(tmp_path, observed(returns=False), config, mode="observe", _engine=engine_name)
    medium = found.recorded.priorities["medium"]
    assert medium.sheds
    assert medium.shed_seconds > 0
    assert medium.delays == 0


def test_memory_leaves_less(tmp_path: Path, replayed: Replayed) -> None:  # noqa: F811 - the fixture
    config = CONFIG.evolve({"age.target": 5})
    rows = [offered(500, low=50, entered=50 * second) for second in range(120)]
    whole = replayed(rows, config).feedback
    (tmp_path / "made.bpr").unlink()
    cut = replayed([{**row, "memory_permille": 890} for row in rows], config).feedback
    assert whole is not None
    assert cut is not None
    assert (cut.priorities["low"].sheds or 0) > 2 * (whole.priorities["low"].sheds or 0)


def test_what_is_assumed_is_told(tmp_path: Path, replayed: Replayed) -> None:  # noqa: F811 - the fixture
    config = CONFIG.evolve({"age.target": 5})
    told = replayed([offered(5, low=5) for _ in range(20)], config)
    assert any(caveat.startswith("one process stands for all producers") for caveat in told.caveats)
    assert told.parity is None
    (tmp_path / "made.bpr").unlink()
    told = replayed([{"backlog": 5}] * 20, config)
    assert told.recorded.priorities["low"].seconds == {"green": 0, "yellow": 0, "red": 0}
    assert any(caveat.startswith("an age follows from the backlog and from how fast") for caveat in told.caveats)
