"""The jobs of a batch, and their outcomes."""

from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Literal, Self

import attrs

from backpressure._model.arguments import (
    MaxWait,
    check_max_wait,
    check_patient,
    parse_priority,
    shown,
    validate_queue_name,
)
from backpressure._model.errors import BackpressureError, ConfigurationError, links
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.tenant import Tenant, check_tenant
from backpressure._model.vocabulary import Priority

__all__ = ["BatchError", "BatchJob", "BatchResult", "JobOutcome", "Status", "batch_result"]

Status = Literal["succeeded", "failed", "shed", "circuit_open", "not_started", "interrupted"]


def _callable(_: object, __: object, work: Any) -> None:
    if not callable(work):
        raise ConfigurationError(f"work is {shown(work)}: give a callable without parameters", field="work", value=work)


def _seconds(max_wait: object) -> Any:
    return check_max_wait(max_wait, patient=True)


def _fits(job: "BatchJob", _: object, max_wait: Any) -> None:
    check_max_wait(max_wait, patient=job.patient)


@repr_when_half_built
@attrs.frozen
class BatchJob:
    """One job of a batch.

    Args:
        priority: a `Priority`, or ``"low"``, ``"medium"``, ``"high"``.
        queue_name: the queue that `work` enqueues to.
        work: called without arguments when it is the job's turn; the async controller awaits what it returns.
        max_wait: longest wait accepted, in seconds, or a mapping of these by priority. If the delay is longer, a HIGH
            job starts after this time, and any other is not started.
        patient: whether a refused job waits and asks again, as for `BackpressureController.run`; the jobs behind it in
            its queue, priority and tenant wait with it.
        tenant: on whose behalf it is enqueued, a name or a pair of a name and a class of weights.

    Raises:
        InvalidPriorityError, InvalidQueueError, ConfigurationError: bad arguments.

    Immutable.

    Example:
        >>> job = BatchJob("high", "payments-queue", lambda: "paid")
        >>> job.priority, job.work()
        (<Priority.HIGH: 2>, 'paid')
    """

    priority: Priority = attrs.field(converter=parse_priority)
    queue_name: str = attrs.field(converter=validate_queue_name)
    work: Callable[[], Any] = attrs.field(validator=_callable)
    max_wait: MaxWait = attrs.field(  # without a hash, since it may be a mapping
        default=None, converter=_seconds, validator=_fits, hash=False
    )
    patient: bool = attrs.field(default=False, converter=check_patient)
    tenant: Tenant | None = attrs.field(default=None, converter=attrs.converters.optional(check_tenant))


@repr_when_half_built
@attrs.frozen
class JobOutcome:
    """The outcome of one job.

    Attributes:
        status: ``"succeeded"`` (with `value`), ``"failed"`` (with `error`), ``"shed"`` or ``"circuit_open"`` (with the
            `error` that stands for it), ``"not_started"`` (its work was not called; with the `error` that kept it from
            that, if there was one), or ``"interrupted"`` (its work was called, and the batch cut short before its
            outcome was known).
        value: what the job's work returned.
        error: what it raised, or the error that stands for its rejection.
        retry_after: seconds after which trying again makes sense, where that is known.

    Immutable.

    Example:
        >>> with BackpressureController(None, InMemoryStatsProvider({"clicks": 5_000})) as controller:
        ...     result = controller.process_batch([BatchJob("low", "clicks", print)])
        >>> outcome = result.outcomes[0]
        >>> outcome.status, outcome.retry_after
        ('shed', 7.5)
    """

    status: Status
    value: Any = None
    error: BaseException | None = None
    retry_after: float | None = None

    @staticmethod
    def success(value: object) -> "JobOutcome":
        """Return the outcome of a job whose work returned `value`."""
        return _SUCCEEDED if value is None else JobOutcome("succeeded", value)


_SUCCEEDED = JobOutcome("succeeded")


def _counts(result: "BatchResult") -> dict[Status, int]:
    return dict(Counter(map(attrgetter("status"), result.outcomes)))


@repr_when_half_built
@attrs.frozen
class BatchResult:
    """The outcomes of a batch's jobs, in the order in which the jobs were given. Immutable.

    Attributes:
        outcomes: one `JobOutcome` a job; empty where they were told to ``on_outcome``.
        counts: how many jobs ended so, by status.

    Example:
        >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 0})) as controller:
        ...     result = controller.process_batch(BatchJob("high", "email-queue", dict) for _ in range(3))
        >>> result.count("succeeded"), result.errors()
        (3, [])
    """

    outcomes: tuple[JobOutcome, ...]
    counts: dict[Status, int] = attrs.field(default=attrs.Factory(_counts, takes_self=True), hash=False, repr=False)

    def count(self, status: Status) -> int:
        """Return how many jobs ended so."""
        return self.counts.get(status, 0)

    def errors(self) -> list[Exception]:
        """Return the exceptions of the jobs that failed."""
        return [
            outcome.error
            for outcome in self.outcomes
            if outcome.status == "failed" and isinstance(outcome.error, Exception)
        ]


class BatchError(BackpressureError, ExceptionGroup[Exception]):
    """Jobs of a batch failed. An exception group of their errors; ``result`` holds every job's outcome.

    Example:
        >>> jobs = [BatchJob("high", "email-queue", work) for work in (dict, lambda: 1 / 0)]
        >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 0})) as controller:
        ...     try:
        ...         controller.process_batch(jobs)
        ...     except* ZeroDivisionError as failed:
        ...         print([outcome.status for outcome in failed.result.outcomes])
        ['succeeded', 'failed']
    """

    result: BatchResult | None

    def __new__(cls, message: str, exceptions: Sequence[Exception], result: BatchResult | None = None) -> Self:
        self = super().__new__(cls, message, exceptions)
        self.result = result
        return self

    def __init__(self, message: str, exceptions: Sequence[Exception], result: BatchResult | None = None) -> None:
        super().__init__(message)
        # ExceptionGroup is made again from its arguments, of which BackpressureError keeps the message alone.
        self.args = (message, list(exceptions), result)

    def derive(self, excs: Sequence[Exception]) -> "BatchError":  # type: ignore[override]
        """Return a group of some of the errors, with the whole result."""
        return BatchError(self.message, excs, self.result)


def batch_result(error: BaseException | None) -> BatchResult | None:
    """Return what is known of the jobs of a batch that ended with `error`, or ``None`` if no batch did.

    The error that cut a batch short carries it as ``batch_result``, a `BatchError` as ``result``. Timeouts raise an
    error of their own instead, and groups wrap it: causes, contexts and members of groups are looked at as well.

    Example:
        >>> async def main():
        ...     jobs = [BatchJob("high", "email-queue", lambda: asyncio.sleep(60)) for _ in range(2)]
        ...     async with AsyncBackpressureController(None, InMemoryStatsProvider({"email-queue": 0})) as controller:
        ...         try:
        ...             async with asyncio.timeout(0.01):
        ...                 await controller.process_batch(jobs)
        ...         except TimeoutError as error:
        ...             return [outcome.status for outcome in batch_result(error).outcomes]
        >>> asyncio.run(main())
        ['interrupted', 'not_started']
    """
    for link in links(error, contexts=True):
        known = link.result if isinstance(link, BatchError) else getattr(link, "batch_result", None)
        if isinstance(known, BatchResult):
            return known
    return None
