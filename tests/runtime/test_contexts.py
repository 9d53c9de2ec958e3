"""What runs in the background carries nobody's context: no trace, and no request that is kept alive."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import backpressure
from backpressure import AsyncBackpressureController, BackpressureConfig, BackpressureController, QueueStats

PACKAGE = Path(backpressure.__file__).parent
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if "demo" not in path.parts]  # that is a program of its own
REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="nobody's")
CONFIG = BackpressureConfig().evolve({"polling.interval": 0.3, "polling.jitter": 0, "polling.timeout": 0.3})
STARTERS = {
    *("Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "start_new_thread"),
    *("create_task", "ensure_future", "to_thread", "run_in_executor", "run_coroutine_threadsafe"),
}
ALLOWED = {
    "_runtime/threads.py": {"Thread"},
    "_model/tasks.py": {"create_task"},
    # Within one read, which is in an empty context where it is ours, and in its caller's where it is his.
    "providers/redis/async_provider.py": {"create_task", "run_coroutine_threadsafe"},
    "providers/redis/async_client.py": {"ensure_future"},
}


def starters(path: Path) -> set[str]:
    """Return what a module calls that starts a thread or a task."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    names = {getattr(function, "attr", getattr(function, "id", "")) for function in calls}
    passed = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    return (names | (passed & {"create_task"})) & STARTERS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_threads_and_tasks_start_in_one_place(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    assert starters(path) == ALLOWED.get(name, set()), "start it by spawn() or start_task()"


@pytest.fixture
def inheriting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have threads inherit the context of their starter, as instrumentation and newer Pythons do."""
    start, run = threading.Thread.start, threading.Thread.run

    def start_in_context(self: Any) -> None:
        self.starters_context = contextvars.copy_context()
        start(self)

    def run_in_context(self: Any) -> None:
        self.starters_context.run(run, self)

    monkeypatch.setattr(threading.Thread, "start", start_in_context)
    monkeypatch.setattr(threading.Thread, "run", run_in_context)


class Sync:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.twice = threading.Semaphore(0)

    def note(self) -> None:
        self.seen.append(REQUEST.get())
        self.twice.release()

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        self.note()
        return QueueStats(queue_name, 0)

    def get_all_queue_stats(self) -> dict[str, QueueStats]:
        self.note()
        return {"mail": QueueStats("mail", 0)}


class Async(Sync):
    async def get_queue_stats(self, queue_name: str) -> QueueStats:  # type: ignore[override]
        return Sync.get_queue_stats(self, queue_name)

    async def get_all_queue_stats(self) -> dict[str, QueueStats]:  # type: ignore[override]
        return Sync.get_all_queue_stats(self)


class Bound(Async):
    loop_bound = True


@pytest.mark.usefixtures("inheriting")
def test_threads_read_for_nobody(engine_name: str, engine_module: object) -> None:
    provider = Sync()
    controller = BackpressureController(CONFIG, provider, registry=CollectorRegistry(), _engine=engine_name)
    token = REQUEST.set("of a user")
    try:
        with controller:
            controller.suggest_throttle("low", "mail")
            controller.suggest_throttle("low", "first seen")
            controller.refresh("mail")
            assert all(provider.twice.acquire(timeout=10) for _ in range(6))
    finally:
        REQUEST.reset(token)
    assert set(provider.seen) == {"nobody's"}


def _old_factory(loop: asyncio.AbstractEventLoop, work: Any) -> asyncio.Task[Any]:
    return asyncio.Task(work, loop=loop)


@pytest.mark.parametrize("old_factory", [False, True])
@pytest.mark.parametrize("kind", [Sync, Async, Bound])
@pytest.mark.usefixtures("inheriting")
def test_tasks_read_for_nobody(engine_name: str, engine_module: object, kind: Any, old_factory: bool) -> None:
    provider = kind()
    tasks: list[tuple[str, str]] = []

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        made: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        tasks.append((made.get_name(), (options.get("context") or contextvars.copy_context()).get(REQUEST, "nobody's")))
        return made

    async def main() -> None:
        REQUEST.set("of a user")
        asyncio.get_running_loop().set_task_factory(_old_factory if old_factory else factory)
        async with AsyncBackpressureController(
            CONFIG, provider, registry=CollectorRegistry(), _engine=engine_name
        ) as controller:
            await controller.suggest_throttle("low", "mail")
            await controller.suggest_throttle("low", "first seen")
            await controller.refresh("mail")

    asyncio.run(main())
    assert provider.seen
    assert set(provider.seen) == {"nobody's"}
    assert {context for _, context in tasks} <= {"nobody's"}
