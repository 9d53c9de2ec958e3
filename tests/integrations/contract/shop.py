"""A framework's app on a real server, before a controller that sees an overload of its queue, or no backlog."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from backpressure.testing import ManualClock
from integrations.contract.driver import done
from integrations.contract.framework import QUEUE
from integrations.jobs import errands, ran
from integrations.overload import CONFIG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import redis

    from backpressure import BackpressureConfig
    from integrations.contract.driver import Driver, Outcome
    from integrations.contract.framework import Framework

#: A queue of the controller's, in which nothing waits.
CALM = "calm"


class Shop:
    """What a promise is tried with."""

    def __init__(
        self,
        framework: Framework,
        app: Any,
        controller: Any,
        clock: ManualClock,
        server: redis.Redis,
        registry: CollectorRegistry,
    ) -> None:
        self.framework = framework
        self.app = app
        self.controller = controller
        self.clock = clock
        self.server = server
        self._registry = registry

    @property
    def driver(self) -> Driver:
        return self.framework.driver

    async def hook(self, priority: Any = "low", **options: Any) -> None:
        """Hook the app."""
        self.app = await done(self.framework.hook(self.app, self.controller, priority=priority, **options))

    async def hook_all_but_important(self, priority: str = "low", **options: Any) -> None:
        """Hook the app, such that the job ``important`` is HIGH."""
        await self.hook({self.framework.name("important"): "high", "*": priority}, **options)

    async def send(self, job: str = "work") -> None:
        await done(self.framework.send(self.app, job))

    async def everywhere(self) -> dict[str, Outcome]:
        """Send from everywhere; return what that raised."""
        return await self.driver.everywhere(self.send)

    @property
    def waiting(self) -> int:
        """How many jobs lie in the framework's queue."""
        return sum(_length(self.server, key) for key in self.framework.keys)

    @property
    def decided(self) -> int:
        """How many decisions are counted."""
        return sum(self.counted("decisions", "priority", "reason").values())

    @property
    def shed(self) -> int:
        """How many jobs are counted that were shed."""
        return sum(self.counted("shed_events", "priority").values())

    @property
    def passed(self) -> dict[tuple[str, str], int]:
        """How many jobs have passed, by queue and why."""
        told = self.controller.health()["passed"]
        return {(queue, why): count for queue, counts in told.items() for why, count in counts.items()}

    @property
    def failures(self) -> int:
        """How many failures in a row the breaker of the queue has seen."""
        return int(self.controller.circuit(QUEUE).stats()["failure_count"])

    def counted(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """Return what a metric of the controller counts, by these of its labels."""
        found = Counter[tuple[str, ...]]()
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name == f"backpressure_{name}_total":
                    found[tuple(sample.labels[label] for label in labels)] += int(sample.value)
        return +found

    @contextlib.contextmanager
    def nothing_reaches_the_server(self) -> Iterator[None]:
        """Assert that the body sends no command, nor leaves anything behind."""
        keys, processed = set(self.server.keys()), self._processed()
        yield
        assert self._processed() == processed + 1, "a command was sent"  # the one that asked
        assert set(self.server.keys()) == keys

    def _processed(self) -> int:
        told: Any = self.server.info("stats")
        return int(told["total_commands_processed"])

    @contextlib.contextmanager
    def full_server(self) -> Iterator[None]:
        """Have the server refuse every write, as one does that is out of memory."""
        self.server.config_set("maxmemory", 1)
        try:
            yield
        finally:
            self.server.config_set("maxmemory", 0)


class OpenShop:
    """Opens a framework's shop on the server and the engine under test."""

    def __init__(self, framework: Framework, engine_name: str, url: str, server: redis.Redis) -> None:
        self._framework = framework
        self._engine_name = engine_name
        self._url = url
        self._server = server

    def controller(self, **options: Any) -> Any:
        """Make a controller of the kind that the framework's hook wants, which is not started."""
        driver = self._framework.driver
        provider = options.pop("provider", None) or driver.provider(self._url, [QUEUE], **options.pop("reading", {}))
        return driver.controller(options.pop("config", None), provider, _engine=self._engine_name, **options)

    @contextlib.asynccontextmanager
    async def __call__(
        self,
        *,
        clock: ManualClock | None = None,
        config: BackpressureConfig = CONFIG,
        start: bool = True,
    ) -> AsyncIterator[Shop]:
        ran.clear()
        errands.clear()
        framework, registry = self._framework, CollectorRegistry()
        clock = clock or ManualClock(sleep_advances=True)
        provider = framework.driver.provider(self._url, {name: framework.layout(name) for name in (QUEUE, CALM)})
        async with framework.open(self._url) as app:
            controller = self.controller(provider=provider, config=config, clock=clock, registry=registry)
            if start:
                await done(controller.start())
            try:
                yield Shop(framework, app, controller, clock, self._server, registry)
            finally:
                await done(controller.stop())
                await done((getattr(provider, "aclose", None) or provider.close)())


def _length(server: redis.Redis, key: str) -> int:
    kind: Any = server.type(key)
    count = {b"stream": server.xlen, b"zset": server.zcard}.get(kind, server.llen)
    return int(str(count(key)))
