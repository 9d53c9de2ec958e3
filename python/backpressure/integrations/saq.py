"""SAQ: asks a controller before a job is enqueued."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import saq
from saq.job import get_default_job_key

from backpressure._controller.outcome import unrelated
from backpressure._model.errors import ConfigurationError
from backpressure.integrations._shared.context import setting
from backpressure.integrations._shared.hook import MARK, MAX_WAIT, AsyncHook, far_ahead
from backpressure.integrations._shared.layouts import check_layout
from backpressure.integrations._shared.workers import marked, recognise, serving
from backpressure.providers.layouts import SAQLayout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from backpressure._controller.asynchronous import AsyncBackpressureController
    from backpressure._model.arguments import MaxWait
    from backpressure.integrations._shared.hook import Given, Place, PriorityRule, QueueRule, TenantRule

__all__ = ["protect"]

Q = TypeVar("Q", bound=saq.Queue)

# The command's main function, which then imports the code that it runs.
recognise("saq.worker:start")
marked(saq.Worker, "start", by=serving)
# A worker that ran before this module was imported calls these again, or its user calls them.
marked(saq.Worker, "schedule", "process", "stop")
_protected: weakref.WeakSet[saq.Queue] = weakref.WeakSet()

# The function of the job that is run here.
_function: contextvars.ContextVar[str | None] = contextvars.ContextVar("_function", default=None)


def _name_jobs() -> None:
    """Make workers note which function runs: from the end of the hooks before a job to the start of those after it."""
    worker: Any = saq.Worker
    process, before, after = worker.process, worker._before_process, worker._after_process  # noqa: SLF001

    @functools.wraps(process)
    async def process_and_forget(self: Any) -> bool:
        with setting(_function, None):
            done: bool = await process(self)
            return done

    @functools.wraps(before)
    async def before_process(self: Any, context: Any) -> None:
        await before(self, context)
        _function.set(context["job"].function)

    @functools.wraps(after)
    async def after_process(self: Any, context: Any) -> None:
        _function.set(None)
        await after(self, context)

    worker.process, worker._before_process, worker._after_process = process_and_forget, before_process, after_process  # noqa: SLF001


_name_jobs()


class _Batch:
    """Jobs enqueued in one ``queue.batch()``: it asks for the first job of a place, and the others follow that."""

    def __init__(self, hook: AsyncHook) -> None:
        self.hook = hook
        self.over = False
        self._let_in: set[Place] = set()
        self._asking = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def admitted(self, place: Place) -> AsyncIterator[None]:
        async with self._asking:
            if place not in self._let_in:
                async with self.hook.admitted([place]):
                    yield
                self._let_in.add(place)
                return
        yield


_batch: contextvars.ContextVar[_Batch | None] = contextvars.ContextVar("_batch", default=None)
# Keys of the jobs that the map under way has enqueued already.
_mapped: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("_mapped", default=frozenset())


def protect(
    saq_queue: Q,
    controller: Given[AsyncBackpressureController],
    *,
    priority: PriorityRule,
    queue: QueueRule | None = None,
    max_wait: MaxWait = MAX_WAIT,
    inside_tasks: Collection[str] = (),
    tenant: TenantRule | None = None,
) -> Q:
    """Make a ``saq.Queue`` wait, or raise and enqueue nothing, each time jobs are enqueued. Returns it.

    Args:
        saq_queue: of Redis, Postgres or HTTP. Protect HTTP queues where they enqueue. Do not protect the queue behind a
            proxy, because workers enqueue through it as well.
        controller: running where jobs are enqueued; workers need none.
        priority: a priority for all jobs; a table by function name, queue or ``"*"``; or a function of the
                ``saq.Job``. A job's ``meta["backpressure_priority"]`` comes first. SAQ's own ``priority`` has nothing
                to do with it.
        queue: a table of SAQ's queue names to the controller's, or a function as for `priority`.
        max_wait: longest sleep accepted, in seconds; by priority, where it is a mapping.
        inside_tasks: names of functions whose jobs are judged for what they enqueue, as a producer is.
        tenant: the name of an argument of the job, or a key of its ``meta``, that has its tenant; or
            a function as for `priority`, which returns one or ``None``. Else it is the tenant of the web request.

    ``map`` asks once for each priority and queue among its jobs, and enqueues all or none. In ``batch()`` the first job
    of a priority asks for the others as well; if one is shed, SAQ aborts those before it. These are not failures: a job
    whose key is taken, for which SAQ returns ``None``; an error of a ``before_enqueue`` callback; and a job that cannot
    be serialised. The wait comes before a connection is taken, before other ``before_enqueue`` callbacks, and before
    SAQ notes ``Job.queued``.

    These pass: what a worker enqueues, in cron jobs, jobs, hooks and their threads, and in the worker's whole process
    if that is its own; and jobs ``scheduled`` for more than a minute ahead. Retries are not enqueued.

    Usable by several tasks; protect a queue once, before it enqueues. Importing this module makes every ``saq.Worker``
    mark what it runs.

    Raises:
        ConfigurationError: it is protected already, the controller is a synchronous one, or there is no priority.
        JobShedError, CircuitOpenError, ThrottledError: on enqueueing, see `AsyncBackpressureController.run`.
    """
    if saq_queue in _protected:
        raise ConfigurationError("queue is protected already: call protect() once for each queue", field="saq_queue")
    hook = AsyncHook(controller, priority, queue, max_wait, inside_tasks, tenant=tenant)
    if hasattr(saq_queue, "redis"):
        check_layout(hook, "saq", SAQLayout, [saq_queue.name])
    _protected.add(saq_queue)
    enqueue, map_, batch_ = saq_queue.enqueue, saq_queue.map, saq_queue.batch

    def place(job: saq.Job) -> Place | None:
        """Return the place to ask for a job, unless it passes."""
        if hook.passes(saq_queue.name, task=_function.get(), because=far_ahead(_due_in(job))):
            return None
        return hook.place(
            job,
            name=job.function,
            queue_name=saq_queue.name,
            mark=job.meta.get(MARK),
            named=lambda: (job.kwargs, job.meta),
        )

    @functools.wraps(enqueue)
    async def gated_enqueue(job_or_func: str | saq.Job, **kwargs: Any) -> saq.Job | None:
        if kwargs.get("key") in _mapped.get():
            return None
        its, batch = place(_job(job_or_func, kwargs)), _batch.get()
        if its is None:
            return await enqueue(job_or_func, **kwargs)
        if batch is None or batch.hook is not hook or batch.over:
            admitted = hook.admitted([its])
        else:
            admitted = batch.admitted(its)
        async with admitted:
            return await enqueue(job_or_func, **kwargs)

    @functools.wraps(map_)
    async def gated_map(
        job_or_func: str | saq.Job,
        iter_kwargs: Sequence[dict[str, Any]],
        timeout: float | None = None,  # noqa: ASYNC109 - SAQ's own
        return_exceptions: bool = False,
        poll_interval: float = 0.5,
        **kwargs: Any,
    ) -> list[Any]:
        jobs = [{"timeout": timeout, "key": get_default_job_key(), **kwargs, **one} for one in iter_kwargs]
        places = [its for job in jobs if (its := place(_job(job_or_func, job))) is not None]
        # Enqueue earlier than SAQ, which then also waits for results: a failed result is not the queue's failure.
        async with hook.admitted(places):
            await asyncio.gather(*(enqueue(job_or_func, **job) for job in jobs))
        with setting(_mapped, frozenset(job["key"] for job in jobs)):
            return await map_(job_or_func, jobs, timeout, return_exceptions, poll_interval)

    @functools.wraps(batch_)
    @contextlib.asynccontextmanager
    async def gated_batch() -> AsyncIterator[None]:
        batch = _Batch(hook)
        async with batch_():
            with setting(_batch, batch):
                try:
                    yield
                finally:
                    batch.over = True

    protected: Any = saq_queue
    protected.enqueue, protected.map, protected.batch = gated_enqueue, gated_map, gated_batch
    serialize, before_enqueue = protected.serialize, protected._before_enqueue  # noqa: SLF001

    @functools.wraps(serialize)
    def own_serialize(job: saq.Job) -> Any:
        with unrelated():
            return serialize(job)

    @functools.wraps(before_enqueue)
    async def own_before_enqueue(job: saq.Job) -> None:
        with unrelated():
            await before_enqueue(job)

    protected.serialize, protected._before_enqueue = own_serialize, own_before_enqueue  # noqa: SLF001
    return saq_queue


def _due_in(job: saq.Job) -> float | None:
    """Return in how many seconds a job is due, if it tells."""
    scheduled: Any = job.scheduled
    return scheduled - time.time() if isinstance(scheduled, int | float) and scheduled else None


def _job(job_or_func: str | saq.Job, kwargs: dict[str, Any]) -> saq.Job:
    """Return the job that an enqueue will make, or a job like the one that it will change."""
    fields = {name: value for name, value in kwargs.items() if name in saq.Job.__dataclass_fields__}
    arguments = {name: value for name, value in kwargs.items() if name not in fields}
    if arguments:
        fields["kwargs"] = {**(fields.get("kwargs") or {}), **arguments}
    if isinstance(job_or_func, str):
        return saq.Job(job_or_func, **fields)
    return dataclasses.replace(job_or_func, **fields)
