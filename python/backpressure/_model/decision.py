"""The answer to a producer: go, wait or shed."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import attrs

from backpressure._model.errors import BackpressureError, CircuitOpenError, JobShedError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.vocabulary import CIRCUIT_REASONS, Priority, Reason, Zone

__all__ = ["SETTERS", "ThrottleDecision"]


class Sleeps(Protocol):
    """What makes a decision's caller wait; see `backpressure._controller.sleep`."""

    @property
    def now_ns(self) -> Callable[[], int]:
        """Reads the clock: monotonic nanoseconds."""
        ...

    def jittered(self, delay: float, queue_name: str) -> float: ...
    def pause(self, seconds: float, queue_name: str) -> None: ...
    async def pause_async(self, seconds: float) -> None: ...


def _private(default: Any = None) -> Any:
    return attrs.field(default=default, repr=False, eq=False)


@repr_when_half_built
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

    Frozen and safe to share between threads. A green answer may be one object for all callers. A decision that was
    pickled is only a value: it can neither be waited for nor reported.

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
    advised: "ThrottleDecision | None" = None
    # What the engine needs when the decision comes back to it. Not part of the value.
    _sleeper: Sleeps | None = _private()
    _ticket: Any = _private()
    _issued_ns: int | None = _private(0)  # None: it was only looked at
    _retry_at_ns: int | None = _private()
    _retry_delay: float | None = _private()
    _computed: bool = _private(default=False)
    _last_failure: str | None = _private()

    @property
    def retry_after(self) -> float | None:
        """Seconds until another attempt makes sense, computed when read.

        Throttled: the delay. Shed by load: the delay it would have been given. Open circuit: the time to the
        next probe. Circuit forced open, or nothing to wait for: ``None``.
        """
        if self._retry_at_ns is not None and self._sleeper is not None:
            return max(0, self._retry_at_ns - self._sleeper.now_ns()) / 1e9
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
            ControllerStoppedError: the controller was stopped during the sleep.
            BackpressureError: called where an event loop runs; use `wait_async` there.
        """
        self._raise_rejection()
        if self.delay > 0:
            sleeper = self._bound_sleeper()
            sleeper.pause(sleeper.jittered(self.delay, self.queue_name), self.queue_name)

    async def wait_async(self) -> None:
        """As `wait`, without blocking the event loop."""
        self._raise_rejection()
        if self.delay > 0:
            sleeper = self._bound_sleeper()
            await sleeper.pause_async(sleeper.jittered(self.delay, self.queue_name))

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

    def _bound_sleeper(self) -> Sleeps:
        if self._sleeper is None:
            msg = "this decision was copied out of its controller: ask the controller for a new one"
            raise BackpressureError(msg, queue_name=self.queue_name, priority=self.priority)
        return self._sleeper

    def __reduce__(self) -> tuple[Any, ...]:
        # Tickets and sleepers belong to one process; only the value is pickled.
        return (
            _restore_decision,
            ({name: getattr(self, name) for name in _PUBLIC_FIELDS}, self.retry_after),
        )


#: Functions that fill in an object made by ``object.__new__``, one for each field, in their order. The constructor of a
#: frozen class takes half as long again, and a decision is made whenever none lies ready.
SETTERS: tuple[Callable[[ThrottleDecision, Any], None], ...] = tuple(
    vars(ThrottleDecision)[field.name].__set__ for field in attrs.fields(ThrottleDecision)
)

_PUBLIC_FIELDS = tuple(field.name for field in attrs.fields(ThrottleDecision) if not field.name.startswith("_"))


def _restore_decision(public: dict[str, Any], retry_after: float | None) -> ThrottleDecision:
    return ThrottleDecision(**public, retry_delay=retry_after)


def _when(retry_after: float | None) -> str:
    return "retry once it is released" if retry_after is None else f"retry in {retry_after:.3f} s"
