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


FORKS = """
import os, sys, time, warnings

alone = []
os.register_at_fork(before=lambda: alone.append(len(os.listdir("/proc/self/task"))))  # runs last

import asyncio
from backpressure import *

class Provider:
    async def get_queue_stats(self, queue_name):
        return QueueStats(queue_name, 3)

    async def get_all_queue_stats(self):
        return {"jobs": QueueStats("jobs", 3)}

warnings.simplefilter("error")
polling = PollingConfig(interval=0.05, jitter=0, timeout=0.05, max_backoff=0.05)
config = BackpressureConfig(polling=polling)
provider = InMemoryStatsProvider({"jobs": 0})
controller = BackpressureController(config, provider)
controller.start()
loop = asyncio.new_event_loop()
asynchronous = AsyncBackpressureController(config, Provider())
loop.run_until_complete(asynchronous.start())
assert len(os.listdir("/proc/self/task")) > 1
for number in range(20):
    if os.fork() == 0:
        os._exit(controller.suggest_throttle("low", "jobs").backlog_size != number)
    assert os.wait()[1] == 0
    provider.set("jobs", number + 1)
    time.sleep(number % 5 * 0.01)  # forks come at any moment of a poll
assert controller.health()["poller_alive"]
while controller.health()["queues"]["jobs"]["backlog"] != 20:
    time.sleep(0.001)
assert loop.run_until_complete(asynchronous.suggest_throttle("low", "jobs")).backlog_size == 3
loop.run_until_complete(asynchronous.stop())
loop.close()
controller.stop()
print(set(alone))
"""


def test_a_fork_finds_no_thread_of_ours_and_the_poller_comes_back(python: Python) -> None:
    """Python 3.12 warns of a fork where there are threads: it may not find one that we started."""
    ended = python(FORKS)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "{1}\n", "")


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_child_that_was_not_started_names_the_cause(python: Python, how: str) -> None:
    code = """
import multiprocessing, sys
from backpressure import BackpressureController, ControllerNotStartedError, InMemoryStatsProvider

controller = BackpressureController(None, InMemoryStatsProvider())

def enqueue():
    try:
        controller.run("low", "mail", print)
    except ControllerNotStartedError as error:
        print(error)

if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[1]).Process(target=enqueue)
    child.start()
    child.join()
"""
    ended = python(SAVED.format(code=code), how)
    cause = {"fork": "this process was forked from process ", "spawn": "multiprocessing started this process, which "}
    assert ended.stderr == ""
    assert f"the controller is not started ({cause[how]}" in ended.stdout


# A spawned process imports its main module, which must be a file.
SAVED = """
import pathlib, runpy, sys, tempfile
with tempfile.TemporaryDirectory() as folder:
    program = pathlib.Path(folder, "program.py")
    program.write_text({code!r})
    import subprocess
    done = subprocess.run([sys.executable, program, *sys.argv[1:]], capture_output=True, text=True)
    print(done.stdout)
    print(done.stderr, file=sys.stderr, end="")
"""


def test_each_child_is_on_its_own_side_of_a_share(python: Python) -> None:
    ended = python("""
import os
from backpressure import *

provider = InMemoryStatsProvider({"full": 100_000})
with BackpressureController(BackpressureConfig(enforce_share=0.5), provider) as controller:
    def side():
        enforces = controller.health()["enforces"]
        assert controller.suggest_throttle("low", "full").should_shed == enforces
        return enforces

    before, sides = side(), []
    for _ in range(40):
        child = os.fork()
        if child == 0:
            controller.start()
            enforces = side()
            controller.stop()
            os._exit(10 + enforces)
        sides.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) - 10)
    assert side() == before
    assert set(sides) == {0, 1}, sides  # that all are on one side happens once in 500 billion times
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
