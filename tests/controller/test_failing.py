"""A provider or a queue that cannot be read: told when it begins, every five minutes, and when it ends; in health()."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig, PollingConfig, QueueStats, StatsUnavailableError
from backpressure._controller.polling.failing import span

if TYPE_CHECKING:
    from backpressure import BackpressureController, InMemoryStatsProvider
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

OUTAGE = StatsUnavailableError("no server", error_type="connect")
FROZEN = StatsUnavailableError("no reply", error_type="timeout")


class Queues:
    """A provider whose queues fail one by one."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"good": QueueStats("good", 1)}

    def get_all_queue_stats(self) -> dict[str, Any]:
        return self.answers

    def get_queue_stats(self, queue_name: str) -> Any:
        return self.answers[queue_name]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "backpressure")
    return caplog


def taken(lines: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in lines.records]
    lines.clear()
    return messages


def poll_for(controller: BackpressureController, clock: ManualClock, seconds: int, *, every: int = 10) -> None:
    for _ in range(seconds // every):
        clock.advance(every)
        controller._poller.poll()


@pytest.fixture
def polled(make_controller: MakeController) -> Any:
    """Make controllers that poll when the test does."""

    def make(provider: Any = None) -> BackpressureController:
        return make_controller(
            provider, BackpressureConfig(polling=PollingConfig(interval=86_400, cache_ttl=0, enabled=False))
        )

    return make


def test_an_outage_is_told_every_five_minutes_and_at_its_end(
    polled: Any, provider: InMemoryStatsProvider, clock: ManualClock, lines: pytest.LogCaptureFixture
) -> None:
    controller = polled()
    changes: list[Any] = []
    controller.add_listener(changes.append)
    provider.fail_with(OUTAGE)
    controller._poller.poll()
    assert taken(lines) == ["statistics cannot be read: no server"]
    poll_for(controller, clock, 290)
    assert taken(lines) == []
    poll_for(controller, clock, 610)
    assert taken(lines) == [
        "statistics still cannot be read, for 5 min now, 31 times in a row: no server",
        "statistics still cannot be read, for 10 min now, 61 times in a row: no server",
        "statistics still cannot be read, for 15 min now, 91 times in a row: no server",
    ]
    assert len(changes) == 1, "a reminder is no change"
    failing = controller.health()["failing"]
    assert failing == json.loads(json.dumps(failing))
    assert failing["queues"] == {}
    assert {**failing["provider"], "since": ...} == {"error": "connect", "since": ..., "seconds": 900, "count": 91}
    provider.fail_with(None)
    for _ in range(3):
        controller._poller.poll()
    assert taken(lines) == ["statistics are read again, after 15 min and 91 failures"]
    assert controller.health()["failing"] == {"provider": None, "queues": {}}


def test_another_error_is_told_at_once_and_goes_on_counting(
    polled: Any, provider: InMemoryStatsProvider, clock: ManualClock, lines: pytest.LogCaptureFixture
) -> None:
    controller = polled()
    provider.fail_with(OUTAGE)
    controller._poller.poll()
    since = controller.health()["failing"]["provider"]["since"]
    provider.fail_with(FROZEN)
    poll_for(controller, clock, 20)
    assert taken(lines) == ["statistics cannot be read: no server", "statistics cannot be read: no reply"]
    failing = controller.health()["failing"]["provider"]
    assert failing == {"error": "timeout", "since": since, "seconds": 20.0, "count": 3}


def test_a_queue_too_and_many_in_one_line(polled: Any, clock: ManualClock, lines: pytest.LogCaptureFixture) -> None:
    provider = Queues()
    controller = polled(provider)
    provider.answers |= dict.fromkeys(("a", "b", "c"), StatsUnavailableError("no key", error_type="wrongtype"))
    controller._poller.poll()
    assert len(taken(lines)) == 3
    poll_for(controller, clock, 300)
    assert taken(lines) == [
        "statistics of queue 'a', and 2 other queues still cannot be read, for 5 min now, 31 times in a row: no key"
    ]
    assert list(controller.health()["failing"]["queues"]) == ["a", "b", "c"]
    provider.answers = {"good": QueueStats("good", 1), "a": QueueStats("a", 1)}
    poll_for(controller, clock, 600)
    told = taken(lines)
    assert told[0] == "statistics of queue 'a' are read again"
    assert not [line for line in told if "still" in line], "b and c are not read any more"
    assert controller.health()["failing"]["provider"] is None


def test_refused_requests_write_no_lines(
    polled: Any, provider: InMemoryStatsProvider, clock: ManualClock, lines: pytest.LogCaptureFixture
) -> None:
    controller = polled()
    provider.fail_with(OUTAGE)
    controller.circuit("mail").force_open()
    lines.clear()
    for _ in range(100):
        with pytest.raises(Exception, match="circuit of queue 'mail' is open"):
            controller.run("low", "mail", int)
        clock.advance(0.1)
    assert taken(lines) == []


@pytest.mark.parametrize(("minutes", "text"), [(0, "0 min"), (119, "119 min"), (120, "2 h"), (3_000, "50 h")])
def test_spans(minutes: int, text: str) -> None:
    assert span(minutes * 60 * 10**9) == text
