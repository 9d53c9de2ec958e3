"""A process that ends without `stop` ends at once and in silence, whatever its poller is doing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from processes.conftest import Python

PRODUCER = """
import logging, sys, threading
from backpressure import *

config = BackpressureConfig(polling=PollingConfig(interval=0.05, jitter=0, timeout=0.05, max_backoff=0.05))

class Provider:
    def get_queue_stats(self, name):
        return QueueStats(name, 0)

    def get_all_queue_stats(self):
        return {}

class Failing(Provider):
    def get_all_queue_stats(self):
        raise StatsUnavailableError("no server")

class Hanging(Provider):
    def get_all_queue_stats(self):
        polls.release()
        threading.Event().wait()

polls = threading.Semaphore(0)
"""


@pytest.mark.parametrize("provider", ["Provider", "Failing", "Hanging"])
@pytest.mark.parametrize(("way", "code"), [("pass", 0), ("sys.exit(3)", 3)])
def test_with_a_running_poller(python: Python, provider: str, way: str, code: int) -> None:
    began = time.monotonic()
    ended = python(f"""{PRODUCER}
logging.basicConfig(level=logging.CRITICAL)
controller = BackpressureController(config, {provider}())
controller.start()
assert controller.run("low", "jobs", int, "3") == 3
if {provider!r} == "Hanging":
    polls.acquire(), polls.acquire()
{way}
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")
    assert time.monotonic() - began < 10


def test_with_a_poller_on_an_event_loop_that_is_gone(python: Python) -> None:
    ended = python(f"""{PRODUCER}
import asyncio
controller = AsyncBackpressureController(config, Provider())
asyncio.run(controller.start())
assert asyncio.run(controller.run("low", "jobs", int, "3")) == 3
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_with_threads_that_go_on_deciding(python: Python) -> None:
    ended = python(f"""{PRODUCER}
controller = BackpressureController(config, Provider())
controller.start()

def decide():
    while True:
        decision = controller.suggest_throttle("low", "jobs")
        controller.record_success(decision)
        started.set()

started = threading.Event()
for _ in range(4):
    threading.Thread(target=decide, daemon=True).start()
started.wait()
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("call", ["controller.run('medium', 'jobs', work)", "gate.run(work)"])
@pytest.mark.parametrize("backlog", [0, 2_000], ids=["in the work", "in a throttle sleep"])
def test_with_daemons_inside_a_run(python: Python, call: str, backlog: int) -> None:
    """Before Python 3.14 they are ended by unwinding their stacks, the native engine's frames too."""
    ended = python(f"""{PRODUCER}
controller = BackpressureController(config, InMemoryStatsProvider({{"jobs": {backlog}}}))
controller.start()
begun = threading.Semaphore(0)
gate = controller.gate("medium", "jobs")

def work():
    begun.release()

def decide():
    while True:
        {call}

for _ in range(4):
    threading.Thread(target=decide, daemon=True).start()
if {backlog}:
    threading.Event().wait(0.2)  # for all to be asleep
else:
    for _ in range(1_000):
        begun.acquire()
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
