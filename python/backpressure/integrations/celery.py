"""Celery: an app that asks a controller before it sends a task."""

from __future__ import annotations

import functools
import inspect
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

import celery
from kombu import exceptions
from kombu.transport import TRANSPORT_ALIASES

from backpressure._model.errors import ConfigurationError
from backpressure.integrations._celery.canvas import hooks, real, unsent
from backpressure.integrations._celery.message import Message
from backpressure.integrations._celery.worker import note_bodies
from backpressure.integrations._shared.hook import MAX_WAIT, Hook
from backpressure.integrations._shared.layouts import check_layout
from backpressure.providers.layouts import CeleryLayout

if TYPE_CHECKING:
    from collections.abc import Collection

    from backpressure._controller.blocking import BackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure.integrations._shared.hook import Given, PriorityRule, QueueRule, TenantRule

__all__ = ["ENQUEUED_AT", "protect", "publish"]

#: The header that tells when a task was first sent, in Unix seconds, read as ``task.request.backpressure_enqueued_at``.
ENQUEUED_AT = "backpressure_enqueued_at"

A = TypeVar("A", bound=celery.Celery)

# Mistakes of the call, and this process's own limits: they say nothing about the broker.
_NOT_FAILURES = (
    exceptions.SerializationError,
    exceptions.SerializerNotInstalled,
    exceptions.LimitExceeded,
    TypeError,
    ValueError,
)
# Parameters after args and kwargs, which may be given by position.
_OPTIONS = tuple(inspect.signature(celery.Celery.send_task).parameters)[4:]


def protect(
    app: A,
    controller: Given[BackpressureController],
    *,
    priority: PriorityRule,
    queue: QueueRule | None = None,
    max_wait: MaxWait = MAX_WAIT,
    inside_tasks: Collection[str] = (),
    tenant: TenantRule | None = None,
) -> A:
    """Make `app` wait, or raise and send nothing, each time it sends tasks. Returns the app, of a proxy the real one.

    Args:
        controller: running where tasks are sent; workers and beat need none.
        priority: a priority for all tasks; a table by task name, queue or ``"*"``; or a function of the task's
            ``celery.Signature``. The signature's options are those that Celery has merged, with the queue's name. An
            option ``backpressure_priority`` of a call, a route or a task comes first, and is not sent to the broker.
        queue: a table of Celery's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds, or a table by priority.
        inside_tasks: names of tasks whose own function is a producer, in workers too: what it sends is judged. Retries
            and callbacks pass, and so does what the function's threads send, or processes of a spawned pool.
        tenant: the name of an argument of the task by name, or a header, that has its tenant; or
            a function as for `priority`, which returns one or ``None``. Else it is the tenant of the web request.

    ``delay``, ``apply_async``, ``send_task`` and canvas are all gated, at the point where Celery sends and has merged
    all options. A group, chord or chain asks once for each priority and queue among the tasks that it sends at once,
    however
    they are nested, before Celery takes a connection: all are sent, or none. The later tasks of a chain and a chord's
    body are sent by workers.

    All that workers and beat send passes, from their first signal to their last. So do retries, tasks due in more than
    a minute, and ``task_always_eager``. A worker in another thread than the main one lets only its own threads pass. On
    an event loop nothing sleeps: a task that would have to wait raises `ThrottledError`, unless it is HIGH. Tasks are
    stamped with the time they were first sent, see `ENQUEUED_AT`.

    Thread-safe; protect an app once, before it sends.

    Raises:
        ConfigurationError: it is protected already, or the controller is an asynchronous one.
        JobShedError, CircuitOpenError, ThrottledError: on sending, see `BackpressureController.run`.
        ControllerNotStartedError: on sending, in a producer.
    """
    app = real(app)
    if app in hooks:
        raise ConfigurationError("app is protected already: call protect() once for each app", field="app", value=app)
    hook = Hook(controller, priority, queue, max_wait, inside_tasks, _NOT_FAILURES, tenant=tenant)
    check_layout(hook, "celery", lambda: _layout(app))
    hooks[app] = hook
    note_bodies(app, inside_tasks)
    send = app.send_task

    @functools.wraps(send)
    def send_task(name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        options.update(zip(_OPTIONS, more, strict=False))
        options["headers"] = {ENQUEUED_AT: time.time(), **(options.get("headers") or {})}
        message = Message(app, hook, send, name, args, kwargs, options)
        gathered = unsent(app)
        return message.send_if_admitted() if gathered is None else gathered.put(message)

    app.send_task = send_task
    return app


def publish(signature: Any, *args: Any, **options: Any) -> Any:
    """Call ``signature.apply_async`` only if its app is protected.

    Args:
        signature: a group, chord, chain or task.

    Raises:
        ConfigurationError: the app is not protected, so no controller would be asked.
        JobShedError, CircuitOpenError, ThrottledError: nothing was sent, see `BackpressureController.run`.
    """
    if real(signature.app) not in hooks:
        raise ConfigurationError(
            f"the app of {signature.task!r} is not protected: call protect() on it, or give the signature the app",
            field="signature",
            value=signature,
        )
    return signature.apply_async(*args, **options)


def _layout(app: Any) -> CeleryLayout | str | None:
    """Return where the app's queues lie, if that is known without loading its configuration: see `check_layout`.

    To load it here would be too early for handlers that connect to ``app.on_after_configure`` later.
    """
    conf = app.conf if app.configured else app._preconf  # noqa: SLF001 - given so far, see `PendingConfiguration`
    url = os.environ.get("CELERY_BROKER_WRITE_URL") or conf.get("broker_write_url")
    url = url or os.environ.get("CELERY_BROKER_URL") or conf.get("broker_url")
    first = url[0] if isinstance(url, (list, tuple)) and url else url
    scheme = first.partition("://")[0].partition("+")[0] if isinstance(first, str) else ""
    transport = TRANSPORT_ALIASES.get(scheme, "")
    if "redis" not in transport:
        # Other packages' transports are not known here, and tests use memory instead of a broker.
        return scheme if transport and scheme != "memory" else None
    options = conf.get("broker_transport_options")
    if not app.configured and options is None and app._config_source:  # noqa: SLF001
        return None
    return CeleryLayout.from_options(options)
