"""Producers: eight threads on a controller, or a thousand tasks on an asyncio one, using all that it offers."""
# ruff: noqa: S311 - chance, not secrets

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from scripts.soak.tally import Tally

from backpressure import (
    AsyncBackpressureController,
    AsyncRedisStatsProvider,
    BackpressureController,
    BatchJob,
    RedisStatsProvider,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure import BackpressureConfig

QUEUES = ("calm", "busy", "overrun", "failing")
PRIORITIES = ("low", "medium", "high")
THREADS = 8
TASKS = 1_000
_MAX_WAIT = 0.02
_BURST = 100
_BATCH = 5
_SURPRISES = 5


def _draw() -> tuple[str, str, bool]:
    """Return a priority, a queue, and whether the job is to fail."""
    queue = random.choice(QUEUES)
    if random.random() < 0.02:
        queue = f"passing-{int(time.monotonic())}"  # it takes the place of others, and then nobody asks for it
    return random.choice(PRIORITIES), queue, random.random() < (0.5 if queue == "failing" else 0.01)


class Crew:
    """The producers of one controller."""

    name: str
    controller: BackpressureController | AsyncBackpressureController

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ended = threading.Event()
        self.tallies: list[Tally] = []
        self.threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to produce."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Let every producer finish its current job, then stop the controller."""
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def tally(self) -> Tally:
        """Add up the counts so far."""
        return functools.reduce(Tally.__add__, self.tallies, Tally())


class ThreadCrew(Crew):
    """Threads on the blocking controller."""

    controller: BackpressureController

    def __init__(self, engine: str, url: str, config: BackpressureConfig) -> None:
        super().__init__()
        self.name = f"{engine}, {THREADS} threads"
        self._provider = RedisStatsProvider(url, QUEUES, timeout=config.polling.timeout / 2)
        self.controller = BackpressureController(config, self._provider, registry=self.registry, _engine=engine)
        self.tallies = [Tally() for _ in range(THREADS)]
        self.threads = [threading.Thread(target=self._produce, args=(tally,)) for tally in self.tallies]

    def start(self) -> None:
        """Start the controller and the threads."""
        self.controller.start()
        super().start()

    def stop(self) -> None:
        """See `Crew.stop`."""
        super().stop()
        self.controller.stop()
        self._provider.close()

    def _produce(self, tally: Tally) -> None:
        ways = (self._suggest, self._burst, self._run, self._slot, self._gate, self._throttled, self._batch)
        while not self.ended.wait(random.uniform(0, 0.02)):
            try:
                random.choice(ways)(tally, *_draw())
            except Exception as error:  # noqa: BLE001 - told at the end
                tally.surprises[_SURPRISES:] = [repr(error)]

    def _suggest(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        decision = self.controller.suggest_throttle(priority, queue)
        tally.advised(decision)
        if fails:
            self.controller.record_failure(decision)
        else:
            self.controller.record_success(decision)

    def _burst(self, tally: Tally, priority: str, queue: str, _fails: bool) -> None:
        gate = self.controller.gate(priority, queue)
        for _ in range(_BURST):
            tally.advised(gate.suggest())

    def _run(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        with tally.job(priority):
            self.controller.run(priority, queue, functools.partial(tally.work, fails=fails), max_wait=_MAX_WAIT)

    def _slot(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        with tally.job(priority), self.controller.slot(priority, queue):
            tally.work(fails=fails)

    def _gate(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        with tally.job(priority):
            self.controller.gate(priority, queue, max_wait=_MAX_WAIT).run(tally.work, fails=fails)

    def _throttled(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        with tally.job(priority):
            self.controller.throttled(priority, queue)(tally.work)(fails=fails)

    def _batch(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        jobs = _batch(tally.work, priority, queue, fails)
        with tally.batch(priority, len(jobs)) as results:
            results.append(self.controller.process_batch(jobs))


class TaskCrew(Crew):
    """Tasks on the asyncio controller, all on one event loop."""

    controller: AsyncBackpressureController

    def __init__(self, engine: str, url: str, config: BackpressureConfig) -> None:
        super().__init__()
        self.name = f"{engine}, {TASKS} tasks"
        self._provider = AsyncRedisStatsProvider(url, QUEUES, timeout=config.polling.timeout / 2)
        self.controller = AsyncBackpressureController(config, self._provider, registry=self.registry, _engine=engine)
        self.tallies = [Tally()]
        self.threads = [threading.Thread(target=self._run_loop)]

    def _run_loop(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # noqa: BLE001 - told at the end
            self.tallies[0].surprises.append(repr(error))

    async def _main(self) -> None:
        async with self.controller, asyncio.TaskGroup() as tasks:
            for _ in range(TASKS):
                tasks.create_task(self._produce(self.tallies[0]))
        await self._provider.aclose()

    async def _produce(self, tally: Tally) -> None:
        ways = (self._suggest, self._run, self._slot, self._gate, self._throttled, self._batch)
        while not self.ended.is_set():
            await asyncio.sleep(random.uniform(0, 2))
            try:
                await random.choice(ways)(tally, *_draw())
            except Exception as error:  # noqa: BLE001 - told at the end
                tally.surprises[_SURPRISES:] = [repr(error)]

    async def _suggest(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        decision = await self.controller.suggest_throttle(priority, queue)
        tally.advised(decision)
        if fails:
            self.controller.record_failure(queue)
        else:
            self.controller.record_success(queue)

    async def _run(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        with tally.job(priority):
            await self.controller.run(priority, queue, _in_turn, tally, fails=fails, max_wait=_MAX_WAIT)

    async def _slot(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        with tally.job(priority):
            async with self.controller.slot(priority, queue):
                await _in_turn(tally, fails=fails)

    async def _gate(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        with tally.job(priority):
            await self.controller.gate(priority, queue, max_wait=_MAX_WAIT).run(_in_turn, tally, fails=fails)

    async def _throttled(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        with tally.job(priority):
            await self.controller.throttled(priority, queue)(_in_turn)(tally, fails=fails)

    async def _batch(self, tally: Tally, priority: str, queue: str, fails: bool) -> None:
        jobs = _batch(functools.partial(_in_turn, tally), priority, queue, fails)
        with tally.batch(priority, len(jobs)) as results:
            results.append(await self.controller.process_batch(jobs))


async def _in_turn(tally: Tally, *, fails: bool) -> None:
    await asyncio.sleep(0)
    tally.work(fails=fails)


def _batch(work: Callable[..., object], priority: str, queue: str, fails: bool) -> list[BatchJob]:
    job = BatchJob(priority, queue, functools.partial(work, fails=fails), max_wait=_MAX_WAIT)
    return [job] * _BATCH
