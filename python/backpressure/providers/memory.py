"""Samples kept in a dict: for tests, demos and queues that live inside one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from backpressure._model.arguments import validate_queue_name
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats, utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["InMemoryStatsProvider"]


@repr_when_half_built
class InMemoryStatsProvider:
    """A `StatsProvider` that returns the numbers it was given last.

    Args:
        stats: initial samples: queue name -> backlog, or -> `QueueStats`.

    A backlog given as a number counts as current whenever it is read. A `QueueStats`, and a `set` with
    ``last_updated=``, keep their own date, so they grow stale unless you renew them.

    Thread-safe, and safe across ``fork()``: a sample is written and read by one access to a dict, without a lock.

    Raises:
        InvalidQueueError: a name cannot name a queue.

    Example:
        >>> provider = InMemoryStatsProvider({"email-queue": 120})
        >>> provider.set("email-queue", 90, processing_count=8)
        >>> provider.get_queue_stats("email-queue").backlog_count
        90
    """

    def __init__(self, stats: Mapping[str, int | QueueStats] | None = None) -> None:
        # Name -> the sample, and whether it is always current (given without a date).
        self._samples: dict[str, tuple[QueueStats, bool]] = {}
        self._failure: BaseException | None = None
        self._failures: dict[str, StatsUnavailableError] = {}
        self.update(stats or {})

    def set(self, queue_name: str, backlog_count: int, **more: Any) -> None:
        """Set a queue's numbers; `more` are the other fields of `QueueStats`.

        Raises:
            InvalidQueueError: the name cannot name a queue.
            TypeError: `more` has a field that `QueueStats` does not have.
        """
        name = validate_queue_name(queue_name)
        self._samples[name] = QueueStats(name, backlog_count, **more), more.get("last_updated") is None

    def update(self, stats: Mapping[str, int | QueueStats]) -> None:
        """Set several queues' numbers; the others stay as they are. Raises `InvalidQueueError`."""
        for queue_name, sample in stats.items():
            if isinstance(sample, QueueStats):
                name = validate_queue_name(queue_name)
                self._samples[name] = attrs.evolve(sample, queue_name=name), False
            else:
                self.set(queue_name, sample)

    def remove(self, queue_name: str) -> None:
        """Forget a queue. Answers no longer contain it, so its last sample ages in controllers."""
        self._samples.pop(queue_name, None)

    def fail_with(self, error: BaseException | None, queue_name: str | None = None) -> None:
        """Make reads fail with `error` until called again with ``None``.

        With `queue_name` only that queue fails: `get_queue_stats` raises the error, the other reads return it as
        the queue's value.

        Raises:
            TypeError: with `queue_name`, the error is not a `StatsUnavailableError`.

        Example:
            >>> provider = InMemoryStatsProvider({"email-queue": 120})
            >>> provider.fail_with(TimeoutError("an outage"))
            >>> provider.get_all_queue_stats()
            Traceback (most recent call last):
                ...
            TimeoutError: an outage
        """
        if queue_name is None:
            self._failure = error
        elif error is None:
            self._failures.pop(queue_name, None)
        elif isinstance(error, StatsUnavailableError):
            self._failures[queue_name] = error
        else:
            raise TypeError(f"error of queue {queue_name!r} is {error!r}: give a StatsUnavailableError")

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        """Return one queue's sample.

        Raises:
            StatsUnavailableError: the queue was never set.
            BaseException: what `fail_with` was given.
        """
        sample = self.get_many([queue_name]).get(queue_name)
        if sample is None:
            raise StatsUnavailableError(
                f"queue {queue_name!r} has no numbers: call set({queue_name!r}, backlog_count) first",
                queue_name=queue_name,
            )
        if isinstance(sample, StatsUnavailableError):
            raise sample.with_traceback(None)
        return sample

    def get_all_queue_stats(self) -> Mapping[str, QueueStats | StatsUnavailableError]:
        """Return every queue's sample, or its error. Raises what `fail_with` was given."""
        return self.get_many([*self._samples.copy(), *self._failures.copy()])

    def get_many(self, queue_names: Iterable[str]) -> Mapping[str, QueueStats | StatsUnavailableError]:
        """Return the samples, or errors, of those of `queue_names` that were set. Raises what `fail_with` was given."""
        if self._failure is not None:
            # One instance raised again and again would collect every traceback.
            raise self._failure.with_traceback(None)
        now = utc_now()
        answer: dict[str, QueueStats | StatsUnavailableError] = {}
        for name in queue_names:
            if (failure := self._failures.get(name)) is not None:
                answer[name] = failure
            elif (entry := self._samples.get(name)) is not None:
                sample, undated = entry
                answer[name] = attrs.evolve(sample, last_updated=now) if undated else sample
        return answer

    def interrupt(self) -> None:
        """Do nothing: reads here never hang."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._samples)} queues)"
