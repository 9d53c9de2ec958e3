"""The threads that look: they outlive errors, begin anew after a fork, and keep nobody from ending."""

from __future__ import annotations

import contextlib
import gc
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureConfig, InMemoryStatsProvider
from backpressure.console import app
from backpressure.console.board import Board
from backpressure.console.sampler import Sampler
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
START = """
import os, sys
from backpressure import BackpressureConfig, InMemoryStatsProvider
from backpressure.console import app

console = app(BackpressureConfig(), InMemoryStatsProvider({"mail": 5}), queues=["mail"], interval=0.1)
board, sampler = console._board, console._sampler

def looked():
    import time
    before = 0 if board.frame() is None else board.frame().number
    end = time.monotonic() + 20
    while board.frame() is None or board.frame().number == before:
        assert time.monotonic() < end
        time.sleep(0.01)

sampler.ensure()
looked()
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START + code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextlib.contextmanager
def _nothing() -> Iterator[Any]:
    yield object()


def test_a_look_that_fails_is_logged_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[int] = []
    done = threading.Event()

    def show(_watch: object, _now: float) -> None:
        looks.append(1)
        if len(looks) == 1:
            raise RuntimeError("broken once")
        done.set()

    sampler = Sampler(_nothing, show, Board(), 0.01)
    with caplog.at_level(logging.ERROR):
        sampler.ensure()
        assert done.wait(20)
    sampler.close()
    assert [record.name for record in caplog.records] == ["backpressure.console"]


def test_one_thread_whoever_asks_and_none_after_the_end() -> None:
    board = Board()
    sampler = Sampler(_nothing, lambda _watch, _now: None, board, 0.01, lambda: None)
    before = set(threading.enumerate())
    for _ in range(5):
        sampler.ensure()
    assert len(set(threading.enumerate()) - before) == 2
    sampler.close()
    sampler.close()
    assert board.closed
    eventually(lambda: not set(threading.enumerate()) - before)
    sampler.ensure()
    eventually(lambda: not board.closed)
    sampler.close()


def test_a_console_that_is_dropped_looks_no_more() -> None:
    console = app(BackpressureConfig(), InMemoryStatsProvider({"mail": 5}), queues=["mail"], interval=0.1)
    before = set(threading.enumerate())
    console._sampler.ensure()
    started = set(threading.enumerate()) - before
    assert started
    del console
    gc.collect()
    eventually(lambda: not any(thread.is_alive() for thread in started))


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork here")
def test_a_forked_child_looks_by_itself() -> None:
    said = run(
        "import warnings; warnings.simplefilter('ignore')\n"
        "if os.fork() == 0:\n"
        "    sampler.ensure(); looked(); print('child looks', flush=True); os._exit(0)\n"
        "os.wait(); looked(); print('parent looks')\n"
    )
    assert said == "child looks\nparent looks\n"


def test_the_interpreter_ends_while_it_looks() -> None:
    assert run("print('end')") == "end\n"
