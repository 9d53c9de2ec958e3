"""The description's statements about cost that can be counted: reads, wake-ups, threads, bytes and objects.

The benchmarks measure times and memory.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from backpressure import (
    BackpressureConfig,
    InMemoryStatsProvider,
    PollingConfig,
    QueueStats,
    RedisStatsProvider,
    StatsUnavailableError,
)
from backpressure.testing import ManualClock
from support.controller_fixtures import at_rest, eventually

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    import redis

    from support.controller_fixtures import MakeController


class Counting(InMemoryStatsProvider):
    """Counts its calls."""

    def __init__(self, stats: Mapping[str, int]) -> None:
        super().__init__(stats)
        self.polls = 0
        self.reads: list[str] = []

    def get_all_queue_stats(self) -> Mapping[str, QueueStats | StatsUnavailableError]:
        self.polls += 1
        return super().get_all_queue_stats()

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        self.reads.append(queue_name)
        return super().get_queue_stats(queue_name)


def test_a_decision_reads_nothing_and_starts_no_thread(
    make_controller: MakeController, started: list[threading.Thread]
) -> None:
    provider = Counting({"green": 0, "red": 3_500})
    controller = make_controller(provider)
    assert started, "a poller"
    del started[:]
    for _ in range(1_000):
        for priority in ("low", "medium", "high"):
            controller.suggest_throttle(priority, "green")
            controller.suggest_throttle(priority, "red")
    assert (provider.polls, provider.reads) == (1, [])
    assert started == []


def test_a_cached_green_decision_makes_no_object(make_controller: MakeController) -> None:
    controller = make_controller()
    decisions = {id(controller.suggest_throttle("low", "empty")) for _ in range(100)}
    assert len(decisions) == 1  # as many as may be let in before its queue is read again
    assert controller.health()["cache_size"] == 1


def test_a_first_sight_is_one_read(make_controller: MakeController) -> None:
    provider = Counting({})
    controller = make_controller(provider)
    provider.set("new", 700)
    for _ in range(10):
        assert controller.suggest_throttle("medium", "new").backlog_size == 700
    assert provider.reads == ["new"]


@pytest.mark.parametrize("queues", [1, 500])
def test_an_interval_is_one_call_and_one_wake_up_however_many_decide(
    make_controller: MakeController, queues: int
) -> None:
    provider = Counting({f"queue-{number}": 0 for number in range(queues)})
    clock = ManualClock()
    controller = make_controller(provider, BackpressureConfig(polling=PollingConfig(jitter=0)), clock=clock)
    for polls in range(1, 4):
        assert at_rest(controller, clock, polls) or polls == 1
        for number in range(1_000):
            controller.suggest_throttle("high", f"queue-{number % queues}")
        clock.advance(4.999)
        assert clock.sleeping() == 1
        assert provider.polls == polls
        clock.advance(0.001)
        eventually(lambda polls=polls: provider.polls == polls + 1)  # type: ignore[misc]
    assert provider.reads == []


def test_state_is_made_per_queue_asked_for_and_bounded(make_controller: MakeController) -> None:
    config = BackpressureConfig(max_queues=10)
    controller = make_controller(InMemoryStatsProvider(), config)
    assert controller.health()["cache_size"] == 0
    for number in range(1_000):
        controller.suggest_throttle("low", f"queue-{number}")
        controller.get_circuit_state(f"other-{number}")
    assert len(controller.health()["queues"]) == 10
    assert controller.health()["cache_size"] <= 3 * 10


MEMORY = """
import gc, sys, tracemalloc
from backpressure import BackpressureController, InMemoryStatsProvider

def allocated():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

def taken(step):
    before = allocated()
    step()
    return allocated() - before

def make():
    made.append(BackpressureController(None, provider, _engine=sys.argv[1]))
    made[-1].start()

def ask():
    for name in names:
        made[-1].suggest_throttle("low", name)

names, provider, made = [f"queue-{number}" for number in range(500)], InMemoryStatsProvider(), []
tracemalloc.start()
make()  # what is made once a process
made.pop().stop()
base = taken(make)
provider.update(dict.fromkeys(names, 0))
polled = taken(made[-1]._poller.poll)
print(base, polled, taken(ask), taken(ask))
made.pop().stop()
"""


def test_memory_is_taken_by_queues_and_first_decisions_and_never_by_hits(
    engine_name: str, engine_module: object
) -> None:
    # In a process of its own, because other threads take memory too.
    command = [sys.executable, "-c", MEMORY, engine_name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    base, polled, asked, asked_again = map(int, output.split())
    assert base < 50_000
    assert polled / 500 < 3_000
    assert asked / 500 < 1_500
    assert asked_again / 500 < 20


def bytes_of(client: redis.Redis) -> int:
    """Return how many bytes the server has exchanged with all its clients."""
    stats = client.info("stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


@pytest.mark.parametrize(("queues", "limit"), [(1, 100), (10, 1_000), (500, 50_000)])
def test_a_poll_is_less_than_a_kilobyte_for_ten_queues(
    make_controller: MakeController, redis_url: str, redis_client: redis.Redis, queues: int, limit: int
) -> None:
    names = [f"email-queue-{number}" for number in range(queues)]
    for name in names:
        redis_client.rpush(name, *range(100))
    with contextlib.closing(RedisStatsProvider(redis_url, names)) as provider:
        controller = make_controller(provider)  # this connects, and polls for the first time
        asked = bytes_of(redis_client)
        cost_of_asking = bytes_of(redis_client) - asked
        asked = bytes_of(redis_client)
        assert controller._poller.poll()
        assert 0 < bytes_of(redis_client) - asked - cost_of_asking < limit
        assert controller.suggest_throttle("medium", names[-1]).backlog_size == 100
