"""What tests of hooks share: a controller over a framework's real queues, where five waiting jobs are an overload."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import pytest

from backpressure import BackpressureController, RedisStatsProvider
from integrations.overload import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from backpressure.providers.layouts import Layout
    from support.controller_fixtures import MakeController

pytest.register_assert_rewrite("integrations.contract")


class Watch(Protocol):
    """Makes a controller that reads queues of a framework now and from now on."""

    def __call__(self, layout: Layout, *queues: str) -> BackpressureController: ...


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    """Undo what workers of frameworks, run within the test, set up: the root logger's level and handlers."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers.copy()
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def watch(make_controller: MakeController, redis_client: redis.Redis, redis_url: str) -> Iterator[Watch]:
    """Return a maker of controllers for the queues of the server under test, which was emptied."""
    made: list[tuple[BackpressureController, RedisStatsProvider]] = []

    def watch(layout: Layout, *queues: str) -> BackpressureController:
        provider = RedisStatsProvider(redis_url, queues, layout=layout)
        controller = make_controller(provider, CONFIG)
        made.append((controller, provider))
        return controller

    yield watch
    for controller, provider in made:
        controller.stop()
        provider.close()


@pytest.fixture
def full_server(redis_client: redis.Redis) -> Iterator[None]:
    """Have the server refuse every write, as one does that is out of memory."""
    redis_client.config_set("maxmemory", 1)
    yield
    redis_client.config_set("maxmemory", 0)
