"""The answer to a producer: go, wait or shed."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from attrs.exceptions import FrozenInstanceError

from backpressure._model.errors import BackpressureError, CircuitOpenError, JobShedError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.vocabulary import CIRCUIT_REASONS, Priority, Reason, Zone

__all__ = ["Answer", "ThrottleDecision", "issued"]


class Sleeps(Protocol):
    """What makes a decision's caller wait; see `backpressure._controller.sleep`."""

    @property
    def now_ns(self) -> Callable[[], int]:
        """Reads the clock: monotonic nanoseconds."""
        ...

    def jittered(self, delay: float, queue_name: str) -> float: ...
    def pause(self, seconds: float, queue_name: str) -> None: ...
    async def pause_async(self, seconds: float) -> None: ...


class Answer(NamedTuple):
    """What is advised, in one value that all decisions made of it share; the host makes it, engines hand it out.

    What is not described here is described at `ThrottleDecision`.

    Attributes:
        advised: the real answer, where observe mode lets a job go.
        sleeper: makes callers wait.
        retry_at_ns: instant of the next probe of a circuit that refuses; ``None`` where that is not known.
        retry_delay: seconds until another attempt makes sense, where they do not depend on when it is asked.
        last_failure: what failed when the circuit that refuses last counted a failure.
    """

    priority: Priority
    queue_name: str
    delay: float
    should_shed: bool
    reason: Reason
    timestamp: datetime
    backlog_size: int | None
    zone: Zone | None
    advised: "Answer | None"
    sleeper: Sleeps | None
    retry_at_ns: int | None
    retry_delay: float | None
    last_failure: str | None


@repr_when_half_built
class ThrottleDecision:
    """What a producer should do with one job now: go, wait `delay` seconds, or shed it.

    Frozen and safe to share between threads. A green answer may be one object for all callers. A decision that was
    pickled is only a value: it can neither be waited for nor reported.

    Args:
        priority, queue_name, delay, should_shed, reason, timestamp, backlog_size, zone, advised, retry_after: see the
            attributes of these names. Only tests make decisions; what they make is a value, as one that was pickled.

    Example:
        >>> provider = InMemoryStatsProvider({"email-queue": 1_250})
        >>> with BackpressureController(None, provider) as controller:
        ...     decision = controller.suggest_throttle("medium", "email-queue")
        >>> decision.delay, decision.should_shed, str(decision.reason), str(decision.zone)
        (0.255, False, 'backlog_yellow', 'yellow')
    """

    # An answer serves many callers. What is a caller's own comes beside it, in slots that the native engine fills
    # itself: with a value for every attribute, a decision took fifty times as long as one that lies ready.
    __slots__ = ("__weakref__", "_answer", "_computed", "_issued_ns", "_ticket")
    __match_args__ = (
        "priority",
        "queue_name",
        "delay",
        "should_shed",
        "reason",
        "timestamp",
        "backlog_size",
        "zone",
        "advised",
    )

    _answer: Answer
    _issued_ns: int | None  # None: it was only looked at
    _ticket: Any
    _computed: bool  # whether the law was computed for it

    def __init__(
        self,
        priority: Priority,
        queue_name: str,
        delay: float,
        should_shed: bool,
        reason: Reason,
        timestamp: datetime,
        backlog_size: int | None = None,
        zone: Zone | None = None,
        advised: "ThrottleDecision | None" = None,
        retry_after: float | None = None,
    ) -> None:
        answer = Answer(
            *(priority, queue_name, delay, should_shed, reason, timestamp, backlog_size, zone),
            advised=None if advised is None else advised._answer,  # noqa: SLF001 - of its own class
            sleeper=None,
            retry_at_ns=None,
            retry_delay=retry_after,
            last_failure=None,
        )
        _set_answer(self, answer)
        _set_issued_ns(self, 0)
        _set_ticket(self, None)
        _set_computed(self, False)

    @property
    def priority(self) -> Priority:
        """The job's priority."""
        return self._answer.priority

    @property
    def queue_name(self) -> str:
        """The queue asked about."""
        return self._answer.queue_name

    @property
    def delay(self) -> float:
        """Seconds to wait before enqueueing; ``math.inf`` when the job is refused.

        So use `wait` or `wait_async` rather than sleeping yourself: ``time.sleep(inf)`` raises, ``asyncio.sleep(inf)``
        hangs.
        """
        return self._answer.delay

    @property
    def should_shed(self) -> bool:
        """Whether the job must not be enqueued now."""
        return self._answer.should_shed

    @property
    def reason(self) -> Reason:
        """Why."""
        return self._answer.reason

    @property
    def timestamp(self) -> datetime:
        """Aware UTC time of when the answer was computed, for display."""
        return self._answer.timestamp

    @property
    def backlog_size(self) -> int | None:
        """Waiting jobs in the sample used, ``None`` when unknown."""
        return self._answer.backlog_size

    @property
    def zone(self) -> Zone | None:
        """Zone of that backlog, ``None`` when unknown."""
        return self._answer.zone

    @property
    def advised(self) -> "ThrottleDecision | None":
        """In observe mode the real decision, made when read; else ``None``."""
        real = self._answer.advised
        return None if real is None else issued(real, self._issued_ns, self._ticket, self._computed)

    @property
    def retry_after(self) -> float | None:
        """Seconds until another attempt makes sense, computed when read.

        Throttled: the delay. Shed by load: the delay it would have been given. Open circuit: the time to the
        next probe. Circuit forced open, or nothing to wait for: ``None``.
        """
        answer = self._answer
        if answer.retry_at_ns is not None and answer.sleeper is not None:
            return max(0, answer.retry_at_ns - answer.sleeper.now_ns()) / 1e9
        return answer.retry_delay

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
            return CircuitOpenError.of(circuit, state, last_failure=self._answer.last_failure, **about)
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
        sleeper = self._answer.sleeper
        if sleeper is None:
            msg = "this decision was copied out of its controller: ask the controller for a new one"
            raise BackpressureError(msg, queue_name=self.queue_name, priority=self.priority)
        return sleeper

    def _value(self) -> tuple[Any, ...]:
        """Return what equality is of."""
        return (*self._answer[:8], self.advised)

    def __eq__(self, other: object) -> bool:
        if not (isinstance(other, ThrottleDecision) and other.__class__ is self.__class__):
            return NotImplemented
        return self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={value!r}" for name, value in zip(ThrottleDecision.__match_args__, self._value(), strict=True)
        )
        return f"{type(self).__qualname__}({shown})"

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError

    def __reduce__(self) -> tuple[Any, ...]:
        # Tickets and sleepers belong to one process; only the value is pickled.
        return (
            _restore_decision,
            ({name: getattr(self, name) for name in ThrottleDecision.__match_args__}, self.retry_after),
        )


_new = object.__new__
_set_answer, _set_issued_ns, _set_ticket, _set_computed = (
    vars(ThrottleDecision)[name].__set__ for name in ("_answer", "_issued_ns", "_ticket", "_computed")
)


def issued(answer: Answer, issued_ns: int | None, ticket: Any = None, computed: bool = False) -> ThrottleDecision:
    """Return a decision made of `answer`, for one caller; the native engine makes its own in the same way.

    Args:
        issued_ns: instant of the decision, ``None`` where it was only looked at.
        ticket: the breaker's permission, where there is one.
        computed: whether the law was computed for this decision.
    """
    decision = _new(ThrottleDecision)
    _set_answer(decision, answer)
    _set_issued_ns(decision, issued_ns)
    _set_ticket(decision, ticket)
    _set_computed(decision, computed)
    return decision


def _restore_decision(public: dict[str, Any], retry_after: float | None) -> ThrottleDecision:
    return ThrottleDecision(**public, retry_after=retry_after)


def _when(retry_after: float | None) -> str:
    return "retry once it is released" if retry_after is None else f"retry in {retry_after:.3f} s"
