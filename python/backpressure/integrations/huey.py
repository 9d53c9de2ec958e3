"""Huey: asks a controller before a task is enqueued."""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import huey

from backpressure.integrations._context import setting
from backpressure.integrations._hook import MARK, MAX_WAIT, Hook
from backpressure.integrations._layouts import check_layout
from backpressure.providers.layouts import HueyLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure.arguments import MaxWait
    from backpressure.controller import BackpressureController
    from backpressure.integrations._hook import Place, PriorityRule, QueueRule

__all__ = ["protect"]

H = TypeVar("H", bound=huey.Huey)

# Whether this code runs inside a task.
_in_task: contextvars.ContextVar[bool] = contextvars.ContextVar("_in_task", default=False)
# On tasks that Huey's scheduler is about to enqueue.
_DUE = "backpressure_due"


def protect(
    app: H,
    controller: BackpressureController,
    *,
    priority: PriorityRule,
    queue: QueueRule | None = None,
    max_wait: MaxWait = MAX_WAIT,
) -> H:
    """Make a ``Huey`` wait, or raise and enqueue nothing, wherever tasks are enqueued. Returns it.

    Args:
        app: its ``name`` is that of its queue.
        controller: running where tasks are enqueued; consumers need none.
        priority: a priority for all tasks; a table by task name, queue or ``"*"``; or a function of the
            ``huey.api.Task``. A task declared with ``backpressure_priority=…`` comes first. Huey's own ``priority``
            is another matter.
        queue: a table of Huey's names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds.

    Tasks with a delay are gated too; of a group or chord all tasks at once, so that all are enqueued or none. Retries,
    what tasks enqueue, what the consumer's scheduler enqueues, and ``immediate`` mode are let through. On an event
    loop nothing sleeps: what would have to raises `ThrottledError`. Huey's messages have no room for a time.

    Thread-safe; protect it once, before it enqueues and before its consumer starts.

    Raises:
        ConfigurationError: the controller is an asynchronous one, or there is no priority.
        JobShedError, CircuitOpenError, ThrottledError: on enqueueing, see `BackpressureController.run`.
    """
    hook = Hook(controller, priority, queue, max_wait)
    if hasattr(app.storage, "queue_key"):
        check_layout(hook, "huey", lambda: HueyLayout.from_huey(app), [app.name])
    enqueue, execute = app.enqueue, app.execute

    @functools.wraps(enqueue)
    def gated(task: Any) -> Any:
        if hook.entered or app.immediate or _in_task.get() or getattr(task, _DUE, False):
            return enqueue(task)
        with hook.admitted([_place(hook, app, head) for head in _heads(task)]):
            return enqueue(task)

    @functools.wraps(execute)
    def in_task(*args: Any, **kwargs: Any) -> Any:
        with setting(_in_task, True):
            return execute(*args, **kwargs)

    app.enqueue = gated
    app.execute = in_task
    app.read_schedule = _marking_due(app.read_schedule)
    app.read_periodic = _marking_due(app.read_periodic)
    return app


def _marking_due(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return what reads tasks for the scheduler, such that they are known when it enqueues them."""

    @functools.wraps(read)
    def marking(*args: Any, **kwargs: Any) -> Any:
        tasks = read(*args, **kwargs)
        for task in tasks:
            setattr(task, _DUE, True)  # an attribute of this object alone, which is not enqueued with it
        return tasks

    return marking


def _place(hook: Hook, app: huey.Huey, task: Any) -> Place:
    return hook.place(task, name=task.name, queue_name=app.name, mark=getattr(task, MARK, None))


def _heads(task: Any) -> Iterator[Any]:
    """Yield the tasks that are enqueued at once; later ones of a pipeline, and callbacks, are enqueued by consumers."""
    if isinstance(task, (huey.group, huey.chord)):
        task.tasks = list(task.tasks)  # it may be an iterator, which Huey reads once more
        for member in task.tasks:
            yield from _heads(member)
    else:
        yield task
