"""The measured objects: running controllers as users have them, the queues' names, and the keys of callers."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from backpressure import (
    AgeConfig,
    BacklogThresholds,
    BacklogWindow,
    BackpressureConfig,
    BackpressureController,
    InMemoryStatsProvider,
    PollingConfig,
)
from backpressure._age.protocol import MILLION, Answer, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backpressure import StatsProvider

ENGINES = ("native", "pure")
FLOOR = Path(__file__).parent.parent / "target/benches/release/libfloor.so"

# Windows so wide that the jobs of a measurement change no zone: else its queues would be read every 50 ms.
ROOM = 2**52
WIDE = BacklogThresholds(
    medium_priority=BacklogWindow(green_max=500, yellow_max=ROOM, red_max=ROOM + 1),
    low_priority=BacklogWindow(green_max=ROOM, yellow_max=ROOM + 1, red_max=ROOM + 2),
)


def nop() -> None:
    """Do nothing, as the work of a job."""


def names(count: int) -> list[str]:
    """Return queue names as a configuration holds them."""
    return [f"queue-{number}" for number in range(count)]


def keys(stored: Sequence[str]) -> list[str]:
    """Return what callers hold: strings equal to the stored names, but not identical."""
    return ["".join(list(name)) for name in stored]


def rarely(count: int, **more: Any) -> BackpressureConfig:
    """Return a configuration that polls so rarely that no poll falls into a measurement, with room for `count`."""
    polling = PollingConfig(interval=600.0, jitter=0.0, timeout=60.0, max_backoff=600.0, cache_ttl=3_600.0)
    return BackpressureConfig(polling=polling, thresholds=WIDE, max_queues=max(count, 1), **more)


@contextlib.contextmanager
def running(
    engine: str,
    backlogs: dict[str, int],
    config: BackpressureConfig | None = None,
    *,
    provider: StatsProvider | None = None,
    registry: CollectorRegistry | None = None,
) -> Iterator[BackpressureController]:
    """Start a controller with its poller, its metrics and the system's clock."""
    config = config or BackpressureConfig(thresholds=WIDE)
    provider = provider or InMemoryStatsProvider(backlogs)
    registry = registry or CollectorRegistry()
    with BackpressureController(config, provider, registry=registry, _engine=engine) as controller:
        yield controller


#: A configuration that holds an age, by a budget in a store that is not there: what it grants comes from `granting`.
HELD = AgeConfig(target=5.0, store="redis://127.0.0.1:1/0")


def granting(controller: BackpressureController, queue_name: str, *, share_ppm: int = MILLION) -> Callable[[], None]:
    """Return what renews a queue's lease for an hour: so much fits by the share, and all in the line."""
    controller._budgets.prepare([queue_name])
    budget = controller._budgets.all()[queue_name]
    terms = Terms(share_ppm, 2**21 - 1, 0, 2**21 * MILLION, 1, 0, 0)
    answer = Answer(
        now_ms=1,
        ticks=9,
        drain_mjobs_per_s=200_000,
        budget_mjobs_per_s=200_000,
        age_ms=1_000,
        backlog_jobs=200,
        processes=1,
        spare_mjobs_per_s=0,
        is_sampler=False,
        wait_ms=3_600_000,
        terms=(terms, terms, terms),
    )

    def renew() -> None:
        budget.report(None)
        budget.renew(answer)

    renew()
    return renew


def floor() -> Any:
    """Return an object of an extension whose methods do nothing; `make bench` builds it."""
    loader = importlib.machinery.ExtensionFileLoader("floor", str(FLOOR))
    spec = importlib.util.spec_from_loader("floor", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module.Floor(object())
