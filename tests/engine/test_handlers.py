"""A signal handler may stop or switch a controller wherever it interrupts its thread: nothing hangs or is undone.

Only the pure engine can be interrupted in its midst.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import backpressure
from backpressure import (
    BackpressureConfig,
    BackpressureController,
    CircuitConfig,
    ControllerStoppedError,
    InMemoryStatsProvider,
    Reason,
)
from backpressure.testing import ManualClock
from support.tracing import run_traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

ENGINE = str(Path(backpressure.__file__).parent / "_engine")
# Of two lines in here, CPython runs no signal handler before the second.
WHOLE = {"_swap"}
FILES = {"engine", "call", "table", "mode", "queue", "breaker", "counters", "draft", "three_zone", "settings", "sync"}
CONFIG = BackpressureConfig(circuit=CircuitConfig(failure_threshold=2, recovery_threshold=1), max_queues=2).evolve(
    {"polling.enabled": False}  # whose thread would be one more to wait for
)


class _At:
    """Calls a handler before the n-th line of the engine that this thread comes to for the first time, once."""

    def __init__(self, n: int, handler: Callable[[], object]) -> None:
        self.left = n
        self.handler = handler
        self.seen: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> _At | None:
        if not frame.f_code.co_filename.startswith(ENGINE) or frame.f_code.co_name in WHOLE:
            return None
        place = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and place not in self.seen:
            self.seen.add(place)
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self.handler()
        return self


def life(controller: BackpressureController, clock: ManualClock) -> None:
    """Go through every change that producers cause."""
    for queue_name in ("green", "red", "empty"):
        controller.suggest_throttle("medium", queue_name)
        clock.advance(301)  # idle queues make room
    controller.reconfigure(CONFIG.evolve({"curve.shed_permille": 700}))
    controller.set_manual_override(True, for_=1)
    clock.advance(2)
    controller.refresh("green")
    controller.run("high", "green", bool)
    for _ in range(2):
        controller.record_failure("green")
    clock.advance(61)
    controller.run("high", "green", bool)


def interrupted(handler: Callable[[BackpressureController], object], n: int) -> tuple[BackpressureController, _At]:
    """Return a controller whose life a handler interrupted at its n-th line, if it has that many."""
    clock = ManualClock(sleep_advances=True)
    provider = InMemoryStatsProvider({"green": 0, "red": 3_000, "empty": 0})
    # No fixture's, for one that hangs could not be stopped.
    controller = BackpressureController(CONFIG, provider, clock=clock, _engine="pure")
    controller.start()
    at = _At(n, lambda: handler(controller))

    def live() -> None:
        with contextlib.suppress(ControllerStoppedError, backpressure.CircuitOpenError):
            run_traced(lambda: life(controller, clock), at)

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), f"hangs when interrupted at line {n}"
    return controller, at


HANDLERS: dict[str, Callable[[BackpressureController], object]] = {
    "stop": lambda controller: controller.stop(),
    "emergency": lambda controller: controller.set_emergency_mode(True),
    "force open": lambda controller: controller.circuit("green").force_open(),
}


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_holds_wherever_it_interrupts(name: str) -> None:
    n, reached = 0, True
    while reached:
        n += 1
        controller, at = interrupted(HANDLERS[name], n)
        reached = at.left <= 0
        if not reached:
            assert {Path(file).stem for file, _ in at.seen} >= FILES
        elif name == "stop":
            with pytest.raises(ControllerStoppedError):
                controller.suggest_throttle("low", "green")
        elif name == "emergency":
            assert controller.suggest_throttle("low", "red").reason is Reason.EMERGENCY_MODE, n
        elif name == "force open":
            stats = controller.circuit("green").stats()
            assert (stats["state"], stats["forced"]) == ("open", True), n
        controller.stop()
    assert n > 100
