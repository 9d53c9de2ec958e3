"""`CircuitBreaker`: the public face of a breaker, alone or one of a controller's."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from backpressure._controller import outcome
from backpressure._engine.choice import load
from backpressure._engine.settings import CircuitSettings
from backpressure._engine.word import Word, state_of
from backpressure._model.arguments import check_seconds
from backpressure._model.clock import SystemClock
from backpressure._model.config.circuit import CircuitConfig
from backpressure._model.errors import BackpressureError, CircuitOpenError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.units import nanoseconds
from backpressure._model.vocabulary import CircuitState
from backpressure._runtime.foreign import Foreign, GuardedClock
from backpressure._runtime.uncopied import Uncopied

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backpressure._engine.border import Breaker, Ticket
    from backpressure._model.clock import Clock

__all__ = ["CircuitBreaker"]

_REPORT_IT = "await it, and report with try_acquire() and record_success() or record_failure()"

P = ParamSpec("P")
T = TypeVar("T")


@repr_when_half_built
class CircuitBreaker(Uncopied):
    """Stops calls to something that keeps failing, and probes for its recovery.

    Args:
        config: thresholds and times; default `CircuitConfig()`.
        clock: source of time; default the system's.

    Thread-safe; lock-free in the native engine. A breaker made alone knows no queue and exports no metrics; that of a
    controller's queue comes from `BackpressureController.circuit`.

    Example:
        >>> clock = ManualClock()
        >>> breaker = CircuitBreaker(CircuitConfig(failure_threshold=2, recovery_threshold=1), clock=clock)
        >>> breaker.record_failure()
        >>> breaker.record_failure()
        >>> breaker.state, breaker.allow()
        (<CircuitState.OPEN: 1>, False)
        >>> clock.advance(60)
        >>> breaker.call(len, "the probe"), breaker.state
        (9, <CircuitState.CLOSED: 0>)
    """

    _instead = "make one from the same CircuitConfig, or ask controller.circuit(), in the process that uses it"

    def __init__(
        self, config: CircuitConfig | None = None, *, clock: Clock | None = None, _engine: str | None = None
    ) -> None:
        self._config = config or CircuitConfig()
        self._foreign = Foreign()
        self._clock: Clock = GuardedClock(clock, self._foreign) if clock else SystemClock()
        breaker = load(_engine).Breaker(CircuitSettings.of(self._config), self._clock.monotonic_ns if clock else None)
        self._queue_name: str | None = None
        self._resolve: Callable[[bool], Breaker | None] = lambda create: breaker  # noqa: ARG005

    @classmethod
    def of_queue(
        cls,
        queue_name: str,
        config: CircuitConfig,
        clock: Clock,
        foreign: Foreign,
        resolve: Callable[[bool], Breaker | None],
    ) -> CircuitBreaker:
        """Return the handle of a controller's breaker, which `resolve(create)` looks up at every use."""
        self = cls.__new__(cls)
        self._config, self._clock, self._foreign = config, clock, foreign
        self._queue_name, self._resolve = queue_name, resolve
        return self

    @property
    def state(self) -> CircuitState:
        """The state now. An open circuit is open until its first probe, however long ago it opened."""
        breaker = self._resolve(False)
        return CircuitState.CLOSED if breaker is None else CircuitState(breaker.state())

    def allow(self) -> bool:
        """Tell whether one call may go; where the circuit is not closed, ``True`` takes the probe's lease."""
        return self.try_acquire() is not None

    def try_acquire(self) -> Ticket | None:
        """Admit one call: a ticket to report its outcome with, or ``None``.

        For calls that `call` cannot wrap, such as coroutines.

        Example:
            >>> breaker = CircuitBreaker()
            >>> ticket = breaker.try_acquire()
            >>> if ticket is not None:
            ...     breaker.record_success(ticket)
        """
        return self._breaker().try_acquire()

    def record_success(self, ticket: Ticket | None = None) -> None:
        """Report a success; with its ticket it cannot count for another period."""
        self._breaker().record(True, ticket)

    def record_failure(self, ticket: Ticket | None = None) -> None:
        """Report a failure; with its ticket it cannot count for another period."""
        self._breaker().record(False, ticket)

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn` and report how it ended; if it returns a future, once that is done.

        Raises:
            CircuitOpenError: nothing was called; ``retry_after`` tells in how many seconds a probe may go.
            TypeError: `fn` returned a generator or an awaitable, whose work is still to be done.
            Exception: whatever `fn` raises.

        Example:
            >>> CircuitBreaker().call(int, "ff", base=16)
            255
        """
        breaker = self._breaker()
        ticket = breaker.try_acquire()
        if ticket is None:
            raise self._rejection(breaker)
        began_ns = self._clock.monotonic_ns()

        def report(error: BaseException | None) -> None:
            self._settle(breaker, ticket, error, began_ns)

        try:
            value = fn(*args, **kwargs)
        except BaseException as error:
            report(error)
            raise
        outcome.take(value, report, self._foreign, work=fn, instead=_REPORT_IT)
        return value

    def _settle(self, breaker: Breaker, ticket: Ticket, error: BaseException | None, began_ns: int) -> None:
        """Tell the breaker the outcome of a call; an error that says nothing gives a lease back."""
        if error is None:
            breaker.record(True, ticket)
        else:
            ok = outcome.verdict(error, self._config, self._foreign)
            breaker.record(ok, ticket, began_ns, type(error).__name__)

    def force_open(self, *, for_: float | None = None) -> None:
        """Reject everything until `force_close` or `reset`, or for `for_` seconds, with any other settings.

        When its time is up, the circuit is closed, as by `force_close`.

        Raises:
            ConfigurationError: `for_` is no number of seconds from 0.

        Example:
            >>> clock = ManualClock()
            >>> breaker = CircuitBreaker(clock=clock)
            >>> breaker.force_open(for_=600)
            >>> breaker.allow(), breaker.stats()["forced"]
            (False, True)
            >>> clock.advance(600)
            >>> breaker.allow(), breaker.stats()["forced"]
            (True, False)
        """
        until_ns = None
        if for_ is not None:
            until_ns = self._clock.monotonic_ns() + nanoseconds(check_seconds(for_, "for_"))
        self._breaker().force_open(until_ns)

    def force_close(self) -> None:
        """Close the circuit now; further failures open it again."""
        self._breaker().force_close()

    def reset(self) -> None:
        """Return to the clean state: closed, nothing counted, no failure remembered."""
        self._breaker().reset()

    def stats(self) -> dict[str, Any]:
        """Return the breaker's state, counts and settings.

        Durations in seconds, times as aware datetimes or ``None``. ``last_failure`` is the class of the last error that
        counted, by name, where it is known. ``time_until_recovery`` is the time until a probe may go, or a forced
        circuit is closed: 0 when it may, ``None`` when closed, or forced open without an end.

        Example:
            >>> breaker = CircuitBreaker()
            >>> breaker.record_failure()
            >>> stats = breaker.stats()
            >>> stats["state"], stats["failure_count"], stats["failure_threshold"]
            ('closed', 1, 5)
        """
        breaker = self._resolve(False)
        if breaker is not None:
            breaker.state()  # reading the state ends a forced opening whose time is up
        word = breaker.word if breaker else 0
        unpacked = Word.unpack(word)
        state = CircuitState(unpacked.state)
        config = self._config
        return {
            "state": str(state),
            "failure_count": unpacked.count if state is CircuitState.CLOSED else 0,
            "success_count": unpacked.count if state is CircuitState.HALF_OPEN else 0,
            "last_failure": breaker.last_failure if breaker else None,
            "last_failure_time": self._wall_time(breaker.last_failure_ns if breaker else None),
            "last_probe_time": self._wall_time(breaker.last_probe_ns if breaker else None),
            "failure_threshold": config.failure_threshold,
            "recovery_threshold": config.recovery_threshold,
            "trip_window": config.trip_window,
            "recovery_timeout": config.recovery_timeout,
            "probe_interval": config.probe_interval,
            "forced": unpacked.forced,
            "generation": unpacked.generation,
            "time_until_recovery": self._until_recovery(breaker, word) if breaker and state_of(word) else None,
        }

    def __repr__(self) -> str:
        of_queue = "" if self._queue_name is None else f" of queue {self._queue_name!r}"
        return f"<CircuitBreaker{of_queue}: {self.state}>"

    def _breaker(self) -> Breaker:
        breaker = self._resolve(True)
        if breaker is None:
            raise BackpressureError(
                f"queue {self._queue_name!r} has no circuit breaker: max_queues is reached, so raise it",
                queue_name=self._queue_name,
            )
        return breaker

    def _rejection(self, breaker: Breaker) -> CircuitOpenError:
        word = breaker.word
        closed = state_of(word) == CircuitState.CLOSED.value  # now; it was not when it rejected the call
        retry_after = 0.0 if closed else self._until_recovery(breaker, word)
        state = CircuitState.HALF_OPEN if closed else CircuitState(state_of(word))
        return CircuitOpenError.of(
            "circuit" if self._queue_name is None else f"circuit of queue {self._queue_name!r}",
            str(state),
            last_failure=breaker.last_failure,
            queue_name=self._queue_name,
            retry_after=retry_after,
        )

    def _until_recovery(self, breaker: Breaker, word: int) -> float | None:
        at_ns = breaker.retry_at_ns(word)
        return None if at_ns is None else max(0, at_ns - self._clock.monotonic_ns()) / 1e9

    def _wall_time(self, at_ns: int | None) -> datetime | None:
        if at_ns is None:
            return None
        return self._clock.utc_now() - timedelta(microseconds=(self._clock.monotonic_ns() - at_ns) / 1e3)
