"""What a signal handler raises, wherever it interrupts who asks for a read, leaves no read claimed for ever."""

from __future__ import annotations

import asyncio
import contextlib
import dis
import gc
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

import backpressure
from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    PollingConfig,
    QueueStats,
)
from support.tracing import run_traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

PACKAGE = Path(backpressure.__file__).parent
FILES = {
    str(PACKAGE / name)
    for name in (
        *("_controller/polling/sights.py", "_controller/polling/deadline.py", "_controller/polling/caller_loop.py"),
        *("_controller/polling/thread.py", "_controller/async_jobs.py", "_controller/jobs.py"),
        *("_runtime/threads.py", "_engine/sync.py"),
    )
}
# If a read stays claimed, its queue has no sample after this many seconds.
CONFIG = BackpressureConfig(polling=PollingConfig(enabled=False, interval=5, timeout=5))


class SoftTimeLimitError(Exception):
    pass


class Interruption(int):
    """Raises at the n-th place, of those that this thread comes to for the first time, where CPython runs handlers.

    As a handler it is called with a number, itself, and the frame that it interrupts.
    """

    def __init__(self, n: int) -> None:
        self.left = n
        self.seen: set[tuple[CodeType, int]] = set()
        self.before: dict[FrameType, int] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> Interruption | None:
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True  # lines, too: without their events Python 3.13 begins late with those of opcodes
        if event == "opcode":
            last, self.before[frame] = self.before.get(frame), frame.f_lasti
            place = (frame.f_code, frame.f_lasti)
            if last is not None and _runs_handlers(frame.f_code, last) and place not in self.seen:
                self.seen.add(place)
                self.left -= 1
                if self.left == 0:
                    sys.settrace(None)
                    raise SoftTimeLimitError
        elif event == "return":
            self.before.pop(frame, None)
        return self


def _runs_handlers(code: CodeType, offset: int) -> bool:
    name = dis.opname[code.co_code[offset]]
    return name.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))


def every_place(live: Callable[[], object], then: Callable[[], object]) -> int:
    """Interrupt `live` at every place, and each time do `then`; return how many places there were."""
    for n in range(1, 5_000):
        at = Interruption(n)
        with contextlib.suppress(SoftTimeLimitError, asyncio.CancelledError, TimeoutError):
            run_traced(live, at)
        then()
        if at.left > 0:
            return n - 1
    raise AssertionError("it has no end")


class Jobs:
    def get_queue_stats(self, queue_name: str) -> QueueStats:
        return QueueStats(queue_name, 9)

    def get_all_queue_stats(self) -> dict[str, QueueStats]:
        return {}


class BoundJobs:
    loop_bound = True

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        await asyncio.sleep(0)
        return QueueStats(queue_name, 9)

    async def get_all_queue_stats(self) -> dict[str, QueueStats]:
        return {}


@pytest.fixture
def names() -> Any:
    """Return a function that gives the present queue's name; `names.next()` goes on to another."""

    class Names:
        number = 0

        def __call__(self) -> str:
            return f"queue-{self.number}"

        def next(self) -> None:
            self.number += 1

    return Names()


def test_a_callers_first_sight(engine_name: str, engine_module: object, names: Any) -> None:
    with BackpressureController(CONFIG, Jobs(), registry=CollectorRegistry(), _engine=engine_name) as controller:

        def then() -> None:
            assert controller.suggest_throttle("high", names()).backlog_size == 9
            names.next()

        assert every_place(lambda: controller.suggest_throttle("high", names()), then) > 20


def test_a_refresh(engine_name: str, engine_module: object, names: Any) -> None:
    with BackpressureController(CONFIG, Jobs(), registry=CollectorRegistry(), _engine=engine_name) as controller:

        def then() -> None:
            assert controller.refresh(names())
            assert not any(controller._poller.reader._running.values())
            names.next()

        assert every_place(lambda: controller.refresh(names()), then) > 20


def test_a_task_leaves_nothing_to_those_after_it(engine_name: str, engine_module: object, names: Any) -> None:
    with asyncio.Runner() as runner, warnings.catch_warnings():  # whose tasks all have one context
        warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines whose caller died before it awaited them
        controller = AsyncBackpressureController(CONFIG, Jobs(), registry=CollectorRegistry(), _engine=engine_name)
        runner.run(controller.start())

        async def ask() -> Any:
            return await controller.suggest_throttle("high", names())

        def then() -> None:
            names.next()
            assert runner.run(ask()).backlog_size == 9
            names.next()

        assert every_place(lambda: runner.run(ask()), then) > 20
        runner.run(controller.stop())
        gc.collect()


@pytest.mark.parametrize("provider", [Jobs, BoundJobs])
def test_a_task(engine_name: str, engine_module: object, names: Any, provider: Any) -> None:
    with asyncio.Runner() as runner, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines whose caller died before it awaited them
        runner.get_loop().set_exception_handler(lambda *_: None)  # a handler may interrupt what nobody awaits
        controller = AsyncBackpressureController(CONFIG, provider(), registry=CollectorRegistry(), _engine=engine_name)
        runner.run(controller.start())

        async def ask() -> Any:
            return await controller.suggest_throttle("high", names())

        def then() -> None:
            assert runner.run(ask()).backlog_size == 9
            names.next()

        # The caller gives up long before a read that died would be reported.
        assert every_place(lambda: runner.run(asyncio.wait_for(ask(), 0.05)), then) > 20
        runner.run(controller.stop())
        gc.collect()
