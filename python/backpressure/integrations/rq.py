"""RQ: a `Queue` that asks a controller before it enqueues."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import rq
from rq.job import Job

from backpressure.integrations._hook import MARK, MAX_WAIT, Hook
from backpressure.integrations._layouts import check_layout
from backpressure.providers.layouts import RQLayout

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from backpressure.arguments import MaxWait
    from backpressure.controller import BackpressureController
    from backpressure.integrations._hook import Place, PriorityRule, QueueRule

__all__ = ["Queue"]


class Queue(rq.Queue):
    """An ``rq.Queue`` whose ``enqueue…`` and ``schedule_job`` wait, or raise and write nothing.

    Args:
        controller: running; ``None`` makes an ordinary queue, as workers do for their own use.
        priority: a priority for all jobs; a table by function (``"shop.mail.send"``), queue or ``"*"``; or a function
            of the ``rq.job.Job`` (in ``enqueue_many`` of its ``EnqueueData``). A job's
            ``meta["backpressure_priority"]`` comes first.
        queue: a table of RQ's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds.

    All else is as for ``rq.Queue``. ``enqueue_many`` asks once, and enqueues all jobs or none. Jobs that ran before
    (retries, repeats), what RQ's scheduler enqueues, enqueues inside of jobs, and queues with ``is_async=False`` are
    let through. On an event loop nothing sleeps: what would have to raises `ThrottledError`.

    Thread-safe as far as ``rq.Queue`` is.

    Raises:
        ConfigurationError: there is a controller without a priority, or it is an asynchronous one.
        JobShedError, CircuitOpenError, ThrottledError: on enqueueing, see `BackpressureController.run`.
    """

    def __init__(
        self,
        *args: Any,
        controller: BackpressureController | None = None,
        priority: PriorityRule | None = None,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._hook = None if controller is None else Hook(controller, priority, queue, max_wait)
        if self._hook is not None:
            prefix = self.redis_queue_namespace_prefix.removesuffix(":queue:")
            check_layout(self._hook, "rq", lambda: RQLayout(prefix), [self.name])

    def enqueue_job(self, job: Job, *args: Any, **kwargs: Any) -> Job:
        """As ``rq.Queue.enqueue_job``, which ``enqueue`` and ``enqueue_call`` call."""
        with self._admitted([job]):
            return super().enqueue_job(job, *args, **kwargs)

    def schedule_job(self, job: Job, datetime: datetime, *args: Any, **kwargs: Any) -> Job:
        """As ``rq.Queue.schedule_job``, which ``enqueue_at`` and ``enqueue_in`` call."""
        with self._admitted([job]):
            return super().schedule_job(job, datetime, *args, **kwargs)

    def enqueue_many(self, job_datas: Iterable[rq.queue.EnqueueData], *args: Any, **kwargs: Any) -> list[Job]:
        """As ``rq.Queue.enqueue_many``, behind one gate."""
        jobs = list(job_datas)
        with self._admitted(jobs):
            return super().enqueue_many(jobs, *args, **kwargs)

    def _admitted(self, jobs: Iterable[Job | rq.queue.EnqueueData]) -> contextlib.AbstractContextManager[None]:
        if self._hook is None or self._hook.entered or not self.is_async or rq.get_current_job() is not None:
            return contextlib.nullcontext()
        return self._hook.admitted([self._place(self._hook, job) for job in jobs if not _has_run(job)])

    def _place(self, hook: Hook, job: Job | rq.queue.EnqueueData) -> Place:
        name = str(job.func_name) if isinstance(job, Job) else _name(job.func)
        return hook.place(job, name=name, queue_name=self.name, mark=(job.meta or {}).get(MARK))


def _has_run(job: Job | rq.queue.EnqueueData) -> bool:
    # RQ's own retries and repeats call schedule_job, also on queues of this class.
    return isinstance(job, Job) and job.started_at is not None


def _name(function: Any) -> str:
    return function if isinstance(function, str) else f"{function.__module__}.{function.__qualname__}"
