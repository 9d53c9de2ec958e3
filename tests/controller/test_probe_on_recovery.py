"""A circuit is probed at once when the statistics of its queue return, where both lie on one server: end to end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    CircuitConfig,
    CircuitOpenError,
    InMemoryStatsProvider,
    PollingConfig,
    QueueConfig,
    StatsUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from backpressure import QueueStats
    from backpressure._engine.border import EngineModule
    from backpressure.testing import ManualClock

OUTAGE = StatsUnavailableError("no server", error_type="connect")
ON = CircuitConfig(failure_threshold=2, recovery_threshold=1)
OFF = CircuitConfig(failure_threshold=2, recovery_threshold=1, probe_on_recovery=False)


class Shared(InMemoryStatsProvider):
    """Reads the server that jobs are sent to."""

    shares_server = True


class AsyncShared:
    """The same for asyncio."""

    shares_server = True

    def __init__(self, backlogs: Mapping[str, int]) -> None:
        self._inner = Shared(backlogs)
        self.fail_with = self._inner.fail_with

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        return self._inner.get_queue_stats(queue_name)

    async def get_all_queue_stats(self) -> Any:
        return self._inner.get_all_queue_stats()


async def fail() -> None:
    raise ConnectionError("no server")


async def send() -> str:
    return "receipt"


class InSync:
    """A `BackpressureController`, awaited as the other."""

    def __init__(self, controller: BackpressureController) -> None:
        self._controller = controller
        self.circuit = controller.circuit

    async def run(self, queue_name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        return await asyncio.to_thread(self._controller.run, "high", queue_name, lambda: asyncio.run(_do(work)))

    async def poll(self) -> bool:
        return await asyncio.to_thread(self._controller._poller.poll)

    async def refresh(self, queue_name: str) -> bool:
        return await asyncio.to_thread(self._controller.refresh, queue_name)


class InAsync:
    """An `AsyncBackpressureController`."""

    def __init__(self, controller: AsyncBackpressureController) -> None:
        self._controller = controller
        self.circuit, self.refresh = controller.circuit, controller.refresh

    async def run(self, queue_name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        return await self._controller.run("high", queue_name, work)

    async def poll(self) -> bool:
        return await asyncio.to_thread(self._controller._poller.poll)


async def _do(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


class Site:
    """Runs a story on one engine with one kind of controller."""

    def __init__(self, kind: str, engine_name: str, clock: ManualClock) -> None:
        self._kind, self._engine, self._clock = kind, engine_name, clock
        self.provider: Any = Shared({"mail": 0, "other": 0})
        if kind == "async, awaited":
            self.provider = AsyncShared({"mail": 0, "other": 0})

    def tell(self, story: Callable[[InSync | InAsync], Awaitable[None]], circuit: CircuitConfig, **own: Any) -> None:
        # The background has no part in this.
        config = BackpressureConfig(circuit=circuit, polling=PollingConfig(interval=1_000), queues=own)
        options: dict[str, Any] = {"clock": self._clock, "_engine": self._engine}

        async def main() -> None:
            async with AsyncBackpressureController(config, self.provider, **options) as controller:
                await story(InAsync(controller))

        if self._kind == "sync":
            with BackpressureController(config, self.provider, **options) as controller:
                asyncio.run(_do(lambda: story(InSync(controller))))
        else:
            asyncio.run(main())


@pytest.fixture(params=["sync", "async", "async, awaited"])
def site(request: pytest.FixtureRequest, engine_name: str, engine_module: EngineModule, clock: ManualClock) -> Site:
    return Site(request.param, engine_name, clock)


async def lose(at: InSync | InAsync, *names: str) -> None:
    """Open the circuits of these queues."""
    for name in names:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await at.run(name, fail)
        assert str(at.circuit(name).state) == "open"


async def is_refused(at: InSync | InAsync, name: str) -> bool:
    try:
        assert await at.run(name, send) == "receipt"
    except CircuitOpenError:
        return True
    return False


def test_the_first_good_read_makes_the_next_job_the_probe(site: Site) -> None:
    async def story(at: InSync | InAsync) -> None:
        await lose(at, "mail")
        assert await at.refresh("mail")
        assert await is_refused(at, "mail"), "no read has failed since"
        site.provider.fail_with(OUTAGE)
        assert not await at.poll()
        assert await is_refused(at, "mail")
        site.provider.fail_with(None)
        assert await at.poll()
        assert at.circuit("mail").stats()["time_until_recovery"] == 0
        assert not await is_refused(at, "mail")
        assert str(at.circuit("mail").state) == "closed"

    site.tell(story, ON)


def test_a_probe_that_fails_waits_for_the_next_return(site: Site) -> None:
    async def story(at: InSync | InAsync) -> None:
        await lose(at, "mail")
        for _ in range(2):
            site.provider.fail_with(OUTAGE)
            assert not await at.poll()
            site.provider.fail_with(None)
            assert await at.poll()
            with pytest.raises(ConnectionError):
                await at.run("mail", fail)
            assert await at.poll()
            assert await is_refused(at, "mail")

    site.tell(story, ON)


def test_reads_of_one_queue_hasten_no_other(site: Site) -> None:
    async def story(at: InSync | InAsync) -> None:
        await lose(at, "mail", "other")
        site.provider.fail_with(OUTAGE, "mail")
        assert not await at.refresh("mail")
        site.provider.fail_with(None, "mail")
        assert await at.poll()
        assert [await is_refused(at, name) for name in ("mail", "other")] == [False, True]

    site.tell(story, ON)


@pytest.mark.parametrize(("shared", "own"), [(ON, OFF), (OFF, ON)])
def test_each_queue_has_its_own_switch(site: Site, shared: CircuitConfig, own: CircuitConfig) -> None:
    async def story(at: InSync | InAsync) -> None:
        await lose(at, "mail", "other")
        site.provider.fail_with(OUTAGE)
        assert not await at.poll()
        site.provider.fail_with(None)
        assert await at.poll()
        refused = {name: await is_refused(at, name) for name in ("mail", "other")}
        assert refused == {"mail": not own.probe_on_recovery, "other": not shared.probe_on_recovery}

    site.tell(story, shared, mail=QueueConfig(circuit=own))


def test_what_lies_elsewhere_says_nothing_of_where_jobs_are_sent(site: Site) -> None:
    site.provider.shares_server = False

    async def story(at: InSync | InAsync) -> None:
        await lose(at, "mail")
        site.provider.fail_with(OUTAGE)
        assert not await at.poll()
        site.provider.fail_with(None)
        assert await at.poll()
        assert await is_refused(at, "mail")

    site.tell(story, ON)


def test_what_is_forced_open_stays_so(site: Site) -> None:
    async def story(at: InSync | InAsync) -> None:
        at.circuit("mail").force_open()
        site.provider.fail_with(OUTAGE)
        assert not await at.poll()
        site.provider.fail_with(None)
        assert await at.poll()
        assert await is_refused(at, "mail")

    site.tell(story, ON)
