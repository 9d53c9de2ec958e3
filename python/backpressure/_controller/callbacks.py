"""What an engine asks of Python: values, errors, reads on a caller's path, and news."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from backpressure._controller.outcome import is_plain, runs_on_a_loop
from backpressure._engine.word import is_forced, state_of
from backpressure._model.arguments import longest_wait, parse_priority
from backpressure._model.clock import in_event_loop
from backpressure._model.decision import ThrottleDecision
from backpressure._model.errors import ControllerNotStartedError, ControllerStoppedError
from backpressure._model.vocabulary import CIRCUIT_REASONS, MISS_REASONS, CircuitState, Priority, Reason, Zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from backpressure._controller.admission import Admission
    from backpressure._controller.polling.sights import Sights
    from backpressure._controller.polling.thread import Poller
    from backpressure._controller.sleep import Sleeper
    from backpressure._engine.border import Answer, Engine, Ticket
    from backpressure._model.arguments import MaxWait
    from backpressure._model.clock import Clock
    from backpressure._telemetry.compliance import Compliance
    from backpressure._telemetry.events import Announcer

__all__ = ["BlockingHost", "ControllerHost"]

T = TypeVar("T")

_USE_ASYNC = "use AsyncBackpressureController, or decorate it with throttled()"
_AWAIT_IT = "await it inside the work"

# Modules whose frames lie between a call of this package and what it does.
_INSIDE = frozenset({"backpressure", "contextlib"})
_FALLBACKS = frozenset(MISS_REASONS) - {Reason.COLD_START}


class ControllerHost:
    """See `backpressure._engine.border.Host`."""

    engine: Engine
    admission: Admission
    compliance: Compliance
    poller: Poller
    sights: Sights[Any, Any]

    def __init__(
        self, clock: Clock, injected: bool, sleeper: Sleeper, announcer: Announcer, timeout: Callable[[], float]
    ) -> None:
        self.now_ns = clock.monotonic_ns if injected else None
        self.utc_now = clock.utc_now
        self.stopped = False
        self.last_fallback: datetime | None = None
        self._clock = clock
        self._sleeper = sleeper
        self._announcer = announcer
        self._timeout = timeout

    def serve(self, engine: Engine, admission: Admission, compliance: Compliance) -> None:
        """Learn what is made after the host."""
        self.engine = engine
        self.admission = admission
        self.compliance = compliance

    def decision(self, answer: Answer) -> ThrottleDecision:
        """Build the public value."""
        (
            priority,
            queue_name,
            delay_ns,
            shed,
            reason,
            timestamp,
            backlog,
            zone,
            ticket,
            issued_ns,
            retry_at_ns,
            computed,
        ) = answer
        if reason in _FALLBACKS:
            self.last_fallback = timestamp
        return ThrottleDecision(
            priority,
            queue_name,
            math.inf if shed else delay_ns / 1e9,
            shed,
            reason,
            timestamp,
            backlog,
            zone,
            None,
            self._sleeper,
            ticket,
            issued_ns,
            retry_at_ns,
            delay_ns / 1e9 if delay_ns else None,
            computed,
            self._last_failure(queue_name) if reason in CIRCUIT_REASONS else None,
        )

    def observed(self, decision: ThrottleDecision) -> ThrottleDecision:
        """Build what observe mode gives its caller: a go, with the real decision beside it."""
        return ThrottleDecision(
            decision.priority,
            decision.queue_name,
            0.0,
            False,
            Reason.OBSERVE_ONLY,
            decision.timestamp,
            decision.backlog_size,
            decision.zone,
            decision,
            self._sleeper,
            decision._ticket,  # noqa: SLF001 - what the host itself put there
            decision._issued_ns,  # noqa: SLF001
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
        """Read a queue on the caller's path; see `backpressure._engine.border.Host`."""
        raise NotImplementedError

    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        **kwargs: Any,
    ) -> T:
        """Run a job, waiting for its turn."""
        raise NotImplementedError

    def run_within(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run`, with every keyword argument for the work."""
        raise NotImplementedError

    is_plain = staticmethod(is_plain)

    async def perform_async(
        self, decision: ThrottleDecision, work: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run the work of an admitted job, await it if need be, and report its outcome."""
        began_ns = self.admission.now_ns()
        try:
            value = work(*args, **kwargs)
            if type(value) is CoroutineType or runs_on_a_loop(value):
                value = await value
        except BaseException as error:
            self.admission.report_error(decision, error, began_ns)
            raise
        if is_plain(type(value)):
            self.admission.report_success(decision)
        else:
            self.admission.report_value(decision, value, began_ns, instead=_AWAIT_IT, work=work, awaited=True)
        return value

    def report_success(self, decision: ThrottleDecision, value: object) -> None:
        """Report the outcome of a job that the engine ran itself."""
        self.admission.report_value(decision, value, None, instead=_USE_ASYNC)

    def report_error(self, decision: ThrottleDecision, error: BaseException, began_ns: int) -> None:
        """Report the outcome of a job that the engine ran itself."""
        self.admission.report_error(decision, error, began_ns)

    def check_poller(self) -> bool:
        """Look after the poller; see `backpressure._engine.border.Host`."""
        return self.poller.check()

    def circuit_changed(self, queue_name: str, old: int, new: int) -> None:
        """Announce a breaker's new state, and what was done to it by hand."""
        announce = partial(self._announcer.announce, queue_name=queue_name)
        before, after = CircuitState(state_of(old)), CircuitState(state_of(new))
        forced = is_forced(new)
        if forced or is_forced(old):
            on_off = ("on" if is_forced(old) else "off", "on" if forced else "off")
            message = f"circuit of queue {queue_name!r} is {self._hold(queue_name, new) if forced else 'released'}"
            announce("forced", *on_off, message, level=logging.WARNING)
        if before is not after:
            failure = None if forced else self._last_failure(queue_name)
            because = f": {failure} was the last failure" if failure and after is CircuitState.OPEN else ""
            message = f"circuit of queue {queue_name!r} is {after}, was {before}{because}"
            level = logging.WARNING if after is CircuitState.OPEN else logging.INFO
            announce("circuit", str(before), str(after), message, level=level)

    def _hold(self, queue_name: str, word: int) -> str:
        """Say until when a word is forced open."""
        breaker = self.engine.breaker(queue_name, False)
        end_ns = None if breaker is None else breaker.retry_at_ns(word)
        if end_ns is None:
            return "forced open until it is released"
        return f"forced open for {max(0, end_ns - self._clock.monotonic_ns()) / 1e9:g} s"

    def _last_failure(self, queue_name: str) -> str | None:
        breaker = self.engine.breaker(queue_name, False)
        return None if breaker is None else breaker.last_failure

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
        self.poller.samples.forget(queue_name)
        self.compliance.forget(queue_name)
        message = f"queue {queue_name!r} was idle and made room for another"
        self._announcer.announce("eviction", "tracked", "evicted", message, queue_name=queue_name, level=logging.DEBUG)


def _level_of_caller() -> int:
    """Return the ``stacklevel``, for who calls this, of the first frame outside of this package."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - as warnings itself does
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    return level


class BlockingHost(ControllerHost):
    """The host of callers that may wait for a read."""

    _warned = False

    def warn_of_loop(self, *limits: float | None) -> None:
        """Warn, once, that the calling thread runs an event loop: while all is green nothing else shows it.

        Who says that jobs wait 0 seconds, their `limits`, knows it.
        """
        if self._warned or not any(limit != 0 for limit in limits):
            return
        self._warned = True
        warnings.warn(
            "a BackpressureController is used on a running event loop, where it cannot wait: jobs that are to be "
            "delayed will be refused here; use AsyncBackpressureController, or call it by asyncio.to_thread",
            RuntimeWarning,
            stacklevel=_level_of_caller(),
        )

    def turn(self, priority: Priority | str, queue_name: str, max_wait: MaxWait) -> ThrottleDecision:
        """Return the decision of an admitted job, after its sleep."""
        if in_event_loop():
            self.warn_of_loop(longest_wait(max_wait, parse_priority(priority)))
        decision = self.engine.plan(priority, queue_name)
        seconds = self.admission.accept(decision, max_wait)
        if seconds > 0:
            self._sleeper.pause(seconds, decision.queue_name)
        return self.admission.admit(decision) if decision.delay > 0 else decision

    def turns(self, places: Iterable[tuple[Priority, str]], max_wait: MaxWait) -> list[ThrottleDecision]:
        """As `turn` for several: all are admitted after one sleep, the longest of theirs, or none."""
        with self.admission.all_or_none() as decisions:
            for place in places:
                decisions.append(self.engine.plan(*place))
            seconds = max((self.admission.accept(decision, max_wait) for decision in decisions), default=0.0)
            if seconds > 0:
                self._sleeper.pause(seconds, decisions[0].queue_name)
            self.admission.admit_all(decisions)
            return decisions

    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        **kwargs: Any,
    ) -> T:
        """Run a job, waiting for its turn."""
        return self.run_within(priority, queue_name, max_wait, work, *args, **kwargs)

    def run_within(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run`, with every keyword argument for the work."""
        return self.perform(self.turn(priority, queue_name, max_wait), work, *args, **kwargs)

    def perform(self, decision: ThrottleDecision, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run the work of an admitted job and report its outcome."""
        began_ns = self.admission.now_ns()
        try:
            value = work(*args, **kwargs)
        except BaseException as error:
            self.admission.report_error(decision, error, began_ns)
            raise
        if is_plain(type(value)):
            self.admission.report_success(decision)
        else:
            self.admission.report_value(decision, value, began_ns, instead=_USE_ASYNC, work=work)
        return value

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        """Have a queue read, and wait for it if need be; an event loop does not wait."""
        self.poller.revive()
        sight, first = self.sights.ask(queue_name)
        if in_event_loop():
            return Reason.COLD_START if wait and self.engine.sample(queue_name) is None else None
        if wait or first:
            self.sights.wait(sight, self._clock, self._timeout())
        return None
