"""One queue that hangs, one bad sample, one full table, one sharer of a provider: the others have their samples."""

from __future__ import annotations

import contextlib
import threading
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    InMemoryStatsProvider,
    PollingConfig,
    QueueStats,
    Reason,
    RedisStatsProvider,
    StatsUnavailableError,
)
from backpressure._controller.polling.deadline import Reader
from backpressure._model.clock import SystemClock
from backpressure._runtime.reading import owner
from support.controller_fixtures import eventually, overrun

if TYPE_CHECKING:
    import redis

    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

QUICK = BackpressureConfig(polling=PollingConfig(interval=60, timeout=0.05, max_backoff=60, cache_ttl=100, jitter=0))


class SomeHang:
    """A provider without `get_many`; reads of `hanging` overrun, and do not end before `release`."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.hanging: set[str] = set()
        self.release = threading.Event()
        self.reads: list[str] = []

    def get_all_queue_stats(self) -> dict[str, QueueStats]:
        return {}

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        self.reads.append(queue_name)
        if queue_name in self.hanging:
            overrun(self.clock, QUICK.polling.timeout)
            self.release.wait(30)
        return QueueStats(queue_name, len(self.reads))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_queues_that_hang(make_controller: MakeController, clock: ManualClock, number: int) -> None:
    provider = SomeHang(clock)
    controller = make_controller(provider, QUICK)
    bad, sound = [f"bad-{each}" for each in range(number)], ["a", "z"]
    for name in ("a", *bad, "z"):
        controller.suggest_throttle("low", name)
    poller = controller._poller
    provider.hanging.update(bad)
    for _ in range(number):
        assert poller.poll(), "it failed as a whole"
    assert controller.health()["provider"] == "ok"
    assert poller.samples._failures == 0, "it backs off"
    for _ in range(3):
        provider.reads.clear()
        assert poller.poll()
        assert sorted(name for name in provider.reads if name in sound) == sound
    provider.hanging.clear()
    provider.release.set()
    eventually(lambda: poller.poll() and set(bad) <= set(provider.reads))


def test_a_poll_that_one_queue_cut_short_goes_on_at_once(make_controller: MakeController, clock: ManualClock) -> None:
    provider = SomeHang(clock)
    controller = make_controller(provider, QUICK)
    for name in ("bad", "sound"):
        controller.suggest_throttle("low", name)
    polls = sum(controller._poller.samples.durations.counts)
    provider.hanging.add("bad")
    provider.reads.clear()
    thread = controller._poller._current
    assert thread is not None
    thread.poll_now()
    eventually(lambda: "sound" in provider.reads and "bad" in provider.reads)
    eventually(lambda: sum(controller._poller.samples.durations.counts) == polls + 2)
    provider.release.set()


class NoTimes(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta | None:
        raise RuntimeError("no time zones are installed")

    def dst(self, _: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None) -> str | None:
        return None


class NoFault(QueueStats):
    def fault(self) -> str | None:
        raise SystemExit


class Lies(QueueStats):
    def fault(self) -> str | None:
        return None


@pytest.mark.parametrize(
    "sample",
    [
        QueueStats("bad", 1, last_updated=datetime(2026, 1, 1, tzinfo=NoTimes())),
        NoFault("bad", 1),
        Lies("bad", -1),
        Lies("bad", "many"),  # type: ignore[arg-type]
    ],
    ids=["time zone", "raises", "negative", "text"],
)
def test_a_bad_sample(make_controller: MakeController, sample: QueueStats) -> None:
    provider = InMemoryStatsProvider({"a": 5, "bad": sample, "z": 7})
    controller = make_controller(provider)
    health = controller.health()
    assert {name: queue["backlog"] for name, queue in health["queues"].items()} == {"a": 5, "z": 7}
    assert (health["provider"], health["polling_errors"]) == ("ok", {"invalid_sample": 1})


@pytest.mark.parametrize("age", [float("nan"), float("inf"), -1, True, "3", timedelta(seconds=3), 10**400])
def test_an_age_that_is_none_is_not_shown(make_controller: MakeController, age: Any) -> None:
    controller = make_controller(InMemoryStatsProvider({"a": QueueStats("a", 5, oldest_age=age)}))
    shown = controller.health()["queues"]["a"]["oldest_age"]
    assert shown == (1e10 if age == 10**400 else None)


def test_a_provider_that_lists_more_than_there_is_room_for(make_controller: MakeController) -> None:
    provider = InMemoryStatsProvider({f"old-{number}": 0 for number in range(20)} | {"payments": 0})
    controller = make_controller(provider, BackpressureConfig(max_queues=12))
    assert len(controller.health()["queues"]) == 9
    for name in ("payments", "old-19", "old-18"):
        assert controller.suggest_throttle("high", name).reason is Reason.BACKLOG_GREEN
    controller._poller.poll()
    assert len(controller.health()["queues"]) == 12
    exact = make_controller(InMemoryStatsProvider({f"q{number}": 0 for number in range(12)}), controller._config)
    assert len(exact.health()["queues"]) == 12


def test_who_stops_ends_no_reads_of_others(engine_name: str, redis_client: redis.Redis, redis_url: str) -> None:
    provider = RedisStatsProvider(redis_url, ["a", "b"], timeout=20)
    config = BackpressureConfig(polling=PollingConfig(interval=60, timeout=20, max_backoff=60, cache_ttl=100, jitter=0))
    one, other = (
        BackpressureController(config, provider, registry=CollectorRegistry(), _engine=engine_name) for _ in range(2)
    )
    with contextlib.closing(provider), other:
        one.start()
        redis_client.client_pause(500)
        answers: list[bool] = []
        reading = threading.Thread(target=lambda: answers.append(other.refresh("a")))
        reading.start()
        eventually(lambda: any(link.reads for link in provider._links.values()))
        one.stop()
        reading.join(20)
        assert answers == [True]
        assert other.health()["polling_errors"] == {}


def test_a_slow_call_ends_no_other_call_of_its_reader() -> None:
    ended: list[object] = []

    class Provider:
        def interrupt(self) -> None:
            ended.append(owner())

    owners: list[object] = []
    release = threading.Event()
    reader = Reader(Provider(), SystemClock())

    def hang() -> None:
        owners.append(owner())
        release.wait(30)

    with pytest.raises(StatsUnavailableError):
        reader.call(hang, 0.01)
    assert reader.call(owner, 10) not in {None, *owners}
    release.set()
    assert ended == owners


@pytest.mark.parametrize("degrade", [300, 0])
def test_without_a_cache_each_answer_is_by_the_law(engine_name: str, engine_module: object, degrade: float) -> None:
    # On the machine's own clock: a read takes time, and what it brought is older than 0 s.
    config = BackpressureConfig().evolve(
        {"polling.enabled": False, "polling.cache_ttl": 0, "recovery.graceful_degrade": degrade}
    )
    provider = InMemoryStatsProvider({"red": 1_000_000, "empty": 0})
    with BackpressureController(config, provider, registry=CollectorRegistry(), _engine=engine_name) as controller:
        for _ in range(3):
            assert controller.suggest_throttle("low", "red").reason is Reason.BACKLOG_RED_SHED
            assert controller.suggest_throttle("low", "empty").reason is Reason.BACKLOG_GREEN
