"""taskiq: a middleware that asks a controller before a task is kicked."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import time
from typing import TYPE_CHECKING, Any

from taskiq import InMemoryBroker, TaskiqMessage, TaskiqMiddleware
from taskiq.labels import prepare_label

from backpressure.errors import ConfigurationError, InvalidQueueError
from backpressure.integrations._hook import MARK, MAX_WAIT, AsyncHook
from backpressure.integrations._layouts import check_layout
from backpressure.providers.layouts import TaskiqLayout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask, BrokerMessage
    from taskiq.kicker import AsyncKicker

    from backpressure.arguments import MaxWait
    from backpressure.async_controller import AsyncBackpressureController
    from backpressure.gate import AsyncGate
    from backpressure.integrations._hook import Place, PriorityRule, QueueRule

__all__ = ["ENQUEUED_AT", "BackpressureMiddleware"]

#: The label that tells when a task was first kicked, in Unix seconds, read as ``context.message.labels[ENQUEUED_AT]``.
ENQUEUED_AT = "backpressure_enqueued_at"

# Whether a worker runs this code: a task, or a middleware that kicks it anew.
_in_task: contextvars.ContextVar[bool] = contextvars.ContextVar("_in_task", default=False)
# The gate that a task was let in by, until the broker has it. No generator, which could not be dropped in silence.
_entered: contextvars.ContextVar[AsyncGate | None] = contextvars.ContextVar("_entered", default=None)


class BackpressureMiddleware(TaskiqMiddleware):
    """Makes ``kiq`` wait, or raise and enqueue nothing. Give it to ``broker.add_middlewares``.

    Args:
        controller: running where tasks are kicked; workers and schedulers need none.
        priority: a priority for all tasks; a table by task name, queue or ``"*"``; or a function of the
            ``TaskiqMessage``. A label ``backpressure_priority`` of a task or a kicker comes first.
        queue: a table of taskiq's queue names to the controller's, or a function as for `priority`. taskiq's own is
            the label ``queue_name``, else the broker's ``queue_name``.
        max_wait: longest sleep accepted, in seconds.

    The broker takes no connection before a task is let in; what it raises counts as a failure, though ``kiq`` wraps it
    in ``SendTaskError``. Each ``kiq`` waits by itself; for many at once see `admitted`. Retries, what tasks and else a
    worker's process kick, what schedulers send, and an ``InMemoryBroker``, which runs tasks at once, are let through.
    ``run_receiver_task`` makes its broker a worker's: give producers in the same process a broker of their own. Writing
    down a schedule, as ``schedule_by_time`` does, is not gated: taskiq tells no middleware of it.

    Tasks are stamped with the time they were first kicked, see `ENQUEUED_AT`.

    Usable by several tasks; make one for each broker, and add it as the last middleware.

    Raises:
        ConfigurationError: the controller is a synchronous one, there is no priority, or the broker has one already.
        InvalidQueueError: on kicking, where neither label nor broker names the queue.
        JobShedError, CircuitOpenError, ThrottledError: on kicking, see `AsyncBackpressureController.run`.
    """

    def __init__(
        self,
        controller: AsyncBackpressureController,
        *,
        priority: PriorityRule,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
    ) -> None:
        super().__init__()
        self._hook = AsyncHook(controller, priority, queue, max_wait)
        self._names_queues = callable(queue)
        self._max_wait = max_wait

    def set_broker(self, broker: AsyncBroker) -> None:
        """See ``taskiq.TaskiqMiddleware``."""
        mine: Any = self.broker  # None so far, whatever its type says
        if mine is not None or any(isinstance(other, BackpressureMiddleware) for other in broker.middlewares):
            raise ConfigurationError(
                "broker is protected already, or the middleware is another's: add one of its own to each broker, once",
                field="broker",  # and no value: a broker knows its password
            )
        try:
            layout = TaskiqLayout.from_broker(broker)
        except ConfigurationError:
            pass  # another broker's queues do not lie in Redis
        else:
            check_layout(self._hook, "taskiq", lambda: layout)
        super().set_broker(broker)
        # taskiq tells middleware of a send that went well, and of no other.
        broker.kick = _reporting(broker.kick)  # type: ignore[method-assign]

    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """See ``taskiq.TaskiqMiddleware``."""
        # What this task was let in with before and never kicked says nothing of the queue, as if it was cancelled.
        await _take().__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)
        if not self._passes(message.labels):
            gate = self._hook.controller.gate(*self._place(message), max_wait=self._max_wait)
            await gate.__aenter__()
            _entered.set(gate)
        if ENQUEUED_AT not in message.labels:
            message.labels[ENQUEUED_AT], kind = prepare_label(time.time())
            message.labels_types = {**(message.labels_types or {}), ENQUEUED_AT: kind}
        return message

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """See ``taskiq.TaskiqMiddleware``."""
        if not isinstance(self.broker, InMemoryBroker):  # it may run the task in the context of who kicks
            _in_task.set(True)
        return message

    @contextlib.asynccontextmanager
    async def admitted(self, *tasks: AsyncTaskiqDecoratedTask[..., Any] | AsyncKicker[..., Any]) -> AsyncIterator[None]:
        """Ask once for all `tasks`, then let pass what the body kicks, however often. Raises as ``kiq`` does.

        Args:
            tasks: tasks or kickers, whose names and labels tell priorities and queues; a rule that is a function is
                given a message without arguments.

        Waits once for each priority and queue among them. The outcome is that of the body.
        """
        if self._passes({}):
            yield
            return
        async with self._hook.admitted([self._place(_message(task)) for task in tasks]):
            yield

    def _passes(self, labels: dict[str, Any]) -> bool:
        """Tell whether a task is let in already, run at once, or kicked by taskiq. To refuse the last loses it."""
        broker = self.broker
        return bool(
            self._hook.entered
            or _in_task.get()
            or isinstance(broker, InMemoryBroker)
            or broker.is_worker_process
            or broker.is_scheduler_process
            or "_retries" in labels  # as retry middlewares have it
            or "schedule_id" in labels  # as schedulers have it, `run_scheduler_task` among them
        )

    def _place(self, message: TaskiqMessage) -> Place:
        queue_name = message.labels.get("queue_name") or getattr(self.broker, "queue_name", None)
        if queue_name is None and not self._names_queues:
            raise InvalidQueueError(
                f"task {message.task_name!r} names no queue, nor does {type(self.broker).__name__}: "
                "give it a label queue_name, or the middleware a function as queue"
            )
        return self._hook.place(
            message, name=message.task_name, queue_name=queue_name or "", mark=message.labels.get(MARK)
        )


def _reporting(kick: Any) -> Any:
    """Return a broker's ``kick``, such that how it goes is the outcome of what was let in."""

    @functools.wraps(kick)
    async def reporting(message: BrokerMessage) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(_take())
            await kick(message)

    return reporting


def _take() -> contextlib.AbstractAsyncContextManager[Any]:
    """Return the gate that was entered and is to be left now, or nothing to leave."""
    gate = _entered.get()
    _entered.set(None)
    return gate or contextlib.nullcontext()


def _message(task: AsyncTaskiqDecoratedTask[..., Any] | AsyncKicker[..., Any]) -> TaskiqMessage:
    labels = {name: prepare_label(value)[0] for name, value in task.labels.items()}
    return TaskiqMessage(task_id="", task_name=task.task_name, labels=labels, args=[], kwargs={})
