"""What tests of asynchronous hooks share: the controller of `conftest`, for an event loop."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from backpressure import AsyncBackpressureController, AsyncRedisStatsProvider
from backpressure.testing import ManualClock
from integrations.conftest import CONFIG, OVERLOAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from backpressure.providers.layouts import Layout

__all__ = ["OVERLOAD", "decided", "watching"]


@contextlib.asynccontextmanager
async def watching(
    engine_name: str, url: str, queues: Mapping[str, Layout], clock: ManualClock | None = None
) -> AsyncIterator[AsyncBackpressureController]:
    """Run a controller that reads `queues` now, and not again: its clock stands still, or is moved by sleeps."""
    provider = AsyncRedisStatsProvider(url, queues)
    clock = clock or ManualClock(sleep_advances=True)
    try:
        async with AsyncBackpressureController(CONFIG, provider, clock=clock, _engine=engine_name) as controller:
            yield controller
    finally:
        await provider.aclose()


def decided(controller: AsyncBackpressureController) -> int:
    """Return how many decisions a controller has counted."""
    return sum(sum(totals.cache_requests()) for totals in controller._engine.totals().values())
