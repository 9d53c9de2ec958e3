"""Producers that ask without a break and remember what they were told: on a thread and on an event loop."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    PollingConfig,
    Reason,
    RecoveryStrategy,
)
from backpressure.providers import AsyncRedisStatsProvider, RedisStatsProvider
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from backpressure import ThrottleDecision

QUEUES = ("jobs", "others")
BACKLOG = 3_500  # red for MEDIUM

# From the last good sample it takes 0.9 s until answers grow stale, and 0.4 s more until they are the fallback.
CONFIG = BackpressureConfig(
    polling=PollingConfig(interval=0.3, jitter=0, timeout=0.3, max_backoff=0.4, cache_ttl=0.9),
    recovery=RecoveryStrategy(graceful_degrade=0.4),
)
REPLY_SECONDS = 0.15
_PAUSE = 0.0005


class Told(NamedTuple):
    """The reason of a decision, and the seconds since the producer's last question."""

    reason: Reason
    gap: float


class Producer(threading.Thread):
    """Asks for each queue in turn."""

    controller: BackpressureController | AsyncBackpressureController

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.error: BaseException | None = None
        #: Each queue's answers that differ from the answer before, and the delays by reason.
        self.told: dict[str, list[Told]] = {}
        self.delays: dict[Reason, set[float]] = {}
        self.durations_ns: list[int] = []
        self.polls: list[float] = []
        self._asked_ns: dict[str, int] = {}
        self.forget()

    def forget(self) -> None:
        """Forget everything, and remember from now on."""
        self.told = {queue: [] for queue in QUEUES}
        self.delays = {reason: set() for reason in Reason}
        self.durations_ns = []
        self.polls = []

    def note(self, decision: ThrottleDecision, began_ns: int) -> None:
        """Remember a decision that was asked for at `began_ns`."""
        queue = decision.queue_name
        self.durations_ns.append(time.perf_counter_ns() - began_ns)
        told = self.told[queue]
        if not told or told[-1].reason is not decision.reason:
            told.append(Told(decision.reason, (began_ns - self._asked_ns.get(queue, began_ns)) / 1e9))
        self._asked_ns[queue] = began_ns
        self.delays[decision.reason].add(decision.delay)

    def errors(self) -> dict[str, int]:
        """Return the failed reads so far, by type."""
        errors: dict[str, int] = self.controller.health()["polling_errors"]
        return errors

    def last(self, queue: str) -> Reason | None:
        """Return the reason of the latest decision."""
        told = self.told[queue]
        return told[-1].reason if told else None

    def reasons(self, queue: str) -> list[Reason]:
        """Return each reason that differs from the one before."""
        return [told.reason for told in self.told[queue]]

    def look(self) -> None:
        """Remember how long the last poll took."""
        seconds = self.controller.health()["last_poll_seconds"]
        if seconds is not None and seconds not in self.polls[-1:]:
            self.polls.append(seconds)

    def run(self) -> None:
        try:
            self.ask()
        except BaseException as error:  # noqa: BLE001 - the test is that none comes
            self.error = error
        finally:
            self.ready.set()

    def ask(self) -> None:
        """Ask until `ended`."""
        raise NotImplementedError

    def enqueue(self, queue: str, work: Callable[[], object]) -> None:
        """Run a job of priority HIGH."""
        raise NotImplementedError


class ThreadProducer(Producer):
    """With the blocking controller and provider."""

    def __init__(self, engine: str, url: str, **options: Any) -> None:
        super().__init__(f"thread, {engine}")
        self.provider = RedisStatsProvider(url, QUEUES, timeout=REPLY_SECONDS, **options)
        self.controller: BackpressureController = BackpressureController(CONFIG, self.provider, _engine=engine)

    def ask(self) -> None:
        with self.controller as controller:
            self.ready.set()
            while not self.ended.wait(_PAUSE):
                for queue in QUEUES:
                    began_ns = time.perf_counter_ns()
                    decision = controller.suggest_throttle("medium", queue)
                    self.note(decision, began_ns)
        self.provider.close()

    def enqueue(self, queue: str, work: Callable[[], object]) -> None:
        self.controller.run("high", queue, work)


class LoopProducer(Producer):
    """With the asyncio controller and provider."""

    def __init__(self, engine: str, url: str, **options: Any) -> None:
        super().__init__(f"loop, {engine}")
        self.provider = AsyncRedisStatsProvider(url, QUEUES, timeout=REPLY_SECONDS, **options)
        self.controller: AsyncBackpressureController = AsyncBackpressureController(
            CONFIG, self.provider, _engine=engine
        )

    def ask(self) -> None:
        asyncio.run(self._ask())

    def enqueue(self, queue: str, work: Callable[[], object]) -> None:
        async def job() -> None:
            work()

        running = self.controller.run("high", queue, job)
        asyncio.run_coroutine_threadsafe(running, self.loop).result(10)

    async def _ask(self) -> None:
        self.loop = asyncio.get_running_loop()
        async with self.controller as controller:
            self.ready.set()
            while not self.ended.is_set():
                await asyncio.sleep(_PAUSE)
                for queue in QUEUES:
                    began_ns = time.perf_counter_ns()
                    decision = await controller.suggest_throttle("medium", queue)
                    self.note(decision, began_ns)
        await self.provider.aclose()


class Crew:
    """Producers of both kinds on each engine, at work until `dismiss`."""

    def __init__(self, engines: Iterable[str], url: str, **options: Any) -> None:
        self.producers: Sequence[Producer] = [
            kind(engine, url, **options) for engine in engines for kind in (ThreadProducer, LoopProducer)
        ]
        for producer in self.producers:
            producer.start()
        for producer in self.producers:
            assert producer.ready.wait(10)

    def forget(self) -> None:
        """Forget everything, and remember from now on."""
        for producer in self.producers:
            producer.forget()

    def until(self, condition: Callable[[Producer], object]) -> None:
        """Wait until it holds for every producer."""

        def holds() -> bool:
            self.check()
            for producer in self.producers:
                producer.look()
            time.sleep(0.01)  # leave the processors to the producers
            return all(map(condition, self.producers))

        eventually(holds)

    def until_told(self, reason: Reason, *queues: str, others: Reason | None = None) -> None:
        """Wait until `reason` is the latest answer to every producer; for queues that are not named, `others`."""
        wanted = dict.fromkeys(QUEUES, others if queues else reason)
        wanted.update(dict.fromkeys(queues, reason))
        self.until(lambda producer: all(why in {None, producer.last(queue)} for queue, why in wanted.items()))

    def check(self) -> None:
        """Fail if a decision has raised."""
        for producer in self.producers:
            assert producer.error is None, f"{producer.name}: {producer.error!r}"

    def dismiss(self) -> None:
        """Let all producers end."""
        for producer in self.producers:
            producer.ended.set()
        for producer in self.producers:
            producer.join(10)
            assert not producer.is_alive(), f"{producer.name} hangs"
        self.check()

    def figures(self) -> dict[str, float]:
        """Return the figures since `forget`: decisions in ms, polls in s."""
        decisions = [ns / 1e6 for producer in self.producers for ns in producer.durations_ns]
        polls = [seconds for producer in self.producers for seconds in producer.polls]
        return {
            "decisions": len(decisions),
            "decision_p999_ms": statistics.quantiles(decisions, n=1000)[-1],
            "decision_max_ms": max(decisions),
            "poll_max_s": max(polls),
        }
