"""`BackpressureController`: tells producers go, wait or shed, and runs their work accordingly."""

from __future__ import annotations

import contextlib
import inspect
from functools import wraps
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from backpressure._controller.base import ControllerBase
from backpressure._controller.batch import END, ON_OUTCOME_RAISED, Plan, Read, Sleep, Tell, Work
from backpressure._controller.gate import checked, gate_class, tenant_of
from backpressure._controller.jobs import BlockingHost
from backpressure._controller.outcome import UnfinishedWorkError, name_of, refuse_generator
from backpressure._controller.polling.sights import GRACE
from backpressure._controller.polling.thread import Poller
from backpressure._model.arguments import check_jobs, check_patient, longest_wait, validate_queue_name
from backpressure._model.batch import BatchJob, JobOutcome
from backpressure._model.clock import in_event_loop, other_thread
from backpressure._model.decision import ThrottleDecision  # noqa: TC001 - for typing.get_type_hints
from backpressure._model.errors import BackpressureError
from backpressure._model.hidden import hides_arguments
from backpressure._model.tenant import AnyTenant  # noqa: TC001 - likewise
from backpressure._model.vocabulary import Priority  # noqa: TC001 - likewise
from backpressure._runtime.foreign import unless_by_signal

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from prometheus_client import CollectorRegistry

    from backpressure._controller.batch import Step
    from backpressure._controller.file_control import FileControl
    from backpressure._controller.gate import Gate
    from backpressure._controller.polling.sights import ThreadSights
    from backpressure._model.arguments import MaxWait
    from backpressure._model.batch import BatchResult
    from backpressure._model.clock import Clock
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.stats import StatsProvider
    from backpressure._model.tenant import Place
    from backpressure._recording.recorder import Recorder

__all__ = ["BackpressureController"]

P = ParamSpec("P")
T = TypeVar("T")

_AWAITS_OUTCOMES = "give a plain function, or use AsyncBackpressureController"


class BackpressureController(ControllerBase):
    """Decides for every job whether to enqueue it now, later or not at all.

    Args:
        config: thresholds and everything else; ``None`` for the defaults.
        stats_provider: where queue statistics come from. Never closed by the controller.
        logger: default ``logging.getLogger("backpressure")``.
        registry: where metrics go; default ``prometheus_client.REGISTRY``.
        clock: source of time for tests; ``None`` reads the system's inside the engine.
        recorder: writes down what is read and decided; see `Recorder`.
        control: a file of settings that are laid over `config` while it runs.

    Life cycle: new, running, stopped, one way. Use it as a context manager, or call `start` and `stop`.
    All methods are thread-safe. After a fork the child goes on with its parent's circuits, and starts a poller of its
    own when it first reads a queue, or when `start` is called.

    Raises:
        ConfigurationError: `config` or `stats_provider` is no such thing.

    Example:
        >>> sent = []
        >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 0})) as controller:
        ...     controller.run("high", "email-queue", sent.append, "receipt")
        >>> sent
        ['receipt']
    """

    @hides_arguments
    def __init__(
        self,
        config: BackpressureConfig | None,
        stats_provider: StatsProvider,
        *,
        logger: logging.Logger | None = None,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
        recorder: Recorder | None = None,
        control: FileControl | None = None,
        _engine: str | None = None,
    ) -> None:
        super().__init__(config, stats_provider, logger, registry, clock, _engine, recorder, BlockingHost, control)
        self._host: BlockingHost
        # The engine's own methods, without a Python frame of ours. A subclass that overrides one keeps its own.
        if type(self).suggest_throttle is BackpressureController.suggest_throttle:
            self.suggest_throttle = self._engine.suggest_throttle  # type: ignore[method-assign]
        if type(self).run is BackpressureController.run:
            self.run = self._engine.run  # type: ignore[method-assign]

    def _make_poller(self) -> tuple[Poller, ThreadSights]:
        provider: Any = self._provider
        poller = Poller(
            provider,
            self._engine,
            self._config.polling,
            self._clock,
            self._announcer,
            self._samples,
            budgets=self._budgets,
            fleet=self._fleet,
            following=self._following,
        )
        return poller, poller.sights()

    def start(self) -> None:
        """Begin to decide: poll the provider once, bounded by ``polling.timeout``, then in the background.

        A failing first poll is logged and counted, not raised; where the thread runs an event loop the first poll is
        not waited for, and a `RuntimeWarning` says that jobs cannot wait there. A notebook's loop is no such loop. If
        anything else fails or interrupts it, nothing is left behind. If it runs already, nothing happens, except that a
        forked child gets its poller.

        Raises:
            ControllerStoppedError: it was stopped; make a new one.
        """
        on_loop = in_event_loop()
        if on_loop and self._state == "new":
            self._host.warn_of_loop(None)
        with self._starting() as first_poll:
            if first_poll is not None and not on_loop:
                first_poll.wait(self._clock, self._config.polling.timeout + GRACE)

    def stop(self) -> None:
        """Stop deciding; sleepers raise `ControllerStoppedError`. Returns within 1 s. Idempotent."""
        self._set_stopped()
        self._ending(self._poller.stop())()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def suggest_throttle(
        self, priority: Priority | str, queue_name: str, *, tenant: AnyTenant | None = None
    ) -> ThrottleDecision:
        """Decide for one job now: go, wait or shed.

        The caller acts on the answer itself (`ThrottleDecision.wait` sleeps or raises) and should report the
        outcome with `record_success` or `record_failure`. A probe of a recovering circuit is admitted at once; a
        caller that never reports gets one go per ``probe_interval``.

        Args:
            priority: a `Priority`, or ``"low"``, ``"medium"``, ``"high"``.
            queue_name: 1–255 UTF-8 bytes without control characters.
            tenant: on whose behalf, as for `run`.

        Never waits, except that the first sight of a queue reads its statistics, bounded by ``polling.timeout``.

        Raises:
            InvalidPriorityError, InvalidQueueError, ConfigurationError: bad arguments.
            ControllerNotStartedError, ControllerStoppedError: it is not running.

        Example:
            >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 3_500})) as controller:
            ...     decision = controller.suggest_throttle("medium", "email-queue")
            ...     decision.wait()
            ...     controller.record_success(decision)
            >>> decision.delay
            2.75
        """
        return self._engine.suggest_throttle(priority, queue_name, tenant=tenant)

    def run(
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
    ) -> T:
        """Wait as advised, call ``work(*args, **kwargs)``, report its outcome and return its value.

        If `work` returns a future, its outcome is reported once it is done.

        Args:
            max_wait: longest sleep accepted, in seconds, or a mapping of these by priority; beyond it `ThrottledError`
                is raised at once, unless the job is HIGH, which sleeps that long and goes.
            patient: whether a refused job waits until trying again makes sense, and asks again, as often as `max_wait`
                has room for it: what a backfill wants. If the circuit was forced open without an end, it is refused.
            tenant: on whose behalf the job is enqueued, a name or a pair of a name and a class of weights: so that one
                tenant's flood does not take the others' part.

        Raises:
            JobShedError: the backlog is too large; `work` was not called.
            CircuitOpenError: the queue's circuit is open; `work` was not called.
            ThrottledError: the advised delay exceeds `max_wait`; `work` was not called.
            BackpressureError: it would have to wait on a running event loop, and is not HIGH; `work` was not called.
            TypeError: `work` returned a generator or an awaitable, whose work is still to be done.
            Exception: whatever `work` raises.

        Example:
            >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 0})) as controller:
            ...     controller.run("high", "email-queue", int, "ff", base=16, max_wait=0.2)
            255
        """
        return self._engine.run(
            priority, queue_name, work, *args, max_wait=max_wait, patient=patient, tenant=tenant, **kwargs
        )

    @contextlib.contextmanager
    def slot(
        self,
        priority: Priority | str,
        queue_name: str,
        *,
        max_wait: MaxWait = None,
        patient: bool = False,
        jobs: int = 1,
        tenant: AnyTenant | None = None,
    ) -> Iterator[ThrottleDecision]:
        """Wait as advised, then run the body; its outcome is reported. Raises as `run`.

        Args:
            max_wait: longest sleep accepted, as for `run`.
            patient: whether a refused job asks again, as for `run`.
            jobs: how many the body enqueues, 1 to 10,000, all or none. Where an age is held each takes a place, and the
                turn of all comes with the last one's; a table of zones judges the body as one job.
            tenant: on whose behalf, as for `run`.
        """
        decision = self._host.turn(priority, queue_name, max_wait, check_patient(patient), check_jobs(jobs), tenant)
        with self._admission.reporting([decision], jobs=jobs):
            yield decision

    @contextlib.contextmanager
    def _slots(
        self, places: Iterable[Place], max_wait: MaxWait, not_failures: tuple[type[BaseException], ...]
    ) -> Iterator[None]:
        """As `slot` for several; errors of the body that are `not_failures` say nothing about their queues."""
        decisions = self._host.turns(places, max_wait)
        with self._admission.reporting(decisions, not_failures):
            yield

    def gate(
        self, priority: Priority | str, queue_name: str, *, max_wait: MaxWait = None, patient: bool = False
    ) -> Gate:
        """Return a handle for jobs of one priority and queue: the cheapest way for a hot loop.

        Making it reads and creates nothing; it may be made before `start` and shared by threads.

        Args:
            max_wait: longest sleep accepted by ``gate.run`` and ``with gate``, as for `run`.
            patient: whether a refused job asks again, as for `run`.

        Raises:
            InvalidPriorityError, InvalidQueueError, ConfigurationError: bad arguments.

        Example:
            >>> with BackpressureController(None, InMemoryStatsProvider({"clicks": 0})) as controller:
            ...     gate = controller.gate("low", "clicks")
            ...     gate.run(str.upper, "sent")
            'SENT'
        """
        make = gate_class(self._engine_name)
        return make(self._engine, self._host, *checked(priority, queue_name, max_wait, patient))

    def throttled(
        self,
        priority: Priority | str,
        queue_name: str,
        *,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | Callable[..., AnyTenant | None] | None = None,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Make every call of the decorated function go through `run`; a coroutine function awaits its turn.

        Args:
            max_wait: longest sleep accepted, as for `run`.
            patient: whether a refused job asks again, as for `run`.
            tenant: on whose behalf, as for `run`; or a function that is given the call's arguments and returns that, or
                ``None`` for nobody's.

        Raises:
            TypeError: the function is a generator, whose work happens after the call.

        Example:
            >>> controller = BackpressureController(None, InMemoryStatsProvider({"email-queue": 0}))
            >>> @controller.throttled("low", "email-queue")
            ... def enqueue(address):
            ...     return f"queued {address}"
            >>> with controller:
            ...     enqueue("me@example.org")
            'queued me@example.org'
        """
        gate = self.gate(priority, queue_name, max_wait=max_wait, patient=patient)
        place = gate.priority, gate.queue_name, gate.max_wait, gate.patient
        who = tenant_of(tenant)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            refuse_generator(function)
            if inspect.iscoroutinefunction(function):

                @wraps(function)
                async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                    whose = None if who is None else who(*args, **kwargs)
                    decision = await self._host.turn_async(*place, tenant=whose)
                    return await self._host.perform_async(decision, function, *args, **kwargs)

                return cast("Callable[P, T]", call_async)

            if who is not None:

                @wraps(function)
                def call_for(*args: P.args, **kwargs: P.kwargs) -> T:
                    whose = who(*args, **kwargs)
                    if whose is None:
                        return gate.run(function, *args, **kwargs)
                    return gate.run_for(whose, function, *args, **kwargs)

                return call_for

            @wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> T:
                return gate.run(function, *args, **kwargs)

            return call

        return decorate

    def process_batch(
        self,
        jobs: Iterable[BatchJob],
        *,
        timeout: float | None = None,
        on_outcome: Callable[[BatchJob, JobOutcome], object] | None = None,
    ) -> BatchResult:
        """Run many jobs, each queue and priority at its own pace, on the calling thread alone.

        Jobs of one queue, priority and tenant follow each other; waiting for one such stream never delays another. Due
        jobs run one at a time: earliest due first, then HIGH, then in input order.

        Args:
            timeout: seconds; what is not due by then is ``not_started``.
            on_outcome: called as ``on_outcome(job, outcome)`` as each job ends. Then `jobs` may be endless: a job is
                read only when no job that was read is due, and at most 100 that have not ended are held. What is not
                read when the batch ends stays unread. What `on_outcome` raises ends the batch at once.

        Returns:
            An outcome for every job, in input order; with `on_outcome` their counts only. Sheds, open circuits and late
            jobs are outcomes, not errors.

        Raises:
            BatchError: a group of the errors of jobs that failed, after all were handled, with ``.result``; with
                `on_outcome` of the first 100 of them.
            BaseException: what is no `Exception` ends the batch at once, with ``.batch_result``; so does an
                error that a signal handler raises while no work runs, and what `jobs` raises as it is read.
            TypeError: `on_outcome` is a coroutine function.

        Example:
            >>> jobs = [BatchJob("high", "payments", lambda: "paid"), BatchJob("low", "clicks", print)]
            >>> provider = InMemoryStatsProvider({"payments": 0, "clicks": 5_000})
            >>> with BackpressureController(None, provider) as controller:
            ...     [outcome.status for outcome in controller.process_batch(jobs).outcomes]
            ['succeeded', 'shed']
        """
        _refuse_coroutine_function(on_outcome)
        batch = self._batch(jobs, timeout, on_outcome)
        unread = iter(jobs if on_outcome else ())
        if in_event_loop():
            self._host.warn_of_loop(*batch.limits())
        try:
            for step in batch:
                batch.answer = self._take_step(step, unread, on_outcome)
            return batch.result()
        except BaseException as error:
            for untold in batch.cut_short(error):
                try:
                    _tell(untold, on_outcome)
                except Exception as raised:  # noqa: BLE001 - what cut the batch short is what counts
                    self._foreign.raised(raised, "on_outcome", ON_OUTCOME_RAISED)
            raise

    def _take_step(self, step: Step, unread: Iterator[BatchJob], on_outcome: Callable[..., object] | None) -> object:
        try:
            if type(step) is Work:
                return JobOutcome.success(self._host.perform(step.decision, step.job.work))
            if type(step) is Read:
                return self._next_job(unread)
            if type(step) is Tell:
                _tell(step, on_outcome)
                return None
            if type(step) is Plan:
                job = step.job
                return self._host.plan_blocking(
                    *(job.priority, job.queue_name, job.max_wait),
                    patient=job.patient,
                    delays=True,
                    tenant=job.tenant,
                )
            if type(step) is Sleep:
                self._sleeper.pause(step.seconds, step.job.queue_name)
        except Exception as error:
            if isinstance(step, Read | Tell):
                raise
            return JobOutcome("failed", error=error) if isinstance(step, Work) else unless_by_signal(error)
        return None

    def _next_job(self, unread: Iterator[BatchJob]) -> object:
        job = next(unread, END)
        if isinstance(job, BatchJob) and in_event_loop():
            self._host.warn_of_loop(longest_wait(job.max_wait, job.priority, patient=job.patient))
        return job

    def refresh(self, queue_name: str) -> bool:
        """Read a queue's statistics now, whatever the back-off; tell whether there is a new sample.

        Blocks for up to ``polling.timeout``.

        Raises:
            ControllerNotStartedError, ControllerStoppedError: it is not running.
            BackpressureError: the calling thread runs an event loop.

        Example:
            >>> provider = InMemoryStatsProvider({"email-queue": 0})
            >>> with BackpressureController(None, provider) as controller:
            ...     provider.set("email-queue", 7_000)
            ...     controller.refresh("email-queue"), controller.suggest_throttle("low", "email-queue").should_shed
            (True, True)
        """
        name = validate_queue_name(queue_name)
        if self._state != "running":
            raise self._host.not_running()
        if in_event_loop():
            raise BackpressureError(
                f"refreshing queue {name!r} would block the running event loop: use AsyncBackpressureController, or "
                f"call it by {other_thread()}",
                queue_name=name,
            )
        return self._poller.read([name]) == 1


def _refuse_coroutine_function(on_outcome: object) -> None:
    if inspect.iscoroutinefunction(on_outcome):
        raise UnfinishedWorkError(f"{name_of(on_outcome)} is a coroutine function: {_AWAITS_OUTCOMES}")


def _tell(told: Tell, on_outcome: Callable[..., object] | None) -> None:
    assert on_outcome is not None  # noqa: S101 - else the batch tells nothing
    if type(value := on_outcome(told.job, told.outcome)) is CoroutineType:
        value.close()
        raise UnfinishedWorkError(f"{name_of(on_outcome)} returned a coroutine: {_AWAITS_OUTCOMES}")
