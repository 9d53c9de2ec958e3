"""What a provider tells about a queue, and what a provider is."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.half_built import repr_when_half_built

__all__ = ["AsyncStatsProvider", "QueueStats", "StatsProvider", "utc_now"]

#: The largest count that a sample may have: the largest integer that a float, and so any JSON, holds exactly.
MAX_BACKLOG = 2**53 - 1


def utc_now() -> datetime:
    """Return the wall time, for display only."""
    return datetime.now(UTC)


# Seconds, longer than any job waits: an integer may be larger than every float.
_LONGEST = 1e10


#: As much more than all of it as anybody believes.
_MOST_PART = 10.0


def age_of(seconds: object) -> float | None:
    """Return `seconds` if they are an age, ``None`` for anything else: a provider may be other people's code."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        return None
    return float(min(seconds, _LONGEST))


def part_of(part: object) -> float | None:
    """Return `part` if it is a part of 1, or more than all; ``None`` for anything else."""
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part < math.inf:
        return None
    return float(min(part, _MOST_PART))


def permille_of(part: object) -> int | None:
    """Return `part_of` in whole thousandths."""
    known = part_of(part)
    return None if known is None else int(known * 1_000)


def count_of(count: object) -> int | None:
    """Return `count` if it is one; ``None`` for anything else."""
    return count if isinstance(count, int) and _is_count(count) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_BACKLOG


def _aware(value: datetime | None) -> datetime:
    if value is None:
        return utc_now()
    if not isinstance(value, datetime) or value.tzinfo is None:  # type: ignore[redundant-expr]  # untyped providers
        msg = f"last_updated is {shown(value)}: give an aware datetime, e.g. datetime.now(timezone.utc)"
        raise ValueError(msg)
    return value


@repr_when_half_built
@attrs.frozen
class QueueStats:
    """One sample of a queue.

    Args:
        queue_name: the queue, as producers name it.
        backlog_count: waiting jobs only; a count from 0 to 2**53 - 1. A sample with any other value is
            refused by the poller (``error_type="invalid_sample"``) and the previous one stays.
        processing_count: jobs in progress, ``None`` where the queue cannot tell.
        delayed_count: jobs scheduled for later, ``None`` where the queue cannot tell.
        oldest_age: seconds since the oldest due job was enqueued, ``None`` where the queue cannot tell.
        last_updated: when the numbers were true; default now. A naive datetime is refused with `ValueError`.
        memory_used: part of its limit of memory that the queue's server uses, 1 for all of it; ``None`` where it has no
            limit or cannot tell.
        entered, left: jobs that ever came into the backlog, and that ever left it, as the source counts them exactly;
            ``None`` where it does not. Recordings keep them, and a replay reads off them what workers took. Only what
            they grow by matters: a count that falls has begun anew.

    Immutable, hence safe to share between threads.

    Example:
        >>> sample = QueueStats("email-queue", 120, processing_count=8, oldest_age=4.5)
        >>> sample.backlog_count, sample.last_updated.tzinfo
        (120, datetime.timezone.utc)
    """

    queue_name: str
    backlog_count: int
    processing_count: int | None = None
    delayed_count: int | None = None
    oldest_age: float | None = None
    last_updated: datetime = attrs.field(default=None, converter=_aware)
    memory_used: float | None = None
    entered: int | None = None
    left: int | None = None

    def fault(self) -> str | None:
        """Say what is wrong with the numbers, or return ``None``. A provider may be other people's code.

        Example:
            >>> QueueStats("email-queue", -1).fault()
            'backlog_count is -1: a provider must give an integer from 0 to 2**53 - 1'
        """
        running, later = self.processing_count, self.delayed_count
        if (
            _is_count(self.backlog_count)
            and (running is None or _is_count(running))
            and (later is None or _is_count(later))
        ):
            return None  # at once: polls ask this of every sample
        for field, value in (
            ("backlog_count", self.backlog_count),
            ("processing_count", running),
            ("delayed_count", later),
        ):
            if not (_is_count(value) or (value is None and field != "backlog_count")):
                return f"{field} is {shown(value)}: a provider must give an integer from 0 to 2**53 - 1"
        return None


@runtime_checkable
class StatsProvider(Protocol):
    """Where a controller reads its queues. Called from several threads at once: by the poller and for callers.

    Optional: ``get_many(queue_names)`` reads several known queues in one go and answers like `get_all_queue_stats`;
    ``interrupt()`` ends the reads that are under way, is called from another thread, and raises nothing (the reads fail
    with ``error_type="deadline"``; the providers of this package end only those of the controller that asks);
    ``shares_server``, a bool, default ``False``, tells whether jobs are sent to the server that is read: then, when
    reads succeed again after failures, sending may succeed too;
    ``least_gap``, seconds, default 0, is the least time between two reads before the polling interval is over,
    ``math.inf`` for none of these, as where each read costs money.

    Example:
        >>> class Jobs:  # nothing to inherit from
        ...     def get_queue_stats(self, queue_name):
        ...         return QueueStats(queue_name, backlog_count=42)
        ...
        ...     def get_all_queue_stats(self):
        ...         return {"email-queue": self.get_queue_stats("email-queue")}
        >>> isinstance(Jobs(), StatsProvider)
        True
    """

    def get_queue_stats(self, queue_name: str) -> QueueStats:
        """Read one queue. Raises `StatsUnavailableError` (or anything else) when it cannot."""
        ...

    def get_all_queue_stats(self) -> Mapping[str, QueueStats | StatsUnavailableError]:
        """Read every queue this provider knows of.

        A queue that could not be read has its error as value. A failed or absent queue keeps its previous sample; only
        a sample with 0 says that it is empty. Raises if nothing could be read.
        """
        ...


@runtime_checkable
class AsyncStatsProvider(Protocol):
    """`StatsProvider` for asyncio: the same names as coroutines, and the same that is optional but ``interrupt``.

    It is read on an event loop that the controller runs on a thread of its own; if a read hangs, perhaps on a second
    one. Coroutines must neither block nor swallow their cancellation, which ends reads that take too long.
    Optional too: ``release_loop()``, a coroutine, closes what was opened on the running loop, which is about to end;
    ``loop_bound``, a bool, tells that the provider uses what belongs to the event loop of its caller, such as a client
    that was given to it. Then nothing is read in the background: a caller that finds a sample older than
    ``polling.interval`` reads on its own loop.

    Example:
        >>> class Jobs:
        ...     async def get_queue_stats(self, queue_name):
        ...         return QueueStats(queue_name, backlog_count=42)
        ...
        ...     async def get_all_queue_stats(self):
        ...         return {"email-queue": await self.get_queue_stats("email-queue")}
        >>> isinstance(Jobs(), AsyncStatsProvider)
        True
    """

    async def get_queue_stats(self, queue_name: str) -> QueueStats:
        """Read one queue."""
        ...

    async def get_all_queue_stats(self) -> Mapping[str, QueueStats | StatsUnavailableError]:
        """Read every queue this provider knows of, as `StatsProvider.get_all_queue_stats`."""
        ...
