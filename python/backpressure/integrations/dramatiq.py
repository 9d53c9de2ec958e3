"""Dramatiq: a middleware that asks a controller before a message is enqueued."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import dramatiq
import dramatiq.worker
from dramatiq.asyncio import EventLoopThread
from dramatiq.common import q_name
from dramatiq.middleware import Middleware, MiddlewareError

from backpressure.errors import BackpressureError, CircuitOpenError, ConfigurationError, JobShedError, ThrottledError
from backpressure.integrations._hook import MARK, MAX_WAIT, Hook
from backpressure.integrations._layouts import check_layout
from backpressure.providers.layouts import DramatiqLayout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dramatiq import Actor, Broker, Message

    from backpressure.arguments import MaxWait
    from backpressure.controller import BackpressureController
    from backpressure.integrations._hook import Place, PriorityRule, QueueRule

__all__ = [
    "BackpressureMiddleware",
    "DramatiqBackpressureError",
    "DramatiqCircuitOpenError",
    "DramatiqConfigurationError",
    "DramatiqJobShedError",
    "DramatiqThrottledError",
    "group",
]

# Dramatiq 1 has their names with an underscore.
_module = vars(dramatiq.worker)
_WORKERS = tuple(_module.get(name) or _module[f"_{name}"] for name in ("ConsumerThread", "WorkerThread"))

# Dramatiq logs what a middleware raises and enqueues all the same, unless it is a MiddlewareError.


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


class BackpressureMiddleware(Middleware):
    """Makes ``send`` and ``enqueue`` wait, or raise and enqueue nothing. Give it to ``broker.add_middleware``.

    Args:
        controller: running where messages are sent; workers need none.
        priority: a priority for all messages; a table by actor name, queue or ``"*"``; or a function of the
            ``dramatiq.Message``. An option ``backpressure_priority`` of a message or an actor comes first.
        queue: a table of Dramatiq's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds.

    Delayed messages are gated too; for groups see `group`. Retries, delayed messages that have become due, and what
    actors send are let through. On an event loop nothing sleeps: what would have to raises. A message that was let in
    and not enqueued counts as a failure once the same thread enqueues the next, for Dramatiq tells middleware nothing.

    Add it as the last middleware, and before actors are declared with the option.

    Thread-safe.

    Raises:
        ConfigurationError: the controller is an asynchronous one, or there is no priority.
        DramatiqJobShedError, DramatiqCircuitOpenError, DramatiqThrottledError: on enqueueing.
    """

    def __init__(
        self,
        controller: BackpressureController,
        *,
        priority: PriorityRule,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
    ) -> None:
        self._hook = Hook(controller, priority, queue, max_wait)
        self._open = _Open()
        self._layout: DramatiqLayout | None = None
        check_layout(self._hook, "dramatiq", lambda: self._layout)

    @property
    def actor_options(self) -> set[str]:
        """See ``dramatiq.Middleware``."""
        return {MARK}

    def before_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:  # noqa: ARG002
        """See ``dramatiq.Middleware``."""
        if self._layout is not None or not hasattr(broker, "namespace"):
            return
        layout = DramatiqLayout.from_broker(broker)
        try:
            check_layout(self._hook, "dramatiq", lambda: layout)
        except ConfigurationError as error:
            raise DramatiqConfigurationError(str(error), field=error.field) from None
        self._layout = layout

    after_declare_actor = before_declare_actor  # those declared before it was added

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:  # noqa: ARG002
        """See ``dramatiq.Middleware``."""
        self._close(ConnectionError("the message was not enqueued"))
        if self._hook.entered or _in_worker() or message.options.get("retries"):
            return
        with _stopping():
            slots = self._hook.slots([self._place(broker, message)])
            slots.__enter__()
        self._open.slots = slots

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:  # noqa: ARG002
        """See ``dramatiq.Middleware``."""
        self._close(None)

    @contextlib.contextmanager
    def admitted(self, broker: Broker, messages: Iterable[Message[Any]]) -> Iterator[None]:
        """Ask once for all `messages`, then let pass what the body enqueues. Raises as enqueueing does."""
        if self._hook.entered or _in_worker():
            yield
            return
        with _stopping(), self._hook.admitted([self._place(broker, message) for message in messages]):
            yield

    def _place(self, broker: Broker, message: Message[Any]) -> Place:
        mark = message.options.get(MARK) or broker.get_actor(message.actor_name).options.get(MARK)
        return self._hook.place(message, name=message.actor_name, queue_name=q_name(message.queue_name), mark=mark)

    def _close(self, error: Exception | None) -> None:
        """Report how the enqueue that this thread began has gone, if there is one."""
        slots, self._open.slots = self._open.slots, None
        if slots is not None:
            slots.__exit__(type(error) if error else None, error, None)


class group(dramatiq.group):  # noqa: N801 - named as what it stands in for
    """A ``dramatiq.group`` behind one gate: waits once for each priority and queue, enqueues all messages or none."""

    def run(self, *, delay: int | None = None) -> group:
        """As ``dramatiq.group.run``; raises as `BackpressureMiddleware`."""
        with contextlib.ExitStack() as stack:
            for middleware in self.broker.middleware:
                if isinstance(middleware, BackpressureMiddleware):
                    stack.enter_context(middleware.admitted(self.broker, _heads(self)))
            super().run(delay=delay)  # type: ignore[no-untyped-call]
        return self


class _Open(threading.local):
    """The enqueue that a thread has begun and not ended; Dramatiq never interleaves two of one thread."""

    slots: contextlib.AbstractContextManager[None] | None = None


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Raise our errors as ones that stop an enqueue."""
    try:
        yield
    except MiddlewareError:
        raise
    except BackpressureError as error:
        kinds = {
            JobShedError: DramatiqJobShedError,
            CircuitOpenError: DramatiqCircuitOpenError,
            ThrottledError: DramatiqThrottledError,
        }
        kind: Any = kinds.get(type(error), DramatiqBackpressureError)
        raise kind(
            str(error), queue_name=error.queue_name, priority=error.priority, retry_after=error.retry_after
        ) from error


def _in_worker() -> bool:
    return isinstance(threading.current_thread(), (*_WORKERS, EventLoopThread))


def _heads(part: Any) -> Iterator[Message[Any]]:
    """Yield the messages that are enqueued at once; the later ones of a pipeline are enqueued by workers."""
    if isinstance(part, dramatiq.group):
        for child in part.children:
            yield from _heads(child)
    elif isinstance(part, dramatiq.pipeline):
        yield part.messages[0]
    else:
        yield part
