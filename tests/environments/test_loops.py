"""On other event loops of asyncio's kind, and on a loop for each call."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from backpressure import AsyncBackpressureController, BackpressureConfig, PollingConfig, QueueStats
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = BackpressureConfig(polling=PollingConfig(interval=5, jitter=0))


class Awaited:
    """An asynchronous provider."""

    def __init__(self, *, loop_bound: bool = False) -> None:
        self.loop_bound = loop_bound
        self.backlog = 0

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        await asyncio.sleep(0)
        return QueueStats(queue_name, self.backlog)

    async def get_all_queue_stats(self) -> dict[str, QueueStats]:
        return {"q": await self.get_queue_stats("q")}


def new_uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


LOOPS = [asyncio.new_event_loop] if sys.platform == "win32" else [asyncio.new_event_loop, new_uvloop]


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("loop_bound", [False, True])
def test_a_loop_for_each_call(
    engine_name: str, new_loop: Callable[[], asyncio.AbstractEventLoop], loop_bound: bool
) -> None:
    clock, provider = ManualClock(), Awaited(loop_bound=loop_bound)
    controller = AsyncBackpressureController(CONFIG, provider, clock=clock, _engine=engine_name)

    def each_alone(call: Callable[[], object]) -> object:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(call())  # type: ignore[arg-type]

    each_alone(controller.start)
    for backlog in (700, 0, 5_000, 3):
        provider.backlog = backlog
        clock.advance(5.001)
        decision = each_alone(lambda: controller.suggest_throttle("medium", "q"))
        assert decision.backlog_size == backlog  # type: ignore[attr-defined]
    assert each_alone(lambda: controller.run("low", "q", int)) == 0
    each_alone(controller.stop)
