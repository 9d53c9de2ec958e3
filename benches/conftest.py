"""Benchmarks measure release builds on both engines; a debug build would tell nothing about either."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureController, InMemoryStatsProvider
from backpressure._engine import load

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["native", "pure"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    name: str = request.param
    if getattr(load(name), "DEBUG", False):
        pytest.exit("the native engine is a debug build: run make, which builds it for release", returncode=2)
    return name


@pytest.fixture
def provider() -> InMemoryStatsProvider:
    """An empty queue, and one so full that LOW is shed."""
    return InMemoryStatsProvider({"empty-queue": 0, "full-queue": 1_000_000})


@pytest.fixture
def controller(engine_name: str, provider: InMemoryStatsProvider) -> Iterator[BackpressureController]:
    """A running controller with its poller and the system's clock, as users have it."""
    with BackpressureController(None, provider, _engine=engine_name) as controller:
        yield controller
