"""Celery's workers and beat, all of whose tasks pass, and the bodies of tasks whose tasks are judged all the same."""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.beat import Service
from celery.worker import WorkController

from backpressure.integrations._shared.context import setting
from backpressure.integrations._shared.workers import in_worker, mark_process, marked, running

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["judged_task", "note_bodies", "sends_for_worker"]

_NOTED = "_backpressure_noted"

#: The task whose body this code runs in, if it is one of those whose tasks are judged.
judged_task: contextvars.ContextVar[str | None] = contextvars.ContextVar("judged_task", default=None)


def sends_for_worker(app: Any) -> bool:
    """Tell whether a worker of `app` runs this code, other than the body of a task whose tasks are judged.

    Also in greenlets, which are no threads that could be marked. A task that `Task.apply` or ``task_always_eager`` runs
    in a producer is the producer's.
    """
    if judged_task.get() is not None:
        return False
    task = app.current_worker_task
    return in_worker() or (task is not None and not task.request.is_eager)


def note_bodies(app: Any, names: Collection[str]) -> None:
    """Have the tasks of these names set `judged_task` while their own function runs.

    Not while Celery sends their callbacks, or the rest of their chain: whoever is refused these loses them.
    """

    def note(**_: object) -> None:
        for name in names:
            task = app.tasks.get(name)
            if task is not None and not hasattr(task.run, _NOTED):
                task.run = _noting(task.run, name)

    def note_in_worker(sender: Any, **_: object) -> None:
        if sender.app is app:
            note()

    if not names:
        return
    if app.finalized:
        note()
    # What is registered later is there when a worker has imported its modules, before it decides how to run tasks; in
    # a spawned process of its pool, when its app is finalized.
    app.on_after_finalize.connect(note, weak=False)
    signals.worker_init.connect(note_in_worker, weak=False)


def _noting(run: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(run)
    def noting(*args: Any, **kwargs: Any) -> Any:
        with setting(judged_task, name):
            return run(*args, **kwargs)

    setattr(noting, _NOTED, True)
    return noting


marked(WorkController, "start")
marked(Service, "start")
# An embedded worker is made, and may be stopped, by the producer's own main thread: what handlers of its signals send
# passes, and nothing of the producer's other threads.
marked(WorkController, "__init__", "stop", "terminate", by=running)


def _process_init(**_: object) -> None:
    # A spawned process of a pool. In a forked one, and in a pool that has no processes, the worker's mark is seen.
    if not in_worker():
        mark_process()


signals.worker_process_init.connect(_process_init, weak=False)
