"""How a process reaches its fleet where its queues lie elsewhere: by connections of its own, and with patience."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    FleetConfig,
    InMemoryStatsProvider,
    PollingConfig,
    RedisStatsProvider,
)
from backpressure._fleet.operator import Operator
from backpressure.providers.redis.carrier import Carrier
from controller.fleet.meeting import Meeting
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    import redis

    from backpressure._fleet.ride import Ride
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController
    from support.servers import Server

URL = "redis://localhost:1/0"
CONFIG = BackpressureConfig(
    polling=PollingConfig(interval=1, jitter=0, busy_interval=1, max_backoff=8),
    fleet=FleetConfig(name="shop", url=URL),
)


class Carried:
    """What a carrier was given, at which seconds; and what becomes of it."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.began_ns = clock.monotonic_ns()
        self.at: list[int] = []
        self.fails = False
        self.hangs: threading.Event | None = None

    def take(self, ride: Ride, _carrier: Carrier) -> None:
        self.at.append(round((self.clock.monotonic_ns() - self.began_ns) / 1e9))
        if self.hangs is not None:
            self.hangs.wait(10)
        if self.fails:
            ride.fail(ConnectionError("away"))
        else:
            ride.take([{}, (7, 0), True, 1, 1][: len(ride.commands)], lambda error: error)


@pytest.fixture
def carried(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Carried:
    carried = Carried(clock)
    monkeypatch.setattr(Carrier, "carry", lambda carrier, ride: carried.take(ride, carrier))
    return carried


def test_it_asks_once_an_interval(make_controller: MakeController, carried: Carried, clock: ManualClock) -> None:
    controller = make_controller(InMemoryStatsProvider({"mail": 1}), CONFIG)
    for _ in range(5):
        clock.advance(1)
    assert carried.at == [0, 1, 2, 3, 4, 5]
    assert controller.health()["fleet"]["problem"] is None


def test_a_server_that_is_away_is_asked_ever_more_seldom(
    make_controller: MakeController, carried: Carried, clock: ManualClock
) -> None:
    carried.fails = True
    controller = make_controller(InMemoryStatsProvider({"mail": 1}), CONFIG)
    for _ in range(30):
        clock.advance(1)
    assert carried.at == [0, 1, 3, 7, 15, 23]
    assert controller.health()["fleet"]["problem"]
    assert controller.health()["provider"] == "ok"
    carried.fails = False
    for _ in range(4):
        clock.advance(1)
    assert carried.at[6:] == [31, 32, 33, 34]
    assert controller.health()["fleet"]["problem"] is None


def test_polls_that_fail_do_not_keep_it_from_its_fleet(
    make_controller: MakeController, carried: Carried, clock: ManualClock
) -> None:
    class Broken(InMemoryStatsProvider):
        def get_all_queue_stats(self) -> Any:
            raise OSError

    make_controller(Broken(), CONFIG)
    for _ in range(6):
        clock.advance(1)
    assert carried.at == [0, 1, 2, 3, 4, 5, 6]


def test_a_server_that_hangs_holds_up_nobody_for_long(
    make_controller: MakeController, carried: Carried, clock: ManualClock
) -> None:
    controller = make_controller(InMemoryStatsProvider({"mail": 1}), CONFIG)
    carried.hangs = threading.Event()
    clock.advance(1)  # it begins to hang
    clock.advance(1)  # and is given up
    assert "took longer than" in controller.health()["fleet"]["problem"]
    carried.hangs.set()


def test_what_polls_carry_is_not_sent_twice(
    make_controller: MakeController, carried: Carried, clock: ManualClock
) -> None:
    meeting = Meeting(clock)  # takes every server for its own
    make_controller(meeting, CONFIG)
    meeting.switch("override")
    for _ in range(3):
        clock.advance(1)
    assert carried.at == []
    assert [command[0] for command in meeting.said].count("HGETALL") == 4


def test_the_providers_own_url_costs_no_connection(own_server: Server, engine_name: str) -> None:
    from backpressure import BackpressureController

    config = BackpressureConfig(
        polling=PollingConfig(interval=0.05, jitter=0), fleet=FleetConfig(name="shop", url=own_server.url)
    )
    with (
        own_server.client() as client,
        contextlib.closing(RedisStatsProvider(own_server.url, ["mail"])) as provider,
        BackpressureController(config, provider, registry=CollectorRegistry(), _engine=engine_name) as controller,
    ):
        operator = Operator(client, "shop", by="ana")
        operator.override(True, reason="x")
        eventually(lambda: controller.health()["manual_override"])
        assert len(client.client_list()) == 2


async def _beyond_redis(url: str, client: redis.Redis) -> None:
    import asyncio

    config = BackpressureConfig(polling=PollingConfig(interval=0.05, jitter=0), fleet=FleetConfig(name="shop", url=url))
    provider = InMemoryStatsProvider({"mail": 5_000})
    async with AsyncBackpressureController(config, provider, registry=CollectorRegistry()) as controller:
        Operator(client, "shop", by="ana").emergency(True, reason="x")
        while not controller.health()["emergency_mode"]:
            await asyncio.sleep(0.01)
        assert (await controller.suggest_throttle("low", "mail")).reason == "emergency_mode"


def test_asyncio_beyond_redis(redis_url: str, redis_client: redis.Redis) -> None:
    import asyncio

    asyncio.run(asyncio.wait_for(_beyond_redis(redis_url, redis_client), 20))
