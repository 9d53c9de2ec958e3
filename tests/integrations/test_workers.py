"""Who is taken for a worker: processes and threads that frameworks started, and tasks within them; and who is not."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

import pytest

from backpressure import HIGH, AsyncBackpressureController, ControllerNotStartedError
from backpressure.integrations._shared import workers
from backpressure.integrations._shared.hook import AsyncHook, Hook
from backpressure.integrations._shared.workers import (
    current_task,
    in_worker,
    mark_process,
    marking,
    recognise,
    running,
    task,
    worker,
)
from support.garbage import is_gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure import BackpressureController, InMemoryStatsProvider
    from support.controller_fixtures import MakeController

T = TypeVar("T")


def on_a_thread(function: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_a_worker_on_the_main_thread_has_the_process() -> None:
    with worker():
        assert in_worker()
        assert on_a_thread(in_worker)
    assert not in_worker()
    assert not on_a_thread(in_worker)


ENDING = """
import atexit, threading
from backpressure.integrations._shared.workers import in_worker, recognise, worker

def tell(what): print(what, in_worker())

def last():
    threading.main_thread().join()
    tell("thread")

def work():
    recognise("__main__:work")
    threading.Thread(target=last).start()
    atexit.register(tell, "atexit")

work() if {begun} else worker()(work)()
tell("between")
"""


@pytest.mark.parametrize("begun", [False, True])
def test_what_ends_the_program_of_a_worker_on_the_main_thread_is_its_own(begun: bool) -> None:
    command = [sys.executable, "-c", ENDING.format(begun=begun)]
    told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert told.splitlines() == ["between False", "thread True", "atexit True"]


def test_one_that_only_starts_on_the_main_thread_has_the_threads_that_it_starts() -> None:
    entered, leave = threading.Event(), threading.Event()
    seen: list[bool] = []

    def run() -> None:
        entered.set()
        leave.wait()
        seen.extend([in_worker(), on_a_thread(in_worker)])

    def produce() -> None:
        entered.wait()
        seen.append(in_worker())

    producer = threading.Thread(target=produce)
    producer.start()
    with worker(process=False):
        assert in_worker()
        thread = threading.Thread(target=run)
        thread.start()
        producer.join()
    assert not in_worker()
    leave.set()
    thread.join()
    assert seen == [False, True, True]


def test_functions_are_marked_as_they_are_told() -> None:
    seen: list[bool] = []

    def run() -> None:
        seen.extend([in_worker(), on_a_thread(in_worker)])

    marking(run)()
    marking(run, running)()
    assert seen == [True, True, True, True]
    assert not on_a_thread(in_worker)


def test_a_process_that_is_marked_stays_so_beyond_what_ran_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_process", [])
    with worker():
        mark_process()
        mark_process()
    assert in_worker()


def test_callbacks_of_futures_belong_to_who_adds_them() -> None:
    seen: list[tuple[bool, str | None]] = []

    def note(_: Future[bool]) -> None:
        seen.append((in_worker(), current_task()))

    def work(leave: threading.Event) -> None:
        with task("campaign"):
            future = pool.submit(leave.wait)
            future.add_done_callback(note)
            leave.set()
            wait([future])

    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # the pool's thread is a producer's
        marking(work, running)(threading.Event())
        pool.submit(threading.Event().is_set).add_done_callback(note)
    assert seen == [(True, "campaign"), (False, None)]


def test_threads_that_are_followed_go_when_they_are_done() -> None:
    with running():
        thread = threading.Thread(target=int)
        thread.start()
    thread.join()
    gone = weakref.ref(thread)
    gc.disable()
    try:
        del thread
        assert is_gone(gone)
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_that_a_worker_starts_belong_to_it(method: str) -> None:
    def ask() -> bool:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            return pool.submit(in_worker).result()

    assert marking(ask, running)()
    assert not ask()


def begun() -> None:
    recognise(f"{__name__}:begun")
    assert in_worker()
    assert on_a_thread(in_worker)


def test_what_has_begun_is_recognised_until_it_ends() -> None:
    recognise(f"{__name__}:begun")
    assert not in_worker()
    begun()
    assert not in_worker()
    assert not on_a_thread(in_worker)


def test_what_has_begun_on_another_thread_is_that_thread() -> None:
    others: list[bool] = []
    ready, leave = threading.Event(), threading.Event()

    def run() -> None:
        begun()
        ready.set()
        leave.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    others.extend([in_worker(), on_a_thread(in_worker)])
    leave.set()
    thread.join()
    assert others == [False, False]


def test_what_has_begun_on_another_thread_is_recognised_until_it_ends() -> None:
    def run() -> list[bool]:
        begun()
        return [in_worker(), on_a_thread(in_worker)]

    assert on_a_thread(run) == [False, False]


def test_a_task_is_known_in_all_that_it_starts_and_no_longer() -> None:
    pool = ThreadPoolExecutor(1)
    with task("campaign"):
        assert current_task() == "campaign"
        assert pool.submit(current_task).result() == "campaign"
        assert asyncio.run(asyncio.to_thread(current_task)) == "campaign"
        with task("inner"):
            assert current_task() == "inner"
        assert current_task() == "campaign"
    assert current_task() is None
    assert pool.submit(current_task).result() is None
    with task("other"):  # a pool of the program's, started by another task
        assert pool.submit(current_task).result() == "other"
    pool.shutdown()


def test_what_tasks_enqueue_passes_unless_they_are_named(controller: BackpressureController) -> None:
    hook = Hook(controller, "low", inside_tasks={"campaign"})
    assert not hook.passes("mail")
    with task("campaign"):
        assert not hook.passes("mail")
        assert hook.passes("mail", because="retry")
        with ThreadPoolExecutor(1) as pool:
            assert not pool.submit(hook.passes, "mail").result()
        with task("receipt"):
            assert hook.passes("mail")
    with worker():
        assert hook.passes("mail")
        with task("campaign"):
            assert not hook.passes("mail")
    assert controller._passed.counts() == {("mail", "retry"): 1, ("mail", "worker"): 2}


def test_a_producer_whose_controller_was_not_started_is_told_of_which_queue(
    make_controller: MakeController, engine_name: str, provider: InMemoryStatsProvider
) -> None:
    hook = Hook(make_controller(start=False), "low")
    say = "high job for queue 'empty' was not enqueued"
    with pytest.raises(ControllerNotStartedError, match=say) as raised, hook.admitted([(HIGH, "empty")]):
        pytest.fail("it went unjudged")
    assert (raised.value.queue_name, raised.value.priority) == ("empty", HIGH)

    async def main() -> None:
        controller = AsyncBackpressureController(None, provider, _engine=engine_name)
        async with AsyncHook(controller, "low").admitted([(HIGH, "empty")]):
            pytest.fail("it went unjudged")

    with pytest.raises(ControllerNotStartedError, match=say):
        asyncio.run(main())
