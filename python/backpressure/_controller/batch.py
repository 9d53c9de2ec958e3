"""Batches: in which order many jobs are decided, waited for and run by one caller. No I/O, no waiting.

`steps` is a generator that asks for one thing at a time and is sent its outcome; the controllers do what it asks, each
in its own way.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure._model.arguments import longest_wait, shown
from backpressure._model.batch import BatchError, BatchJob, BatchResult, JobOutcome, Status
from backpressure._model.decision import ThrottleDecision
from backpressure._model.errors import ConfigurationError, JobShedError, ThrottledError
from backpressure._model.units import nanoseconds
from backpressure._model.vocabulary import Priority, Reason

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from backpressure._controller.admission import Admission

__all__ = ["Batch", "Plan", "Sleep", "Step", "Work", "steps"]

_NOT_STARTED = JobOutcome("not_started")
_INTERRUPTED = JobOutcome("interrupted")


class Plan(NamedTuple):
    """Decide for `job`, which may have to wait for a read; send the decision, or the exception that came instead."""

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
    jobs: Sequence[BatchJob], outcomes: list[JobOutcome], admission: Admission, timeout: float | None
) -> Generator[Step, Any, None]:
    """Drive a batch; fills in `outcomes`, which begins as ``not_started`` for each job.

    Jobs of one queue and priority form a stream. The first job of a stream is due at once, or after its advised delay,
    counted from when it became the first. Due jobs run one at a time: earliest due first, then by priority, then in
    input order. A job is decided right before its work, so that no job is counted, or holds a probe's lease, that does
    not begin; after a delay the breaker is asked again.
    """
    now_ns = admission.now_ns
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
            answer: _Answer = admission.decide(job) or (yield Plan(job))
            if isinstance(answer, ThrottleDecision) and 0 < answer.delay < math.inf:
                wait_ns = admission.wait_ns(job, answer)
                if isinstance(wait_ns, int):
                    heapq.heapreplace(heads, (due_ns + wait_ns, rank, place, stream, answer))
                    continue
                answer = wait_ns
        else:
            ahead_ns = due_ns - now_ns()
            answer = ((yield Sleep(ahead_ns / 1e9, job)) if ahead_ns > 0 else None) or admission.readmit(planned)
        if isinstance(answer, ThrottleDecision) and not answer.should_shed:
            outcomes[place] = _INTERRUPTED  # until its outcome is known
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
    # Its delay is beyond its `max_wait`, it cannot wait here, or the controller was stopped: its work was not called.
    assert not isinstance(answer, JobShedError)  # noqa: S101 - sheds come as decisions
    retry_after = answer.retry_after if isinstance(answer, ThrottledError) else None
    return JobOutcome("not_started", error=answer, retry_after=retry_after)


class Batch:
    """One batch under way: iterate over its steps, and put the answer to each into `answer` before the next."""

    def __init__(self, jobs: Iterable[BatchJob], admission: Admission, timeout: float | None) -> None:
        self._jobs = list(jobs)
        for job in self._jobs:
            if not isinstance(job, BatchJob):
                raise ConfigurationError(f"jobs holds {shown(job)}: give BatchJob objects", field="jobs", value=job)
        self._outcomes = [_NOT_STARTED] * len(self._jobs)
        self._steps = steps(self._jobs, self._outcomes, admission, timeout)
        self.answer: object = None

    def limits(self) -> Iterator[float | None]:
        """Yield how long each job may wait, in seconds; ``None`` for any time."""
        return (longest_wait(job.max_wait, job.priority) for job in self._jobs)

    def __iter__(self) -> Iterator[Step]:
        with contextlib.suppress(StopIteration):
            step = next(self._steps)
            while True:
                yield step
                step = self._steps.send(self.answer)

    def cut_short(self, error: BaseException) -> None:
        """End the batch because of an error, which gets what is known of the jobs as its ``batch_result``."""
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
