"""arq: asks a controller before a job is enqueued."""

from __future__ import annotations

import functools
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from arq.connections import ArqRedis  # type: ignore[import-not-found]
from arq.jobs import JobDef  # type: ignore[import-not-found]
from arq.worker import Worker  # type: ignore[import-not-found]

from backpressure.errors import ConfigurationError
from backpressure.integrations._hook import MAX_WAIT, AsyncHook
from backpressure.integrations._layouts import check_layout
from backpressure.integrations._workers import in_worker, marked
from backpressure.providers.layouts import ArqLayout

if TYPE_CHECKING:
    from backpressure.arguments import MaxWait
    from backpressure.async_controller import AsyncBackpressureController
    from backpressure.integrations._hook import PriorityRule, QueueRule
    from backpressure.types import Priority

__all__ = ["protect"]

P = TypeVar("P", bound=ArqRedis)

# Besides main and close, what a worker that was running before this module was imported calls anew.
marked(Worker, "main", "close", "run_cron", "run_job")
# What of an enqueue's keywords is not passed to the job.
_OPTIONS = {"_job_id", "_queue_name", "_defer_until", "_defer_by", "_expires", "_job_try"}
_protected: weakref.WeakSet[ArqRedis] = weakref.WeakSet()


def protect(
    pool: P,
    controller: AsyncBackpressureController,
    *,
    priority: PriorityRule,
    queue: QueueRule | None = None,
    max_wait: MaxWait = MAX_WAIT,
) -> P:
    """Make a pool's ``enqueue_job`` wait, or raise and enqueue nothing. Returns the pool.

    Args:
        pool: as ``arq.create_pool`` returns it. It may be a worker's ``redis_pool`` too.
        controller: running where jobs are enqueued; workers need none.
        priority: a priority for all jobs; a table by function name, queue or ``"*"``; or a function of the
            ``arq.jobs.JobDef``. An argument ``_backpressure_priority`` of ``enqueue_job`` comes first.
        queue: a table of arq's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds.

    Deferred jobs are gated too. A job that exists already, for which arq returns ``None``, is no failure. Cron jobs,
    what jobs and a worker's hooks enqueue, and jobs enqueued anew with ``_job_try`` above 1 are let through; retries
    stay in the queue. The wait comes before a connection is taken, and before arq notes ``enqueue_time``.

    Usable by several tasks; protect a pool once, before it enqueues. Importing this module has every ``arq.Worker``
    mark what it runs.

    Raises:
        ConfigurationError: it is protected already, the controller is a synchronous one, or there is no priority.
        JobShedError, CircuitOpenError, ThrottledError: on enqueueing, see `AsyncBackpressureController.run`.
    """
    if pool in _protected:
        raise ConfigurationError("pool is protected already: call protect() once for each pool", field="pool")
    hook = AsyncHook(controller, priority, queue, max_wait)
    check_layout(hook, "arq", ArqLayout)
    _protected.add(pool)
    enqueue = pool.enqueue_job

    @functools.wraps(enqueue)
    async def enqueue_job(
        function: str, *args: Any, _backpressure_priority: Priority | str | None = None, **kwargs: Any
    ) -> Any:
        if hook.entered or in_worker() or (kwargs.get("_job_try") or 1) > 1:
            return await enqueue(function, *args, **kwargs)
        queue_name = kwargs.get("_queue_name")
        place = hook.place(
            _job(function, args, kwargs),
            name=function,
            queue_name=pool.default_queue_name if queue_name is None else queue_name,
            mark=_backpressure_priority,
        )
        async with hook.admitted([place]):
            return await enqueue(function, *args, **kwargs)

    pool.enqueue_job = enqueue_job
    return pool


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
