"""Batches: in which order many jobs are decided, waited for and run by one caller. No I/O, no waiting.

A batch asks for one thing at a time and is sent its outcome; the controllers do what it asks, each in its own way.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from backpressure._controller.patience import Patience
from backpressure._model.arguments import longest_wait, shown
from backpressure._model.batch import BatchError, BatchJob, BatchResult, JobOutcome
from backpressure._model.decision import ThrottleDecision
from backpressure._model.errors import ConfigurationError, JobShedError, ThrottledError
from backpressure._model.units import nanoseconds
from backpressure._model.vocabulary import SHEDS, Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from backpressure._controller.admission import Admission
    from backpressure._model.batch import Status
    from backpressure._model.tenant import Tenant

__all__ = ["END", "ON_OUTCOME_RAISED", "Batch", "Plan", "Read", "Sleep", "Step", "Tell", "Work"]

#: Stands for the end of the jobs.
END = object()
#: What is logged where the batch was already cut short by another error.
ON_OUTCOME_RAISED = "on_outcome raised as a batch was cut short, for jobs that had not ended"

_NOT_STARTED = JobOutcome("not_started")
_INTERRUPTED = JobOutcome("interrupted")
# Where jobs are read lazily: how many are held at one time, and of how many the errors are kept.
_HELD = 100
_ERRORS = 100


class Read(NamedTuple):
    """Send the next job, or `END` if there is none left."""


_READ = Read()


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


class Tell(NamedTuple):
    """Tell the caller what became of `job`."""

    job: BatchJob
    outcome: JobOutcome


Step = Read | Plan | Sleep | Work | Tell

# The class's own `__new__` is Python, and takes twice as long.
_work: Callable[[tuple[BatchJob, ThrottleDecision]], Work] = partial(tuple.__new__, Work)
_Answer = ThrottleDecision | Exception


class _Stream:
    """The jobs of one queue, priority and tenant that were read and have not ended, with their places."""

    __slots__ = ("jobs", "patience", "planned", "rank")

    def __init__(self, priority: Priority) -> None:
        self.rank = -priority.value
        self.jobs: deque[tuple[int, BatchJob]] = deque()
        # Of the first job: what was decided, if it waits for that, and how long it may still ask again.
        self.planned: ThrottleDecision | None = None
        self.patience: Patience | None = None


def _refused(answer: _Answer) -> JobOutcome:
    """Return the outcome of a job that does not get to run."""
    if isinstance(answer, ThrottleDecision):
        status: Status = "shed" if answer.reason in SHEDS else "circuit_open"
        return JobOutcome(status, error=answer.rejection(), retry_after=answer.retry_after)
    # Its delay is beyond its `max_wait`, it cannot wait here, or the controller was stopped: its work was not called.
    assert not isinstance(answer, JobShedError)  # noqa: S101 - sheds come as decisions
    retry_after = answer.retry_after if isinstance(answer, ThrottledError) else None
    return JobOutcome("not_started", error=answer, retry_after=retry_after)


class Batch:
    """One batch under way: iterate over its steps, and put the answer to each into `answer` before the next.

    Jobs of one queue, priority and tenant form a stream. The first job of a stream is due at once, or after its advised
    delay, counted from when it became the first. Due jobs run one at a time: earliest due first, then by priority, then
    in input order. A job is decided right before its work, so that no job is counted, or holds a probe's lease, that
    does not begin; after a delay the breaker is asked again.

    A batch that `tells` reads a job only when no job that it holds is due, and keeps no outcomes.
    """

    def __init__(self, jobs: Iterable[BatchJob], admission: Admission, timeout: float | None, *, tells: bool) -> None:
        self._admission = admission
        self._timeout = timeout
        self._tells = tells
        self._streams: dict[tuple[str, Priority, Tenant | None], _Stream] = {}
        # The streams by when their first job is due, then by rank and place; no two have one place.
        self._heads: list[tuple[int, int, int, _Stream]] = []
        self._read = 0
        self._counts: Counter[Status] = Counter()
        self._errors: list[Exception] = []
        self._given = [] if tells else [job if type(job) is BatchJob else _checked(job) for job in jobs]
        self._outcomes = [_NOT_STARTED] * len(self._given)
        # The place of the job that is being ended, and its outcome as far as it is known.
        self._ending: int | None = None
        self._outcome = _INTERRUPTED
        self._untold: Tell | None = None
        self._telling: Tell | None = None
        self._steps = self._drive()
        self._failure: BatchError | None = None
        self.answer: Any = None

    def limits(self) -> Iterator[float | None]:
        """Yield how long each job given may wait, in seconds; ``None`` for any time."""
        return (longest_wait(job.max_wait, job.priority, patient=job.patient) for job in self._given)

    def __iter__(self) -> Iterator[Step]:
        return self._steps

    def _drive(self) -> Generator[Step]:
        admission, now_ns, heads = self._admission, self._admission.now_ns, self._heads
        now = now_ns()
        deadline_ns = math.inf if self._timeout is None else now + nanoseconds(self._timeout)
        for job in self._given:
            self._hold(job, now)
        unread = self._tells
        while True:
            if unread:
                now = now_ns()
                if self._has_room(now) and now <= deadline_ns:
                    yield _READ
                    unread = self.answer is not END
                    if unread:
                        self._hold(_checked(self.answer), now_ns())
                    continue
            if not heads or heads[0][0] > deadline_ns:
                break
            due_ns, rank, place, stream = heads[0]
            job, planned = stream.jobs[0][1], stream.planned
            answer: _Answer | None = None
            if due_ns > now and due_ns > (now := now_ns()):
                yield Sleep((due_ns - now) / 1e9, job)
                answer = self.answer
            if answer is None:
                answer = admission.decide(job) if planned is None else admission.readmit(planned)
            if answer is None:
                yield Plan(job)
                answer = self.answer
            refused = False
            if isinstance(answer, ThrottleDecision):
                advised = answer._answer  # noqa: SLF001 - its properties would take a good part of a job's time
                refused = advised.should_shed
                if (stream.patience is not None) if refused else (planned is None and advised.delay > 0):
                    patiently = None if stream.patience is None else stream.patience.wait
                    wait_ns = admission.wait_ns(job, answer, patiently)
                    if isinstance(wait_ns, int):
                        stream.planned = None if refused else answer
                        again_ns = (now_ns() if refused else due_ns) + wait_ns
                        heapq.heapreplace(heads, (again_ns, rank, place, stream))
                        continue
                    answer = answer if refused else wait_ns
            if isinstance(answer, ThrottleDecision) and not refused:
                self._outcome, self._ending = _INTERRUPTED, place  # until its outcome is known
                yield _work((job, answer))
                self._outcome = self.answer
            else:
                self._outcome, self._ending = _refused(answer), place
            if self._tells:
                self._end(place, job, self._outcome)
            else:
                self._outcomes[place] = self._outcome
            now = now_ns()
            self._go_on(stream, now)
            if self._tells:
                yield from self._tell()
        yield from self._end_late()

    def _has_room(self, at_ns: int) -> bool:
        """Tell whether another job may be read: none that is held is due, and they are not too many."""
        heads = self._heads
        return not heads or (heads[0][0] > at_ns and self._read - self._counts.total() < _HELD)

    def _hold(self, job: BatchJob, due_ns: int) -> None:
        """Put a job that was read at the end of its stream; it is due if it is the first there."""
        place = self._read
        self._read = place + 1
        key = (job.queue_name, job.priority, job.tenant)
        stream = self._streams.get(key)
        if stream is not None:
            stream.jobs.append((place, job))
            return
        stream = self._streams[key] = _Stream(job.priority)
        stream.jobs.append((place, job))
        self._begin(stream)
        heapq.heappush(self._heads, (due_ns, stream.rank, place, stream))

    def _begin(self, stream: _Stream) -> None:
        """Begin with the first job of a stream."""
        job = stream.jobs[0][1]
        stream.planned = stream.patience = None
        if job.patient and self._admission.may_wait():
            stream.patience = Patience(self._admission, job.priority, job.max_wait)

    def _go_on(self, stream: _Stream, now: int) -> None:
        """Leave the first job of the first stream; the next one there is due now."""
        _, job = stream.jobs.popleft()
        if stream.jobs:
            self._begin(stream)
            heapq.heapreplace(self._heads, (now, stream.rank, stream.jobs[0][0], stream))
        else:
            heapq.heappop(self._heads)
            del self._streams[job.queue_name, job.priority, job.tenant]

    def _end_late(self) -> Iterator[Tell]:
        """End the jobs that are not due in time."""
        while self._heads:
            due_ns, _, _, stream = self._heads.pop()
            outcome = JobOutcome("not_started", retry_after=max(0, due_ns - self._admission.now_ns()) / 1e9)
            while stream.jobs:
                self._end(*stream.jobs.popleft(), outcome)
                yield from self._tell()

    def _end(self, place: int, job: BatchJob, outcome: JobOutcome) -> None:
        if not self._tells:
            self._outcomes[place] = outcome
            return
        self._counts[outcome.status] += 1
        if isinstance(outcome.error, Exception) and outcome.status == "failed" and len(self._errors) < _ERRORS:
            self._errors.append(outcome.error)
        self._untold = Tell(job, outcome)

    def _tell(self) -> Iterator[Tell]:
        if self._untold is not None:
            self._telling = self._untold
            yield self._untold
            self._untold = None

    def cut_short(self, error: BaseException) -> list[Tell]:
        """End the batch because of an error, which gets what is known of the jobs as its ``batch_result``.

        Return what the caller is still to be told; nothing if that is what went wrong.
        """
        if error is self._failure:
            return []
        self._steps.close()
        untold = [] if self._untold is None or self._untold is self._telling else [self._untold]
        spoilt = self._untold is not None and self._untold is self._telling and isinstance(error, Exception)
        for stream in self._streams.values():
            for place, job in stream.jobs:
                self._end(place, job, self._outcome if place == self._ending else _NOT_STARTED)
                untold += self._tell()
        error.batch_result = self._known()  # type: ignore[attr-defined]
        return [] if spoilt else untold

    def _known(self) -> BatchResult:
        return BatchResult((), dict(self._counts)) if self._tells else BatchResult(tuple(self._outcomes))

    def result(self) -> BatchResult:
        """Return the outcomes of a batch that ran to its end.

        Raises:
            BatchError: jobs failed.
        """
        result = self._known()
        errors, count = (self._errors, result.count("failed")) if self._tells else (result.errors(), None)
        if errors:
            raise self._failed(errors, count or len(errors), result)
        return result

    def _failed(self, errors: list[Exception], count: int, result: BatchResult) -> BatchError:
        first = f" of the first {len(errors)}" if count > len(errors) else ""
        where = "told as they ended" if self._tells else "and .result for every job"
        self._failure = BatchError(
            f"{count} of {self._read} jobs failed: see .exceptions{first}, {where}", errors, result
        )
        return self._failure


def _checked(job: object) -> BatchJob:
    if not isinstance(job, BatchJob):
        raise ConfigurationError(f"jobs holds {shown(job)}: give BatchJob objects", field="jobs", value=job)
    return job
