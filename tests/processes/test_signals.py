"""Signals that come while a producer sleeps an advised delay: the sleep ends at once, in the way its process chose."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from processes.conftest import Python

# A sleep of a minute, during which the process sends itself the signal.
SLEEPER = """
import os, signal, sys, threading, time
from backpressure import *

config = BackpressureConfig(curve=CurveConfig(yellow_max_delay=60, red_max_delay=60))
controller = BackpressureController(config, InMemoryStatsProvider({"jobs": 4_999}))
asynchronous = AsyncBackpressureController(config, InMemoryStatsProvider({"jobs": 4_999}))

def interrupt():
    while not any(any(it._sleeper._sleepers.values()) for it in (controller, asynchronous)):
        time.sleep(0.001)
    time.sleep(0.01)  # until it sleeps in earnest
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))

threading.Thread(target=interrupt, daemon=True).start()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_by_default_it_ends_the_process(python: Python, name: str) -> None:
    code = """
with controller:
    controller.run("medium", "jobs", print, "went")
    """
    ended = python(SLEEPER + code, name)
    assert (ended.returncode, ended.stdout) == (-getattr(signal, name), "")


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        ("sys.exit(3)", "SystemExit\n"),
        ("controller.stop()", "ControllerStoppedError\n"),
        ("controller.set_manual_override(True)", "went\n"),
    ],
)
def test_a_handler_decides(python: Python, handler: str, told: str) -> None:
    code = f"""
signal.signal(signal.SIGTERM, lambda *_: {handler})
try:
    with controller:
        controller.run("medium", "jobs", print, "went")
except BaseException as error:
    print(type(error).__name__)
    """
    ended = python(SLEEPER + code, "SIGTERM")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, told, "")


def test_ctrl_c_ends_a_task(python: Python) -> None:
    code = """
import asyncio

async def main():
    async with asynchronous:
        try:
            await asynchronous.run("medium", "jobs", print, "went")
        finally:
            print("ended")

asyncio.run(main())
    """
    ended = python(SLEEPER + code, "SIGINT")
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "ended\n")


def test_a_handler_of_the_event_loop_stops_the_controller(python: Python) -> None:
    code = """
import asyncio

async def main():
    async with asynchronous:
        stop = lambda: tasks.append(asyncio.ensure_future(asynchronous.stop()))
        tasks = []
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        try:
            await asynchronous.run("medium", "jobs", print, "went")
        except ControllerStoppedError:
            print("stopped")

asyncio.run(main())
    """
    ended = python(SLEEPER + code, "SIGTERM")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped\n", "")
