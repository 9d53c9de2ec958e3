"""Celery: an app that asks a controller before it sends a task."""

from __future__ import annotations

import contextvars
import functools
import os
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import celery
from celery import signals

from backpressure.errors import ConfigurationError
from backpressure.integrations._hook import MARK, MAX_WAIT, Hook
from backpressure.integrations._layouts import check_layout
from backpressure.providers.layouts import CeleryLayout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure.arguments import MaxWait
    from backpressure.controller import BackpressureController
    from backpressure.integrations._hook import Place, PriorityRule, QueueRule

__all__ = ["ENQUEUED_AT", "protect", "publish"]

#: The header that tells when a task was first sent, in Unix seconds, read as ``task.request.backpressure_enqueued_at``.
ENQUEUED_AT = "backpressure_enqueued_at"

A = TypeVar("A", bound=celery.Celery)

_hooks: weakref.WeakKeyDictionary[Any, Hook] = weakref.WeakKeyDictionary()
# Whether beat's thread runs this code.
_in_beat: contextvars.ContextVar[bool] = contextvars.ContextVar("_in_beat", default=False)
signals.beat_init.connect(lambda **_: _in_beat.set(True), weak=False)
# The group of which a member was let in last.
_group: contextvars.ContextVar[str | None] = contextvars.ContextVar("_group", default=None)


def protect(
    app: A,
    controller: BackpressureController,
    *,
    priority: PriorityRule,
    queue: QueueRule | None = None,
    max_wait: MaxWait = MAX_WAIT,
) -> A:
    """Make `app` wait, or raise and send nothing, wherever it sends tasks. Returns `app`.

    Args:
        controller: running where tasks are sent; workers and beat need none.
        priority: a priority for all tasks; a table by task name, queue or ``"*"``; or a function of the task's
            ``celery.Signature``. An option ``backpressure_priority`` of a call or a task comes first.
        queue: a table of Celery's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds.

    ``delay``, ``apply_async``, ``send_task`` and canvas are all gated, tasks with an ETA too; of a group or a chord
    the first task alone, and each chain in it by itself. `publish` asks once for all of them, before Celery takes a
    connection. Retries, what tasks send while a worker runs them, beat and
    ``task_always_eager`` are let through. On an event loop nothing sleeps: what would have to raises
    `ThrottledError`. Tasks are stamped with the time they were first sent, see `ENQUEUED_AT`.

    Thread-safe; protect an app once, before it sends.

    Raises:
        ConfigurationError: it is protected already, or the controller is an asynchronous one.
        JobShedError, CircuitOpenError, ThrottledError: on sending, see `BackpressureController.run`.
    """
    if app in _hooks:
        raise ConfigurationError("app is protected already: call protect() once for each app", field="app", value=app)
    hook = Hook(controller, priority, queue, max_wait)
    check_layout(hook, "celery", lambda: _layout(app))
    _hooks[app] = hook
    send = app.send_task

    @functools.wraps(send)
    def send_task(name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        passes = hook.entered or _sent_by_celery(app, options) or _follows(options.get("group_id"))
        place = None if passes else _place(app, hook, app.signature(name, args, kwargs, options=options))
        options.pop(MARK, None)
        options["headers"] = {ENQUEUED_AT: time.time(), **(options.get("headers") or {})}
        if place is None:
            return send(name, args, kwargs, *more, **options)
        with hook.admitted([place]):
            _group.set(options.get("group_id"))
            return send(name, args, kwargs, *more, **options)

    app.send_task = send_task
    return app


def publish(signature: Any, *args: Any, **options: Any) -> Any:
    """Call ``signature.apply_async``, behind one gate for all tasks that it sends at once.

    Waits once for each priority and queue among them, before a connection is taken; sends all or none.

    Args:
        signature: a group, chord, chain or task of an app that is protected.

    Raises:
        KeyError: the app is not protected.
        JobShedError, CircuitOpenError, ThrottledError: nothing was sent, see `BackpressureController.run`.
    """
    app = signature.app
    hook = _hooks[app]
    if hook.entered or app.conf.task_always_eager or _sent_by_celery(app, {}):
        return signature.apply_async(*args, **options)
    with hook.admitted([_place(app, hook, head) for head in _heads(app, signature)]):
        return signature.apply_async(*args, **options)


def _layout(app: Any) -> CeleryLayout | None:
    """Return where the app's queues lie in Redis, if so much is known without loading its configuration.

    To load it here would be too early for what is yet to be connected to ``app.on_after_configure``.
    """
    conf = app.conf if app.configured else app._preconf  # noqa: SLF001 - given so far, see `PendingConfiguration`
    url = os.environ.get("CELERY_BROKER_WRITE_URL") or conf.get("broker_write_url")
    url = url or os.environ.get("CELERY_BROKER_URL") or conf.get("broker_url")
    first = url[0] if isinstance(url, (list, tuple)) and url else url
    if not isinstance(first, str) or not first.startswith(("redis", "rediss", "sentinel", "valkey")):
        return None
    options = conf.get("broker_transport_options")
    if not app.configured and options is None and app._config_source:  # noqa: SLF001
        return None
    return CeleryLayout.from_options(options)


def _sent_by_celery(app: celery.Celery, options: dict[str, Any]) -> bool:
    """Tell whether a worker or beat sends the task. To refuse them loses it."""
    return bool(options.get("retries") or app.current_worker_task or _in_beat.get())


def _follows(group_id: str | None) -> bool:
    return group_id is not None and group_id == _group.get()


def _place(app: celery.Celery, hook: Hook, signature: Any) -> Place:
    name, options = signature.task, dict(signature.options)
    task: Any = options.get("task_type") or (app.tasks.get(name) if app.finalized else None)
    route = app.amqp.router.route(options, name, signature.args, signature.kwargs, task)
    queue_name = route["queue"].name if route.get("queue") else route.get("routing_key") or app.conf.task_default_queue
    mark = options.get(MARK) or getattr(task, MARK, None)
    return hook.place(signature, name=name, queue_name=queue_name, mark=mark)


def _heads(app: celery.Celery, signature: Any) -> Iterator[Any]:
    """Yield the tasks that are sent at once; the later ones of a chain, and a chord's body, are sent by workers."""
    signature = celery.signature(signature, app=app)
    tasks = getattr(signature, "tasks", None)
    if tasks is None:
        yield signature
    else:
        for task in tasks[:1] if signature.task == "celery.chain" else tasks:
            yield from _heads(app, task)
