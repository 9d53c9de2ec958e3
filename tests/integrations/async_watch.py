"""What tests of asynchronous hooks share: the controller of `conftest`, for an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any, ParamSpec

from backpressure import AsyncBackpressureController, AsyncRedisStatsProvider
from backpressure.testing import ManualClock
from integrations.overload import CONFIG, OVERLOAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    import redis

    from backpressure.providers.layouts import Layout

P = ParamSpec("P")


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


class Run:
    """Yields what `opened` opens, and a controller that sees an overload in the first of `queues`."""

    def __init__(
        self,
        engine_name: str,
        url: str,
        clock: ManualClock,
        *,
        opened: Callable[[str], AbstractAsyncContextManager[Any]],
        overload: Callable[[Any], Awaitable[object]],
        queues: Mapping[str, Layout],
    ) -> None:
        self._engine_name = engine_name
        self._url = url
        self._clock = clock
        self._opened = opened
        self._overload = overload
        self._queues = queues

    @contextlib.asynccontextmanager
    async def __call__(self, *, clock: ManualClock | None = None) -> AsyncIterator[tuple[Any, Any]]:
        async with self._opened(self._url) as plain:
            for _ in range(OVERLOAD):
                await self._overload(plain)
        async with (
            self._opened(self._url) as own,
            watching(self._engine_name, self._url, self._queues, clock or self._clock) as controller,
        ):
            yield own, controller


async def eventually(predicate: Callable[[], object]) -> None:
    """Return as soon as `predicate` holds."""
    async with asyncio.timeout(20):
        while not predicate():
            await asyncio.sleep(0.001)


def length(server: redis.Redis, key: str) -> int:
    """Return how many jobs a list or a stream holds."""
    count = server.xlen if server.type(key) == b"stream" else server.llen
    return int(str(count(key)))


def on_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a coroutine as a test."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        asyncio.run(main())

    return run
