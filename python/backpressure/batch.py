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

from backpressure.errors import BatchError, ConfigurationError, JobShedError, ThrottledError
from backpressure.types import Priority, Reason, ThrottleDecision, validate_queue_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

__all__ = ["Admit", "Batch", "BatchJob", "BatchResult", "JobOutcome", "Plan", "Sleep", "Work", "steps"]

Status = Literal["succeeded", "failed", "shed", "circuit_open", "not_started"]


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
        max_wait: longest wait accepted, in seconds; beyond it the job is not started.

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
    max_wait: float | None = None


@attrs.frozen
class JobOutcome:
    """What became of one job.

    Attributes:
        status: ``"succeeded"`` (with `value`), ``"failed"`` (with `error`), ``"shed"`` or ``"circuit_open"`` (with the
            `error` that stands for it), ``"not_started"``.
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


_NOT_STARTED = JobOutcome("not_started")


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
    """Decide for `job`; send the decision, or the exception that came instead."""

    job: BatchJob


class Sleep(NamedTuple):
    """Wait for `job` to become due; send ``None``, or the exception that ended the wait."""

    seconds: float
    job: BatchJob


class Admit(NamedTuple):
    """Ask the breaker again for a decision that was waited out; send the final decision, or an exception."""

    decision: ThrottleDecision


class Work(NamedTuple):
    """Run the job and report how it went; send its outcome."""

    job: BatchJob
    decision: ThrottleDecision


Step = Plan | Sleep | Admit | Work
_Stream = deque[int]


class _Head(NamedTuple):
    """The first job of a stream; heads sort in the order in which jobs run."""

    due_ns: int
    rank: int
    number: int
    stream: _Stream
    decision: ThrottleDecision


def steps(
    jobs: Sequence[BatchJob],
    outcomes: list[JobOutcome],
    *,
    timeout: float | None,
    now_ns: Callable[[], int],
    jittered: Callable[[float, str], float],
) -> Generator[Step, Any, None]:
    """Drive a batch; fills in `outcomes`, which begins as ``not_started`` for each job.

    Jobs of one queue and priority form a stream. A job is decided when it heads its stream, and due at that instant
    plus its delay; due jobs run one at a time, earliest first, then by priority, then in input order.
    """
    deadline_ns = math.inf if timeout is None else now_ns() + round(timeout * 1e9)
    streams: dict[tuple[Priority, str], _Stream] = {}
    for index, job in enumerate(jobs):
        streams.setdefault((job.priority, job.queue_name), deque()).append(index)
    waiting: list[_Head] = []

    def advance(stream: _Stream) -> Generator[Step, Any, None]:
        """Decide the stream's next job that is neither refused nor failed."""
        while stream:
            index = stream.popleft()
            job = jobs[index]
            decision = yield Plan(job)
            refused = _refused(decision)
            if refused is not None:
                outcomes[index] = refused
                continue
            delay_ns = round(jittered(decision.delay, job.queue_name) * 1e9) if decision.delay > 0 else 0
            heapq.heappush(waiting, _Head(now_ns() + delay_ns, -job.priority.value, index, stream, decision))
            return

    for stream in streams.values():
        yield from advance(stream)
    while waiting and waiting[0].due_ns <= deadline_ns:
        due_ns, _, index, stream, decision = waiting[0]
        job = jobs[index]
        ahead_ns = due_ns - now_ns()
        ended = (yield Sleep(ahead_ns / 1e9, job)) if ahead_ns > 0 else None
        heapq.heappop(waiting)
        if ended is None and decision.delay > 0:
            decision = ended = yield Admit(decision)
        refused = None if ended is None else _refused(ended)
        outcomes[index] = refused if refused is not None else (yield Work(job, decision))
        yield from advance(stream)
    for due_ns, _, index, stream, _ in waiting:
        retry_after = max(0, due_ns - now_ns()) / 1e9
        for late in (index, *stream):
            outcomes[late] = JobOutcome("not_started", retry_after=retry_after)


def _refused(answer: ThrottleDecision | Exception) -> JobOutcome | None:
    """Return the outcome of a job that does not get to run, or ``None`` for one that does."""
    if isinstance(answer, ThrottleDecision):
        if not answer.should_shed:
            return None
        status: Status = "shed" if answer.reason is Reason.BACKLOG_RED_SHED else "circuit_open"
        return JobOutcome(status, error=answer.rejection(), retry_after=answer.retry_after)
    if isinstance(answer, ThrottledError):
        return JobOutcome("not_started", error=answer, retry_after=answer.retry_after)
    assert not isinstance(answer, JobShedError)  # noqa: S101 - sheds come as decisions
    return JobOutcome("failed", error=answer)


class Batch:
    """One batch on its way: iterate over its steps, and put the answer to each into `answer` before the next."""

    def __init__(
        self,
        jobs: Iterable[BatchJob],
        timeout: float | None,
        now_ns: Callable[[], int],
        jittered: Callable[[float, str], float],
    ) -> None:
        self._jobs = list(jobs)
        for job in self._jobs:
            if not isinstance(job, BatchJob):
                raise ConfigurationError(f"jobs holds {job!r}: give BatchJob objects", field="jobs", value=job)
        self._outcomes = [_NOT_STARTED] * len(self._jobs)
        self._steps = steps(self._jobs, self._outcomes, timeout=timeout, now_ns=now_ns, jittered=jittered)
        self.answer: object = None

    def __iter__(self) -> Iterator[Step]:
        with contextlib.suppress(StopIteration):
            step = next(self._steps)
            while True:
                yield step
                step = self._steps.send(self.answer)

    def attach_to(self, error: BaseException) -> None:
        """Put what is known of the jobs on an error that ends the batch, as ``batch_result``."""
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
