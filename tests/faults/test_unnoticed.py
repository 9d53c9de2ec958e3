"""Troubles of a server that reads do not notice, or survive; the breaker notices some of them from the work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import redis

from backpressure import CircuitOpenError, Reason
from faults.catalogue import PASSWORD, RIGHTS, USER
from faults.producers import QUEUES
from support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.conftest import Hire
    from faults.producers import Producer

URL = f"redis://{USER}:{PASSWORD}@{servers.HOST}"


@pytest.fixture
def server(binary: str) -> Iterator[servers.Server]:
    with servers.Server(binary=binary, port=None, sentinel="", user=RIGHTS) as server:
        yield server


@pytest.fixture
def admin(server: servers.Server) -> Iterator[redis.Redis]:
    """The test's own connection, which it also uses to enqueue."""
    with server.client() as admin:
        yield admin


def fill(admin: redis.Redis, count: int) -> None:
    for queue in QUEUES:
        admin.rpush(queue, *range(count))


def polls_since(at_ns: int) -> Callable[[Producer], bool]:
    """Return a condition: both queues were read after `at_ns`."""

    def polled(producer: Producer) -> bool:
        age = max(queue["sample_age"] for queue in producer.controller.health()["queues"].values())
        return bool(time.monotonic_ns() - round(age * 1e9) > at_ns)

    return polled


def demote(admin: redis.Redis) -> None:
    """Make it a replica of a missing master: it serves the data it has, and refuses writes."""
    admin.replicaof(servers.HOST, servers.dead_port())


def fill_memory(admin: redis.Redis) -> None:
    admin.config_set("maxmemory", "1")


def enqueue_until_the_circuit_opens(producer: Producer, admin: redis.Redis, error: type[Exception]) -> None:
    for expected in [error] * 5 + [CircuitOpenError]:
        with pytest.raises(expected):
            producer.enqueue("jobs", lambda: admin.rpush("jobs", "job"))


@pytest.mark.parametrize(
    ("provoke", "error"), [(demote, redis.ReadOnlyError), (fill_memory, redis.exceptions.OutOfMemoryError)]
)
def test_a_server_that_refuses_writes_is_the_breakers_matter(
    server: servers.Server,
    admin: redis.Redis,
    hire: Hire,
    provoke: Callable[[redis.Redis], None],
    error: type[Exception],
) -> None:
    fill(admin, 1)
    crew = hire(f"{URL}:{server.port}/0")
    crew.until_told(Reason.BACKLOG_GREEN)
    provoke(admin)
    crew.until(polls_since(time.monotonic_ns()))
    for producer in crew.producers:
        assert producer.errors() == {}
        assert producer.last("jobs") is Reason.BACKLOG_GREEN
        enqueue_until_the_circuit_opens(producer, admin, error)
    crew.until_told(Reason.CIRCUIT_OPEN, "jobs")
    crew.until_told(Reason.BACKLOG_GREEN, "others")


def test_a_killed_server_opens_the_circuit_too(server: servers.Server, admin: redis.Redis, hire: Hire) -> None:
    fill(admin, 1)
    crew = hire(f"{URL}:{server.port}/0")
    crew.until_told(Reason.BACKLOG_GREEN)
    server.kill()
    for producer in crew.producers:
        enqueue_until_the_circuit_opens(producer, admin, redis.ConnectionError)


def test_closed_idle_connections_cost_no_sample(server: servers.Server, admin: redis.Redis, hire: Hire) -> None:
    fill(admin, 3_500)
    crew = hire(f"{URL}:{server.port}/0")
    crew.until_told(Reason.BACKLOG_RED)
    for _ in range(3):
        admin.client_kill_filter(_type="normal", skipme=True)
        crew.until(polls_since(time.monotonic_ns()))
        crew.until_told(Reason.BACKLOG_RED)
    for producer in crew.producers:
        # These connections were not idle, but were being read when they were closed.
        assert producer.errors().keys() <= {"connect", "timeout", "deadline"}


def test_lost_data_is_an_empty_queue(server: servers.Server, admin: redis.Redis, hire: Hire) -> None:
    """A server that restarts without persistence answers 0, and workers see the same."""
    fill(admin, 3_500)
    crew = hire(f"{URL}:{server.port}/0")
    crew.until_told(Reason.BACKLOG_RED)
    server.kill()
    server.start()
    crew.until_told(Reason.BACKLOG_GREEN)
    fill(admin, 3_500)
    crew.until_told(Reason.BACKLOG_RED)
