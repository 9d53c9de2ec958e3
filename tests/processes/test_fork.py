"""Processes made by `fork`, at any moment, and by multiprocessing's other ways: all of them decide and end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from processes.conftest import Python, Waiting


@pytest.mark.parametrize(
    ("method", "start"), [("fork", "import"), ("fork", "request"), ("spawn", "import"), ("forkserver", "import")]
)
def test_multiprocessing(python: Python, redis_url: str, waiting: Waiting, method: str, start: str) -> None:
    code = "import sys; from processes.children import main; main(sys.argv[1])"
    ended = python(code, method, TEST_REDIS_URL=redis_url, TEST_START=start)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "fresh\n", "")


def test_forks_while_threads_are_at_work(python: Python) -> None:
    """A child finds no lock held and no count torn, no matter what its parent's threads were doing."""
    ended = python("""
import faulthandler, os, sys, threading, traceback
from prometheus_client import CollectorRegistry, generate_latest
from backpressure import *

sys.setswitchinterval(1e-6)
provider = InMemoryStatsProvider({"jobs": 0, "busy": 3_500})
polling = PollingConfig(interval=0.05, jitter=0, timeout=0.05, max_backoff=0.05)
registry = CollectorRegistry()
controller = BackpressureController(BackpressureConfig(polling=polling), provider, registry=registry)
controller.start()
ended = threading.Event()

def work(number):
    while not ended.is_set():
        controller.run("low", "jobs", int)
        controller.record_failure("broken")
        controller.set_manual_override(False)
        controller._engine.put_sample("jobs", number, controller._engine.now_ns())
        controller.health()
        generate_latest(registry)  # whose lock a child may find held: it is not asked for there

def live():
    for _ in range(10):
        controller.run("low", "jobs", int)
        controller.suggest_throttle("medium", "busy")
        controller.record_failure("broken")
        controller.circuit("broken").reset()
        controller.set_manual_override(False)
    controller.refresh("jobs")
    controller.health()
    controller.start()
    controller.stop()

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
try:
    for _ in range(50):
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(10, exit=True)
            try:
                live()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
finally:
    ended.set()
for thread in threads:
    thread.join()
controller.stop()
print("all ended")
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "all ended\n", "")
