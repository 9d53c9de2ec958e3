"""The values that both engines, providers and users exchange: enums, statistics and decisions."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import attrs

from backpressure.errors import (
    BackpressureError,
    CircuitOpenError,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    StatsUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpressure.pacer import Pacer

__all__ = [
    "HIGH",
    "LOW",
    "MEDIUM",
    "OTHER_QUEUES",
    "AsyncStatsProvider",
    "CircuitState",
    "Priority",
    "QueueStats",
    "Reason",
    "StatsProvider",
    "ThrottleDecision",
    "Zone",
    "validate_queue_name",
]

#: Label under which queues beyond ``max_queues`` are counted together; not a legal queue name.
OTHER_QUEUES = "__other__"
MAX_BACKLOG = 2**53 - 1
_MAX_NAME_BYTES = 255


class Priority(Enum):
    """How much a job matters. There is no default: forgetting it must not make a job sheddable.

    Wherever a priority is wanted its lower-case name does as well.

    Example:
        >>> Priority.HIGH, str(Priority.HIGH)
        (<Priority.HIGH: 2>, 'high')
    """

    LOW = 0
    MEDIUM = 1
    HIGH = 2

    # Enum hashes by name in Python code; members are singletons, so identity is as good and ten times cheaper.
    __hash__ = object.__hash__

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, value: object) -> Priority:
        """Return the member for a `Priority` or ``"low"``, ``"medium"``, ``"high"``.

        Example:
            >>> Priority.parse("low")
            <Priority.LOW: 0>

        Raises:
            InvalidPriorityError: anything else, plain integers and bools included.
        """
        if type(value) is cls:
            return value
        if isinstance(value, str):
            for member in cls:
                if value == str(member):
                    return member
        msg = f'invalid priority {value!r}: give a Priority or one of "low", "medium", "high"'
        raise InvalidPriorityError(msg)


LOW, MEDIUM, HIGH = Priority.LOW, Priority.MEDIUM, Priority.HIGH


class Zone(StrEnum):
    """Which part of its window a queue's backlog lies in.

    Example:
        >>> [str(zone) for zone in Zone]
        ['green', 'yellow', 'red']
    """

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class CircuitState(Enum):
    """State of a queue's circuit breaker; the value is that of the metric.

    Example:
        >>> [(state.value, str(state)) for state in CircuitState]
        [(0, 'closed'), (1, 'open'), (2, 'half-open')]
    """

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2

    __hash__ = object.__hash__

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


class Reason(StrEnum):
    """Why a decision is what it is. The order is shared with the native engine.

    ``backlog_*`` comes from the law, ``backlog_red_shed`` alone sheds by load; ``circuit_*`` are rejections by the
    breaker; ``stats_stale``, ``fallback_*`` and ``cold_start`` say that there is no fresh sample; ``untracked`` is a
    queue beyond ``max_queues``; the rest name the switch that was on.

    Example:
        >>> Reason.BACKLOG_RED_SHED == "backlog_red_shed"
        True
    """

    BACKLOG_GREEN = "backlog_green"
    BACKLOG_YELLOW = "backlog_yellow"
    BACKLOG_RED = "backlog_red"
    BACKLOG_RED_SHED = "backlog_red_shed"
    CIRCUIT_OPEN = "circuit_open"
    CIRCUIT_HALF_OPEN = "circuit_half_open"
    MANUAL_OVERRIDE = "manual_override"
    EMERGENCY_MODE = "emergency_mode"
    STATS_STALE = "stats_stale"
    FALLBACK_CONSERVATIVE = "fallback_conservative"
    FALLBACK_PERMISSIVE = "fallback_permissive"
    FALLBACK_CIRCUIT_ONLY = "fallback_circuit_only"
    COLD_START = "cold_start"
    OBSERVE_ONLY = "observe_only"
    UNTRACKED = "untracked"


CIRCUIT_REASONS = frozenset({Reason.CIRCUIT_OPEN, Reason.CIRCUIT_HALF_OPEN})


def validate_queue_name(name: object) -> str:
    """Return `name` if it may name a queue.

    Control characters and surrogates would break log lines and kill a whole metrics page, hence the rule.

    Raises:
        InvalidQueueError: not a ``str``, empty, over 255 UTF-8 bytes, a character of category Cc or Cs, or
            the reserved ``__other__``.
    """
    if not isinstance(name, str):
        msg = f"invalid queue name {name!r}: give a str, not {type(name).__name__}"
        raise InvalidQueueError(msg)
    # A str subclass could compare or hash as it likes; engines only ever see exact strings.
    name = str.__str__(name)
    if name.isascii() and name.isprintable() and 1 <= len(name) <= _MAX_NAME_BYTES and name != OTHER_QUEUES:
        return name  # nearly all are so plain
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        msg = f"invalid queue name {name[:64]!r}: remove control characters and surrogates"
    elif not 1 <= len(name.encode()) <= _MAX_NAME_BYTES:
        msg = f"invalid queue name {name[:64]!r}: give 1 to {_MAX_NAME_BYTES} UTF-8 bytes"
    elif name == OTHER_QUEUES:
        msg = f"invalid queue name {name!r}: it is reserved for queues beyond max_queues"
    else:
        return name
    raise InvalidQueueError(msg)


def utc_now() -> datetime:
    """Return the wall time, for display only."""
    return datetime.now(UTC)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_BACKLOG


def _aware(value: datetime | None) -> datetime:
    if value is None:
        return utc_now()
    if not isinstance(value, datetime) or value.tzinfo is None:  # type: ignore[redundant-expr]  # untyped providers
        msg = f"last_updated is {value!r}: give an aware datetime, e.g. datetime.now(timezone.utc)"
        raise ValueError(msg)
    return value


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

    def fault(self) -> str | None:
        """Say what is wrong with the numbers, or return ``None``; providers may be other people's code.

        Example:
            >>> QueueStats("email-queue", -1).fault()
            'backlog_count is -1: a provider must give an integer from 0 to 2**53 - 1'
        """
        for field, value in (
            ("backlog_count", self.backlog_count),
            ("processing_count", self.processing_count),
            ("delayed_count", self.delayed_count),
        ):
            if not (_is_count(value) or (value is None and field != "backlog_count")):
                return f"{field} is {value!r}: a provider must give an integer from 0 to 2**53 - 1"
        return None


@runtime_checkable
class StatsProvider(Protocol):
    """Where a controller reads its queues. Called from several threads at once: the poller's and first callers'.

    Optional: ``get_many(queue_names)`` reads several known queues in one go and answers like `get_all_queue_stats`;
    ``interrupt()`` ends the reads under way, from another thread, raising nothing (they fail with
    ``error_type="deadline"``); ``shares_server``, a bool, tells whether what is read is the server that jobs are sent
    to, so that where reads succeed again, after they failed, sending may too. Without it that is ``False``.

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

        A queue that could not be read has its error as value. A failed or absent queue keeps its previous sample;
        only a sample with 0 says zero. Raises when nothing could be read.
        """
        ...


@runtime_checkable
class AsyncStatsProvider(Protocol):
    """`StatsProvider` for asyncio: the same names as coroutines, ``get_many`` and ``shares_server`` optional.

    It is read on an event loop that the controller runs on a thread of its own, and may be on a second one where a read
    hangs. Coroutines must neither block nor swallow their cancellation, by which reads that take too long are ended.
    Optional too: ``release_loop()``, a coroutine, closes what was opened on the running loop, which is about to end;
    ``loop_bound``, a bool, tells that the provider uses what belongs to the event loop of who asks, such as a client
    that was given to it. Then nothing is read in the background: who finds a sample older than ``polling.interval``
    reads on its own loop.

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


def _private(default: Any = None) -> Any:
    return attrs.field(default=default, repr=False, eq=False)


@attrs.frozen
class ThrottleDecision:
    """What a producer should do with one job now: go, wait `delay` seconds, or shed it.

    Attributes:
        priority: the job's priority.
        queue_name: the queue asked about.
        delay: seconds to wait before enqueueing; ``math.inf`` when the job is refused, so use `wait` or
            `wait_async` rather than sleeping yourself (``time.sleep(inf)`` raises, ``asyncio.sleep(inf)`` hangs).
        should_shed: whether the job must not be enqueued now.
        reason: why.
        timestamp: aware UTC time of when the answer was computed, for display.
        backlog_size: waiting jobs in the sample used, ``None`` when unknown.
        zone: zone of that backlog, ``None`` when unknown.
        advised: in observe mode the real decision; else ``None``.

    Frozen and safe to share between threads. A green answer may be one object for all callers. It pickles, and is
    then a value alone: it can neither be waited for nor reported any more.

    Example:
        >>> provider = InMemoryStatsProvider({"email-queue": 1_250})
        >>> with BackpressureController(None, provider) as controller:
        ...     decision = controller.suggest_throttle("medium", "email-queue")
        >>> decision.delay, decision.should_shed, str(decision.reason), str(decision.zone)
        (0.255, False, 'backlog_yellow', 'yellow')
    """

    priority: Priority
    queue_name: str
    delay: float
    should_shed: bool
    reason: Reason
    timestamp: datetime
    backlog_size: int | None = None
    zone: Zone | None = None
    advised: ThrottleDecision | None = None
    # What the engine needs when the decision comes back to it; no part of the decision's value.
    _pacer: Pacer | None = _private()
    _ticket: Any = _private()
    _issued_ns: int = _private(0)
    _retry_at_ns: int | None = _private()
    _retry_delay: float | None = _private()
    _computed: bool = _private(default=False)
    _last_failure: str | None = _private()

    @property
    def retry_after(self) -> float | None:
        """Seconds until another try makes sense, computed when read.

        Throttled: the delay. Shed by load: the delay it would have been given. Open circuit: the time to the
        next probe. Circuit forced open, or nothing to wait for: ``None``.
        """
        if self._retry_at_ns is not None and self._pacer is not None:
            return max(0, self._retry_at_ns - self._pacer.now_ns()) / 1e9
        return self._retry_delay

    def rejection(self) -> JobShedError | None:
        """Return the error that this decision stands for (not raised), or ``None`` for a go or a wait."""
        if not self.should_shed:
            return None
        about: dict[str, Any] = {
            "queue_name": self.queue_name,
            "priority": self.priority,
            "retry_after": self.retry_after,
            "reason": self.reason,
        }
        if self.reason in CIRCUIT_REASONS:
            state = self.reason.removeprefix("circuit_").replace("_", "-")
            circuit = f"circuit of queue {self.queue_name!r}"
            return CircuitOpenError.of(circuit, state, last_failure=self._last_failure, **about)
        return JobShedError(
            f"{self.priority} job for queue {self.queue_name!r} was shed at a backlog of {self.backlog_size}: "
            f"drop it, or {_when(about['retry_after'])}",
            **about,
        )

    def wait(self) -> None:
        """Sleep the delay (with the configured jitter); return when the job may be enqueued.

        Turning the override on ends the sleep early.

        Raises:
            JobShedError, CircuitOpenError: the job must not be enqueued.
            ControllerStoppedError: the controller was stopped meanwhile.
            BackpressureError: called where an event loop runs; use `wait_async` there.
        """
        self._raise_rejection()
        if self.delay > 0:
            pacer = self._bound_pacer()
            pacer.pause(pacer.jittered(self.delay, self.queue_name), self.queue_name)

    async def wait_async(self) -> None:
        """As `wait`, without blocking the event loop."""
        self._raise_rejection()
        if self.delay > 0:
            pacer = self._bound_pacer()
            await pacer.pause_async(pacer.jittered(self.delay, self.queue_name))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; an infinite delay is ``None``, the timestamp an ISO 8601 string."""
        return {
            "priority": str(self.priority),
            "queue_name": self.queue_name,
            "delay": self.delay if math.isfinite(self.delay) else None,
            "should_shed": self.should_shed,
            "reason": str(self.reason),
            "timestamp": self.timestamp.isoformat(),
            "backlog_size": self.backlog_size,
            "zone": None if self.zone is None else str(self.zone),
            "retry_after": self.retry_after,
            "advised": None if self.advised is None else self.advised.to_dict(),
        }

    def _raise_rejection(self) -> None:
        error = self.rejection()
        if error is not None:
            raise error

    def _bound_pacer(self) -> Pacer:
        if self._pacer is None:
            msg = "this decision was copied out of its controller: ask the controller for a new one"
            raise BackpressureError(msg, queue_name=self.queue_name, priority=self.priority)
        return self._pacer

    def __reduce__(self) -> tuple[Any, ...]:
        # Tickets and pacers belong to one process; the value alone travels.
        return (
            _restore_decision,
            ({name: getattr(self, name) for name in _PUBLIC_FIELDS}, self.retry_after),
        )


_PUBLIC_FIELDS = tuple(field.name for field in attrs.fields(ThrottleDecision) if not field.name.startswith("_"))


def _restore_decision(public: dict[str, Any], retry_after: float | None) -> ThrottleDecision:
    return ThrottleDecision(**public, retry_delay=retry_after)


def _when(retry_after: float | None) -> str:
    return "retry once it is released" if retry_after is None else f"retry in {retry_after:.3f} s"
