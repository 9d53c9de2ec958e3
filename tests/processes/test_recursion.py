"""Jobs that run jobs without end: a RecursionError, on stacks where plain Python gets one too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from processes.conftest import Python

PROGRAM = """
import functools, sys, threading
from backpressure import *

controller = BackpressureController(None, InMemoryStatsProvider({"jobs": 0}))
controller.start()
controller.suggest_throttle("low", "jobs")
gate = controller.gate("low", "jobs")

def plain():
    functools.partial(plain)()

def run():
    controller.run("low", "jobs", run)

def run_with_arguments(*args, **kwargs):
    controller.run("low", "jobs", run_with_arguments, *args, **kwargs)

def run_within_max_wait():
    controller.run("low", "jobs", run_within_max_wait, max_wait=1)

def run_by_turns():
    gate.run(controller.run, "low", "jobs", run_by_turns)

def gate_run():
    gate.run(gate_run)

@controller.throttled("low", "jobs")
def throttled():
    throttled()

def slot():
    with controller.slot("low", "jobs"):
        slot()

def entered():
    with gate:
        entered()

def gate_of_itself():
    gate.run(gate.run, gate_of_itself)

def batch():
    [outcome] = controller.process_batch([BatchJob("low", "jobs", batch)]).outcomes

def thread():
    try:
        globals()[sys.argv[1]](*sys.argv[3:])
    except (RecursionError, BatchError):
        print("RecursionError")

threading.stack_size(int(sys.argv[2]) << 10)
thread = threading.Thread(target=thread)
thread.start()
thread.join()
controller.stop()
assert controller.get_circuit_state("jobs") in CircuitState
"""


@pytest.mark.parametrize("kib", [512, 1024])
@pytest.mark.parametrize(
    "work",
    [
        "run",
        "run_within_max_wait",
        "run_by_turns",
        "gate_run",
        "throttled",
        "slot",
        "entered",
        "gate_of_itself",
        "batch",
    ],
)
def test_it_ends(python: Python, work: str, kib: int) -> None:
    """A thread's stack is 1 MiB in Alpine's images of Python."""
    if kib < 1024 and python(PROGRAM, "plain", str(kib)).returncode != 0:
        return  # Python's own calls do not fit there, too
    ended = python(PROGRAM, work, str(kib))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "RecursionError\n", "")


def test_with_arguments(python: Python) -> None:
    ended = python(PROGRAM, "run_with_arguments", "1024", *"12345678")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "RecursionError\n", "")


def test_afterwards_jobs_run_as_ever(python: Python) -> None:
    """Every level of the recursion has been left."""
    ended = python(
        """
import sys
from backpressure import *
from backpressure.testing import ManualClock

def deep(run):
    run("low", "jobs", deep, run)

def levels(run, level=0):
    try:
        return run("low", "jobs", levels, run, level + 1)
    except RecursionError:
        return level

config = BackpressureConfig(circuit=CircuitConfig(failure_threshold=1000))
# A read in between would take other ways, and so other depths.
provider = InMemoryStatsProvider({"jobs": 0})
with BackpressureController(config, provider, clock=ManualClock()) as controller:
    controller.suggest_throttle("low", "jobs")
    levels(controller.run)  # what is asked for the first time takes some
    controller.circuit("jobs").reset()
    controller.suggest_throttle("low", "jobs")
    before = levels(controller.run)
    for _ in range(20):
        controller.circuit("jobs").reset()
        controller.suggest_throttle("low", "jobs")
        try:
            deep(controller.run)
        except RecursionError:
            pass
    controller.circuit("jobs").reset()
    controller.suggest_throttle("low", "jobs")
    print(levels(controller.run) - before)
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")
