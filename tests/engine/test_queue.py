"""What both engines remember of a queue: how old a sample is, when advice was computed, when a failed read is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure import BackpressureConfig, PollingConfig, Reason

if TYPE_CHECKING:
    from backpressure import BackpressureController, InMemoryStatsProvider
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

NANOSECOND = 1e-9


def test_throttled_advice_tells_when_it_was_computed(controller: BackpressureController, clock: ManualClock) -> None:
    first = controller.suggest_throttle("medium", "yellow")
    clock.advance(0.5)
    second = controller.suggest_throttle("medium", "yellow")
    assert first.delay > 0
    assert second is not first
    assert second.timestamp == first.timestamp


def test_a_sample_is_fresh_at_the_instant_it_was_read(make_controller: MakeController, clock: ManualClock) -> None:
    polling = PollingConfig(enabled=False, cache_ttl=0)
    controller = make_controller(None, BackpressureConfig(polling=polling))
    assert controller.suggest_throttle("low", "empty").reason is Reason.BACKLOG_GREEN
    clock.advance(NANOSECOND)
    assert controller.suggest_throttle("low", "empty").reason is Reason.BACKLOG_GREEN
    assert controller.health()["cache_hit_rate"] == 0


def test_without_a_poller_a_failed_read_is_repeated_after_exactly_an_interval(
    make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
) -> None:
    polling = PollingConfig(enabled=False)
    controller = make_controller(None, BackpressureConfig(polling=polling))
    provider.fail_with(TimeoutError("an outage"))
    assert controller.suggest_throttle("low", "empty").reason is Reason.FALLBACK_CONSERVATIVE
    provider.fail_with(None)
    clock.advance(polling.interval - NANOSECOND)
    assert controller.suggest_throttle("low", "empty").reason is Reason.FALLBACK_CONSERVATIVE
    clock.advance(NANOSECOND)
    assert controller.suggest_throttle("low", "empty").reason is Reason.BACKLOG_GREEN


def test_a_queue_is_idle_from_its_first_sample_on(make_controller: MakeController, clock: ManualClock) -> None:
    polling = PollingConfig(enabled=False)
    controller = make_controller(None, BackpressureConfig(polling=polling, max_queues=1))
    controller.refresh("empty")  # makes it known without asking for it
    clock.advance(10 * polling.cache_ttl)
    assert controller.suggest_throttle("medium", "green").reason is Reason.UNTRACKED
    clock.advance(NANOSECOND)
    assert controller.suggest_throttle("medium", "green").reason is Reason.BACKLOG_GREEN
    assert list(controller.health()["queues"]) == ["green"]
