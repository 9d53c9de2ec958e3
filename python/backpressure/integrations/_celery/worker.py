"""Celery's workers and beat, whose tasks all pass, and bodies of tasks whose own tasks are judged nevertheless."""

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

#: The task in whose body this code runs, if the tasks that it sends are judged.
judged_task: contextvars.ContextVar[str | None] = contextvars.ContextVar("judged_task", default=None)


def sends_for_worker(app: Any) -> bool:
    """Tell whether a worker of `app` runs this code, except in the body of a task whose own tasks are judged.

    True in greenlets too, which are not threads that could be marked. A task that `Task.apply` or
    ``task_always_eager`` runs in a producer is the producer's.
    """
    if judged_task.get() is not None:
        return False
    task = app.current_worker_task
    return in_worker() or (task is not None and not task.request.is_eager)


def note_bodies(app: Any, names: Collection[str]) -> None:
    """Have the tasks of these names set `judged_task` while their own function runs.

    It is not set while Celery sends their callbacks, or the rest of their chain: if refused, these would be lost.
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
    # Tasks that are registered later exist when a worker has imported its modules, before it decides how to run tasks.
    # In a spawned process of its pool, they exist when its app is finalized.
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
# The producer's own main thread makes an embedded worker, and may stop it. Handlers of the worker's signals run there:
# what they send passes, but nothing that the producer's other threads send.
marked(WorkController, "__init__", "stop", "terminate", by=running)


def _process_init(**_: object) -> None:
    # For a spawned process of a pool. A forked one, or a pool without processes, sees the worker's mark.
    if not in_worker():
        mark_process()


signals.worker_process_init.connect(_process_init, weak=False)
