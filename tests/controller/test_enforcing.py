"""A share of all processes enforces, the others observe: which one this process is, and where it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from backpressure import BackpressureConfig
from backpressure._controller import enforcing
from backpressure._model.config.doubts import doubts
from backpressure._runtime.identity import is_among
from backpressure._watch.notes import notes

if TYPE_CHECKING:
    from support.controller_fixtures import MakeController

FIRST, LAST = "host-1-00000001", "host-2-00000000"
HALF = BackpressureConfig(enforce_share=0.5)


@pytest.fixture(autouse=True)
def _who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforcing, "instance_id", lambda: FIRST)


def become_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforcing, "instance_id", lambda: LAST)


def test_the_names_of_this_test_lie_on_both_sides() -> None:
    assert (is_among(FIRST, 0.5), is_among(LAST, 0.5)) == (True, False)


def test_who_is_in_the_share_enforces_and_who_is_not_observes(
    make_controller: MakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = make_controller(config=HALF)
    assert inside.suggest_throttle("low", "full").should_shed
    become_last(monkeypatch)
    outside = make_controller(config=HALF)
    decision = outside.suggest_throttle("low", "full")
    assert (decision.should_shed, str(decision.reason)) == (False, "observe_only")
    assert decision.advised is not None
    assert decision.advised.should_shed
    health = outside.health()
    assert (health["mode"], health["enforces"], health["queues"]["full"]["enforces"]) == ("enforce", False, False)


def test_raising_the_share_at_run_time_adds_this_process(
    make_controller: MakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    become_last(monkeypatch)
    registry = CollectorRegistry()
    controller = make_controller(config=HALF, registry=registry)
    assert registry.get_sample_value("backpressure_enforces") == 0
    assert registry.get_sample_value("backpressure_observe_mode") == 0
    controller.reconfigure(HALF.evolve({"enforce_share": 1}))
    assert controller.suggest_throttle("low", "full").should_shed
    assert registry.get_sample_value("backpressure_enforces") == 1


@pytest.mark.parametrize(
    ("tables", "enforced"),
    [
        ({"enforce_share": 0}, ""),
        ({"enforce_share": 0, "queues": {"red": {"enforce_share": 1}}}, "red"),
        ({"enforce_share": 0, "queues": {"re*": {"enforce_share": 0.5}, "full": {}}}, "red"),
        ({"enforce_share": 0.5, "queues": {"red": {"enforce_share": 0}}}, "full"),
        ({"mode": "observe", "enforce_share": 1}, ""),
        ({"mode": "observe", "queues": {"red": {"enforce_share": 1}}}, ""),
        ({"mode": "observe", "enforce_share": 0, "queues": {"red": {"mode": "enforce", "enforce_share": 0.5}}}, "red"),
        ({"mode": "observe", "enforce_share": 0.5, "queues": {"red": {"mode": "enforce"}}}, "red"),
        ({"queues": {"red": {"mode": "observe", "enforce_share": 1}}}, "full"),
    ],
)
def test_by_queue(make_controller: MakeController, tables: dict[str, Any], enforced: str) -> None:
    config = BackpressureConfig.from_mapping(tables)
    controller = make_controller(config=config)
    names = [name for name in ("full", "red") if controller.suggest_throttle("medium", name).delay > 0]
    assert names == enforced.split()
    told = controller.health()["queues"]
    assert [name for name in ("full", "red") if told[name]["enforces"]] == names


def test_a_forked_child_takes_its_own_side(make_controller: MakeController, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = make_controller(config=HALF)
    assert controller.suggest_throttle("low", "full").should_shed
    become_last(monkeypatch)  # as in a process of another id
    controller._poller.after_fork(in_child=True)
    assert not controller.suggest_throttle("low", "full").should_shed


def test_only_a_real_part_divides_processes() -> None:
    assert not enforcing.is_divided(BackpressureConfig())
    assert not enforcing.is_divided(BackpressureConfig(enforce_share=0))
    assert enforcing.is_divided(HALF)
    assert enforcing.is_divided(BackpressureConfig.from_mapping({"queues": {"a": {"enforce_share": 0.1}}}))


def test_a_share_beside_observe_mode_is_doubted_and_one_below_all_is_noted() -> None:
    both = BackpressureConfig(mode="observe", enforce_share=0.25)
    assert list(doubts(both)) == ['enforce_share is 0.25, and mode is observe: none enforces until mode is "enforce"']
    assert list(doubts(HALF)) == []
    of_queue = BackpressureConfig.from_mapping({"queues": {"mail": {"mode": "observe", "enforce_share": 1}}})
    assert list(doubts(of_queue)) == [
        'queues."mail".enforce_share is 1, and mode is observe: none enforces until mode is "enforce"'
    ]
    assert notes(HALF) == ["enforce_share is 0.5: the other processes count and log advice, and tell producers to go"]
    assert notes(HALF, "mail") == notes(HALF)
    assert notes(BackpressureConfig()) == []
