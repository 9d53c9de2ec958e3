"""taskiq: a middleware that asks a controller before a task is kicked."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import time
from typing import TYPE_CHECKING, Any

from taskiq import AsyncBroker, InMemoryBroker, TaskiqMessage, TaskiqMiddleware, TaskiqScheduler
from taskiq.cli.scheduler.run import SchedulerLoop
from taskiq.exceptions import SharedBrokerSendTaskError, UnknownTaskError
from taskiq.kicker import AsyncKicker
from taskiq.labels import prepare_label
from taskiq.receiver import Receiver

from backpressure._model.errors import ConfigurationError, InvalidQueueError
from backpressure.integrations._shared.context import setting
from backpressure.integrations._shared.hook import MARK, MAX_WAIT, NOT_ENCODABLE, AsyncHook, far_ahead
from backpressure.integrations._shared.layouts import check_layout
from backpressure.integrations._shared.workers import marked, recognise, running, serving
from backpressure.providers.layouts import TaskiqLayout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from contextlib import AbstractContextManager

    from taskiq import AsyncTaskiqDecoratedTask, BrokerMessage

    from backpressure._controller.asynchronous import AsyncBackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure._telemetry.passed import Why
    from backpressure.integrations._shared.hook import Given, Place, PriorityRule, QueueRule, TenantRule

__all__ = ["ENQUEUED_AT", "BackpressureMiddleware"]

#: The label that tells when a task was first kicked, in Unix seconds, read as ``context.message.labels[ENQUEUED_AT]``.
ENQUEUED_AT = "backpressure_enqueued_at"

# Errors that say nothing about the queue.
_NOT_FAILURES: tuple[type[BaseException], ...] = (SharedBrokerSendTaskError, UnknownTaskError, *NOT_ENCODABLE)

# The task that this code runs in.
_task: contextvars.ContextVar[str | None] = contextvars.ContextVar("_task", default=None)
# Reports the outcome of a task that was let in; kept until the broker gets the task.
_let_in: contextvars.ContextVar[AbstractContextManager[None] | None] = contextvars.ContextVar("_let_in", default=None)


def _mark_workers() -> None:
    """Make receivers and schedulers mark what they run, and tasks tell their names."""
    # The commands' main functions, which then import the code that they run.
    recognise("taskiq.cli.worker.run:start_listen", "taskiq.cli.scheduler.run:run_scheduler")
    marked(Receiver, "listen", by=serving)
    marked(SchedulerLoop, "run", by=serving)
    marked(TaskiqScheduler, "startup", "on_ready", "shutdown")
    patched: Any = Receiver
    patched.callback, patched.run_task = _received(patched.callback), _named(patched.run_task)
    patched = AsyncBroker
    patched.startup, patched.shutdown = _of_a_worker(patched.startup), _of_a_worker(patched.shutdown)
    patched = AsyncKicker
    patched.kiq = _kicked(patched.kiq)


def _received(callback: Any) -> Any:
    @functools.wraps(callback)
    async def received(self: Receiver, *args: Any, **kwargs: Any) -> Any:
        # A broker in memory runs tasks inside the producer that kicks them.
        with contextlib.nullcontext() if isinstance(self.broker, InMemoryBroker) else running():
            return await callback(self, *args, **kwargs)

    return received


def _named(run_task: Any) -> Any:
    @functools.wraps(run_task)
    async def named(self: Receiver, target: Any, message: TaskiqMessage, *args: Any, **kwargs: Any) -> Any:
        in_memory = isinstance(self.broker, InMemoryBroker)
        with contextlib.nullcontext() if in_memory else setting(_task, message.task_name):
            return await run_task(self, target, message, *args, **kwargs)

    return named


def _of_a_worker(hooks: Any) -> Any:
    """Mark a broker's hooks for a worker. Only the hooks: a producer may share the broker."""

    @functools.wraps(hooks)
    async def of_a_worker(self: AsyncBroker) -> Any:
        with running() if self.is_worker_process or self.is_scheduler_process else contextlib.nullcontext():
            return await hooks(self)

    return of_a_worker


def _kicked(kiq: Any) -> Any:
    """Give back the slots of a task that was let in and then not sent, for example because formatting it failed."""

    @functools.wraps(kiq)
    async def kicked(self: Any, *args: Any, **kwargs: Any) -> Any:
        with setting(_let_in, None):
            try:
                return await kiq(self, *args, **kwargs)
            finally:
                unsent = _let_in.get()
                if unsent is not None:
                    with contextlib.suppress(asyncio.CancelledError), unsent:
                        raise asyncio.CancelledError  # as if it were cancelled

    return kicked


_mark_workers()


class BackpressureMiddleware(TaskiqMiddleware):
    """Makes ``kiq`` wait, or raise and enqueue nothing. Give it to ``broker.add_middlewares``.

    Args:
        controller: running where tasks are kicked; workers and schedulers need none.
        priority: a priority for all tasks; a table by task name, queue or ``"*"``; or a function of the
            ``TaskiqMessage``. A label ``backpressure_priority`` of a task or a kicker comes first.
        queue: a table of taskiq's queue names to the controller's, or a function as for `priority`. taskiq's own is
            the label ``queue_name``, else the broker's ``queue_name``.
        max_wait: longest sleep accepted, in seconds; by priority, where it is a mapping.
        inside_tasks: names of tasks that are judged for what they kick, as a producer is.
        tenant: the name of an argument of the task by name, or a label, that has its tenant; or
            a function as for `priority`, which returns one or ``None``. Else it is the tenant of the web request.

    The broker takes no connection before a task is let in. An error of the broker counts as a failure, though ``kiq``
    wraps it in ``SendTaskError``; a task that cannot be formatted or serialised does not. Each ``kiq`` waits by itself;
    for many at once see `admitted`.

    These pass: what workers and schedulers kick, in tasks, their threads, event handlers and middlewares, and in the
    whole process if it is theirs, on any broker; retries; tasks that a schedule makes due; and an ``InMemoryBroker``,
    which runs tasks at once. ``run_receiver_task`` and ``run_scheduler_task`` beside a producer let none of the
    producer's tasks pass, though it shares their broker. Writing down a schedule, as ``schedule_by_time`` does, is not
    gated, because taskiq does not tell middleware of it. A label ``delay`` of more than a minute passes, where the
    broker is one of taskiq-aio-pika.

    Tasks are stamped with the time they were first kicked, see `ENQUEUED_AT`.

    Usable by several tasks; make one for each broker, and add it as the last middleware. Importing this module makes
    receivers and schedulers mark what they run.

    Raises:
        ConfigurationError: the controller is a synchronous one, there is no priority, or the broker has one already.
        InvalidQueueError: on kicking, where no label and no broker names the queue.
        JobShedError, CircuitOpenError, ThrottledError: on kicking, see `AsyncBackpressureController.run`.
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
        super().__init__()
        self._hook = AsyncHook(controller, priority, queue, max_wait, inside_tasks, _NOT_FAILURES, tenant=tenant)
        self._names_queues = callable(queue)

    def set_broker(self, broker: AsyncBroker) -> None:
        """See ``taskiq.TaskiqMiddleware``."""
        mine: Any = self.broker  # None so far, though its type says otherwise
        if mine is not None or any(isinstance(other, BackpressureMiddleware) for other in broker.middlewares):
            raise ConfigurationError(
                "broker is protected already, or the middleware is another's: add one of its own to each broker, once",
                field="broker",  # not the value: a broker knows its password
            )
        try:
            layout = TaskiqLayout.from_broker(broker)
        except ConfigurationError:
            pass  # another broker's queues are not in Redis
        else:
            check_layout(self._hook, "taskiq", lambda: layout)
        super().set_broker(broker)
        # taskiq tells middleware only of a send that succeeded.
        broker.kick = _reporting(broker.kick)  # type: ignore[method-assign]

    async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """See ``taskiq.TaskiqMiddleware``."""
        if not self._passes(message.labels):
            _let_in.set(await self._hook.turn(self._place(message)))
        if ENQUEUED_AT not in message.labels:
            message.labels[ENQUEUED_AT], kind = prepare_label(time.time())
            message.labels_types = {**(message.labels_types or {}), ENQUEUED_AT: kind}
        return message

    @contextlib.asynccontextmanager
    async def admitted(self, *tasks: AsyncTaskiqDecoratedTask[..., Any] | AsyncKicker[..., Any]) -> AsyncIterator[None]:
        """Ask once for all `tasks`, then let pass what the body kicks, however often. It raises as ``kiq`` does.

        Args:
            tasks: tasks or kickers, whose names and labels tell priorities and queues; a rule that is a function is
                given a message without arguments.

        It waits once for each priority and queue among them. The outcome is that of the body.
        """
        messages = [_message(task) for task in tasks]
        async with self._hook.admitted([self._place(one) for one in messages if not self._passes(one.labels)]):
            yield

    def _passes(self, labels: dict[str, Any]) -> bool:
        because: Why | None = None
        if isinstance(self.broker, InMemoryBroker):
            because = "immediate"
        elif "_retries" in labels:  # set by retry middlewares
            because = "retry"
        elif "schedule_id" in labels:  # set by schedulers, however they are run
            because = "worker"
        elif type(self.broker).__module__.startswith("taskiq_aio_pika"):
            because = far_ahead(_seconds(labels.get("delay")))
        return self._hook.passes(self._queue_name(labels) or "", task=_task.get(), because=because)

    def _queue_name(self, labels: dict[str, Any]) -> str | None:
        name: str | None = labels.get("queue_name") or getattr(self.broker, "queue_name", None)
        return name

    def _place(self, message: TaskiqMessage) -> Place:
        queue_name = self._queue_name(message.labels)
        if queue_name is None and not self._names_queues:
            raise InvalidQueueError(
                f"task {message.task_name!r} names no queue, nor does {type(self.broker).__name__}: "
                "give it a label queue_name, or the middleware a function as queue"
            )
        return self._hook.place(
            message,
            name=message.task_name,
            queue_name=queue_name or "",
            mark=message.labels.get(MARK),
            named=lambda: (message.kwargs, message.labels),
        )


def _reporting(kick: Any) -> Any:
    """Wrap a broker's ``kick``, so that its outcome is reported for the task that was let in."""

    @functools.wraps(kick)
    async def reporting(message: BrokerMessage) -> None:
        let_in = _let_in.get()
        _let_in.set(None)  # other tasks that the broker kicks meanwhile ask for themselves
        with let_in or contextlib.nullcontext():
            await kick(message)

    return reporting


def _seconds(label: object) -> float | None:
    try:
        return float(str(label))
    except ValueError:
        return None


def _message(task: AsyncTaskiqDecoratedTask[..., Any] | AsyncKicker[..., Any]) -> TaskiqMessage:
    labels = {name: prepare_label(value)[0] for name, value in task.labels.items()}
    return TaskiqMessage(task_id="", task_name=task.task_name, labels=labels, args=[], kwargs={})
