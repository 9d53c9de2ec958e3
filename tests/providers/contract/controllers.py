"""What controllers make of every provider."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import AsyncBackpressureController, BackpressureConfig, JobShedError, PollingConfig, Reason
from providers.checks import backlogs, failure
from providers.contract.backend import HANGS
from providers.contract.reading import held_by
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from backpressure._engine.border import EngineModule
    from providers.contract.backend import Backend
    from support.controller_fixtures import MakeController

TIGHT = BackpressureConfig.from_mapping(
    {"thresholds": {"low_priority": {"green_max": 1, "yellow_max": 2, "red_max": 10}}}
)
QUICK = TIGHT.evolve(
    {
        "polling": PollingConfig(interval=0.2, jitter=0, timeout=0.2, max_backoff=0.4, cache_ttl=0.5),
        "recovery.graceful_degrade": 0,
    }
)


class Controllers:
    def test_low_is_shed_and_high_passes(self, backend: Backend, make_controller: MakeController) -> None:
        backend.fill({"mail": 0})
        with backend.opened("mail") as provider:
            controller = make_controller(provider, TIGHT)
            assert controller.run("low", "mail", int) == 0
            backend.fill({"mail": 20})
            assert controller.refresh("mail")
            with pytest.raises(JobShedError, match="backlog of 20"):
                controller.run("low", "mail", int)
            assert controller.run("high", "mail", int) == 0
            backend.fill({"mail": 0})
            assert controller.refresh("mail")
            decision = controller.suggest_throttle("low", "mail")
            assert (decision.should_shed, decision.backlog_size) == (False, 0)
            assert controller.run("low", "mail", int) == 0
            assert controller.health()["provider"] == "ok"

    def test_a_frozen_server_holds_no_producer(self, backend: Backend, make_controller: MakeController) -> None:
        backend.fill({"mail": 20})
        with backend.opened("mail", timeout=HANGS) as provider:
            controller = make_controller(provider, QUICK, clock=None)
            eventually(lambda: controller.suggest_throttle("low", "mail").reason == Reason.BACKLOG_RED_SHED)
            with backend.frozen():
                begun = time.monotonic()
                eventually(lambda: not controller.refresh("mail"))
                assert time.monotonic() - begun < 5
                eventually(lambda: controller.suggest_throttle("low", "mail").reason == Reason.FALLBACK_CONSERVATIVE)
                assert not controller.suggest_throttle("low", "mail").should_shed
                eventually(lambda: controller.health()["provider"] == "deadline")
            eventually(lambda: controller.suggest_throttle("low", "mail").reason == Reason.BACKLOG_RED_SHED)
            eventually(lambda: controller.health()["provider"] == "ok")

    def test_a_server_that_restarts(self, backend: Backend, make_controller: MakeController) -> None:
        backend.fill({"mail": 20})
        with backend.opened("mail") as provider:
            controller = make_controller(provider, TIGHT)
            assert controller.suggest_throttle("low", "mail").should_shed
            backend.process.kill()
            try:
                begun = time.monotonic()
                assert failure(provider.get_all_queue_stats).error_type == "connect"
                assert time.monotonic() - begun < 5
                assert not controller.refresh("mail")
            finally:
                backend.process.start()
            backend.fill({"mail": 0})
            assert backlogs(provider.get_all_queue_stats()) == {"mail": 0}
            assert controller.refresh("mail")
            assert controller.suggest_throttle("low", "mail").delay == 0

    def test_an_asyncio_controller(self, backend: Backend, engine_name: str, engine_module: EngineModule) -> None:
        async def main(provider: Any) -> None:
            config = QUICK.evolve({"polling.cache_ttl": 30})
            async with AsyncBackpressureController(config, provider, _engine=engine_name) as controller:

                async def until(backlog: int) -> None:
                    async with asyncio.timeout(10):
                        while (await controller.suggest_throttle("low", "mail")).backlog_size != backlog:
                            await asyncio.sleep(0.01)

                await until(20)
                with pytest.raises(JobShedError, match="backlog of 20"):
                    await controller.run("low", "mail", int)
                assert await controller.run("high", "mail", int) == 0
                assert (await controller.suggest_throttle("high", "mail")).delay == 0
                with backend.frozen() if can_freeze else contextlib.nullcontext():
                    await asyncio.sleep(0.5)  # polls are ended meanwhile
                await asyncio.to_thread(backend.fill, {"mail": 0})
                await until(0)
                assert await controller.refresh("mail")
                assert (await controller.suggest_throttle("low", "mail")).delay == 0

        can_freeze = "Faults" not in backend.not_promised
        backend.fill({"mail": 20})
        with backend.opened("mail", timeout=HANGS) as provider:
            asyncio.run(main(held_by(provider)))
