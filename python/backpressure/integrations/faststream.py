"""FastStream: a middleware that asks a controller before a message is published."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from faststream import BaseMiddleware, FastStream, PublishCommand, PublishType
from faststream._internal.application import Application, StartAbleApplication
from faststream._internal.endpoint.subscriber import SubscriberUsecase
from faststream._internal.endpoint.subscriber.call_item import HandlerItem
from faststream.asgi import AsgiFastStream
from faststream.exceptions import FastStreamException

from backpressure._model.errors import BackpressureError
from backpressure.integrations._shared.context import setting
from backpressure.integrations._shared.hook import MARK, MAX_WAIT, NOT_ENCODABLE, AsyncHook
from backpressure.integrations._shared.workers import marked, running, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from faststream import ContextRepo

    from backpressure._controller.asynchronous import AsyncBackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure._model.vocabulary import Priority
    from backpressure.integrations._shared.hook import Given, Place, PriorityRule, QueueRule, TenantRule

__all__ = ["BackpressureMiddleware"]

# Errors that say nothing about the queue: a message that cannot be encoded, a broker that is not connected.
_NOT_FAILURES: tuple[type[BaseException], ...] = (FastStreamException, struct.error, *NOT_ENCODABLE)

# The handler that this code runs in.
_handler: contextvars.ContextVar[str | None] = contextvars.ContextVar("_handler", default=None)


def _mark_consumers() -> None:
    """Make subscribers mark their handling of messages, and applications with subscribers their start and end."""
    marked(SubscriberUsecase, "process_message")
    patched: Any = HandlerItem
    patched.call = _named(patched.call)
    patched = FastStream
    patched.run = _if_consumer(patched.run)
    patched = Application
    for hooks in ("_start_hooks_context", "_shutdown_hooks_context"):
        setattr(patched, hooks, _lived(getattr(patched, hooks)))
    patched = AsgiFastStream
    patched.start_lifespan_context = _lived(patched.start_lifespan_context)
    patched = StartAbleApplication
    patched._init_setupable_ = _with_lifespan(patched._init_setupable_)


def _named(call: Any) -> Any:
    @functools.wraps(call)
    async def named(self: Any, *args: Any, **kwargs: Any) -> Any:
        with setting(_handler, self.name):
            return await call(self, *args, **kwargs)

    return named


def _marking(app: Any, mark: Callable[[], AbstractContextManager[None]]) -> AbstractContextManager[None]:
    """Return the mark for an application that consumes; one that only publishes is a producer."""
    return mark() if any(broker.subscribers for broker in app.brokers) else contextlib.nullcontext()


def _if_consumer(run: Any) -> Any:
    @functools.wraps(run)
    async def mark_and_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _marking(self, serving):
            return await run(self, *args, **kwargs)

    return mark_and_run


class _Life:
    """Part of an application's life. Its beginning and end are marked, not its body: there a web server may serve."""

    def __init__(self, app: Any, life: AbstractAsyncContextManager[Any]) -> None:
        self._app = app
        self._life = life

    async def __aenter__(self) -> Any:
        with _marking(self._app, running):
            return await self._life.__aenter__()

    async def __aexit__(self, *error: Any) -> bool | None:  # noqa: PYI036 - as they are handed on
        with _marking(self._app, running):
            return await self._life.__aexit__(*error)


def _lived(lifespan: Any) -> Any:
    @functools.wraps(lifespan)
    def lived(self: Any, *args: Any, **kwargs: Any) -> _Life:
        return _Life(self, lifespan(self, *args, **kwargs))

    return lived


def _with_lifespan(init: Any) -> Any:
    """Wrap FastAPI's routers when they are made, because they cannot be imported without FastAPI."""

    @functools.wraps(init)
    def init_and_wrap(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        wrap_lifespan = getattr(self, "_wrap_lifespan", None)
        if wrap_lifespan is not None:
            self._wrap_lifespan = lambda *given: functools.partial(_live, self, wrap_lifespan(*given))

    return init_and_wrap


def _live(router: Any, lifespan: Any, app: Any) -> _Life:
    return _Life(router, lifespan(app))


_mark_consumers()


class BackpressureMiddleware:
    """Makes ``publish``, ``publish_batch`` and ``request`` wait, or raise and publish nothing.

    Give it to a broker, ``RedisBroker(url, middlewares=[…, BackpressureMiddleware(…)])``, after other middlewares: then
    it sees the message that they make, and what they raise is not a failure of the queue.

    Args:
        controller: running where messages are published; consumers need none.
        priority: a priority for all messages; a table by destination, or ``"*"``; or a function of FastStream's
            ``PublishCommand``. A header ``backpressure_priority`` of a message or a publisher comes first, and is not
            sent.
        queue: a table of destinations to the controller's queues, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds; by priority, where it is a mapping.
        inside_tasks: names of handlers, as their functions are named. What they publish is judged, as a producer's is;
            their replies and results are not.
        tenant: the name of a header, that has its tenant; or
            a function as for `priority`, which returns one or ``None``. Else it is the tenant of the web request.

    A destination is the list or the stream, with its router's prefix. A pub/sub channel has no backlog: messages to one
    pass, unless the table ``queue`` names it. A batch counts as one message. A request is done when its response has
    come, so no response in time is a failure of the queue. A message for a pipeline waits, or is shed, when it is put
    in; how the pipeline ends is not seen, see `admitted`.

    What a consumer publishes passes. That is: while it handles a message, also replies and what other middlewares
    publish again; and while an application with subscribers starts and stops, in its hooks and its lifespan. The whole
    process of a ``FastStream`` with subscribers is a consumer's, if ``run`` has the event loop for itself. An
    application that only publishes is a producer. So are HTTP requests, also on a server that they share with
    subscribers. Reading by ``async for`` or ``get_one`` is not handling. ``TestRedisBroker`` is gated like any other.
    Messages are not stamped.

    A message that cannot be encoded is not a failure of the queue.

    It uses only what all of FastStream's brokers share, and is tested only with Redis. Usable by several tasks and
    brokers.

    Raises:
        ConfigurationError: the controller is a synchronous one, or there is no priority.
        JobShedError, CircuitOpenError, ThrottledError: on publishing, see `AsyncBackpressureController.run`.
    """

    def __init__(
        self,
        controller: Given[AsyncBackpressureController],
        *,
        priority: PriorityRule,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
        inside_tasks: Collection[str] = (),
        tenant: TenantRule | None = None,
    ) -> None:
        self._hook = AsyncHook(controller, priority, queue, max_wait, inside_tasks, _NOT_FAILURES, tenant=tenant)
        self._named = frozenset(queue) if isinstance(queue, Mapping) else frozenset()

    def __call__(self, msg: Any, /, *, context: ContextRepo) -> BaseMiddleware[Any, Any]:
        """Make the object that FastStream wants for each message."""
        return _Middleware(self._publish, msg, context=context)

    @contextlib.asynccontextmanager
    async def admitted(self, *destinations: str, priority: Priority | str | None = None) -> AsyncIterator[None]:
        """Ask once for all `destinations`, then let pass what the body publishes. It raises as ``publish`` does.

        Args:
            destinations: lists or streams.
            priority: instead of the middleware's; a rule that is a function is given a command without a body.

        It waits once for each priority and queue among them. The outcome is that of the body.
        """
        commands = [
            PublishCommand(None, _publish_type=PublishType.PUBLISH, destination=name)
            for name in destinations
            if not self._passes(name)
        ]
        async with self._hook.admitted([self._place(command, priority) for command in commands]):
            yield

    async def _publish(self, publish: Callable[[Any], Awaitable[Any]], command: PublishCommand) -> Any:
        command.headers = dict(command.headers)
        mark = command.headers.pop(MARK, None)
        if self._keeps_no_backlog(command) or self._passes(command.destination):
            return await publish(command)
        result = None
        with contextlib.suppress(_Unknown):
            async with self._hook.slots([self._place(command, mark)]):
                result = await publish(command)
                if getattr(command, "pipeline", None) is not None:
                    raise _Unknown
        return result

    def _passes(self, destination: str) -> bool:
        return self._hook.passes(destination, task=_handler.get())

    def _keeps_no_backlog(self, command: PublishCommand) -> bool:
        return getattr(command, "destination_type", None) == "channel" and command.destination not in self._named

    def _place(self, command: PublishCommand, mark: Priority | str | None) -> Place:
        name = command.destination
        return self._hook.place(command, name=name, queue_name=name, mark=mark, named=lambda: (command.headers,))


class _Unknown(BackpressureError):  # noqa: N818 - raised and caught here
    """Nothing has been sent yet. An error of ours, because these do not count as success or failure."""


class _Middleware(BaseMiddleware[Any, Any]):
    def __init__(self, publish: Callable[[Any, Any], Awaitable[Any]], msg: Any, /, *, context: ContextRepo) -> None:
        super().__init__(msg, context=context)
        self._publish = publish

    async def publish_scope(self, call_next: Callable[[Any], Awaitable[Any]], cmd: Any) -> Any:
        return await self._publish(call_next, cmd)
