"""What every test may use: the engines, and how hard hypothesis looks.

`BACKPRESSURE_ENGINE=pure` (or `native`) leaves out the other engine's half of the suite. Under ``CI=true`` a missing
extension fails instead of skipping, unless ``BACKPRESSURE_ENGINE=pure`` says that it is not wanted.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from backpressure._controller.polling import thread as polling
from backpressure._engine import choice

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from backpressure._controller.polling.thread import Poller
    from backpressure._engine.border import EngineModule

pytest_plugins = ["support.controller_fixtures", "support.redis_fixtures", "support.user_environment"]

CI = os.environ.get("CI", "").lower() in {"1", "true"}
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci" if CI else "dev")
WANTED = os.environ.get("BACKPRESSURE_ENGINE", "auto")
ENGINES = [name for name in ("pure", "native") if WANTED in (name, "auto")]

# A shared machine stalls now and then, so neither deadlines nor slow data say anything about the code.
STALLS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", STALLS, max_examples=100)
settings.register_profile("ci", STALLS, max_examples=200, derandomize=True)
settings.register_profile("nightly", STALLS, max_examples=20_000)
settings.register_profile("prove", STALLS, max_examples=10_000, database=None)
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the engine that is not wanted, and give nightly runs the time they need."""
    kept: list[pytest.Item] = []
    unwanted: list[pytest.Item] = []
    for item in items:
        (kept if _engine_of(item) in (None, *ENGINES) else unwanted).append(item)
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = kept
    if PROFILE in {"nightly", "prove"}:
        for item in items:
            item.add_marker(pytest.mark.timeout(3_600), append=False)  # before a limit of its own


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Stop the controllers that a test which failed has left running: later tests would complain of them."""
    before = _running_pollers()
    try:
        yield
    except BaseException:
        for poller in _running_pollers() - before:
            poller.stop()()
        raise


def _running_pollers() -> set[Poller]:
    return {poller for poller in list(polling._pollers) if poller.is_begun_here()}


def _engine_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("engine_name") if callspec else None


def _is_there(name: str) -> bool:
    # Looked for rather than tried, so that a broken extension fails the tests.
    if name == "pure" or importlib.util.find_spec("backpressure._native") is not None:
        return True
    if CI:
        pytest.fail("the native engine is not built, and CI must not skip: build it, or set BACKPRESSURE_ENGINE=pure")
    return False


@pytest.fixture(scope="session", params=["pure", "native"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def engine_module(engine_name: str) -> EngineModule:
    """The module of each engine in turn."""
    if not _is_there(engine_name):
        pytest.skip("the native engine is not built: install Rust, then make test")
    return choice.load(engine_name)


@pytest.fixture(scope="session")
def engine_modules() -> Mapping[str, EngineModule]:
    """This run's engines by name, for tests that hold them against each other and against a model."""
    return {name: choice.load(name) for name in ENGINES if _is_there(name)}
