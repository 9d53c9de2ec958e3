"""One gate for all that a Celery canvas sends at once: a group, a chord or a chain, however they are nested.

Only Celery knows what a canvas sends, and with which options; this differs between releases. So Celery does all its
work, but what leaves the process is kept back: messages, and calls of the result backend. Then one gate is asked for
all messages. It lets all of it go, or nothing.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import weakref
from typing import TYPE_CHECKING, Any

from celery import canvas
from celery.local import Proxy
from celery.result import AsyncResult

from backpressure.integrations._celery.worker import sends_for_worker
from backpressure.integrations._shared.context import setting
from backpressure.integrations._shared.passing import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure.integrations._celery.message import Message
    from backpressure.integrations._shared.hook import Hook

__all__ = ["hooks", "real", "unsent"]

#: The hooks of the apps that are protected.
hooks: weakref.WeakKeyDictionary[Any, Hook] = weakref.WeakKeyDictionary()


class Unsent:
    """What one canvas sends, kept until its gate is asked. For one thread."""

    def __init__(self, app: Any, hook: Hook) -> None:
        self.app = app
        self._hook = hook
        self._messages: list[Message] = []
        self._backend_calls: list[Callable[[], object]] = []
        self._subscriptions: list[Callable[[], object]] = []

    def put(self, message: Message) -> Any:
        """Keep a message and return the result object of its task, which nobody runs yet."""
        sent = message.look()
        if sent is not None:
            return sent
        self._messages.append(message)
        return message.result()

    def put_backend_call(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Keep a call that the result backend must get before the messages are sent."""
        self._backend_calls.append(functools.partial(function, *args, **kwargs))

    def put_subscription(self, then: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Keep a subscription to a result."""
        self._subscriptions.append(functools.partial(then, *args, **kwargs))

    def send(self) -> None:
        """Ask for all messages, and send them."""
        places = [message.place for message in self._messages if message.place is not None]
        with self._hook.admitted(places):
            # Celery does all this in turns. These calls may take their own connection, so none is held meanwhile.
            for call in self._backend_calls:
                call()
            if self._messages:
                with self.app.producer_or_acquire() as producer:
                    for message in self._messages:
                        message.send(producer)
            # Sending makes results that are collected at once, which ends their task's subscription.
            for subscribe in self._subscriptions:
                subscribe()
        for message in self._messages:
            message.count()


class _StandIn:
    """The app that a canvas gets meanwhile. It takes no connection, and keeps the calls for the backend."""

    def __init__(self, unsent: Unsent) -> None:
        self._unsent = unsent
        self.backend = _Backend(unsent)

    def producer_or_acquire(self, producer: Any = None) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext(producer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unsent.app, name)


class _Backend:
    def __init__(self, unsent: Unsent) -> None:
        self._unsent = unsent

    def apply_chord(self, *args: Any, **kwargs: Any) -> None:
        self._unsent.put_backend_call(self._unsent.app.backend.apply_chord, *args, **kwargs)

    def set_chord_size(self, *args: Any, **kwargs: Any) -> None:
        self._unsent.put_backend_call(self._unsent.app.backend.set_chord_size, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unsent.app.backend, name)


_unsent: contextvars.ContextVar[Unsent | None] = contextvars.ContextVar("_unsent", default=None)


def unsent(app: Any) -> Unsent | None:
    """Return the `Unsent` to which this code adds messages of `app`, if a canvas is about to send them."""
    innermost = _unsent.get()
    return innermost if innermost is not None and innermost.app is app else None


def real(app: Any) -> Any:
    """Return the app that `celery.current_app` stands for, or the app itself."""
    return app._get_current_object() if isinstance(app, Proxy) else app  # noqa: SLF001 - no other way to tell


@contextlib.contextmanager
def _gathered(app: Any) -> Iterator[Any]:
    """Keep what the body sends, and send it at the end. Yield the app for the canvas to use, ``None`` for its own.

    In a worker, or where the gate was asked already, nothing is kept.
    """
    hook = hooks.get(app)
    inner = unsent(app)
    if hook is None or hook.entered or is_passing() or sends_for_worker(app):
        yield None
    elif inner is not None:
        yield _StandIn(inner)
    else:
        made = Unsent(app, hook)
        with setting(_unsent, made):
            yield _StandIn(made)
        made.send()


def _gather_chains(run: Any) -> Any:
    @functools.wraps(run)
    def gathered(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _gathered(real(kwargs.get("app") or self.app)):
            return run(self, *args, **kwargs)

    return gathered


def _gather_chords(run: Any) -> Any:
    @functools.wraps(run)
    def gathered(
        self: Any, header: Any, body: Any, partial_args: Any, app: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        with _gathered(real(app or self.app)) as stand_in:
            return run(self, header, body, partial_args, stand_in or app, *args, **kwargs)

    return gathered


def _gather_groups(apply_tasks: Any) -> Any:
    @functools.wraps(apply_tasks)
    def gathered(self: Any, tasks: Any, producer: Any = None, app: Any = None, *args: Any, **kwargs: Any) -> Any:
        with _gathered(real(app or self.app)) as stand_in:
            return list(apply_tasks(self, tasks, producer, stand_in or app, *args, **kwargs))

    return gathered


def _gather_results(then: Any) -> Any:
    # Subscribes to the result.
    @functools.wraps(then)
    def gathered(self: Any, *args: Any, **kwargs: Any) -> Any:
        innermost = _unsent.get()
        if innermost is None:
            return then(self, *args, **kwargs)
        innermost.put_subscription(then, self, *args, **kwargs)
        return self.on_ready

    return gathered


canvas._chain.run = _gather_chains(canvas._chain.run)  # noqa: SLF001 - there is no public place
canvas._chord.run = _gather_chords(canvas._chord.run)  # noqa: SLF001
canvas.group._apply_tasks = _gather_groups(canvas.group._apply_tasks)  # noqa: SLF001
AsyncResult.then = _gather_results(AsyncResult.then)
