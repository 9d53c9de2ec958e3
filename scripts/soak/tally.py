"""The producers' own counts, to compare with those of the engines."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from backpressure import BatchError, CircuitOpenError, JobShedError, ThrottledError
from backpressure._model.vocabulary import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

    from backpressure import BatchResult, ThrottleDecision

_CIRCUIT = {Reason.CIRCUIT_OPEN, Reason.CIRCUIT_HALF_OPEN}
#: How a job may end: it ran, it was refused, or its wait would have been too long. Then the batches' names for these.
ENDS = ("result", "exception", "shed", "circuit", "throttled")
_STATUSES = dict(zip(("succeeded", "failed", "shed", "circuit_open", "not_started"), ENDS, strict=True))


class JobError(Exception):
    """The error of a job that was meant to fail."""


class Tally:
    """One producer's counts; added up with `+`. Used by one thread."""

    def __init__(self) -> None:
        # All keys are there from the start, so that another thread may add up while this one counts.
        #: Decisions asked for by priority, and refusals seen.
        self.asked = Counter(low=0, medium=0, high=0)
        self.refused = Counter(shed=0, circuit=0)
        #: Jobs given, jobs that ran, and how jobs ended.
        self.jobs = self.ran = 0
        self.ends = Counter(dict.fromkeys(ENDS, 0))
        self.surprises: list[str] = []

    def __add__(self, other: Tally) -> Tally:
        total = Tally()
        total.asked, total.refused = self.asked + other.asked, self.refused + other.refused
        total.jobs, total.ran, total.ends = self.jobs + other.jobs, self.ran + other.ran, self.ends + other.ends
        total.surprises = self.surprises + other.surprises
        return total

    def advised(self, decision: ThrottleDecision) -> None:
        """Count advice that was asked for."""
        self.asked[str(decision.priority)] += 1
        if decision.should_shed:
            self.refused["circuit" if decision.reason in _CIRCUIT else "shed"] += 1

    @contextlib.contextmanager
    def job(self, priority: str) -> Iterator[None]:
        """Count the job in the body, and how it ends."""
        self.asked[priority] += 1
        self.jobs += 1
        end = "result"
        try:
            yield
        except CircuitOpenError:
            end = "circuit"
        except JobShedError:
            end = "shed"
        except ThrottledError:
            end = "throttled"
        except JobError:
            end = "exception"
        self._ended(end)

    @contextlib.contextmanager
    def batch(self, priority: str, size: int) -> Iterator[list[BatchResult]]:
        """Count the jobs of a batch; the body puts its result into the list."""
        self.asked[priority] += size
        self.jobs += size
        results: list[BatchResult] = []
        try:
            yield results
        except BatchError as error:
            if error.result is None:
                raise
            results.append(error.result)
        for outcome in results[0].outcomes:
            self._ended(_STATUSES[outcome.status])

    def work(self, *, fails: bool) -> None:
        """Be the job: run, and fail if `fails`."""
        self.ran += 1
        if fails:
            raise JobError

    def _ended(self, end: str) -> None:
        self.ends[end] += 1
        if end in {"circuit", "shed"}:
            self.refused[end] += 1

    def differences(self, registry: CollectorRegistry) -> list[str]:
        """Return the differences to the engine's counts, and the number of missing jobs."""
        if not self.jobs:
            return ["nothing was done"]
        priorities, reasons = engine_counts(registry)
        counted = {
            **{
                f"{priority} decisions": (self.asked[priority], priorities[priority])
                for priority in ("low", "medium", "high")
            },
            "shed decisions": (self.refused["shed"], reasons[Reason.BACKLOG_RED_SHED]),
            "circuit refusals": (self.refused["circuit"], sum(reasons[reason] for reason in _CIRCUIT)),
            "jobs ended": (self.jobs, self.ends.total()),
            "jobs run": (self.ends["result"] + self.ends["exception"], self.ran),
        }
        return [f"{what}: {ours} here, {theirs} there" for what, (ours, theirs) in counted.items() if ours != theirs]


def engine_counts(registry: CollectorRegistry) -> tuple[Counter[str], Counter[str]]:
    """Return the exported decisions by priority and by reason."""
    priorities: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == "backpressure_decisions_total":
                priorities[sample.labels["priority"]] += round(sample.value)
                reasons[sample.labels["reason"]] += round(sample.value)
    return priorities, reasons
