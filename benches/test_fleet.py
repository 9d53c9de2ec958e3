"""What belonging to a fleet adds to a poll, and how long an operator waits for the table of its processes."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import redis
from benches import subjects
from benches.test_poll import spent

from backpressure import FleetConfig, RedisStatsProvider
from backpressure._fleet.keys import members_key, presence_key
from backpressure._fleet.operator import Operator
from backpressure._fleet.presence import Presence
from support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.report import Report

    from backpressure import BackpressureController

POLLS = 200
SIZES = (20, 1_000)
MEMBERS = 500
OTHER_KEYS = 100_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with a job in each queue."""
    with servers.Server() as server, redis.Redis.from_url(server.url) as client:
        pipeline = client.pipeline(transaction=False)
        for name in subjects.names(max(SIZES)):
            pipeline.rpush(name, "job")
        pipeline.execute()
        yield server.url


@contextmanager
def polling(url: str, size: int, fleet: FleetConfig) -> Iterator[BackpressureController]:
    """Start a controller that polls only when the benchmark makes it."""
    stored = subjects.names(size)
    provider = RedisStatsProvider(url, stored, timeout=5.0)
    config = attrs.evolve(subjects.rarely(size + 1), fleet=fleet)
    with subjects.running("native", {}, config, provider=provider) as controller:
        yield controller
    provider.close()


def poll(controller: BackpressureController) -> None:
    """Do what the poller's thread does in one turn."""
    fleet = controller._fleet
    if fleet is not None:
        fleet.prepare()
    assert controller._poller.poll()
    if fleet is not None:
        fleet.follow(lambda call: call())


def test_poll_of_a_member(report: Report, url: str) -> None:
    rows = []
    for size in SIZES:
        with polling(url, size, FleetConfig()) as alone, polling(url, size, FleetConfig(name="shop")) as member:
            rounds = [(*spent(poll, alone), *spent(poll, member)) for _ in range(POLLS)]
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        cpu, wall, cpu_of_member, wall_of_member = (f"{seconds * 1e6:,.0f} µs" for seconds in medians)
        added = statistics.median(member - alone for _, alone, _, member in rounds)
        rows.append((f"{size:,}", cpu, cpu_of_member, wall, wall_of_member, f"{added * 1e6:,.0f} µs"))
    head = ("queues", "processor", "in a fleet", "wall", "in a fleet", "added, wall")
    report.table("One poll of a Valkey server on loopback, alone and as a member of a fleet, native", head, rows)


def test_table_of_the_members(report: Report, url: str) -> None:
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(OTHER_KEYS):
            pipeline.set(f"other{number}", "x")
        for number in range(MEMBERS):
            told = Presence(
                id=f"host-{number}-ab", host="host", pid=number, version="1", engine="native", mode="enforce"
            )
            pipeline.set(presence_key("shop", told.id), told.encode())
            pipeline.zadd(members_key("shop"), {told.id: 2**52})
        pipeline.execute()
        operator = Operator(client, "shop")
        took = []
        for _ in range(20):
            began = time.perf_counter()
            assert len(operator.members()) >= MEMBERS
            took.append(time.perf_counter() - began)
    report.target(f"{MEMBERS} members among {OTHER_KEYS:,} other keys, wall", statistics.median(took) * 1e3, 100, "ms")
