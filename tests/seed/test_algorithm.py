"""The description's zones, delays and priority scales, with every number, on a window that gives round values.

One job more in the backlog is 1 ms of base delay in the yellow zone and 10 ms in the red one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureConfig, InMemoryStatsProvider, Zone

if TYPE_CHECKING:
    from backpressure import BackpressureController, ThrottleDecision
    from support.controller_fixtures import MakeController

GREEN, YELLOW, RED = 10, 500, 950
WINDOW = {"green_max": GREEN, "yellow_max": YELLOW, "red_max": RED}
NAMES = ("low_priority", "medium_priority", "high_priority")
CONFIG = BackpressureConfig.from_mapping({"thresholds": dict.fromkeys(NAMES, WINDOW)})
SHED_ABOVE = YELLOW + 80 * (RED - YELLOW) // 100


@pytest.fixture
def provider() -> InMemoryStatsProvider:
    return InMemoryStatsProvider({"queue": 0})


@pytest.fixture
def controller(make_controller: MakeController) -> BackpressureController:
    return make_controller(None, CONFIG)


@pytest.fixture
def ask(controller: BackpressureController, provider: InMemoryStatsProvider) -> Ask:
    return Ask(controller, provider)


class Ask:
    """Asks for a decision at a backlog."""

    def __init__(self, controller: BackpressureController, provider: InMemoryStatsProvider) -> None:
        self.controller, self.provider = controller, provider

    def __call__(self, backlog: int, priority: str = "medium") -> ThrottleDecision:
        self.provider.set("queue", backlog)
        self.controller.refresh("queue")
        return self.controller.suggest_throttle(priority, "queue")


@pytest.mark.parametrize("backlog", [0, 1, GREEN])
def test_green_is_not_throttled(ask: Ask, backlog: int) -> None:
    for priority in ("low", "medium", "high"):
        decision = ask(backlog, priority)
        assert (decision.zone, decision.delay, decision.should_shed) == (Zone.GREEN, 0, False)


@pytest.mark.parametrize("backlog", [GREEN + 1, 100, 255, YELLOW])
def test_yellow_grows_linearly_from_10_to_500_ms(ask: Ask, backlog: int) -> None:
    decision = ask(backlog)
    assert (decision.zone, decision.should_shed) == (Zone.YELLOW, False)
    assert decision.delay == (10 + backlog - GREEN) / 1_000


@pytest.mark.parametrize("backlog", [YELLOW + 1, 700, RED, RED + 1, 10**9])
def test_red_grows_from_500_ms_to_5_s_and_stays_there(ask: Ask, backlog: int) -> None:
    decision = ask(backlog)
    assert (decision.zone, decision.should_shed) == (Zone.RED, False)
    assert decision.delay == (500 + 10 * (min(backlog, RED) - YELLOW)) / 1_000


def test_low_is_shed_beyond_80_percent_of_the_red_zone(ask: Ask) -> None:
    assert not ask(SHED_ABOVE, "low").should_shed
    assert ask(SHED_ABOVE + 1, "low").should_shed


@pytest.mark.parametrize("backlog", [SHED_ABOVE + 1, RED, 10**9])
def test_medium_and_high_are_throttled_and_never_shed(ask: Ask, backlog: int) -> None:
    for priority in ("medium", "high"):
        decision = ask(backlog, priority)
        assert not decision.should_shed
        assert 0 < decision.delay <= 5
        assert ask.controller.run(priority, "queue", int) == 0


@pytest.mark.parametrize("backlog", [GREEN + 2, YELLOW, YELLOW + 2, SHED_ABOVE])
@pytest.mark.parametrize(("priority", "percent"), [("high", 50), ("medium", 100), ("low", 150)])
def test_each_priority_scales_the_base_delay(ask: Ask, backlog: int, priority: str, percent: int) -> None:
    assert ask(backlog, priority).delay == pytest.approx(ask(backlog).delay * percent / 100, abs=1e-12)
