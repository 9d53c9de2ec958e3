"""`AsyncBackpressureController`: the same decisions for asyncio."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import attrs

from backpressure._controller.async_jobs import AsyncAdmission, AsyncHost, on_thread
from backpressure._controller.base import ControllerBase
from backpressure._controller.batch import END, ON_OUTCOME_RAISED, Plan, Read, Tell, Work
from backpressure._controller.gate import AsyncGate, checked, tenant_of
from backpressure._controller.outcome import refuse_generator
from backpressure._controller.polling.caller_loop import CallerLoopReads
from backpressure._controller.polling.own_loop import LoopReads
from backpressure._controller.polling.sights import GRACE
from backpressure._controller.polling.thread import Poller
from backpressure._model.arguments import check_jobs, check_patient, validate_queue_name
from backpressure._model.batch import JobOutcome
from backpressure._model.clock import require_asyncio
from backpressure._model.decision import ThrottleDecision  # noqa: TC001 - for typing.get_type_hints
from backpressure._model.hidden import hides_arguments
from backpressure._model.tenant import AnyTenant  # noqa: TC001 - likewise
from backpressure._model.vocabulary import Priority  # noqa: TC001 - likewise
from backpressure._runtime.foreign import unless_by_signal

if TYPE_CHECKING:
    import logging
    import threading
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from types import TracebackType

    from prometheus_client import CollectorRegistry

    from backpressure._controller.batch import Step
    from backpressure._controller.file_control import FileControl
    from backpressure._controller.polling.sights import Sights
    from backpressure._engine.settings import EngineSettings
    from backpressure._model.arguments import MaxWait
    from backpressure._model.batch import BatchJob, BatchResult
    from backpressure._model.clock import Clock
    from backpressure._model.config.polling import PollingConfig
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.stats import AsyncStatsProvider, StatsProvider
    from backpressure._model.tenant import Place
    from backpressure._recording.recorder import Recorder

__all__ = ["AsyncBackpressureController"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncBackpressureController(ControllerBase):
    """`BackpressureController` for asyncio: the same names; methods that may wait are coroutines.

    Args:
        config: thresholds and everything else; ``None`` for the defaults.
        stats_provider: an `AsyncStatsProvider`, read on an event loop of the controller's own unless it is bound to its
            callers' loops; or a `StatsProvider`, read on threads. Never closed by the controller.
        logger: default ``logging.getLogger("backpressure")``.
        registry: where metrics go; default ``prometheus_client.REGISTRY``.
        clock: source of time for tests; ``None`` reads the system's inside the engine.
        recorder: writes down what is read and decided; see `Recorder`.
        control: a file of settings that are laid over `config` while it runs.

    A decision from the cache never yields to the event loop. Cancelling a call at any point holds nothing back: no
    permit, no count, and a read that others share goes on for them. Usable from several loops in several threads.

    Raises:
        ConfigurationError: `config` or `stats_provider` is no such thing.

    Example:
        >>> async def main():
        ...     async with AsyncBackpressureController(None, InMemoryStatsProvider({"email-queue": 0})) as controller:
        ...         async with controller.slot("high", "email-queue"):
        ...             return await controller.run("low", "email-queue", asyncio.sleep, 0, "sent")
        >>> asyncio.run(main())
        'sent'
    """

    __module__ = "backpressure"

    _may_await = True

    @hides_arguments
    def __init__(
        self,
        config: BackpressureConfig | None,
        stats_provider: AsyncStatsProvider | StatsProvider,
        *,
        logger: logging.Logger | None = None,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
        recorder: Recorder | None = None,
        control: FileControl | None = None,
        _engine: str | None = None,
    ) -> None:
        super().__init__(
            config, stats_provider, logger, registry, clock, _engine, recorder, AsyncHost, control, AsyncAdmission
        )
        self._host: AsyncHost

    def _make_poller(self) -> tuple[Poller, Sights[Any, Any]]:
        provider: Any = self._provider
        self._loop_reads: LoopReads | None = None
        if self._awaited and not self._bound:
            provider = self._loop_reads = LoopReads(provider)
        poller = Poller(
            provider,
            self._engine,
            self._polling(self._config),
            self._clock,
            self._announcer,
            self._samples,
            self._end_reads,
            self._rest_reads,
            budgets=self._budgets,
            fleet=self._fleet,
            following=self._following,
        )
        self._read: Callable[[list[str]], Awaitable[int | None]]
        if self._bound:
            reads = CallerLoopReads(provider, self._samples, self._clock, lambda: self._config.polling.timeout)
            self._read = reads.read
            return poller, reads
        self._read = lambda names: on_thread(partial(poller.read, names))
        return poller, poller.sights()

    @property
    def _bound(self) -> bool:
        """Whether the provider is read on the callers' loops: then there is no background reader."""
        return self._awaited and bool(getattr(self._provider, "loop_bound", False))

    def _polling(self, config: BackpressureConfig) -> PollingConfig:
        return attrs.evolve(config.polling, enabled=False) if self._bound else config.polling

    def _settings(self, config: BackpressureConfig) -> EngineSettings:
        settings = super()._settings(config)
        if self._bound:  # a caller that finds a sample older than the interval reads the queue
            settings = attrs.evolve(settings, polling=False, cache_ttl_ns=settings.check_every_ns)
        return settings

    def _end_reads(self) -> threading.Thread | None:
        if self._loop_reads is None:
            return None
        return self._loop_reads.close() if self._host.stopped_in else self._loop_reads.end()

    def _rest_reads(self) -> threading.Thread | None:
        return None if self._loop_reads is None else self._loop_reads.rest()

    async def start(self) -> None:
        """Begin to decide: poll the provider once, bounded by ``polling.timeout``, then in the background.

        A failing first poll is logged and counted, not raised. A cancelled start has not started.

        Raises:
            ControllerStoppedError: it was stopped; make a new one.
            BackpressureError: trio runs here, not asyncio.
        """
        require_asyncio()
        with self._starting() as first_poll:
            if first_poll is not None:
                await first_poll.wait_async(self._clock, self._config.polling.timeout + GRACE)

    async def stop(self) -> None:
        """Stop deciding; sleepers raise `ControllerStoppedError`. Returns within 1 s. Idempotent.

        A cancelled stop has stopped, and waits for nothing more.
        """
        require_asyncio()
        self._set_stopped()
        await on_thread(self._ending(self._poller.stop()))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def suggest_throttle(
        self, priority: Priority | str, queue_name: str, *, tenant: AnyTenant | None = None
    ) -> ThrottleDecision:
        """Decide for one job now: go, wait or shed. See `BackpressureController.suggest_throttle`."""
        return await self._host.suggest(priority, queue_name, tenant)

    @overload
    async def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | None = None,
        **kwargs: Any,
    ) -> T: ...

    async def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., Any],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | None = None,
        **kwargs: Any,
    ) -> Any:
        """Wait as advised, call ``work(*args, **kwargs)``, await its value if it is awaitable, and report its outcome.

        If that returns a future, its outcome is reported once it is done.

        Arguments and errors as those of `BackpressureController.run`.
        """
        decision = await self._host.turn(priority, queue_name, max_wait, check_patient(patient), tenant=tenant)
        return await self._host.perform(decision, work, *args, **kwargs)

    @contextlib.asynccontextmanager
    async def slot(
        self,
        priority: Priority | str,
        queue_name: str,
        *,
        max_wait: MaxWait = None,
        patient: bool = False,
        jobs: int = 1,
        tenant: AnyTenant | None = None,
    ) -> AsyncIterator[ThrottleDecision]:
        """Wait as advised, then run the body; its outcome is reported. Raises as `run`.

        Args:
            max_wait: longest sleep accepted, as for `run`.
            patient: whether a refused job asks again, as for `run`.
            jobs: how many the body enqueues, 1 to 10,000, all or none. Where an age is held each takes a place, and the
                turn of all comes with the last one's; a table of zones judges the body as one job.
            tenant: on whose behalf, as for `run`.
        """
        decision = await self._host.turn(
            priority, queue_name, max_wait, check_patient(patient), check_jobs(jobs), tenant
        )
        with self._admission.reporting([decision], jobs=jobs):
            yield decision

    @contextlib.asynccontextmanager
    async def _slots(
        self, places: Iterable[Place], max_wait: MaxWait, not_failures: tuple[type[BaseException], ...]
    ) -> AsyncIterator[None]:
        """As `slot` for several; errors of the body that are `not_failures` say nothing about their queues."""
        decisions = await self._host.turns(places, max_wait)
        with self._admission.reporting(decisions, not_failures):
            yield

    def gate(
        self, priority: Priority | str, queue_name: str, *, max_wait: MaxWait = None, patient: bool = False
    ) -> AsyncGate:
        """Return a handle for jobs of one priority and queue. See `BackpressureController.gate`."""
        return AsyncGate(self._host, *checked(priority, queue_name, max_wait, patient))

    def throttled(
        self,
        priority: Priority | str,
        queue_name: str,
        *,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | Callable[..., AnyTenant | None] | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Make every call of the decorated coroutine function go through `run`.

        Args:
            max_wait: longest sleep accepted, as for `run`.
            patient: whether a refused job asks again, as for `run`.
            tenant: on whose behalf, or a function of the call's arguments: as for `BackpressureController.throttled`.

        Raises:
            TypeError: the function is no coroutine function, or a generator.
        """
        place, who = checked(priority, queue_name, max_wait, patient), tenant_of(tenant)

        def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
            refuse_generator(function)
            if not inspect.iscoroutinefunction(function):
                raise TypeError(
                    f"{function!r} is no coroutine function, so it cannot await its turn: use BackpressureController"
                )

            @wraps(function)
            async def call(*args: P.args, **kwargs: P.kwargs) -> T:
                whose = None if who is None else who(*args, **kwargs)
                decision = await self._host.turn(*place, tenant=whose)
                value: T = await self._host.perform(decision, function, *args, **kwargs)
                return value

            return call

        return decorate

    async def refresh(self, queue_name: str) -> bool:
        """Read a queue's statistics now, whatever the back-off; tell whether there is a new sample.

        Raises:
            ControllerNotStartedError, ControllerStoppedError: it is not running.
        """
        name = validate_queue_name(queue_name)
        if self._state != "running":
            raise self._host.not_running()
        return await self._read([name]) == 1

    async def process_batch(
        self,
        jobs: Iterable[BatchJob] | AsyncIterable[BatchJob],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it ends what is not due, and cancels nothing
        on_outcome: Callable[[BatchJob, JobOutcome], object] | None = None,
    ) -> BatchResult:
        """Run many jobs, each queue and priority at its own pace, in the calling task.

        Work that returns an awaitable is awaited, and so is what `on_outcome` returns. Otherwise as
        `BackpressureController.process_batch`. If it is cancelled, its ``CancelledError`` has ``.batch_result``; where
        a timeout made a ``TimeoutError`` of that, `batch_result` finds it.
        """
        if isinstance(jobs, AsyncIterable) and on_outcome is None:
            jobs = [job async for job in jobs]
        batch = self._batch(() if isinstance(jobs, AsyncIterable) else jobs, timeout, on_outcome)
        unread = aiter(jobs) if isinstance(jobs, AsyncIterable) else iter(jobs if on_outcome else ())
        try:
            for step in batch:
                batch.answer = await self._take_step(step, unread, on_outcome)
            return batch.result()
        except BaseException as error:
            for untold in batch.cut_short(error):
                try:
                    await _tell(untold, on_outcome, awaits=not isinstance(error, GeneratorExit))
                except Exception as raised:  # noqa: BLE001 - what cut the batch short is what counts
                    self._foreign.raised(raised, "on_outcome", ON_OUTCOME_RAISED)
            raise

    async def _take_step(
        self,
        step: Step,
        unread: Iterator[BatchJob] | AsyncIterator[BatchJob],
        on_outcome: Callable[..., object] | None,
    ) -> object:
        try:
            if isinstance(step, Work):
                return JobOutcome.success(await self._host.perform(step.decision, step.job.work))
            if isinstance(step, Plan):
                job = step.job
                return await self._host.plan_async(
                    *(job.priority, job.queue_name, job.max_wait),
                    patient=job.patient,
                    delays=True,
                    tenant=job.tenant,
                )
            if isinstance(step, Read):
                return await anext(unread, END) if isinstance(unread, AsyncIterator) else next(unread, END)
            if isinstance(step, Tell):
                await _tell(step, on_outcome)
                return None
            await self._sleeper.pause_async(step.seconds)
        except Exception as error:
            if isinstance(step, Read | Tell):
                raise
            return JobOutcome("failed", error=error) if isinstance(step, Work) else unless_by_signal(error)
        return None


async def _tell(told: Tell, on_outcome: Callable[..., object] | None, *, awaits: bool = True) -> None:
    assert on_outcome is not None  # noqa: S101 - else the batch tells nothing
    value = on_outcome(told.job, told.outcome)
    if inspect.isawaitable(value):
        if awaits:
            await value
        elif isinstance(value, Coroutine):  # the batch's own coroutine is being closed, and can wait for nothing
            value.close()
