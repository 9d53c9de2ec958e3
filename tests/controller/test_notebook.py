"""Where a Jupyter kernel's loop runs, a controller waits as anywhere; on other loops `start` says that it cannot.

No kernel is a dependency of the tests: what is read of them is stood in for here, under its own names.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import types
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import BackpressureController, BackpressureError, BatchJob, InMemoryStatsProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.border import EngineModule
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A kernel that has not begun to run its loop."""
    kernel = types.SimpleNamespace(io_loop=types.SimpleNamespace(asyncio_loop=None))
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=kernel)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return kernel


def cell(kernel: types.SimpleNamespace, code: Callable[[], object]) -> object:
    """Run code as a kernel runs a cell."""

    async def execute() -> object:
        kernel.io_loop.asyncio_loop = asyncio.get_running_loop()
        return code()

    return asyncio.run(execute())


def test_a_cell_waits_as_any_other_code(
    kernel: types.SimpleNamespace, make_controller: MakeController, clock: ManualClock
) -> None:
    def code() -> None:
        controller = make_controller()
        before = clock.monotonic_ns()
        assert controller.run("medium", "red", str, "went") == "went"
        assert controller.run("low", "empty", str, "went", patient=True) == "went"
        controller.suggest_throttle("medium", "yellow").wait()
        assert controller.refresh("red")
        assert controller.process_batch([BatchJob("medium", "red", int)] * 2).counts == {"succeeded": 2}
        assert clock.monotonic_ns() - before > 8.25e9

    cell(kernel, code)


def test_a_cell_waits_for_the_first_poll_and_the_first_sight(
    kernel: types.SimpleNamespace, make_controller: MakeController
) -> None:
    def code() -> None:
        controller = make_controller(InMemoryStatsProvider({"q": 5}))
        assert controller.suggest_throttle("low", "q").backlog_size == 5

    cell(kernel, code)


def test_a_cell_of_a_subshell_runs_on_the_loop_of_its_thread(
    kernel: types.SimpleNamespace, make_controller: MakeController
) -> None:
    controller, ran = make_controller(), []
    subshell = type("SubshellThread", (threading.Thread,), {"__module__": "ipykernel.subshell"})

    def run() -> None:
        cell(threading.current_thread(), lambda: ran.append(controller.run("medium", "red", int)))  # type: ignore[arg-type]

    thread = subshell(target=run)
    thread.io_loop = types.SimpleNamespace(asyncio_loop=None)
    thread.start()
    thread.join()
    assert ran == [0]


def on_loop_of_a_thread(kind: type[threading.Thread], code: Callable[[], object]) -> object:
    """Run code on an event loop in a thread; return its value, or the error."""
    ended: list[object] = []

    async def main() -> object:
        return code()

    def run() -> None:
        try:
            ended.append(asyncio.run(main()))
        except BackpressureError as error:
            ended.append(error)

    thread = kind(target=run)
    thread.start()
    thread.join()
    return ended[0]


@pytest.mark.filterwarnings("ignore:a BackpressureController is used on a running event loop")
def test_a_kernel_that_tells_of_no_loop_runs_it_in_the_main_thread(
    kernel: types.SimpleNamespace, controller: BackpressureController
) -> None:
    del kernel.io_loop  # as xeus-python's

    async def execute() -> int:
        return controller.run("medium", "red", int)

    assert asyncio.run(execute()) == 0
    refused = on_loop_of_a_thread(threading.Thread, lambda: controller.run("medium", "red", int))
    assert isinstance(refused, BackpressureError)


@pytest.mark.filterwarnings("ignore:a BackpressureController is used on a running event loop")
def test_a_cell_of_marimo_waits(controller: BackpressureController, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = threading.local()
    marimo: Any = types.ModuleType("marimo")
    marimo.running_in_notebook = lambda: getattr(kernels, "has_context", False)
    monkeypatch.setitem(sys.modules, "marimo", marimo)

    def code() -> int:
        kernels.has_context = True
        return controller.run("medium", "red", int)

    assert on_loop_of_a_thread(threading.Thread, code) == 0  # a kernel may run in any thread
    own = type("Thread", (threading.Thread,), {"__module__": "marimo._runtime.threads"})
    assert isinstance(on_loop_of_a_thread(own, code), BackpressureError)
    other = on_loop_of_a_thread(threading.Thread, lambda: controller.run("medium", "red", int))
    assert isinstance(other, BackpressureError)


@pytest.mark.parametrize("where", ["a loop of another thread", "a terminal", "no kernel"])
def test_other_loops_are_no_notebooks(
    kernel: types.SimpleNamespace, controller: BackpressureController, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "a terminal":
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", types.SimpleNamespace)
    if where == "no kernel":
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)

    async def main() -> None:
        with pytest.raises(BackpressureError, match="would block"):
            controller.run("medium", "red", int)

    with pytest.warns(RuntimeWarning, match="running event loop"):
        asyncio.run(main())


def test_start_on_a_loop_says_that_jobs_cannot_wait_there(
    engine_name: str, engine_module: EngineModule, provider: InMemoryStatsProvider
) -> None:
    async def main() -> list[warnings.WarningMessage]:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with BackpressureController(None, provider, _engine=engine_name) as controller:
                assert len(warned) == 1
                for _ in range(3):
                    controller.run("low", "empty", int)
                controller.start()
        return warned

    (warning,) = asyncio.run(main())
    assert (warning.category, warning.filename) == (RuntimeWarning, __file__)
    assert "it cannot wait" in str(warning.message)


def test_a_batch_that_cannot_wait_there_says_so_job_by_job(make_controller: MakeController) -> None:
    controller, ran = make_controller(), list[int]()

    async def main() -> None:
        jobs = [BatchJob("medium", "red", lambda: ran.append(1))] * 3
        outcomes = controller.process_batch(jobs).outcomes
        assert [outcome.status for outcome in outcomes] == ["not_started"] * 3
        assert all("would block the running event loop" in str(outcome.error) for outcome in outcomes)
        assert controller.process_batch(iter(jobs), on_outcome=lambda *_: None).counts == {"not_started": 3}

    with pytest.warns(RuntimeWarning, match="running event loop"):
        asyncio.run(main())
    assert ran == []
