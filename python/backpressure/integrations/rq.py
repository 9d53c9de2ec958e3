"""RQ: a `Queue` that asks a controller before it enqueues."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, cast

import redis
import rq
import rq.exceptions
import rq.registry
import rq.scheduler
from rq.job import Job

from backpressure._controller.outcome import unrelated
from backpressure._model.half_built import repr_when_half_built
from backpressure.integrations._shared.hook import MARK, MAX_WAIT, Hook, far_ahead
from backpressure.integrations._shared.layouts import check_layout
from backpressure.integrations._shared.pipelines import sent_by
from backpressure.integrations._shared.workers import frame_of, in_worker, marked, recognise, running
from backpressure.providers.layouts import RQLayout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from redis.client import Pipeline

    from backpressure._controller.blocking import BackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure._telemetry.passed import Why
    from backpressure.integrations._shared.hook import Given, Place, PriorityRule, QueueRule, TenantRule

__all__ = ["NOT_FAILURES", "Queue"]

#: Errors of enqueueing that say nothing about the queue. The job exists already, RQ refuses its options, this process
#: has no connection left in its pool, or the transaction of a caller's pipeline must be tried again.
NOT_FAILURES: tuple[type[Exception], ...] = (
    *filter(None, [getattr(rq.exceptions, "DuplicateJobError", None)]),  # RQ 1 has none
    *filter(None, [getattr(redis, "MaxConnectionsError", None)]),  # redis-py 5 has none
    redis.WatchError,
    redis.DataError,
    ValueError,
)

# RQ's processes import the program that makes our queues after they began: when a job or a callback first needs it.
_MODULES = ("rq.worker", "rq.worker.base")
_METHODS = ("work", "main_work_horse", "perform_job")
recognise(*(f"{module}:{method}" for module in _MODULES for method in _METHODS))
for _method in _METHODS:
    marked(next(kind for kind in rq.Worker.__mro__ if _method in vars(kind)), _method)
marked(rq.scheduler.RQScheduler, "work")
with contextlib.suppress(ModuleNotFoundError):  # since RQ 2.4
    from rq.cron import CronScheduler

    marked(CronScheduler, "start")
# These run jobs and callbacks in any process.
marked(rq.Queue, "run_sync", by=running)
marked(rq.registry.StartedJobRegistry, "cleanup", by=running)


@repr_when_half_built
class Queue(rq.Queue):
    """An ``rq.Queue`` whose ``enqueue…`` and ``schedule_job`` wait, or raise and write nothing.

    Args:
        controller: running where jobs are enqueued; workers need none. ``None`` makes an ordinary queue, unless the
            class is `bound`.
        priority: a priority for all jobs; a table by function (as ``Job.func_name``: ``"shop.mail.send"``, of a method
            ``"send"``, of any other callable ``"__call__"``), queue or ``"*"``; or a function of the ``rq.job.Job``
            (in ``enqueue_many`` of its ``EnqueueData``). A job's ``meta["backpressure_priority"]`` comes first.
        queue: a table of RQ's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds or by priority; see `BackpressureController.run`.
        inside_tasks: names of functions, as for `priority`, whose enqueues are judged although a worker runs them.
        tenant: the name of an argument of the job by name, or a key of its ``meta``, that has its tenant; or
            a function as for `priority`, which returns one or ``None``. Else it is the tenant of the web request.

    All else is as for ``rq.Queue``. ``enqueue_many`` asks once, and enqueues all jobs or none. These pass: what workers
    and their callbacks enqueue, jobs that ran before (retries, repeats), jobs that wait for another to finish or are
    due in more than a minute, and queues with ``is_async=False``. On an event loop nothing sleeps: a job that would
    have to wait raises `ThrottledError`, unless it is HIGH. The outcome of jobs that are put into a caller's
    ``pipeline`` is reported when that is executed.

    Thread-safe as far as ``rq.Queue`` is. Importing this module makes every RQ worker mark what it runs.

    Raises:
        ConfigurationError: there is a controller without a priority, or it is an asynchronous one.
        JobShedError, CircuitOpenError, ThrottledError: on enqueueing, see `BackpressureController.run`.
        ControllerNotStartedError: on enqueueing, outside of a worker.
    """

    _hook: Hook | None = None

    def __init__(
        self,
        *args: Any,
        controller: BackpressureController | None = None,
        priority: PriorityRule | None = None,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
        inside_tasks: Collection[str] = (),
        tenant: TenantRule | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if controller is not None:
            self._hook = Hook(controller, priority, queue, max_wait, inside_tasks, NOT_FAILURES, tenant=tenant)
            _check_layout(self._hook, type(self), self.name)

    @classmethod
    def bound(
        cls,
        controller: Given[BackpressureController],
        *,
        priority: PriorityRule,
        queue: QueueRule | None = None,
        max_wait: MaxWait = MAX_WAIT,
        inside_tasks: Collection[str] = (),
        tenant: TenantRule | None = None,
    ) -> type[Self]:
        """Return a subclass whose queues ask `controller`, for code that takes a class and makes the queues itself.

        Examples are ``@job(queue_class=…)``, ``rq worker --queue-class`` and django-rq. Arguments are those of the
        class.

        Raises:
            ConfigurationError: the controller is an asynchronous one, or there is no priority.

        Example:
            >>> from backpressure.integrations.rq import Queue
            >>> controller = BackpressureController(None, InMemoryStatsProvider({"mail": 0}))
            >>> class MailQueue(Queue.bound(controller, priority="low")):
            ...     pass
        """
        hook = Hook(controller, priority, queue, max_wait, inside_tasks, NOT_FAILURES, tenant=tenant)
        _check_layout(hook, cls)
        attributes = {"_hook": hook, "__module__": cls.__module__, "__doc__": cls.__doc__}
        return cast("type[Self]", type(cls.__name__, (cls,), attributes))

    def enqueue_job(self, job: Job, pipeline: Pipeline | None = None, *args: Any, **kwargs: Any) -> Job:
        """As ``rq.Queue.enqueue_job``, which ``enqueue`` and ``enqueue_call`` call."""
        with self._admitted([job], pipeline, unique=kwargs.get("unique")):
            return super().enqueue_job(job, pipeline, *args, **kwargs)

    def schedule_job(
        self, job: Job, datetime: datetime, pipeline: Pipeline | None = None, *args: Any, **kwargs: Any
    ) -> Job:
        """As ``rq.Queue.schedule_job``, which ``enqueue_at`` and ``enqueue_in`` call."""
        with self._admitted([job], pipeline, due=datetime, unique=kwargs.get("unique")):
            return super().schedule_job(job, datetime, pipeline, *args, **kwargs)

    def enqueue_many(
        self, job_datas: Iterable[rq.queue.EnqueueData], pipeline: Pipeline | None = None, *args: Any, **kwargs: Any
    ) -> list[Job]:
        """As ``rq.Queue.enqueue_many``, behind one gate."""
        datas = list(job_datas)
        with self._admitted(datas, pipeline):
            return super().enqueue_many(datas, pipeline, *args, **kwargs)

    @contextlib.contextmanager
    def _admitted(
        self,
        jobs: list[Any],
        pipeline: Pipeline | None,
        *,
        due: datetime | None = None,
        unique: bool | None = False,
    ) -> Iterator[None]:
        hook = self._hook
        if hook is None or hook.entered:
            yield
            return
        task = _current_function()
        whys = [hook.why(task=task, because=self._because(job, due)) for job in jobs]
        judged = [job for job, why in zip(jobs, whys, strict=True) if why is None]
        # RQ's scheduler asks for no dependencies.
        waiting = self._waiting(judged) if due is None else [False] * len(judged)
        places = [self._place(hook, job) for job, waits in zip(judged, waiting, strict=True) if not waits]
        passed: list[Why] = [why for why in whys if why is not None]
        passed += ["scheduled"] * sum(waiting)
        with self._gate(hook, places, None if unique else pipeline):  # a unique job is sent at once
            for why in passed:
                hook.count_passed(self.name, why)
            yield

    def _gate(
        self, hook: Hook, places: list[Place], pipeline: Pipeline | None
    ) -> contextlib.AbstractContextManager[None]:
        if not places:
            return contextlib.nullcontext()
        return hook.admitted(places) if pipeline is None else sent_by(pipeline, hook.slots(places))

    def _because(self, job: Job | rq.queue.EnqueueData, due: datetime | None) -> Why | None:
        if not self.is_async:
            return "immediate"
        if isinstance(job, Job) and job.started_at is not None:  # RQ's own retries and repeats call schedule_job
            return "retry"
        return None if due is None else far_ahead((due.astimezone(UTC) - datetime.now(UTC)).total_seconds())

    def _waiting(self, jobs: list[Any]) -> list[bool]:
        """Tell of each job whether RQ waits for another to finish before it puts the job into the queue.

        Where that cannot be read, the answer is no: the fault then shows behind the gate, and is reported.
        """
        made = [self._made(job) for job in jobs]
        parents = {parent for job in made for parent in job._dependency_ids or ()}  # noqa: SLF001 - would ask Redis otherwise
        if not parents:
            return [False] * len(jobs)
        try:
            with self.connection.pipeline(transaction=False) as pipeline:
                for parent in parents:
                    pipeline.hget(self.job_class.key_for(parent), "status")
                statuses = dict(zip(parents, pipeline.execute(), strict=True))
        except redis.RedisError:
            return [False] * len(jobs)
        # Jobs of one enqueue_many that follow each other.
        statuses.update(dict.fromkeys((parent for parent in parents if parent in {job.id for job in made}), b""))
        return [
            any(
                statuses[parent] is not None and statuses[parent].decode() not in _met(job)
                for parent in job._dependency_ids or ()  # noqa: SLF001
            )
            for job in made
        ]

    def _place(self, hook: Hook, given: Job | rq.queue.EnqueueData) -> Place:
        job = self._made(given)
        place = hook.place(
            given,
            name=str(job.func_name),
            queue_name=self.name,
            mark=(job.meta or {}).get(MARK),
            named=lambda: (job.kwargs, job.meta),
        )
        # Raise here if the job cannot be serialised: that says nothing about the queue.
        _ = job.data
        if job.meta:
            job.serializer.dumps(job.meta)
        return place

    def _made(self, given: Job | rq.queue.EnqueueData) -> Job:
        if isinstance(given, Job):
            return given
        return self.job_class.create(
            given.func,
            args=given.args,
            kwargs=given.kwargs,
            meta=given.meta,
            id=given.job_id,
            depends_on=given.depends_on,
            connection=self.connection,
            serializer=self.serializer,
        )

    def create_job(self, *args: Any, **kwargs: Any) -> Job:
        """As ``rq.Queue.create_job``; a refusal in ``enqueue_many`` says nothing about the queue."""
        with unrelated():
            return super().create_job(*args, **kwargs)


def _met(job: Job) -> Collection[str]:
    """Return the statuses of another job that end this one's wait for it."""
    return {"finished", "failed"} if job.allow_dependency_failures else {"finished"}


def _current_function() -> str | None:
    """Return the name of the function whose job runs on this thread or, in a job's own threads, on the main one."""
    job = rq.get_current_job()
    if job is None and in_worker():
        # A callback or a thread of a job. It may have begun before this module was imported.
        frame = frame_of(threading.main_thread(), {"rq.job:perform"})
        job = None if frame is None else frame.f_locals["self"]
    return None if job is None else job.func_name


def _check_layout(hook: Hook, queue_class: type[rq.Queue], *names: str) -> None:
    prefix = queue_class.redis_queue_namespace_prefix.removesuffix(":queue:")
    check_layout(hook, "rq", lambda: RQLayout(prefix), names)
