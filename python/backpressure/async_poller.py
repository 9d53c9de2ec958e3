"""The regular reader of an `AsyncStatsProvider`: a task on the event loop that its controller was started on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from backpressure.clock import wait_async
from backpressure.errors import StatsUnavailableError
from backpressure.intake import Intake
from backpressure.settings import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from backpressure._engine import Engine
    from backpressure.clock import Clock
    from backpressure.config import PollingConfig
    from backpressure.events import Announcer
    from backpressure.types import AsyncStatsProvider

__all__ = ["AsyncPoller"]

T = TypeVar("T")

# Seconds that stop() gives the task to end.
_GRACE = 0.5
# Seconds beyond its own plans after which the task counts as dead.
_SLACK = 2.0


class AsyncPoller:
    """As `backpressure.poller.Poller`, on an event loop. Survives whatever the provider raises."""

    def __init__(
        self,
        provider: AsyncStatsProvider,
        engine: Engine,
        config: PollingConfig,
        clock: Clock,
        announcer: Announcer,
    ) -> None:
        self._provider = provider
        self._engine = engine
        self._config = config
        self._clock = clock
        self._announcer = announcer
        self.intake = Intake(engine, clock, announcer)
        self._task: asyncio.Task[None] | None = None
        self._pid = 0
        self._due_ns: float = 0
        self._stopped = False
        self._rotation = 0

    # ----------------------------------------------------------------------------------------------------- lifecycle

    async def start(self) -> None:
        """Poll once, then start the task; in a forked child start it anew."""
        if self._config.enabled and not self._runs():
            await self.poll()
            if not self._runs():
                self._spawn(poll_first=False)

    def check(self) -> None:
        """Replace the task if it shows no sign of life; called on an event loop where samples are too old."""
        if self._stopped or not self._config.enabled:
            return
        if not self._runs():
            self._spawn(poll_first=True)
        elif self._clock.monotonic_ns() > self._due_ns:
            self.intake.note_restart()
            self._retire()
            self._spawn(poll_first=True)

    def configure(self, config: PollingConfig) -> None:
        """Poll by `config` from now on."""
        self._config = config
        self._retire()
        if config.enabled:
            with contextlib.suppress(RuntimeError):  # no loop runs here: whoever meets an old sample starts the task
                self._spawn(poll_first=True)

    def alive(self) -> bool:
        """Tell whether this process has a poller that shows itself."""
        return self._runs() and self._clock.monotonic_ns() <= self._due_ns

    async def stop(self) -> None:
        """End the task; returns within 1 s whatever the provider does. Idempotent."""
        self._stopped = True
        task = self._task
        self._retire()
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({task}, timeout=_GRACE)

    def _runs(self) -> bool:
        task = self._task
        return task is not None and self._pid == os.getpid() and not task.done() and not task.get_loop().is_closed()

    def _retire(self) -> None:
        task, self._task = self._task, None
        if task is not None and self._pid == os.getpid():
            with contextlib.suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)

    def _spawn(self, *, poll_first: bool) -> None:
        if self._stopped:
            return  # stop() came while start() was polling
        loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._expect(self._config.timeout)
        self._task = loop.create_task(self._run(poll_first=poll_first), name="backpressure-poller")

    async def _run(self, *, poll_first: bool) -> None:
        poll_now = poll_first
        while True:
            try:
                if not poll_now:
                    pause = self.intake.pause(self._config)
                    self._expect(pause + self._config.timeout)
                    await wait_async(self._clock, pause)
                poll_now = False
                self._expect(self._config.timeout)
                await self.poll()
            except Exception as error:  # noqa: BLE001 - a poller that dies would serve stale answers
                self._announcer.poller_failed(error)
                self.intake.count_error("provider")
                await wait_async(self._clock, self._config.interval)

    def _expect(self, seconds: float) -> None:
        self._due_ns = self._clock.monotonic_ns() + nanoseconds(seconds + _SLACK)

    # --------------------------------------------------------------------------------------------------------- polls

    async def poll(self) -> bool:
        """Read everything once, within the timeout; tell whether the provider answered. Raises nothing it raised."""
        collected: dict[str, object] = {}
        began = time.perf_counter()
        failure: Exception | None = None
        try:
            await self._bounded(self._collect(collected))
        except Exception as error:  # noqa: BLE001 - providers may raise anything
            failure = error
        answered = self.intake.finish(collected.copy(), failure, time.perf_counter() - began)
        await asyncio.to_thread(self.intake.after_poll)
        return answered

    async def read_one(self, queue_name: str) -> bool:
        """Read one queue, within the timeout; tell whether it got a sample."""
        outcome: object
        try:
            outcome = await self._bounded(self._provider.get_queue_stats(queue_name))
        except Exception as error:  # noqa: BLE001 - providers may raise anything
            outcome = error
        return self.intake.take({queue_name: outcome}) == 1

    async def _bounded(self, reading: Coroutine[Any, Any, T]) -> T:
        """Return what `reading` returns, or raise what it raises, within the timeout; what overruns is cancelled."""
        timeout = self._config.timeout
        work = asyncio.ensure_future(reading)
        timer = asyncio.ensure_future(wait_async(self._clock, timeout))
        try:
            await asyncio.wait({work, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            ended = work.done()
            work.cancel()
        if ended and not work.cancelled():
            return work.result()
        raise StatsUnavailableError(
            f"reading took longer than {timeout:g} s: look at the server, or raise polling.timeout",
            error_type="deadline",
        )

    async def _collect(self, collected: dict[str, object]) -> None:
        """Read all that the provider lists, then the known queues that it left out."""
        collected.update(await self._provider.get_all_queue_stats())
        missing = [name for name in self._engine.queue_names() if name not in collected]
        get_many = getattr(self._provider, "get_many", None)
        if not missing:
            return
        if get_many is not None:
            collected.update(await get_many(missing))
            return
        # One by one, beginning behind where the last poll was cut off, so that every queue gets its turn.
        first = self._rotation % len(missing)
        for position, name in enumerate(missing[first:] + missing[:first], first + 1):
            self._rotation = position
            try:
                collected[name] = await self._provider.get_queue_stats(name)
            except Exception as error:  # noqa: BLE001 - one queue's error spoils no other
                collected[name] = error
