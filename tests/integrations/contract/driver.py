"""Runs one text of a test for hooks that block and for hooks of asyncio.

Tests are coroutines. Those of a hook that blocks never wait: they are run without an event loop.
"""

from __future__ import annotations

import abc
import asyncio
import functools
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    AsyncRedisStatsProvider,
    BackpressureController,
    RedisStatsProvider,
)
from backpressure.testing import ManualClock
from integrations.everywhere import BLOCKING_WAYS, WAYS, from_everywhere, from_everywhere_blocking
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    import threading
    from collections.abc import Awaitable, Callable, Collection, Coroutine

SECONDS = 20.0

Outcome = type[BaseException] | None


def blocking(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Return a function that runs a coroutine function to its end, which must not wait for an event loop."""

    @functools.wraps(function)
    def block(*args: Any, **kwargs: Any) -> Any:
        coroutine = function(*args, **kwargs)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        coroutine.close()
        raise AssertionError(f"{function.__name__} waited for an event loop")

    return block


async def done(result: Any) -> Any:
    """Return what a framework's function has returned, or what it returns when it is awaited."""
    return await result if inspect.isawaitable(result) else result


class Impatient(ManualClock):
    """A clock whose producers are interrupted as soon as they wait."""

    def wait(self, event: threading.Event, seconds: float, *, background: bool) -> None:
        if not background:
            raise KeyboardInterrupt
        super().wait(event, seconds, background=background)


class Driver(abc.ABC):
    """How tests of one kind of hooks are run.

    Attributes:
        ways: from where a job, or a producer, may send.
        judged: those of `ways` of which it is promised that a job that ``inside_tasks`` names is judged.
    """

    ways: tuple[str, ...]
    judged: Collection[str]
    controller: Callable[..., Any]
    provider: Callable[..., Any]
    wrong_controller: Callable[..., Any]

    @abc.abstractmethod
    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test."""

    @abc.abstractmethod
    async def until(self, predicate: Callable[[], object]) -> None:
        """Return as soon as `predicate` holds."""

    @abc.abstractmethod
    async def everywhere(self, send: Callable[[], Awaitable[object]]) -> dict[str, Outcome]:
        """Send in each of `ways`, and return what each raised."""

    @abc.abstractmethod
    def begin(self, send: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Send meanwhile."""

    @abc.abstractmethod
    async def end(self, begun: Any) -> None:
        """Wait until what `begin` returned is done."""

    @abc.abstractmethod
    async def give_up(self, send: Callable[[], Coroutine[Any, Any, Any]], clock: ManualClock) -> None:
        """Send, and have that end while it waits on `clock`, which is of `impatient`."""

    @abc.abstractmethod
    def impatient(self) -> ManualClock:
        """Return the clock for `give_up`."""


class Blocking(Driver):
    """For hooks that block."""

    ways = BLOCKING_WAYS
    controller = BackpressureController
    provider = RedisStatsProvider
    wrong_controller = AsyncBackpressureController

    def __init__(self, judged: Collection[str] = BLOCKING_WAYS) -> None:
        self.judged = judged

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        async def whole() -> None:
            await test

        blocking(whole)()

    async def until(self, predicate: Callable[[], object]) -> None:
        eventually(predicate, SECONDS)

    async def everywhere(self, send: Callable[[], Awaitable[object]]) -> dict[str, Outcome]:
        async def once() -> None:
            await send()

        return from_everywhere_blocking(blocking(once))

    def begin(self, send: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        pool = ThreadPoolExecutor(1)
        begun = pool.submit(blocking(send))
        pool.shutdown(wait=False)
        return begun

    async def end(self, begun: Any) -> None:
        begun.result(SECONDS)

    async def give_up(self, send: Callable[[], Coroutine[Any, Any, Any]], clock: ManualClock) -> None:
        with pytest.raises(KeyboardInterrupt):
            await send()

    def impatient(self) -> ManualClock:
        return Impatient()


class OnLoop(Driver):
    """For hooks of asyncio."""

    ways = WAYS
    judged = ("task", "callback", "to_thread")
    controller = AsyncBackpressureController
    provider = AsyncRedisStatsProvider
    wrong_controller = BackpressureController

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        asyncio.run(test)

    async def until(self, predicate: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not predicate():
                await asyncio.sleep(0.001)

    async def everywhere(self, send: Callable[[], Awaitable[object]]) -> dict[str, Outcome]:
        return dict(zip(WAYS, await from_everywhere(lambda _: send()), strict=True))

    def begin(self, send: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.create_task(send())

    async def end(self, begun: Any) -> None:
        await begun

    async def give_up(self, send: Callable[[], Coroutine[Any, Any, Any]], clock: ManualClock) -> None:
        tasks, waiting = asyncio.all_tasks(), clock.sleeping()
        begun = asyncio.create_task(send())
        await self.until(lambda: clock.sleeping() == waiting + 1)
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        assert asyncio.all_tasks() == tasks

    def impatient(self) -> ManualClock:
        return ManualClock()
