"""Every exception of the package, defined once for both engines, and the predicates over them.

Messages are lower-case and say what to do next. All errors pickle.
"""

from __future__ import annotations

import copyreg
from collections import deque
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._model.vocabulary import Priority, Reason

__all__ = [
    "BackpressureError",
    "CircuitOpenError",
    "ConfigurationError",
    "ControllerNotStartedError",
    "ControllerStoppedError",
    "InvalidPriorityError",
    "InvalidQueueError",
    "JobShedError",
    "RecordingError",
    "StatsUnavailableError",
    "ThrottledError",
    "is_circuit_open_error",
    "is_retryable",
    "is_shed_error",
]


class BackpressureError(Exception):
    """Base of everything this package raises.

    Attributes:
        queue_name: the queue the call was about, or ``None``.
        priority: the job's priority, or ``None``.
        retry_after: seconds after which trying again makes sense, or ``None`` when unknown.
        reason: the `Reason` of the decision that refused the job, or ``None`` where there was none.

    Example:
        >>> with BackpressureController(None, InMemoryStatsProvider({"clicks": 5_000})) as controller:
        ...     try:
        ...         controller.run("low", "clicks", print, "a click")
        ...     except BackpressureError as error:
        ...         print(error.queue_name, error.priority, error.retry_after)
        clicks low 7.5
    """

    def __init__(
        self,
        message: str = "",
        *,
        queue_name: str | None = None,
        priority: Priority | None = None,
        retry_after: float | None = None,
        reason: Reason | None = None,
    ) -> None:
        super().__init__(message)
        self.queue_name = queue_name
        self.priority = priority
        self.retry_after = retry_after
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ calls the class with its args only and would lose keyword-only parameters of subclasses;
        # the attributes are pickled in __dict__ instead.
        return (copyreg.__newobj__, (type(self), *self.args), self.__dict__)  # type: ignore[attr-defined]


class JobShedError(BackpressureError):
    """The job was refused and must not be enqueued now: the backlog is too large.

    ``retry_after`` is the delay in seconds that it would have been given.

    Example:
        >>> with BackpressureController(None, InMemoryStatsProvider({"clicks": 5_000})) as controller:
        ...     controller.suggest_throttle("low", "clicks").wait()
        Traceback (most recent call last):
            ...
        backpressure.JobShedError: low job for queue 'clicks' was shed at a backlog of 5000: drop it, or ...
    """


class CircuitOpenError(JobShedError):
    """The job was refused because the queue's circuit breaker is open or its probe is taken.

    ``retry_after`` is the time in seconds to the next probe, or to the end of a forced opening; ``None`` when the
    circuit was forced open without an end. ``last_failure`` names the class of the last error that counted against the
    queue, ``None`` where that is not known; never its text, which may hold secrets.

    Example:
        >>> breaker = CircuitBreaker()
        >>> breaker.force_open()
        >>> breaker.call(print, "never printed")
        Traceback (most recent call last):
            ...
        backpressure.CircuitOpenError: circuit is open: retry once it is released
    """

    last_failure: str | None = None

    @classmethod
    def of(cls, what: str, state: str, *, last_failure: str | None, retry_after: float | None, **about: Any) -> Self:
        """Return the error of `what`, a circuit in `state`; `retry_after` in seconds, `about` the base's arguments."""
        because = f" (last failure: {last_failure})" if last_failure else ""
        when = "retry once it is released" if retry_after is None else f"retry in {retry_after:.3f} s"
        error = cls(f"{what} is {state}{because}: {when}", retry_after=retry_after, **about)
        error.last_failure = last_failure
        return error


class ThrottledError(BackpressureError):
    """The advised delay exceeds ``max_wait``; nothing was run. ``retry_after`` is the delay in seconds.

    Never raised for HIGH jobs. Answer it with ``429 Too Many Requests``, or enqueue again in ``retry_after`` seconds.

    Example:
        >>> with BackpressureController(None, InMemoryStatsProvider({"email-queue": 5_000})) as controller:
        ...     controller.run("medium", "email-queue", print, max_wait=0.2)
        Traceback (most recent call last):
            ...
        backpressure.ThrottledError: medium job for queue 'email-queue' would wait 5.000 s (backlog_red), ...
    """


class ControllerNotStartedError(BackpressureError):
    """The controller is not running: call ``start()`` or use it as a context manager first.

    The message names the likely cause: a fork, multiprocessing, Django, or a lifespan that has not run.

    Example:
        >>> BackpressureController(None, InMemoryStatsProvider()).suggest_throttle("low", "clicks")
        Traceback (most recent call last):
            ...
        backpressure.ControllerNotStartedError: ...
    """


class ControllerStoppedError(ControllerNotStartedError):
    """The controller was stopped; it cannot be started again. Make a new one.

    `backpressure.integrations.Restartable` makes one at each start.

    Example:
        >>> with BackpressureController(None, InMemoryStatsProvider()) as controller:
        ...     pass
        >>> controller.start()
        Traceback (most recent call last):
            ...
        backpressure.ControllerStoppedError: ...
    """


class StatsUnavailableError(BackpressureError):
    """A provider could not read its statistics. Controllers turn it into their fallback.

    ``error_type`` is the label under which the poller counts the failure (``"timeout"``, ``"auth"``, …): 1 to 64 ASCII
    letters, digits, ``_``, ``.`` or ``-``; anything else is counted as ``"provider"``.

    Example:
        >>> raise StatsUnavailableError("the broker is restarting", error_type="loading")
        Traceback (most recent call last):
            ...
        backpressure.StatsUnavailableError: the broker is restarting
    """

    def __init__(self, message: str = "", *, error_type: str = "provider", queue_name: str | None = None) -> None:
        super().__init__(message, queue_name=queue_name)
        self.error_type = error_type


class ConfigurationError(BackpressureError, ValueError):
    """A setting is impossible. ``field`` is its dotted path, ``value`` what was given.

    A loader reports everything it finds in one error: ``faults`` holds an error for each setting, the first of which
    gives ``field`` and ``value``.

    Example:
        >>> PollingConfig(interval=5, jitter=4)
        Traceback (most recent call last):
            ...
        backpressure.ConfigurationError: polling.jitter is 4.0: must be from 0 to half the interval (2.5 s)
    """

    def __init__(
        self, message: str = "", *, field: str = "", value: object = None, faults: tuple[ConfigurationError, ...] = ()
    ) -> None:
        super().__init__(message)
        self.field = field
        self.value = value
        self.faults = faults


class RecordingError(BackpressureError):
    """A recording cannot be read or written: it is damaged, no recording, or another process writes to it.

    Example:
        >>> Recording("nowhere.bpr").queues()
        Traceback (most recent call last):
            ...
        backpressure.RecordingError: recording nowhere.bpr does not exist: make one with backpressure record
    """


class InvalidPriorityError(BackpressureError, ValueError):
    """The priority is neither a ``Priority`` nor ``"low"``, ``"medium"`` or ``"high"``.

    Example:
        >>> Priority.parse(1)
        Traceback (most recent call last):
            ...
        backpressure.InvalidPriorityError: invalid priority 1: give a Priority or one of "low", "medium", "high"
    """


class InvalidQueueError(BackpressureError, ValueError):
    """The queue name is not a ``str`` of 1–255 UTF-8 bytes without control characters.

    Example:
        >>> InMemoryStatsProvider({"": 0})
        Traceback (most recent call last):
            ...
        backpressure.InvalidQueueError: invalid queue name '': give 1 to 255 UTF-8 bytes
    """


def links(error: BaseException | None, *, contexts: bool = False) -> Iterator[BaseException]:
    """Yield `error`, its causes and the members of groups among them, each once and the nearest first.

    With `contexts` also the errors during whose handling these were raised.
    """
    seen: set[int] = set()
    pending = deque([error])
    while pending:
        link = pending.popleft()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending.append(link.__cause__)
        if contexts:
            pending.append(link.__context__)
        if isinstance(link, BaseExceptionGroup):
            pending.extend(link.exceptions)


def is_shed_error(error: BaseException | None) -> bool:
    """Tell whether `error`, a cause of it or any member of a group is a shed (open circuits included).

    Example:
        >>> is_shed_error(JobShedError()), is_shed_error(CircuitOpenError()), is_shed_error(OSError())
        (True, True, False)
    """
    return any(isinstance(link, JobShedError) for link in links(error))


def is_circuit_open_error(error: BaseException | None) -> bool:
    """Tell whether `error`, a cause of it or any member of a group is a rejection by a circuit breaker.

    Example:
        >>> is_circuit_open_error(CircuitOpenError()), is_circuit_open_error(JobShedError())
        (True, False)
    """
    return any(isinstance(link, CircuitOpenError) for link in links(error))


_NOT_RETRYABLE = (
    JobShedError,
    ControllerStoppedError,
    ConfigurationError,
    InvalidPriorityError,
    InvalidQueueError,
)


def is_retryable(error: BaseException | None) -> bool:
    """Tell whether running the same call again at once can help.

    False for ``None``, sheds and open circuits (wait ``retry_after`` instead), a stopped controller, invalid input
    and configuration, and exceptions that are not an ``Exception``. A group is retryable when all its members are.

    Example:
        >>> is_retryable(ConnectionError()), is_retryable(ThrottledError()), is_retryable(JobShedError())
        (True, True, False)
    """
    return error is not None and all(
        isinstance(link, Exception) and not isinstance(link, _NOT_RETRYABLE) for link in links(error)
    )
