"""The event that ends sleeps: a signal handler may set it while its own thread waits."""

from __future__ import annotations

import itertools
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from backpressure._model.clock import Wake
from support.tracing import run_traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def interrupt(work: Callable[[], object], handler: Callable[[], object], instruction: int) -> bool:
    """Run `work`, and `handler` before one of its instructions; tell whether that one was reached."""
    left = instruction

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                handler()
        return trace

    run_traced(work, trace)
    return left < 0


@pytest.mark.timeout(10)
@pytest.mark.parametrize("act", ["wait", "set", "clear"])
def test_a_handler_may_set_it_at_any_instruction(act: str) -> None:
    for instruction in itertools.count():
        wake = Wake()
        acts: dict[str, Callable[[], object]] = {"wait": partial(wake.wait, 0), "set": wake.set, "clear": wake.clear}
        reached = interrupt(acts[act], wake.set, instruction)
        if reached and act != "clear":
            assert wake.is_set()
            assert wake.wait()  # not lost
        if not reached:
            assert instruction > 5
            return
        # It works after any end.
        wake.clear()
        assert not wake.wait(0)
        wake.set()
        assert wake.wait()


@pytest.mark.timeout(10)
def test_a_signal_ends_the_wait_of_the_thread_that_handles_it() -> None:
    wake = Wake()
    before = signal.signal(signal.SIGUSR1, lambda *_: wake.set())
    try:
        timer = threading.Timer(0.05, signal.pthread_kill, [threading.get_ident(), signal.SIGUSR1])
        timer.start()
        assert wake.wait()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_it_stays_set_until_it_is_cleared() -> None:
    wake = Wake()
    assert "unset" in repr(wake)
    wake.set()
    wake.set()
    assert [wake.wait(), wake.wait(0), wake.is_set()] == [True, True, True]
    wake.clear()
    assert [wake.wait(0), wake.wait(-1), wake.is_set()] == [False, False, False]
