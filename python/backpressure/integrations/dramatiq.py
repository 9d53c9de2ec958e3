"""Dramatiq: a middleware that asks a controller before a message is enqueued."""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from typing import TYPE_CHECKING, Any

import dramatiq
import dramatiq.worker
from dramatiq.asyncio import EventLoopThread
from dramatiq.common import q_name
from dramatiq.middleware import Middleware, MiddlewareError

from backpressure._model.errors import (
    BackpressureError,
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    JobShedError,
    ThrottledError,
)
from backpressure.integrations._shared.hook import MARK, MAX_WAIT, Hook, far_ahead
from backpressure.integrations._shared.layouts import check_layout
from backpressure.integrations._shared.workers import (
    current_task,
    in_worker,
    mark_process,
    marked,
    recognise,
    task,
    worker,
)
from backpressure.providers.layouts import DramatiqLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from dramatiq import Actor, Broker, Message

    from backpressure._controller.blocking import BackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure._telemetry.passed import Why
    from backpressure.integrations._shared.hook import Given, Place, PriorityRule, QueueRule, TenantRule

__all__ = [
    "BackpressureMiddleware",
    "DramatiqBackpressureError",
    "DramatiqCircuitOpenError",
    "DramatiqConfigurationError",
    "DramatiqControllerNotStartedError",
    "DramatiqJobShedError",
    "DramatiqThrottledError",
    "group",
]

# Dramatiq's processes import the program that declares actors after they have begun, as does periodiq's scheduler.
recognise("dramatiq.cli:worker_process", "dramatiq.cli:fork_process", "periodiq:main")
# A worker starts on a thread of its program, and runs on its own ones. Dramatiq 1 has their names with an underscore.
marked(dramatiq.Worker, "start", "stop", by=functools.partial(worker, process=False))
_module = vars(dramatiq.worker)
for _name in ("ConsumerThread", "WorkerThread"):
    marked(_module.get(_name) or _module[f"_{_name}"], "run")
marked(EventLoopThread, "run")


def _noting_actors(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `Actor.__call__`, so that a worker's outermost call is known as a task."""

    @functools.wraps(call)
    def note(actor: dramatiq.Actor[Any, Any], *args: Any, **kwargs: Any) -> Any:
        if not in_worker() or current_task() is not None:
            return call(actor, *args, **kwargs)
        with task(actor.actor_name):
            return call(actor, *args, **kwargs)

    return note


dramatiq.Actor.__call__ = _noting_actors(dramatiq.Actor.__call__)  # type: ignore[method-assign]

# Dramatiq logs an error of a middleware and still enqueues, unless it is a MiddlewareError.


class DramatiqBackpressureError(BackpressureError, MiddlewareError):
    """Any other reason not to enqueue a message, which is its ``__cause__``."""


class DramatiqConfigurationError(ConfigurationError, MiddlewareError):
    """As `ConfigurationError`; the actor was not declared."""


class DramatiqJobShedError(JobShedError, MiddlewareError):
    """As `JobShedError`; nothing was enqueued."""


class DramatiqCircuitOpenError(CircuitOpenError, MiddlewareError):
    """As `CircuitOpenError`; nothing was enqueued."""


class DramatiqThrottledError(ThrottledError, MiddlewareError):
    """As `ThrottledError`; nothing was enqueued."""


class DramatiqControllerNotStartedError(ControllerNotStartedError, DramatiqBackpressureError):
    """As `ControllerNotStartedError`; nothing was enqueued."""


_KINDS: dict[type[BackpressureError], type[BackpressureError]] = {
    CircuitOpenError: DramatiqCircuitOpenError,
    JobShedError: DramatiqJobShedError,
    ThrottledError: DramatiqThrottledError,
    ControllerNotStartedError: DramatiqControllerNotStartedError,
}


class BackpressureMiddleware(Middleware):
    """Makes ``send`` and ``enqueue`` wait, or raise and enqueue nothing. Give it to ``broker.add_middleware``.

    Args:
        controller: running where messages are sent; workers and periodiq's scheduler need none.
        priority: a priority for all messages; a table by actor name, queue or ``"*"``; or a function of the
            ``dramatiq.Message``. An option ``backpressure_priority`` of a message or an actor comes first.
        queue: a table of Dramatiq's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds or by priority; see `BackpressureController.run`.
        inside_tasks: names of actors whose messages are judged although a worker runs them.
        tenant: the name of an argument of the message by name, or an option, that has its tenant; or
            a function as for `priority`, which returns one or ``None``. Else it is the tenant of the web request.

    For groups see `group`. These pass: what workers, their middlewares and periodiq's scheduler send, retries, and
    messages that are delayed by more than a minute. On an event loop nothing sleeps: a message that would have to wait
    raises, unless it is HIGH.

    Add it as the last middleware, and before actors are declared with the option. It replaces the broker's
    ``enqueue``, because Dramatiq does not tell a middleware that an enqueue failed. Importing this module makes every
    Dramatiq worker mark what it runs.

    Thread-safe.

    Raises:
        ConfigurationError: the controller is an asynchronous one, or there is no priority.
        DramatiqJobShedError, DramatiqCircuitOpenError, DramatiqThrottledError: on enqueueing.
        DramatiqControllerNotStartedError: on enqueueing, outside of a worker.
    """

    def __init__(
        self,
        controller: Given[BackpressureController],
        *,
        priority: PriorityRule,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
        inside_tasks: Collection[str] = (),
        tenant: TenantRule | None = None,
    ) -> None:
        self._hook = Hook(controller, priority, queue, max_wait, inside_tasks, tenant=tenant)
        self._open = _Open()
        self._followed: weakref.WeakSet[Broker] = weakref.WeakSet()
        self._layout: DramatiqLayout | str | None = None
        check_layout(self._hook, "dramatiq", lambda: self._layout)

    @property
    def actor_options(self) -> set[str]:
        """See ``dramatiq.Middleware``."""
        return {MARK}

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:  # noqa: ARG002
        """See ``dramatiq.Middleware``."""
        self._check_layout(broker)

    def after_process_boot(self, broker: Broker) -> None:  # noqa: ARG002
        """See ``dramatiq.Middleware``."""
        mark_process()

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:  # noqa: ARG002
        """See ``dramatiq.Middleware``; also called for actors that were declared before it was added."""
        self._check_layout(broker)
        self._follow(broker)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """See ``dramatiq.Middleware``."""
        self._follow(broker)
        if self._open.slots is not None and self._open.message_id == message.message_id:  # a broker tries again
            return
        with _stopping():
            if self._passes(broker, message, delay):
                return
            place = self._place(broker, message)
            if not _is_serialisable(message):  # this says nothing about the queue; the broker raises it
                return
            slots = self._hook.slots([place])
            slots.__enter__()
        self._open.slots, self._open.message_id = slots, message.message_id

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:  # noqa: ARG002
        """See ``dramatiq.Middleware``."""
        self._close(None)

    @contextlib.contextmanager
    def admitted(self, broker: Broker, messages: Iterable[Message[Any]], *, delay: int | None = None) -> Iterator[None]:
        """Ask once for all `messages`, then let pass what the body enqueues. It raises as enqueueing does.

        Args:
            delay: of all of them, in milliseconds.
        """
        with contextlib.ExitStack() as stack:
            with _stopping():
                judged = [message for message in messages if not self._passes(broker, message, delay)]
                places = [self._place(broker, message) for message in judged]
            for message in judged:
                message.encode()  # raise here if it cannot be serialised: that says nothing about the queue
            with _stopping():
                stack.enter_context(self._hook.admitted(places))
            yield

    def _passes(self, broker: Broker, message: Message[Any], delay: int | None) -> bool:
        because: Why | None = None if delay is None else far_ahead(delay / 1000)
        options = message.options
        if options.get("retries"):
            because = "retry"
        elif "scheduled_at" in options and "periodic" in _options(broker, message):  # periodiq's, in any process
            because = "worker"
        return self._hook.passes(q_name(message.queue_name), because=because)

    def _check_layout(self, broker: Broker) -> None:
        if self._layout is not None:
            return
        layout: DramatiqLayout | str
        if hasattr(broker, "namespace"):
            layout = DramatiqLayout.from_broker(broker)
        elif any(kind.__module__ == "dramatiq.brokers.rabbitmq" for kind in type(broker).__mro__):
            layout = "RabbitMQ"
        else:
            return  # tests' own, or one that is not known here
        try:
            check_layout(self._hook, "dramatiq", lambda: layout)
        except ConfigurationError as error:
            raise DramatiqConfigurationError(str(error), field=error.field) from None
        self._layout = layout

    def _place(self, broker: Broker, message: Message[Any]) -> Place:
        mark = message.options.get(MARK) or _options(broker, message).get(MARK)
        return self._hook.place(
            message,
            name=message.actor_name,
            queue_name=q_name(message.queue_name),
            mark=mark,
            named=lambda: (message.kwargs, message.options),
        )

    def _follow(self, broker: Broker) -> None:
        """From now on, see what a broker's enqueues raise."""
        if broker in self._followed:
            return
        self._followed.add(broker)
        enqueue = broker.enqueue

        @functools.wraps(enqueue)
        def reporting(*args: Any, **kwargs: Any) -> Any:
            opened = self._open
            if not opened.followed:  # an enqueue that began before that, and failed
                self._close(ConnectionError("the message was not enqueued"))
            outer = opened.slots, opened.message_id, opened.followed  # of the message whose middlewares send this one
            opened.slots, opened.followed = None, True
            try:
                return enqueue(*args, **kwargs)
            except BaseException as error:
                self._close(error)
                raise
            finally:
                opened.slots, opened.message_id, opened.followed = outer

        broker.enqueue = reporting  # type: ignore[method-assign]

    def _close(self, error: BaseException | None) -> None:
        """Report the outcome of the enqueue that this thread began, if there is one."""
        slots, self._open.slots = self._open.slots, None
        if slots is not None:
            slots.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


class group(dramatiq.group):  # noqa: N801 - named as what it replaces
    """A ``dramatiq.group`` behind one gate: it waits once per priority and queue, and enqueues all messages or none."""

    def run(self, *, delay: int | None = None) -> group:
        """As ``dramatiq.group.run``; raises as `BackpressureMiddleware`."""
        with contextlib.ExitStack() as stack:
            for middleware in self.broker.middleware:
                if isinstance(middleware, BackpressureMiddleware):
                    stack.enter_context(middleware.admitted(self.broker, _heads(self), delay=delay))
            super().run(delay=delay)  # type: ignore[no-untyped-call]
        return self


class _Open(threading.local):
    """The enqueue that a thread has begun and not ended."""

    slots: contextlib.AbstractContextManager[None] | None = None
    message_id: str | None = None
    followed = False


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Raise all errors, also those of users' rules, as errors that stop an enqueue."""
    try:
        yield
    except MiddlewareError:
        raise
    except Exception as error:
        kind: Any = next((ours for base, ours in _KINDS.items() if isinstance(error, base)), DramatiqBackpressureError)
        stopping = kind(str(error) or type(error).__name__)
        if isinstance(error, BackpressureError):
            vars(stopping).update(vars(error))
        raise stopping from error


def _options(broker: Broker, message: Message[Any]) -> dict[str, Any]:
    """Return the options of a message's actor, if it is declared here."""
    actor = broker.actors.get(message.actor_name)
    return {} if actor is None else actor.options


def _is_serialisable(message: Message[Any]) -> bool:
    try:
        message.encode()
    except Exception:  # noqa: BLE001 - any error of the encoder
        return False
    return True


def _heads(part: Any) -> Iterator[Message[Any]]:
    """Yield the messages that are enqueued at once; the later ones of a pipeline are enqueued by workers."""
    if isinstance(part, dramatiq.group):
        for child in part.children:
            yield from _heads(child)
    elif isinstance(part, dramatiq.pipeline):
        yield part.messages[0]
    else:
        yield part
