"""A process in its fleet, on a clock that stands still: what it does when operators switch, and what it tells."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry

from backpressure import (
    AsyncBackpressureController,
    AsyncRedisStatsProvider,
    BackpressureConfig,
    BackpressureController,
    CircuitOpenError,
    CircuitState,
    ConfigurationError,
    FleetConfig,
    InMemoryStatsProvider,
    PollingConfig,
)
from controller.fleet.meeting import CONFIG, Meeting
from support.controller_fixtures import at_rest

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

PASSING = {"override": "manual_override", "emergency": "emergency_mode"}


@pytest.fixture
def meeting(clock: ManualClock) -> Meeting:
    return Meeting(clock)


@pytest.fixture
def controller(make_controller: MakeController, meeting: Meeting) -> BackpressureController:
    return make_controller(meeting, CONFIG, registry=CollectorRegistry())


def reason(controller: BackpressureController) -> str:
    return str(controller.suggest_throttle("low", "mail").reason)


@pytest.mark.parametrize("kind", ["override", "emergency"])
def test_a_switch_reaches_with_the_next_poll_and_ends_in_time(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock, kind: str
) -> None:
    assert reason(controller) == "backlog_red_shed"
    meeting.switch(kind, seconds=60)
    clock.advance(1)
    assert reason(controller) == PASSING[kind]
    clock.advance(58.9)
    assert reason(controller) == PASSING[kind]
    clock.advance(0.1)
    assert reason(controller) == "backlog_red_shed"


@pytest.mark.parametrize("kind", ["override", "emergency"])
@pytest.mark.parametrize("lost", ["away", "emptied", "garbage", "refused", "clock"])
def test_unknown_is_not_off(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock, kind: str, lost: str
) -> None:
    meeting.switch(kind, seconds=60)
    clock.advance(1)
    if lost == "away":
        meeting.away = True
    elif lost == "emptied":
        meeting.control.clear()
    elif lost == "garbage":
        meeting.control[kind] = b"\xff"
    else:
        meeting.refused["HGETALL" if lost == "refused" else "TIME"] = PermissionError()
    clock.advance(30)
    assert reason(controller) == PASSING[kind]
    clock.advance(29)
    assert reason(controller) == "backlog_red_shed"


def test_an_operator_takes_it_back(controller: BackpressureController, meeting: Meeting, clock: ManualClock) -> None:
    meeting.switch("override")
    clock.advance(1)
    meeting.switch("override", "off")
    clock.advance(1)
    assert reason(controller) == "backlog_red_shed"


@pytest.mark.parametrize("kind", ["override", "emergency"])
def test_here_and_fleet_are_joined_by_or(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock, kind: str
) -> None:
    turn: Callable[[bool], None] = {
        "override": controller.set_manual_override,
        "emergency": controller.set_emergency_mode,
    }[kind]
    meeting.switch(kind, seconds=60)
    clock.advance(1)
    turn(True)
    turn(False)
    assert reason(controller) == PASSING[kind]
    turn(True)
    meeting.switch(kind, "off")
    clock.advance(1)
    assert reason(controller) == PASSING[kind]
    turn(False)
    assert reason(controller) == "backlog_red_shed"


def test_the_later_end_counts(controller: BackpressureController, meeting: Meeting, clock: ManualClock) -> None:
    controller.set_manual_override(True, for_=10)
    meeting.switch("override", seconds=5)
    clock.advance(1)
    clock.advance(8)
    assert reason(controller) == "manual_override"
    clock.advance(1)
    assert reason(controller) == "backlog_red_shed"
    controller.set_manual_override(True, for_=2)
    meeting.switch("override", seconds=5)
    clock.advance(4)
    assert reason(controller) == "manual_override"
    clock.advance(1)
    assert reason(controller) == "backlog_red_shed"


def test_forced_open_stays_above_the_override(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock
) -> None:
    meeting.switch("circuit", "open", queue="mail", seconds=60)
    meeting.switch("override", seconds=120)
    clock.advance(1)
    with pytest.raises(CircuitOpenError):
        controller.run("high", "mail", int)
    clock.advance(59)
    clock.advance(0.01)
    assert reason(controller) == "manual_override"
    assert controller.get_circuit_state("mail") is CircuitState.CLOSED


def test_a_circuit_of_a_queue_that_nobody_has_asked_for(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock
) -> None:
    meeting.switch("circuit", "open", queue="later")
    clock.advance(1)
    assert reason_of(controller, "later") == "circuit_open"
    meeting.switch("circuit", "close", queue="later")
    clock.advance(1)
    assert controller.get_circuit_state("later") is CircuitState.CLOSED


def reason_of(controller: BackpressureController, queue: str) -> str:
    return str(controller.peek("high", queue).reason)


@pytest.mark.parametrize("action", ["close", "reset"])
def test_closing_is_done_once(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock, action: str
) -> None:
    for _ in range(5):
        controller.record_failure("mail")
    assert controller.get_circuit_state("mail") is CircuitState.OPEN
    meeting.switch("circuit", action, queue="mail", seconds=60)
    clock.advance(1)
    assert controller.get_circuit_state("mail") is CircuitState.CLOSED
    for _ in range(5):
        controller.record_failure("mail")
    clock.advance(1)
    assert controller.get_circuit_state("mail") is CircuitState.OPEN
    meeting.switch("circuit", action, queue="mail", seconds=60)
    clock.advance(1)
    assert controller.get_circuit_state("mail") is CircuitState.CLOSED


def test_sleepers_go_when_the_fleet_lets_everything_pass(make_controller: MakeController, meeting: Meeting) -> None:
    controller = make_controller(meeting, CONFIG)
    woken: list[object] = []
    assert controller._fleet is not None
    controller._fleet._release = lambda: woken.append(1)
    meeting.switch("override")
    meeting.clock.advance(1)
    meeting.clock.advance(1)
    assert woken == [1]


def test_the_queues_are_read_whatever_becomes_of_the_fleet(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock
) -> None:
    meeting.refused = {name: PermissionError() for name in ("HGETALL", "TIME", "SET", "ZADD", "ZCOUNT")}
    meeting.set("mail", 1)
    clock.advance(1)
    health = controller.health()
    assert health["queues"]["mail"]["backlog"] == 1
    assert (health["provider"], health["polling_errors"]) == ("ok", {})
    assert health["fleet"]["problem"] == "PermissionError"


def test_who_cannot_be_heard_does_not_see_this_process_again(
    controller: BackpressureController,
    meeting: Meeting,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "backpressure")
    meeting.refused["SET"] = MemoryError()
    clock.advance(1)
    meeting.away = True
    clock.advance(1)
    assert "sees this process again" not in caplog.text
    assert controller.health()["fleet"]["problem"] == "ConnectionError"
    meeting.away = False
    clock.advance(1)
    assert controller.health()["fleet"]["problem"] == "MemoryError"
    meeting.refused.clear()
    clock.advance(1)
    assert caplog.text.count("sees this process again") == 1


def test_a_defect_of_the_fleet_costs_no_queue_its_statistics(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    for name in ("prepare", "follow"):
        monkeypatch.setattr(controller._fleet, name, fail)
    meeting.set("mail", 3)
    clock.advance(1)
    assert controller.health()["queues"]["mail"]["backlog"] == 3
    assert controller.health()["poller_alive"]


def test_each_change_is_told_once(
    make_controller: MakeController, meeting: Meeting, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "backpressure")
    controller = make_controller(meeting, CONFIG)
    changes: list[tuple[str, str, str | None]] = []
    controller.add_listener(lambda change: changes.append((change.old, change.new, change.queue_name)))
    meeting.switch("emergency", seconds=3)
    meeting.switch("circuit", "open", queue="mail", seconds=60)
    meeting.control["shrug"] = b"{}"
    meeting.refused["SET"] = MemoryError()
    for _ in range(4):
        clock.advance(1)
    meeting.refused.clear()
    meeting.switch("circuit", "close", queue="mail")
    clock.advance(1)
    assert [change for change in changes if "emergency" in change[0]] == [
        ("emergency off", "emergency on", None),
        ("emergency on", "emergency off", None),
    ]
    told = [record.getMessage() for record in caplog.records if "fleet" in record.getMessage()]
    assert told == [
        "fleet 'shop' does not see this process: MemoryError",
        "fleet 'shop': field 'shrug' of the fleet: v is None: this release understands version 1",
        "fleet 'shop': emergency is on for 2 s, by ana: sale",
        "fleet 'shop': circuit of queue 'mail' is open for 59 s, by ana: sale",
        "fleet 'shop': emergency is off: its time is up",
        "fleet 'shop' sees this process again",
        "fleet 'shop': circuit of queue 'mail' was told to close, by ana: sale",
    ]
    (record,) = [record for record in caplog.records if "is on for" in record.getMessage()]
    assert (record.__dict__["change"], record.__dict__["switch"], record.__dict__["by"]) == (
        "fleet",
        "emergency",
        "ana",
    )


def test_an_idle_process_has_nothing_voided(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting.switch("override")
    clock.advance(1)
    calls: list[object] = []
    for kind in controller._switches._set:
        monkeypatch.setitem(controller._switches._set, kind, lambda *args: calls.append(args))
    for _ in range(5):
        clock.advance(1)
    assert calls == []


def test_what_a_process_tells(controller: BackpressureController, meeting: Meeting, clock: ManualClock) -> None:
    meeting.switch("override")
    meeting.switch("circuit", "open", queue="other")
    clock.advance(1)
    for _ in range(10):
        controller.suggest_throttle("low", "idle")
    for _ in range(5):
        controller.record_failure("idle")
    clock.advance(1)
    told = meeting.presence()
    assert (told.mode, told.law, told.engine) == ("enforce", "three_zone", controller.health()["engine"])
    assert told.enforces == "yes"
    assert (told.offers, told.sheds, told.interval_ms) == (10.0, 0.0, 1_000)
    assert told.circuits == {"other": "forced"}
    assert told.switches == ("circuit:other", "override")
    assert told.id == controller.health()["fleet"]["member"]
    assert told.config_hash
    assert told.started_ms <= meeting.now_ms()


def test_what_a_process_tells_of_queues(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock
) -> None:
    clock.advance(1)
    for priority, times in (("high", 1), ("medium", 2), ("low", 4)):
        for _ in range(times):
            controller.suggest_throttle(priority, "mail")
            controller.suggest_throttle(priority, "idle")
    for _ in range(5):
        controller.record_failure("idle")
    clock.advance(1)
    told = meeting.presence()
    assert told.queues == {"mail": (1.0, 2.0, 0.0, 0.0, 0.0, 4.0)}
    assert told.circuits == {"idle": "open"}
    assert 58_000 <= told.probes_ms["idle"] <= 60_000
    clock.advance(1)
    assert meeting.presence().queues == {}


def test_a_process_is_among_the_members_from_time_to_time(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock
) -> None:
    for _ in range(61):
        clock.advance(1)
    entered = [command[2] for command in meeting.said if command[0] == "ZADD"]
    # First by its own clock, then by the server's, then once a minute.
    assert len(entered) == 3
    assert isinstance(entered[2], int)
    assert 0 <= meeting.now_ms() - entered[2] <= 2_000
    assert [command[3] for command in meeting.said if command[0] == "ZREMRANGEBYSCORE"] == [
        now - 3_600_000 for now in entered[1:] if isinstance(now, int)
    ]
    assert controller.health()["fleet"]["members"] == 1


def test_a_clock_that_is_far_off_forgets_nobody(controller: BackpressureController, meeting: Meeting) -> None:
    del controller
    assert [command[0] for command in meeting.said] == ["HGETALL", "TIME", "SET", "ZADD", "ZCOUNT"]


def test_health_and_metrics(make_controller: MakeController, meeting: Meeting, clock: ManualClock) -> None:
    registry = CollectorRegistry()
    controller = make_controller(meeting, CONFIG, registry=registry)
    meeting.switch("override", seconds=60)
    meeting.switch("circuit", "open", queue="mail")
    clock.advance(1)
    fleet = controller.health()["fleet"]
    assert (fleet["name"], fleet["read_age"], fleet["problem"], fleet["not_understood"]) == ("shop", 0.0, None, [])
    assert [(switch["switch"], switch["queue"]) for switch in fleet["switches"]] == [
        ("circuit", "mail"),
        ("override", None),
    ]
    assert fleet["switches"][1]["seconds_left"] == pytest.approx(59)
    names = ("override", "emergency", "circuit")
    values = [registry.get_sample_value("backpressure_fleet_switch", {"switch": name}) for name in names]
    assert values == [1, 0, 1]
    assert registry.get_sample_value("backpressure_fleet_members") == 1


def test_a_controller_of_no_fleet_knows_nothing_of_it(make_controller: MakeController) -> None:
    assert make_controller().health()["fleet"] is None


def test_a_provider_that_meets_no_fleet_needs_a_url() -> None:
    with pytest.raises(ConfigurationError, match=r"^fleet\.url is missing: InMemoryStatsProvider does not read"):
        BackpressureController(CONFIG, InMemoryStatsProvider())


def test_variables_that_are_not_there(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, field in (({"url": "$NOWHERE"}, "fleet.url"), ({"key": "$NOWHERE"}, "fleet.key")):
        config = BackpressureConfig(fleet=FleetConfig(name="shop", **changes))  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=f"{field} is .*set the environment variable NOWHERE"):
            BackpressureController(config, meeting)
    monkeypatch.setenv("SHORT", "secret")
    with pytest.raises(ConfigurationError, match="at least 16 random bytes") as caught:
        BackpressureController(BackpressureConfig(fleet=FleetConfig(name="shop", key="$SHORT")), meeting)
    assert "secret" not in str(caught.value)


def test_a_provider_of_the_callers_loops_cannot_be_in_a_fleet() -> None:
    provider = AsyncRedisStatsProvider(redis.asyncio.Redis(), ["mail"])
    with pytest.raises(ConfigurationError, match=r"^fleet\.name needs a provider that is read in the background"):
        AsyncBackpressureController(BackpressureConfig(fleet=FleetConfig(name="shop")), provider)


def test_a_fleet_stays_the_same(controller: BackpressureController, meeting: Meeting, clock: ManualClock) -> None:
    with pytest.raises(ConfigurationError, match="fleet cannot change at run time"):
        controller.reconfigure(CONFIG.evolve({"fleet.name": "other"}))
    controller.reconfigure(CONFIG.evolve({"polling.interval": 2}))
    meeting.switch("override")
    clock.advance(2)
    assert reason(controller) == "manual_override"


def test_a_stopped_controller_tells_nothing_more(
    controller: BackpressureController, meeting: Meeting, clock: ManualClock
) -> None:
    controller.stop()
    said = len(meeting.said)
    clock.advance(10)
    assert len(meeting.said) == said


def test_a_flood_of_fields_takes_no_more_than_there_is(
    make_controller: MakeController, meeting: Meeting, clock: ManualClock
) -> None:
    config = CONFIG.evolve({"max_queues": 5})
    controller = make_controller(meeting, config)
    for number in range(3_000):
        meeting.switch("circuit", "open", queue=f"q{number}")
    clock.advance(1)
    assert controller.health()["cache_size"] <= 15
    assert reason_of(controller, "unheard") != ""
    polls = itertools.count(3)
    for _ in range(3):
        clock.advance(1)
        assert at_rest(controller, clock, next(polls))


def test_polls_are_needed() -> None:
    with pytest.raises(ConfigurationError, match=r"needs polling\.enabled"):
        BackpressureConfig(fleet=FleetConfig(name="shop"), polling=PollingConfig(enabled=False))


def test_settings_that_differ_have_other_hashes() -> None:
    from backpressure._controller.fleet.telling import config_hash

    configs: list[Any] = [CONFIG, CONFIG.evolve({"max_queues": 7}), CONFIG.evolve({"queues.mail.mode": "observe"})]
    assert len(set(map(config_hash, configs))) == 3
    assert config_hash(CONFIG) == config_hash(BackpressureConfig.from_mapping(CONFIG.to_dict()))
