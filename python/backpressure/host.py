"""What an engine asks of Python: values, errors, reads on a caller's path, and news."""

from __future__ import annotations

import logging
import math
import os
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from backpressure._pure.counters import MISS_REASONS
from backpressure.circuit import refuse_coroutine
from backpressure.clock import Wake, in_event_loop
from backpressure.clock import wait as wait_on
from backpressure.errors import ControllerNotStartedError, ControllerStoppedError
from backpressure.outcome import is_plain
from backpressure.types import CircuitState, Reason, ThrottleDecision, Zone

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backpressure._engine import Engine, Ticket
    from backpressure.clock import Clock
    from backpressure.compliance import Compliance
    from backpressure.config import PollingConfig
    from backpressure.desk import Desk
    from backpressure.events import Announcer
    from backpressure.intake import Intake
    from backpressure.pacer import Pacer
    from backpressure.poller import Poller
    from backpressure.types import Priority

__all__ = ["AnyPoller", "BlockingHost", "ControllerHost"]

T = TypeVar("T")

_USE_ASYNC = "use AsyncBackpressureController, or decorate it with throttled()"

_FALLBACKS = frozenset(MISS_REASONS) - {Reason.COLD_START}


class AnyPoller(Protocol):
    """What a host needs of a poller, whatever drives it."""

    intake: Intake

    def check(self) -> None: ...
    def configure(self, config: PollingConfig) -> None: ...
    def alive(self) -> bool: ...


class _Flight:
    """A read under way, which later callers share."""

    def __init__(self) -> None:
        self.landed = False
        self.waiting: list[Wake] = []


class ControllerHost:
    """See `backpressure._engine.Host`."""

    engine: Engine
    desk: Desk
    compliance: Compliance
    poller: AnyPoller

    def __init__(
        self, clock: Clock, injected: bool, pacer: Pacer, announcer: Announcer, timeout: Callable[[], float]
    ) -> None:
        self.now_ns = clock.monotonic_ns if injected else None
        self.utc_now = clock.utc_now
        self.stopped = False
        self.last_fallback: datetime | None = None
        self._clock = clock
        self._pacer = pacer
        self._announcer = announcer
        self._timeout = timeout

    def serve(self, engine: Engine, desk: Desk, compliance: Compliance) -> None:
        """Learn what is made after the host."""
        self.engine = engine
        self.desk = desk
        self.compliance = compliance

    def decision(
        self,
        priority: Priority,
        queue_name: str,
        delay_ns: int,
        should_shed: bool,
        reason: Reason,
        timestamp: datetime,
        backlog: int | None,
        zone: Zone | None,
        advised: ThrottleDecision | None,
        ticket: Ticket | None,
        issued_ns: int,
        retry_at_ns: int | None,
        retry_delay_ns: int | None,
        computed: bool,
    ) -> ThrottleDecision:
        """Build the public value."""
        if reason in _FALLBACKS:
            self.last_fallback = timestamp
        return ThrottleDecision(
            priority,
            queue_name,
            math.inf if should_shed else delay_ns / 1e9,
            should_shed,
            reason,
            timestamp,
            backlog,
            zone,
            advised,
            self._pacer,
            ticket,
            issued_ns,
            retry_at_ns,
            None if retry_delay_ns is None else retry_delay_ns / 1e9,
            computed,
        )

    def admitted(self, planned: ThrottleDecision, ticket: Ticket | None) -> ThrottleDecision:
        """Return `planned` with the ticket of its admission."""
        return attrs.evolve(planned, ticket=ticket)

    def not_running(self) -> Exception:
        """Return the error for a call outside of start() and stop()."""
        if self.stopped:
            return ControllerStoppedError("the controller was stopped: make a new one and start it")
        return ControllerNotStartedError("the controller is not started: call start(), or use it in a with statement")

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        """Read a queue on the caller's path; see `backpressure._engine.Host`."""
        raise NotImplementedError

    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: float | None = None,
        **kwargs: Any,
    ) -> T:
        """Run a job, waiting for its turn."""
        raise NotImplementedError

    def run_within(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: float | None,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run`, with every keyword argument for the work."""
        raise NotImplementedError

    is_plain = staticmethod(is_plain)

    def report_success(self, decision: ThrottleDecision, value: object) -> None:
        """Report the outcome of a job that the engine ran itself."""
        refuse_coroutine(value, _USE_ASYNC)
        self.desk.report_success(decision)

    def report_error(self, decision: ThrottleDecision, error: BaseException) -> None:
        """Report the outcome of a job that the engine ran itself."""
        self.desk.report_error(decision, error)

    def check_poller(self) -> None:
        """Look after the poller: samples have not been renewed in time."""
        self.poller.check()

    def circuit_changed(self, queue_name: str, old: int, new: int) -> None:
        """Announce a breaker's new state."""
        before, after = CircuitState(old), CircuitState(new)
        level = logging.WARNING if after is CircuitState.OPEN else logging.INFO
        message = f"circuit of queue {queue_name!r} is {after}, was {before}"
        self._announcer.announce("circuit", str(before), str(after), message, queue_name=queue_name, level=level)

    def zone_changed(self, queue_name: str, priority: Priority, old: Zone, new: Zone) -> None:
        """Announce another zone."""
        message = f"queue {queue_name!r} is {new} for {priority} jobs, was {old}"
        level = logging.WARNING if new is Zone.RED else logging.INFO
        self._announcer.announce(
            "zone", str(old), str(new), message, queue_name=queue_name, priority=priority, level=level
        )

    def override_ended(self) -> None:
        """Announce that the override's time is up."""
        self._announcer.announce("override", "on", "off", "manual override is off: its time is up")

    def evicted(self, queue_name: str) -> None:
        """Forget an idle queue that made room for another."""
        self.poller.intake.forget(queue_name)
        self.compliance.forget(queue_name)
        message = f"queue {queue_name!r} was idle and made room for another"
        self._announcer.announce("eviction", "tracked", "evicted", message, queue_name=queue_name, level=logging.DEBUG)


class BlockingHost(ControllerHost):
    """The host of callers that may wait for a read."""

    poller: Poller

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._flights: dict[tuple[int, str], _Flight] = {}

    def turn(self, priority: Priority | str, queue_name: str, max_wait: float | None) -> ThrottleDecision:
        """Return the decision of an admitted job, after its sleep."""
        decision = self.desk.accept(self.engine.plan(priority, queue_name), max_wait)
        if decision.delay > 0:
            self._pacer.sleep(decision.delay, decision.queue_name)
            decision = self.desk.admit(decision)
        return decision

    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: float | None = None,
        **kwargs: Any,
    ) -> T:
        """Run a job, waiting for its turn."""
        return self.run_within(priority, queue_name, max_wait, work, *args, **kwargs)

    def run_within(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: float | None,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run`, with every keyword argument for the work."""
        return self.perform(self.turn(priority, queue_name, max_wait), work, *args, **kwargs)

    def perform(self, decision: ThrottleDecision, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run the work of an admitted job and report its outcome."""
        try:
            value = work(*args, **kwargs)
        except BaseException as error:
            self.desk.report_error(decision, error)
            raise
        self.report_success(decision, value)
        return value

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        """Read a queue on the caller's path: one caller reads, the others share what it gets."""
        if in_event_loop():
            return self._read_behind(queue_name, cold=wait)
        key = (os.getpid(), queue_name)
        mine = _Flight()
        flight = self._flights.setdefault(key, mine)
        if flight is mine:
            self._fly(key, flight, cold=wait)
        elif wait:
            self._share(flight)
        return None

    def _fly(self, key: tuple[int, str], flight: _Flight, *, cold: bool) -> None:
        read = False
        try:
            # An earlier flight may have landed since this caller found no sample.
            read = (cold and self.engine.backlog(key[1]) is not None) or self.poller.read_one(key[1])
        finally:
            self._land(key, flight, read)

    def _land(self, key: tuple[int, str], flight: _Flight, read: bool) -> None:
        if not read:
            self.engine.read_failed(key[1])
        del self._flights[key]
        flight.landed = True
        for event in list(flight.waiting):
            event.set()

    def _share(self, flight: _Flight) -> None:
        event = Wake()
        flight.waiting.append(event)  # before the look at `landed`, so that no landing is missed
        if not flight.landed:
            wait_on(self._clock, event, self._timeout(), background=True)

    def _read_behind(self, queue_name: str, *, cold: bool) -> Reason | None:
        """Have the queue read by another thread: an event loop must not wait for it."""
        key = (os.getpid(), queue_name)
        if self.poller.alive():
            self.poller.wake()
        else:
            flight = _Flight()
            if self._flights.setdefault(key, flight) is flight:
                try:
                    threading.Thread(
                        target=self._fly,
                        args=(key, flight),
                        kwargs={"cold": cold},
                        name="backpressure-read",
                        daemon=True,
                    ).start()
                except RuntimeError:  # no more threads are to be had
                    self._land(key, flight, read=False)
        return Reason.COLD_START if cold else None
