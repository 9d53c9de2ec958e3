"""arq: asks a controller before a job is enqueued."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import time
import weakref
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from arq.connections import ArqRedis  # type: ignore[import-not-found]
from arq.jobs import JobDef, SerializationError  # type: ignore[import-not-found]
from arq.worker import Worker  # type: ignore[import-not-found]

from backpressure._model.errors import ConfigurationError
from backpressure.integrations._shared.context import setting
from backpressure.integrations._shared.hook import MAX_WAIT, NOT_ENCODABLE, AsyncHook, far_ahead
from backpressure.integrations._shared.layouts import check_layout
from backpressure.integrations._shared.workers import marked, recognise, running, serving
from backpressure.providers.layouts import ArqLayout

if TYPE_CHECKING:
    from collections.abc import Collection

    from backpressure._controller.asynchronous import AsyncBackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure._model.vocabulary import Priority
    from backpressure._telemetry.passed import Why
    from backpressure.integrations._shared.hook import Given, PriorityRule, QueueRule, TenantRule

__all__ = ["protect"]

P = TypeVar("P", bound=ArqRedis)

# The command's main function, which then imports the code that it runs.
recognise("arq.cli:cli")
marked(Worker, "run")
marked(Worker, "async_run", by=serving)
# A worker that ran before this module was imported calls these again, or its user calls them.
marked(Worker, "main", "close", "run_cron", "run_job")
# These call back and start tasks at once.
marked(Worker, "handle_sig", "handle_sig_wait_for_completion", by=running)

# Keywords of an enqueue that are not passed to the job.
_OPTIONS = {"_job_id", "_queue_name", "_defer_until", "_defer_by", "_expires", "_job_try"}
_protected: weakref.WeakSet[ArqRedis] = weakref.WeakSet()

# Errors that say nothing about the queue: options that make no sense, jobs that cannot be serialised.
_NOT_FAILURES = (SerializationError, *NOT_ENCODABLE)

# The function of the job that is run here.
_function: contextvars.ContextVar[str | None] = contextvars.ContextVar("_function", default=None)


def _name_jobs() -> None:
    """Make workers note which function runs, except workers that were made before this module was imported."""
    init = Worker.__init__

    @functools.wraps(init)
    def init_and_name(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.functions = {
            name: dataclasses.replace(function, coroutine=_named(name, function.coroutine))
            for name, function in self.functions.items()
        }

    Worker.__init__ = init_and_name


def _named(name: str, coroutine: Any) -> Any:
    @functools.wraps(coroutine)
    async def named(*args: Any, **kwargs: Any) -> Any:
        with setting(_function, name):
            return await coroutine(*args, **kwargs)

    return named


_name_jobs()


def protect(
    pool: P,
    controller: Given[AsyncBackpressureController],
    *,
    priority: PriorityRule,
    queue: QueueRule | None = None,
    max_wait: MaxWait = MAX_WAIT,
    inside_tasks: Collection[str] = (),
    tenant: TenantRule | None = None,
) -> P:
    """Make a pool's ``enqueue_job`` wait, or raise and enqueue nothing. Returns the pool.

    Args:
        pool: as ``arq.create_pool`` returns it. It may be a worker's ``redis_pool`` too.
        controller: running where jobs are enqueued; workers need none.
        priority: a priority for all jobs; a table by function name, queue or ``"*"``; or a function of the
            ``arq.jobs.JobDef``. An argument ``_backpressure_priority`` of ``enqueue_job`` comes first.
        queue: a table of arq's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds; by priority, where it is a mapping.
        inside_tasks: names of functions whose jobs are judged for what they enqueue, as a producer is.
        tenant: the name of an argument of the job by name, that has its tenant; or
            a function as for `priority`, which returns one or ``None``. Else it is the tenant of the web request.

    A job that exists already, for which arq returns ``None``, is not a failure; neither is a job that cannot be
    serialised. The wait comes before a connection is taken, and before arq notes ``enqueue_time``.

    These pass: what a worker enqueues, in cron jobs, jobs, hooks and their threads, and in the worker's whole process
    if that is its own; jobs that are enqueued again with ``_job_try`` above 1; and jobs deferred by more than a minute.
    Retries stay in the queue.

    Usable by several tasks; protect a pool once, before it enqueues. Importing this module makes every ``arq.Worker``
    mark what it runs.

    Raises:
        ConfigurationError: it is protected already, the controller is a synchronous one, or there is no priority.
        JobShedError, CircuitOpenError, ThrottledError: on enqueueing, see `AsyncBackpressureController.run`.
    """
    if pool in _protected:
        raise ConfigurationError("pool is protected already: call protect() once for each pool", field="pool")
    hook = AsyncHook(controller, priority, queue, max_wait, inside_tasks, _NOT_FAILURES, tenant=tenant)
    check_layout(hook, "arq", ArqLayout)
    _protected.add(pool)
    enqueue = pool.enqueue_job

    @functools.wraps(enqueue)
    async def enqueue_job(
        function: str, *args: Any, _backpressure_priority: Priority | str | None = None, **kwargs: Any
    ) -> Any:
        queue_name = kwargs.get("_queue_name")
        if queue_name is None:
            queue_name = pool.default_queue_name
        because: Why | None = "retry" if (kwargs.get("_job_try") or 1) > 1 else far_ahead(_due_in(kwargs))
        if hook.passes(queue_name, task=_function.get(), because=because):
            return await enqueue(function, *args, **kwargs)
        if kwargs.get("_defer_until") and kwargs.get("_defer_by"):
            return await enqueue(function, *args, **kwargs)  # arq refuses it
        place = hook.place(
            _job(function, args, kwargs),
            name=function,
            queue_name=queue_name,
            mark=_backpressure_priority,
            named=lambda: (kwargs,),
        )
        async with hook.admitted([place]):
            return await enqueue(function, *args, **kwargs)

    pool.enqueue_job = enqueue_job
    return pool


def _due_in(options: dict[str, Any]) -> float | None:
    """Return in how many seconds a job is due, if its options tell."""
    until, by = options.get("_defer_until"), options.get("_defer_by")
    if isinstance(until, datetime):
        return until.timestamp() - time.time()
    if isinstance(by, timedelta):
        return by.total_seconds()
    return by if isinstance(by, int | float) else None


def _job(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobDef:
    return JobDef(
        function=function,
        args=args,
        kwargs={name: value for name, value in kwargs.items() if name not in _OPTIONS},
        job_try=1,
        enqueue_time=datetime.now(UTC),
        score=None,
        job_id=kwargs.get("_job_id"),
    )
