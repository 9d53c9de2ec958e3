"""A process without `stop` ends at once and silently, no matter what its poller, threads and finalizers do."""

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
    """Before Python 3.14 they end by unwinding their stacks, with the native engine's frames."""
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


# An object that releases the interpreter while it ends, to threads that ask for it and are then ended.
LINGERING = """
class Lingering:
    sleep = staticmethod(__import__("time").sleep)

    def __del__(self):
        self.sleep(0.02)

sys.lingering = Lingering()
"""


@pytest.mark.parametrize(
    "call",
    [
        "controller.suggest_throttle('medium', f'jobs-{number}')",
        "controller.suggest_throttle('medium', 'jobs')",
        "controller.gate('medium', f'jobs-{number}').suggest()",
        "controller.run('medium', f'jobs-{number}', fail)",
        "controller.gate('medium', f'jobs-{number}').run(str)",
        "controller.circuit(f'jobs-{number}').record_failure()",
        "controller.health()",
    ],
)
@pytest.mark.parametrize("clock", ["None", "Slow()"])
def test_with_daemons_that_an_engine_waits_for(python: Python, call: str, clock: str) -> None:
    """Before Python 3.14 a daemon's stack is unwound when it asks for the interpreter: above the engine's frames."""
    ended = python(f"""{PRODUCER}{LINGERING}
import contextlib, itertools, time
from backpressure._model.clock import SystemClock

numbers = itertools.count()

class Reading(Provider):
    def get_queue_stats(self, name):
        time.sleep(0.001)
        return QueueStats(name, 2_000 if name == "jobs" else 0)

class Slow(SystemClock):
    def monotonic_ns(self):
        time.sleep(0.0001)
        return time.monotonic_ns()

def fail():
    raise OSError

def decide():
    while True:
        number = next(numbers)
        with contextlib.suppress(OSError, BackpressureError):  # there is an end to circuits
            {call}
        begun.release()

sys.setswitchinterval(1e-6)
controller = BackpressureController(config, Reading(), clock={clock})
controller.start()
begun = threading.Semaphore(0)
for _ in range(4):
    threading.Thread(target=decide, daemon=True).start()
for _ in range(50):
    begun.acquire()
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


# Jobs of all kinds that report their results. They use no globals, which may be gone at the end. The pure engine tells
# the usual results, so that the native engine does everything for the first time at the end.
JOBS = """
import atexit, contextlib, gc, os, sys, threading, weakref
from backpressure import *
from backpressure.testing import ManualClock

def value(): return 1
def fresh(type=type): return type("Fresh", (), {})()
def fail(error=ConnectionError): raise error("the broker is away")
def leave(error=SystemExit): raise error(3)
def interrupt(error=KeyboardInterrupt): raise error
async def coroutine(): pass

class Jobs:
    def __init__(self, clock, usual, **engine):
        config = BackpressureConfig(circuit=CircuitConfig(failure_threshold=500))
        provider = InMemoryStatsProvider({"jobs": 0, "busy": 2_000})
        controller = BackpressureController(config, provider, clock=clock, **engine)
        controller.start()
        run, gate, suggest = controller.run, controller.gate("low", "jobs"), controller.suggest_throttle

        @controller.throttled("low", "jobs")
        def throttled(work):
            return work()

        def slot(work):
            with controller.slot("low", "jobs"):
                return work()

        def entered(work):
            with gate:
                return work()

        self.calls = [
            lambda work: run("low", "jobs", work),
            lambda work: run("low", "jobs", work, max_wait=1),
            gate.run,
            throttled,
            slot,
            entered,
            lambda work: suggest("low", "jobs"),
            lambda work: suggest("medium", "busy"),
            lambda work: gate.suggest(),
        ]
        self.works = [value, fresh, fail, leave, interrupt, coroutine]
        self.suggest, self.type, self.getattr, self.error, self.write = suggest, type, getattr, BaseException, os.write
        self.usual = usual or self.told()

    def told(self):
        told = []
        for call in self.calls:
            for work in self.works:
                try:
                    self.suggest("low", "jobs")  # so that a go lies ready
                    value = call(work)
                except self.error as raised:
                    value = raised
                told.append(self.type(value).__name__)
                self.getattr(value, "close", self.nothing)()  # it may be a coroutine
        return told

    def nothing(self):
        pass

    def end(self, *_):
        told = self.told()
        self.write(1, b"as ever\\n" if told == self.usual else f"{told}, not {self.usual}\\n".encode())

    def after(self):
        try:
            yield
        finally:
            self.end()

class Late:
    def __init__(self, end):
        self.end = end
        self.itself = self  # for the collector to find

    def __del__(self):
        self.end()

# Kept: a collection on the way would tell that it was dropped.
reference = Jobs(None, None, _engine="pure")
usual = reference.usual
both = [Jobs(None, usual), Jobs(ManualClock(), usual)]
"""


@pytest.mark.parametrize(
    "end",
    [
        "for jobs in both: atexit.register(jobs.end)",
        "for jobs in both: threading._register_atexit(jobs.end)",
        "for jobs in both: weakref.finalize(jobs.works[0], jobs.end)",
        "gc.disable(); first, second = (Late(jobs.end) for jobs in both)",
        "gc.disable(); first, second = (Late(jobs.end) for jobs in both); del first, second",
        "first, second = (jobs.after() for jobs in both); next(first), next(second)",
        "local = threading.local(); local.first, local.second = (Late(jobs.end) for jobs in both)",
    ],
)
def test_with_jobs_at_the_end(python: Python, end: str) -> None:
    """Finalizers may enqueue: no code asks for an interpreter that is about to end."""
    ended = python(f"{JOBS}\n{end}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, 2 * "as ever\n", "")


@pytest.mark.parametrize(
    "end",
    [
        "sys.first, sys.second = (Late(jobs.end) for jobs in both); sys.first.itself = sys.second.itself = None",
        "sys.first, sys.second = (jobs.after() for jobs in both); next(sys.first), next(sys.second)",
        "sys._things = {*range(5)}; sys.first, sys.second = (weakref.ref(sys._things, jobs.end) for jobs in both)",
    ],
)
def test_with_jobs_after_the_end_of_all_modules(python: Python, end: str) -> None:
    """Code that uses a module that is gone raises; the process still ends well."""
    coroutineless = "for jobs in both: jobs.works.remove(coroutine)  # nobody is left to close those that are refused"
    ended = python(f"{JOBS}\n{coroutineless}\n{end}")
    assert (ended.returncode, ended.stdout.count("\n"), ended.stderr) == (0, 2, "")
