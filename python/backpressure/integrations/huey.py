"""Huey: asks a controller before a task is enqueued."""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import huey
import huey.consumer
import huey.exceptions

from backpressure._model.errors import ConfigurationError
from backpressure.integrations._shared.hook import MARK, MAX_WAIT, Hook, far_ahead
from backpressure.integrations._shared.layouts import check_layout
from backpressure.integrations._shared.workers import marked, running, worker
from backpressure.integrations._shared.workers import task as noted
from backpressure.providers.layouts import HueyLayout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from backpressure._controller.blocking import BackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure._telemetry.passed import Why
    from backpressure.integrations._shared.hook import Given, Place, PriorityRule, QueueRule, TenantRule

__all__ = ["protect"]

H = TypeVar("H", bound=huey.Huey)

# Raised for what Huey refuses to enqueue, such as a group within a chord.
_NOT_FAILURES = (huey.exceptions.HueyException, ValueError)

_protected: weakref.WeakSet[huey.Huey] = weakref.WeakSet()

# A consumer that is run has its process for itself. One that is merely started has what it starts: threads, processes,
# or greenlets, which only their context tells apart from other code on their thread.
marked(huey.consumer.Consumer, "run")
marked(huey.consumer.Consumer, "start", "stop", by=functools.partial(worker, process=False))
for _kind in (huey.consumer.Worker, huey.consumer.Scheduler):
    marked(_kind, "initialize", "loop", "shutdown", by=running)


def protect(
    app: H,
    controller: Given[BackpressureController],
    *,
    priority: PriorityRule,
    queue: QueueRule | None = None,
    max_wait: MaxWait = MAX_WAIT,
    inside_tasks: Collection[str] = (),
    tenant: TenantRule | None = None,
) -> H:
    """Make a ``Huey`` wait, or raise and enqueue nothing, each time tasks are enqueued. Returns it.

    Args:
        app: its ``name`` is that of its queue.
        controller: running where tasks are enqueued; consumers need none.
        priority: a priority for all tasks; a table by task name, queue or ``"*"``; or a function of the
                ``huey.api.Task``. A task declared with ``backpressure_priority=…`` comes first. Huey's own ``priority``
                has nothing to do with it.
        queue: a table of Huey's names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds or by priority; see `BackpressureController.run`.
        inside_tasks: names of tasks whose enqueues are judged although a consumer runs them.
        tenant: the name of an argument of the task by name, that has its tenant; or
            a function as for `priority`, which returns one or ``None``. Else it is the tenant of the web request.

    All tasks of a group or chord are judged at once, so that all are enqueued or none. These pass: what consumers
    enqueue, in tasks, hooks, signals and the scheduler; tasks that are due in more than a minute; and ``immediate``
    mode. On an event loop nothing sleeps: a task that would have to wait raises `ThrottledError`, unless it is HIGH.
    Huey's messages have no room for a time.

    Thread-safe; protect it once, before it enqueues and before its consumer starts. Importing this module makes every
    Huey consumer mark what it runs.

    Raises:
        ConfigurationError: it is protected already, the controller is an asynchronous one, or there is no priority.
        JobShedError, CircuitOpenError, ThrottledError: on enqueueing, see `BackpressureController.run`.
        ControllerNotStartedError: on enqueueing, outside of a consumer.
    """
    if app in _protected:
        raise ConfigurationError("app is protected already: call protect() once for each Huey", field="app")
    hook = Hook(controller, priority, queue, max_wait, inside_tasks, _NOT_FAILURES, tenant=tenant)
    if hasattr(app.storage, "queue_key"):
        check_layout(hook, "huey", lambda: HueyLayout.from_huey(app), [app.name])
    _protected.add(app)
    enqueue, execute = app.enqueue, app.execute

    @functools.wraps(enqueue)
    def gated(task: Any) -> Any:
        if hook.entered:
            return enqueue(task)
        whys = [(head, hook.why(because=_because(app, head))) for head in _heads(task)]
        places = [_place(hook, app, head) for head, why in whys if why is None]
        if places:
            _serialise(app, task)
        with hook.admitted(places):
            for _, why in whys:
                if why is not None:
                    hook.count_passed(app.name, why)
            return enqueue(task)

    @functools.wraps(execute)
    def in_task(task: Any, *args: Any, **kwargs: Any) -> Any:
        with running(), _noted(task):
            return execute(task, *args, **kwargs)

    app.enqueue = gated
    app.execute = in_task
    return app


@contextlib.contextmanager
def _noted(task: Any) -> Iterator[None]:
    """Note what the task itself does in the body. Retries, callbacks and Huey's other work around it do not count."""
    execute = task.execute
    if "execute" in vars(task):  # a retry in immediate mode runs inside of the first try
        yield
        return

    def note() -> Any:
        with noted(task.name):
            return execute()

    task.execute = note
    try:
        yield
    finally:
        del task.execute


def _because(app: huey.Huey, task: Any) -> Why | None:
    if app.immediate:
        return "immediate"
    return None if task.eta is None else far_ahead((task.eta - app._get_timestamp()).total_seconds())  # noqa: SLF001


def _place(hook: Hook, app: huey.Huey, task: Any) -> Place:
    return hook.place(
        task, name=task.name, queue_name=app.name, mark=getattr(task, MARK, None), named=lambda: (task.kwargs,)
    )


def _serialise(app: huey.Huey, task: Any) -> None:
    """Raise now if the task cannot be serialised, before anything is sent: that says nothing about the queue."""
    if isinstance(task, (huey.group, huey.chord)):
        for member in task.tasks:
            _serialise(app, member)
        task = getattr(task, "callback", None)
    if task is not None:
        app.serialize_task(task)


def _heads(task: Any) -> Iterator[Any]:
    """Yield the tasks that are enqueued at once; later ones of a pipeline, and callbacks, are enqueued by consumers."""
    if isinstance(task, (huey.group, huey.chord)):
        task.tasks = list(task.tasks)  # it may be an iterator, and Huey reads it again
        for member in task.tasks:
            yield from _heads(member)
    else:
        yield task
