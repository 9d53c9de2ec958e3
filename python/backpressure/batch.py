"""Batches: in which order many jobs are decided, waited for and run by one caller. No I/O, no waiting.

`steps` is a generator that asks for one thing at a time and is sent its outcome; the controllers do what it asks, each
in its own way.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import attrs

from backpressure.arguments import MaxWait, check_max_wait, longest_wait
from backpressure.errors import BatchError, ConfigurationError, JobShedError, ThrottledError
from backpressure.settings import nanoseconds
from backpressure.types import Priority, Reason, ThrottleDecision, validate_queue_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from backpressure.desk import Desk

__all__ = ["Batch", "BatchJob", "BatchResult", "JobOutcome", "Plan", "Sleep", "Step", "Work", "steps"]

Status = Literal["succeeded", "failed", "shed", "circuit_open", "not_started", "interrupted"]


def _priority(value: object) -> Priority:
    return Priority.parse(value)


def _callable(_: object, __: object, work: Any) -> None:
    if not callable(work):
        raise ConfigurationError(f"work is {work!r}: give a callable without parameters", field="work", value=work)


@attrs.frozen
class BatchJob:
    """One job of a batch.

    Args:
        priority: a `Priority`, or ``"low"``, ``"medium"``, ``"high"``.
        queue_name: the queue that `work` enqueues to.
        work: called without arguments when the job's turn has come; the async controller awaits what it returns.
        max_wait: longest wait accepted, in seconds, or a mapping of these by priority; beyond it a job that is HIGH
            starts then, and any other is not started.

    Raises:
        InvalidPriorityError, InvalidQueueError, ConfigurationError: bad arguments.

    Immutable.

    Example:
        >>> job = BatchJob("high", "payments-queue", lambda: "paid")
        >>> job.priority, job.work()
        (<Priority.HIGH: 2>, 'paid')
    """

    priority: Priority = attrs.field(converter=_priority)
    queue_name: str = attrs.field(converter=validate_queue_name)
    work: Callable[[], Any] = attrs.field(validator=_callable)
    max_wait: MaxWait = attrs.field(default=None, converter=check_max_wait, hash=False)  # which may be a mapping


@attrs.frozen
class JobOutcome:
    """What became of one job.

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
    def success(value: object) -> JobOutcome:
        """Return the outcome of a job whose work returned `value`."""
        return _SUCCEEDED if value is None else JobOutcome("succeeded", value)


_NOT_STARTED = JobOutcome("not_started")
_INTERRUPTED = JobOutcome("interrupted")
_SUCCEEDED = JobOutcome("succeeded")


@attrs.frozen
class BatchResult:
    """The outcomes of a batch's jobs, in the order in which the jobs were given. Immutable.

    Attributes:
        outcomes: one `JobOutcome` a job.

    Example:
        >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 0})) as controller:
        ...     result = controller.process_batch(BatchJob("high", "email-queue", dict) for _ in range(3))
        >>> result.count("succeeded"), result.errors()
        (3, [])
    """

    outcomes: tuple[JobOutcome, ...]

    def count(self, status: Status) -> int:
        """Return how many jobs ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    def errors(self) -> list[Exception]:
        """Return the exceptions of the jobs that failed."""
        return [
            outcome.error
            for outcome in self.outcomes
            if outcome.status == "failed" and isinstance(outcome.error, Exception)
        ]


class Plan(NamedTuple):
    """Decide for `job`, which takes waiting; send the decision, or the exception that came instead."""

    job: BatchJob


class Sleep(NamedTuple):
    """Wait for `job` to become due; send ``None``, or the exception that ended the wait."""

    seconds: float
    job: BatchJob


class Work(NamedTuple):
    """Run the job and report how it went; send its outcome."""

    job: BatchJob
    decision: ThrottleDecision


Step = Plan | Sleep | Work
_Answer = ThrottleDecision | Exception


class _Stream:
    """The jobs of one queue and priority that are not decided yet, by their place in the batch."""

    __slots__ = ("places", "rank")

    def __init__(self, priority: Priority) -> None:
        self.rank = -priority.value
        self.places: deque[int] = deque()


def steps(
    jobs: Sequence[BatchJob], outcomes: list[JobOutcome], desk: Desk, timeout: float | None
) -> Generator[Step, Any, None]:
    """Drive a batch; fills in `outcomes`, which begins as ``not_started`` for each job.

    Jobs of one queue and priority form a stream. The job that heads its stream is due at once, or after the delay that
    it is advised, counted from when it came to head it; due jobs run one at a time, earliest first, then by priority,
    then in input order. A go is asked for right before its work, so that none is counted, or holds a probe's lease,
    that does not begin; after a delay the breaker is asked again.
    """
    now_ns = desk.now_ns
    began_ns = now_ns()
    deadline_ns = math.inf if timeout is None else began_ns + nanoseconds(timeout)
    # The first jobs of the streams with their planned delays, in the order in which they run; no two have one place.
    heads: list[tuple[int, int, int, _Stream, ThrottleDecision | None]] = [
        (began_ns, stream.rank, stream.places[0], stream, None) for stream in _streams(jobs)
    ]
    heapq.heapify(heads)
    while heads and heads[0][0] <= deadline_ns:
        due_ns, rank, place, stream, planned = heads[0]
        job = jobs[place]
        if planned is None:
            answer: _Answer = desk.decide(job) or (yield Plan(job))
            if isinstance(answer, ThrottleDecision) and 0 < answer.delay < math.inf:
                wait_ns = desk.wait_ns(job, answer)
                if isinstance(wait_ns, int):
                    heapq.heapreplace(heads, (due_ns + wait_ns, rank, place, stream, answer))
                    continue
                answer = wait_ns
        else:
            ahead_ns = due_ns - now_ns()
            answer = ((yield Sleep(ahead_ns / 1e9, job)) if ahead_ns > 0 else None) or desk.readmit(planned)
        if isinstance(answer, ThrottleDecision) and not answer.should_shed:
            outcomes[place] = _INTERRUPTED  # until it is told otherwise
            outcomes[place] = yield Work(job, answer)
        else:
            outcomes[place] = _refused(answer)
        stream.places.popleft()
        if stream.places:
            heapq.heapreplace(heads, (now_ns(), rank, stream.places[0], stream, None))
        else:
            heapq.heappop(heads)
    for due_ns, _, _, stream, _ in heads:
        retry_after = max(0, due_ns - now_ns()) / 1e9
        for late in stream.places:
            outcomes[late] = JobOutcome("not_started", retry_after=retry_after)


def _streams(jobs: Iterable[BatchJob]) -> Iterable[_Stream]:
    streams: dict[tuple[str, int], _Stream] = {}
    for place, job in enumerate(jobs):
        key = (job.queue_name, job.priority.value)
        stream = streams.get(key)
        if stream is None:
            stream = streams[key] = _Stream(job.priority)
        stream.places.append(place)
    return streams.values()


def _refused(answer: _Answer) -> JobOutcome:
    """Return the outcome of a job that does not get to run."""
    if isinstance(answer, ThrottleDecision):
        status: Status = "shed" if answer.reason is Reason.BACKLOG_RED_SHED else "circuit_open"
        return JobOutcome(status, error=answer.rejection(), retry_after=answer.retry_after)
    # Throttled beyond its `max_wait`, in no position to wait, or the controller was stopped: its work was not called.
    assert not isinstance(answer, JobShedError)  # noqa: S101 - sheds come as decisions
    retry_after = answer.retry_after if isinstance(answer, ThrottledError) else None
    return JobOutcome("not_started", error=answer, retry_after=retry_after)


class Batch:
    """One batch on its way: iterate over its steps, and put the answer to each into `answer` before the next."""

    def __init__(self, jobs: Iterable[BatchJob], desk: Desk, timeout: float | None) -> None:
        self._jobs = list(jobs)
        for job in self._jobs:
            if not isinstance(job, BatchJob):
                raise ConfigurationError(f"jobs holds {job!r}: give BatchJob objects", field="jobs", value=job)
        self._outcomes = [_NOT_STARTED] * len(self._jobs)
        self._steps = steps(self._jobs, self._outcomes, desk, timeout)
        self.answer: object = None

    def limits(self) -> Iterator[float | None]:
        """Yield for how long the jobs may wait, in seconds; ``None`` for any."""
        return (longest_wait(job.max_wait, job.priority) for job in self._jobs)

    def __iter__(self) -> Iterator[Step]:
        with contextlib.suppress(StopIteration):
            step = next(self._steps)
            while True:
                yield step
                step = self._steps.send(self.answer)

    def cut_short(self, error: BaseException) -> None:
        """End the batch by an error, and put what is known of the jobs on that, as ``batch_result``."""
        self._steps.close()
        error.batch_result = BatchResult(tuple(self._outcomes))  # type: ignore[attr-defined]

    def result(self) -> BatchResult:
        """Return the outcomes of a batch that ran to its end.

        Raises:
            BatchError: jobs failed.
        """
        result = BatchResult(tuple(self._outcomes))
        errors = result.errors()
        if errors:
            raise BatchError(
                f"{len(errors)} of {len(self._jobs)} jobs failed: see .exceptions, and .result for every job",
                errors,
                result,
            )
        return result
