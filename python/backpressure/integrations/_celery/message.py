"""One message of Celery's on its way: where it really goes, whether it is judged, and the sending of it."""

from __future__ import annotations

import contextlib
import numbers
from typing import TYPE_CHECKING, Any

import celery
from celery.utils.time import maybe_iso8601, maybe_make_aware

from backpressure.integrations._celery.route import queue_of
from backpressure.integrations._celery.worker import judged_task, sends_for_worker
from backpressure.integrations._shared.hook import MARK, far_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._telemetry.passed import Why
    from backpressure.integrations._shared.hook import Hook, Place

__all__ = ["Message"]

# The places where Celery puts signatures into signatures.
_CALLBACKS = ("chain", "chord", "link", "link_error")
_MEMBERS = ("tasks", "header", "body", "task")

# Celery's own tasks that run another task; each has the priority of that task.
_MAPS = frozenset({"celery.map", "celery.starmap"})

# A chord's watch follows its header, because one is useless without the other; tests ping to see if a worker runs.
_CELERYS_OWN = frozenset({"celery.chord_unlock", "celery.ping"})


class _Looked(BaseException):
    """Ends `Celery.send_task` when the route is known; handlers of send errors must not catch it."""


class Message:
    """The arguments of one call of `Celery.send_task`. For one thread.

    Attributes:
        place: priority and queue to ask the gate for, once `look` has found them; ``None`` if the message passes.
    """

    def __init__(
        self, app: Any, hook: Hook, send: Callable[..., Any], name: str, args: Any, kwargs: Any, options: dict[str, Any]
    ) -> None:
        self._app = app
        self._hook = hook
        self._send = send
        self._name = name
        self._mark = options.pop(MARK, None)
        self._mapped: str | None = None
        if name in _MAPS:
            self._mapped, mark = _mapped(kwargs)
            self._mark = self._mark or mark
        if name.startswith("celery."):  # a map's and a chord's watch's hold signatures
            args, kwargs = _without_marks(args), _without_marks(kwargs)
        self._args = args
        self._kwargs = kwargs
        self._options = {**options, **_callbacks_without_marks(options)}
        self.place: Place | None = None
        self._passed: tuple[str, Why] | None = None

    def look(self) -> Any:
        """Look for the place without sending anything, and return ``None``.

        An app whose class sends in its own way, and asks no router, has sent already: returns its result.
        """
        self._options["task_id"] = self._options.get("task_id") or celery.uuid()
        try:
            return self._send_by(self._find)
        except _Looked:
            return None

    def _find(self, route: dict[str, Any], *found: Any) -> None:
        queue_name = queue_of(self._app.amqp, route)
        why = self._why()
        if why is None:
            self.place = self._place(queue_name, route, *found)
        else:
            self._passed = queue_name, why
        raise _Looked

    def result(self) -> Any:
        """Return what `Celery.send_task` would."""
        result = (self._options.get("result_cls") or self._app.AsyncResult)(self._options["task_id"])
        result.ignored = self._options.get("ignore_result", False)
        return result

    def count(self) -> None:
        """Count a message that has passed."""
        if self._passed is not None:
            queue_name, why = self._passed
            self._hook.passes(queue_name, because=why)

    def send(self, producer: Any = None) -> Any:
        """Send without asking, by a producer if none was given."""
        return self._send_by(lambda *_: None, producer)

    def send_if_admitted(self) -> Any:
        """Ask, unless the message passes, and send."""
        with contextlib.ExitStack() as stack:

            def ask(route: dict[str, Any], *found: Any) -> None:
                if self._hook.entered or self._name in _CELERYS_OWN:
                    return
                queue_name = queue_of(self._app.amqp, route)
                if not self._hook.passes(queue_name, task=judged_task.get(), because=self._why()):
                    stack.enter_context(self._hook.admitted([self._place(queue_name, route, *found)]))

            return self._send_by(ask)

    def _send_by(self, found: Callable[..., None], producer: Any = None) -> Any:
        options = dict(self._options)
        if producer is not None and not (options.get("producer") or options.get("publisher")):
            options["producer"] = producer
        options["router"] = _Router(options.get("router") or self._app.amqp.router, found)
        return self._send(self._name, self._args, self._kwargs, **options)

    def _why(self) -> Why | None:
        if self._options.get("retries"):
            return "retry"
        if sends_for_worker(self._app):
            return "worker"
        return far_ahead(self._seconds())

    def _seconds(self) -> float | None:
        """Return in how many seconds the task is due; ``None`` for a value that Celery itself will refuse."""
        countdown, eta = self._options.get("countdown"), self._options.get("eta")
        if countdown:
            return float(countdown) if isinstance(countdown, numbers.Real) else None
        if eta:
            with contextlib.suppress(TypeError, ValueError, AttributeError, OverflowError):
                return float((maybe_make_aware(maybe_iso8601(eta)) - self._app.now()).total_seconds())
        return None

    def _place(self, queue_name: str, route: dict[str, Any], routed: str, task: Any, mark: Any) -> Place:
        name = self._name
        if name in _MAPS:  # chunks, and maps in a canvas, are routed by their own name
            name, task = self._mapped or routed, None
        if task is None:
            task = self._app._tasks.get(name)  # noqa: SLF001 - `tasks` would finalize the app, and change its routes
        options = {**self._options, **route, "queue": queue_name}
        signature = self._app.signature(name, self._args, self._kwargs, options=options)
        mark = self._mark or mark or getattr(task, MARK, None)
        return self._hook.place(
            signature,
            name=name,
            queue_name=queue_name,
            mark=mark,
            named=lambda: (self._kwargs, self._options.get("headers")),
        )


class _Router:
    """Reports Celery's route, after Celery has merged all options and before it takes a connection."""

    def __init__(self, router: Any, found: Callable[..., None]) -> None:
        self._router = router
        self._found = found

    def route(
        self, options: dict[str, Any], name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> dict[str, Any]:
        route: dict[str, Any] = self._router.route(options, name, args, kwargs, task_type)
        mark = route.pop(MARK, None)
        self._found(route, name, task_type, mark)
        return route

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)


def _mapped(kwargs: Any) -> tuple[str | None, Any]:
    """Return the name of the task that a map runs, and the mark of its signature."""
    task = kwargs.get("task") if isinstance(kwargs, dict) else None
    if isinstance(task, dict):
        return task.get("task"), (task.get("options") or {}).get(MARK)
    return getattr(task, "name", None), None


def _callbacks_without_marks(options: dict[str, Any]) -> dict[str, Any]:
    return {name: _without_marks(options[name]) for name in _CALLBACKS if options.get(name)}


def _without_marks(value: Any) -> Any:
    """Return a value with the marks of all signatures in it removed; the value itself where there are none."""
    if isinstance(value, (list, tuple)):
        members = [_without_marks(member) for member in value]
        if all(new is old for new, old in zip(members, value, strict=True)):
            return value
        return tuple(members) if isinstance(value, tuple) else members
    if not isinstance(value, dict):
        return value
    if "options" not in value:
        return _replaced(value, {name: _without_marks(value[name]) for name in _MEMBERS if name in value})
    options = value["options"] or {}
    new = {name: option for name, option in options.items() if name != MARK}
    new = _replaced(options if len(new) == len(options) else new, _callbacks_without_marks(options))
    kwargs = value.get("kwargs")
    parts = {"options": new}
    if str(value.get("task")).startswith("celery."):
        parts["kwargs"] = _without_marks(kwargs)
    return _replaced(value, parts)


def _replaced(mapping: Any, parts: dict[str, Any]) -> Any:
    """Return the mapping with these parts; the mapping itself if nothing changed."""
    if all(mapping.get(name) is part for name, part in parts.items()):
        return mapping
    return {**mapping, **parts}
