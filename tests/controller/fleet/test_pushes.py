"""Settings that operators push, as a process takes them: whole and with its next poll, or not at all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from prometheus_client import CollectorRegistry

from backpressure import BackpressureConfig, BackpressureController
from backpressure._controller.fleet.telling import config_hash
from backpressure._fleet.pushed import Pushed
from controller.fleet.meeting import CONFIG, Meeting

if TYPE_CHECKING:
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

WIDE = {"thresholds": {"low_priority": {"red_max": 50_000, "yellow_max": 20_000, "green_max": 10_000}}}
ALL = Pushed(n=7, share_permille=1_000, settings=WIDE, by="ana", reason="disks")


@pytest.fixture
def meeting(clock: ManualClock) -> Meeting:
    return Meeting(clock)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def controller(
    make_controller: MakeController, meeting: Meeting, registry: CollectorRegistry
) -> BackpressureController:
    return make_controller(meeting, CONFIG, registry=registry)


def push(meeting: Meeting, pushed: Pushed) -> None:
    meeting.control["config"] = pushed.encode("shop").encode()
    meeting.clock.advance(1)


def reason(controller: BackpressureController) -> str:
    return str(controller.suggest_throttle("low", "mail").reason)


def test_it_is_taken_with_the_next_poll_and_told(
    controller: BackpressureController, meeting: Meeting, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "backpressure")
    assert reason(controller) == "backlog_red_shed"
    push(meeting, ALL)
    assert reason(controller) == "backlog_green"
    assert "fleet 'shop': configuration 7 is taken, by ana: disks" in caplog.text
    assert registry.get_sample_value("backpressure_fleet_config_revision") == 7
    assert (controller.health()["fleet"]["config_revision"], controller.health()["fleet"]["config_error"]) == (7, None)
    meeting.clock.advance(1)
    told = meeting.presence()
    assert (told.config_revision, told.config_error) == (7, "")
    assert told.config_hash == config_hash(BackpressureConfig.from_mapping(WIDE, CONFIG)) != config_hash(CONFIG)
    assert caplog.text.count("the configuration was changed") == 1


def test_one_that_does_not_fit_changes_nothing_and_is_named(
    controller: BackpressureController, meeting: Meeting, caplog: pytest.LogCaptureFixture
) -> None:
    push(meeting, ALL)
    # Right by itself, and not over a poll interval of one second.
    push(meeting, attrs.evolve(ALL, n=8, settings={"polling": {"timeout": "3s"}}))
    assert reason(controller) == "backlog_green"
    assert "fleet 'shop': configuration 8 is not taken, by ana: disks: polling.timeout is 3.0" in caplog.text
    meeting.clock.advance(1)
    told = meeting.presence()
    assert told.config_revision == 7
    assert "polling.timeout is 3.0" in told.config_error
    push(meeting, attrs.evolve(ALL, n=9))
    meeting.clock.advance(1)
    assert meeting.presence().config_error == ""


@pytest.mark.parametrize(
    "settings", [{"max_queues": 5}, {"circuit": {"failure_threshold": 1}}, {"age": {"target": "5s"}}, {"shrug": 1}]
)
def test_whoever_wrote_it_what_cannot_be_is_not_done(
    controller: BackpressureController, meeting: Meeting, settings: dict[str, Any]
) -> None:
    push(meeting, attrs.evolve(ALL, settings=settings))
    assert reason(controller) == "backlog_red_shed"
    assert controller.health()["fleet"]["config_error"]


@pytest.mark.parametrize("raw", [b"", b"?", b"{}", None])
def test_what_is_lost_or_not_understood_changes_nothing(
    controller: BackpressureController, meeting: Meeting, raw: bytes | None
) -> None:
    push(meeting, ALL)
    if raw is None:
        del meeting.control["config"]
    else:
        meeting.control["config"] = raw
    meeting.clock.advance(1)
    assert reason(controller) == "backlog_green"
    assert len(controller.health()["fleet"]["not_understood"]) == (raw is not None)


def test_it_is_taken_back(controller: BackpressureController, meeting: Meeting) -> None:
    push(meeting, ALL)
    push(meeting, attrs.evolve(ALL, n=8, settings={}))
    assert reason(controller) == "backlog_red_shed"
    assert controller._config == CONFIG


def test_the_others_keep_what_they_have(make_controller: MakeController, meeting: Meeting) -> None:
    old = {"mode": "observe"}
    revisions = set()
    for _ in range(30):
        controller = make_controller(meeting, CONFIG, registry=CollectorRegistry())
        push(meeting, attrs.evolve(ALL, share_permille=500, others_n=5, others=old))
        revision, mode = controller.health()["fleet"]["config_revision"], controller.health()["mode"]
        assert mode == ("enforce" if revision == 7 else "observe")
        revisions.add(revision)
        controller.stop()
    assert revisions == {5, 7}


def test_what_a_process_is_given_lies_below(controller: BackpressureController, meeting: Meeting) -> None:
    push(meeting, ALL)
    controller.reconfigure(CONFIG.evolve({"mode": "observe"}))
    assert (controller.health()["mode"], reason(controller)) == ("observe", "observe_only")
    assert controller._config.thresholds.low_priority.red_max == 50_000
    push(meeting, attrs.evolve(ALL, n=8, settings={}))
    assert controller._config == CONFIG.evolve({"mode": "observe"})


def test_what_a_process_is_given_comes_first_if_both_do_not_fit(
    controller: BackpressureController, meeting: Meeting
) -> None:
    push(meeting, attrs.evolve(ALL, settings={"polling": {"timeout": "900ms"}}))
    assert controller._config.polling.timeout == 0.9
    faster = CONFIG.evolve({"polling.interval": 0.5, "polling.busy_interval": 0.5})
    controller.reconfigure(faster)
    assert controller._config == faster
    assert "polling.timeout is 0.9" in controller.health()["fleet"]["config_error"]
    assert controller.health()["fleet"]["config_revision"] == 0


def test_a_listener_may_reconfigure_from_another_thread(controller: BackpressureController, meeting: Meeting) -> None:
    import threading

    ended: list[bool] = []

    def listen(change: Any) -> None:
        if change.kind == "fleet":
            thread = threading.Thread(target=lambda: controller.reconfigure(CONFIG))
            thread.start()
            thread.join(5)
            ended.append(not thread.is_alive())

    controller.add_listener(listen)
    push(meeting, ALL)
    assert ended == [True]


def test_a_forked_child_finds_its_share(controller: BackpressureController, meeting: Meeting) -> None:
    push(meeting, ALL)
    assert controller._fleet is not None
    controller._fleet.forget_parent()
    meeting.clock.advance(1)
    assert controller.health()["fleet"]["config_revision"] == 7
