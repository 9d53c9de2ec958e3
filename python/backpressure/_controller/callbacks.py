"""What an engine calls back for: values, errors, outcomes, and news."""

from __future__ import annotations

import logging
import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from backpressure._controller.not_running import not_running
from backpressure._controller.outcome import is_plain
from backpressure._engine.word import is_forced, state_of
from backpressure._model.decision import Answer
from backpressure._model.vocabulary import CIRCUIT_REASONS, MISS_REASONS, CircuitState, Priority, Reason, Zone

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backpressure._controller.admission import Admission
    from backpressure._controller.candidate import Candidate
    from backpressure._controller.polling.sights import Sights
    from backpressure._controller.polling.thread import Poller
    from backpressure._controller.sleep import Sleeper
    from backpressure._controller.switches import Switches
    from backpressure._engine.border import Engine
    from backpressure._engine.laws.age import Judged
    from backpressure._model.arguments import MaxWait
    from backpressure._model.clock import Clock
    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.tenant import AnyTenant
    from backpressure._telemetry.compliance import Compliance
    from backpressure._telemetry.events import Announcer

__all__ = ["USE_ASYNC", "ControllerHost"]

T = TypeVar("T")

#: What to do with an awaitable that work has returned.
USE_ASYNC = "use AsyncBackpressureController, or decorate it with throttled()"

_FALLBACKS = frozenset(MISS_REASONS) - {Reason.COLD_START}

# The constructor of a named tuple is Python, and takes twice as long.
_new_answer = tuple.__new__


class ControllerHost:
    """See `backpressure._engine.border.Host`."""

    def __init__(
        self,
        clock: Clock,
        injected: bool,
        sleeper: Sleeper,
        announcer: Announcer,
        compliance: Compliance,
        timeout: Callable[[], float],
    ) -> None:
        self.now_ns = clock.monotonic_ns if injected else None
        self._utc_now = clock.utc_now
        self.stopped_in: int | None = None
        self._made_in = os.getpid()
        self.last_fallback: datetime | None = None
        self._clock = clock
        self._sleeper = sleeper
        self._announcer = announcer
        self._compliance = compliance
        self._timeout = timeout

    def bind(
        self,
        engine: Engine,
        admission: Admission,
        poller: Poller,
        sights: Sights[Any, Any],
        switches: Switches,
        candidate: Candidate,
    ) -> None:
        """Take the engine, which was made with this host, and what needs the engine."""
        self.engine = engine
        self.admission = admission
        self.poller = poller
        self.sights = sights
        self.switches = switches
        self.budgets = poller.budgets
        self.candidate = candidate

    def answer(
        self,
        priority: Priority,
        queue_name: str,
        delay_ns: int,
        shed: bool,
        reason: Reason,
        backlog: int | None,
        zone: Zone | None,
        retry_at_ns: int | None,
    ) -> Answer:
        """Build what decisions are made of."""
        answer = self.peeked(priority, queue_name, delay_ns, shed, reason, backlog, zone, retry_at_ns)
        if reason in _FALLBACKS:
            self.last_fallback = answer.timestamp
        return answer

    def peeked(
        self,
        priority: Priority,
        queue_name: str,
        delay_ns: int,
        shed: bool,
        reason: Reason,
        backlog: int | None,
        zone: Zone | None,
        retry_at_ns: int | None,
    ) -> Answer:
        """As `answer`, for a caller that only looks: nothing is noted of it."""
        delay = delay_ns / 1e9
        last_failure = self._last_failure(queue_name) if reason in CIRCUIT_REASONS else None
        fields = (
            *(priority, queue_name, math.inf if shed else delay, shed, reason, self._utc_now(), backlog, zone),
            *(None, self._sleeper, retry_at_ns, delay or None, last_failure),
        )
        return _new_answer(Answer, fields)

    def outlined(
        self, zone: Zone | None, delay_ns: int, shed: bool, reason: Reason, probe_ns: int | None
    ) -> dict[str, Any]:
        """Put what was seen into words, as a decision would say it: health shows it for all queues."""
        retry_ns = (delay_ns or None) if probe_ns is None else probe_ns
        return {
            "zone": None if zone is None else str(zone),
            "delay": None if shed else delay_ns / 1e9,
            "should_shed": shed,
            "reason": str(reason),
            "retry_after": None if retry_ns is None else retry_ns / 1e9,
        }

    def observed(self, answer: Answer) -> Answer:
        """Build what observe mode makes of an answer: a go that carries it."""
        return answer._replace(
            delay=0.0,
            should_shed=False,
            reason=Reason.OBSERVE_ONLY,
            advised=answer,
            retry_at_ns=None,
            retry_delay=None,
            last_failure=None,
        )

    def not_running(self) -> Exception:
        """Return the error for a call outside of start() and stop()."""
        return not_running(stopped_in=self.stopped_in, made_in=self._made_in)

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
        patient: bool = False,
        tenant: AnyTenant | None = None,
        **kwargs: Any,
    ) -> T:
        """Run a job, waiting for its turn."""
        raise NotImplementedError

    def run_within(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run`, with every keyword argument for the work."""
        raise NotImplementedError

    def run_for(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool,
        tenant: AnyTenant,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run_within`, on behalf of a tenant."""
        raise NotImplementedError

    def suggest_for(self, priority: Priority | str, queue_name: str, tenant: AnyTenant) -> ThrottleDecision:
        """Decide and admit on behalf of a tenant, whose job nothing lies ready for."""
        return self.admission.suggest_for(priority, queue_name, tenant)

    is_plain = staticmethod(is_plain)

    def report_success(self, decision: ThrottleDecision, value: object) -> None:
        """Report the outcome of a job that the engine ran itself."""
        self.admission.report_value(decision, value, None, instead=USE_ASYNC)

    def report_error(self, decision: ThrottleDecision, error: BaseException, began_ns: int) -> None:
        """Report the outcome of a job that the engine ran itself."""
        self.admission.report_error(decision, error, began_ns)

    def check_poller(self) -> bool:
        """Look after the poller; see `backpressure._engine.border.Host`."""
        return self.poller.check()

    def hurry(self, queue_name: str) -> None:
        """Have the poller read a queue soon."""
        self.poller.hurry(queue_name)

    def judge(self, queue_name: str, priority: Priority) -> Judged:
        """Ask the budget of a queue; see `backpressure._engine.border.Host`."""
        return self.budgets.judge(queue_name, priority)

    def foresee(self, queue_name: str, priority: Priority) -> Judged:
        """Look at the budget of a queue; see `backpressure._engine.border.Host`."""
        return self.budgets.foresee(queue_name, priority)

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
        """Announce another zone, and have a queue that has left green read more often."""
        if old is Zone.GREEN:
            self.poller.note_busy()
        message = f"queue {queue_name!r} is {new} for {priority} jobs, was {old}"
        level = logging.WARNING if new is Zone.RED else logging.INFO
        self._announcer.announce(
            "zone", str(old), str(new), message, queue_name=queue_name, priority=priority, level=level
        )

    def override_ended(self) -> None:
        """Announce that the override's time is up; of the fleet's, its own end is told."""
        if self.switches.end_here():
            self._announcer.announce("override", "on", "off", "manual override is off: its time is up")

    def evicted(self, queue_name: str) -> None:
        """Forget an idle queue that made room for another."""
        self.poller.samples.forget(queue_name)
        self.budgets.forget(queue_name)
        self.candidate.forget(queue_name)
        self.admission.sparing.forget(queue_name)
        self._compliance.forget(queue_name)
        message = f"queue {queue_name!r} was idle and made room for another"
        self._announcer.announce("eviction", "tracked", "evicted", message, queue_name=queue_name, level=logging.DEBUG)
