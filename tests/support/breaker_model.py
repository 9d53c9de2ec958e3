"""The circuit breaker written a second time: plain attributes, unrounded instants, no packed word and no lock.

It shares no code with the engines, so that one mistake cannot be in all three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._engine.settings import CircuitSettings

CLOSED, OPEN, HALF_OPEN = 0, 1, 2
MS = 1_000_000
LAST_MS = 2**40 - 1


@dataclass(eq=False)
class ModelTicket:
    """Permission to do one piece of work."""

    generation: int
    probe: bool
    issued_ns: int
    used: bool = False


class BreakerModel:
    """One queue's breaker, called like an engine's. Instants are those of the clock, in nanoseconds."""

    def __init__(
        self,
        circuit: CircuitSettings,
        now_ns: Callable[[], int],
        *,
        origin_ns: int,
        on_change: Callable[[str, str], object],
    ) -> None:
        self.circuit = circuit
        self.now_ns = now_ns
        self.origin_ns = origin_ns
        self.state = CLOSED
        self.forced = False
        self.forced_until_ns: int | None = None  # without an end
        self.due = False  # whether the next probe may go at once
        self.generation = 0
        self.failures = 0  # in a row, while closed
        self.failed_ns = origin_ns  # when the last of them ended
        self.opened_ns = origin_ns
        self.successes = 0  # of probes, while half-open
        self.lease_outstanding = False
        self.leased_ns = origin_ns
        self.last_failure: str | None = None
        self.last_failure_ns: int | None = None
        self.last_probe_ns: int | None = None
        self.on_change = on_change

    # Calls of callers.

    def would_admit(self) -> bool:
        if self.forced:
            return False
        if self.state == CLOSED or self.due:
            return True
        if self.state == OPEN:
            return self._passed(self.opened_ns, self.circuit.recovery_timeout_ms)
        return self._passed(self.leased_ns, self.circuit.probe_interval_ms)

    def try_acquire(self) -> ModelTicket | None:
        self.look()
        if not self.would_admit():
            return None
        if self.state == CLOSED:
            return ModelTicket(self.generation, False, self.now_ns())
        if self.state == OPEN:
            self._become(HALF_OPEN)
        self.lease_outstanding, self.due = True, False
        self.leased_ns = self.last_probe_ns = self.now_ns()
        return ModelTicket(self.generation, True, self.now_ns())

    def honours(self, ticket: ModelTicket) -> bool:
        """Tell whether an earlier ticket still lets its holder go."""
        if ticket.generation != self.generation:
            return False
        if not ticket.probe:
            return self.state == CLOSED
        return self._holds(ticket) and not self.would_admit()

    def _holds(self, ticket: ModelTicket) -> bool:
        """Tell whether the outstanding lease is this ticket's, to the millisecond."""
        same = self._stamp(self.leased_ns) == self._stamp(ticket.issued_ns)
        return self.state == HALF_OPEN and self.lease_outstanding and same

    def record(
        self,
        ok: bool | None,
        ticket: ModelTicket | None = None,
        began_ns: int | None = None,
        failure: str | None = None,
    ) -> bool:
        """Tell whether the result counted."""
        self.look()
        if ok is None and not (ticket and ticket.probe):
            return False
        if ticket is not None and ticket.probe:
            if ticket.used:
                return False
            ticket.used = True
        if self.state == OPEN or (ticket is not None and ticket.generation != self.generation):
            return False
        if self.state == HALF_OPEN and ticket is None and not self.lease_outstanding:
            return False
        if ok is None:
            assert ticket is not None
            if not self._holds(ticket):
                return False
            self.lease_outstanding, self.due = False, True
        elif ok:
            self._succeed()
        else:
            self.last_failure_ns, self.last_failure = self.now_ns(), failure
            if began_ns is None:
                began_ns = self.now_ns() if ticket is None else ticket.issued_ns
            self._fail(began_ns)
        return True

    def hasten(self) -> None:
        self.due = self.due or (self.state == OPEN and not self.forced)

    def force_open(self, until_ns: int | None = None) -> None:
        self._become(OPEN, forced=True)
        self.forced_until_ns = until_ns

    def force_close(self) -> None:
        self._become(CLOSED)

    def reset(self) -> None:
        self.last_failure = self.last_failure_ns = self.last_probe_ns = None
        self._become(CLOSED)

    def look(self) -> int:
        """Return the state; this ends a forced opening whose time is up."""
        if self.is_over():
            self._become(CLOSED)
        return self.state

    def is_over(self) -> bool:
        """Tell whether it was forced open for a time that is up."""
        until_ns = self.forced_until_ns
        return self.forced and until_ns is not None and self._now_ms() >= self._stamp(until_ns)

    # What callers can see.

    def retry_at_ns(self) -> int | None:
        """Return the first nanosecond that admits a probe, or ends a forced opening, while not closed."""
        if self.forced:
            end_ns = self.forced_until_ns
            return None if end_ns is None else self.origin_ns + self._stamp(end_ns) * MS
        if self.due:
            return self.origin_ns
        since, wait_ms = (
            (self.opened_ns, self.circuit.recovery_timeout_ms)
            if self.state == OPEN
            else (self.leased_ns, self.circuit.probe_interval_ms)
        )
        return self.origin_ns + (self._stamp(since) + wait_ms) * MS

    def word(self) -> int:
        """Write the state down as the engines keep it: 2 + 1 + 1 + 10 + 10 + 40 bits."""
        count, stamp = {
            CLOSED: (self.failures, self._stamp(self.failed_ns) if self.failures else 0),
            OPEN: (0, self._stamp(self.opened_ns)),
            HALF_OPEN: (self.successes, self._stamp(self.leased_ns)),
        }[self.state]
        if self.forced:
            stamp = LAST_MS if self.forced_until_ns is None else self._stamp(self.forced_until_ns)
        elif self.due:
            stamp = LAST_MS
        bits = (
            f"{self.state:02b}{self.forced:b}{self.lease_outstanding:b}{count:010b}{self.generation:010b}{stamp:040b}"
        )
        return int(bits, 2)

    # The rules.

    def _succeed(self) -> None:
        if self.state == CLOSED:
            self.failures = 0
            return
        self.lease_outstanding = False
        self.successes += 1
        if self.successes == self.circuit.recovery_threshold:
            self._become(CLOSED)

    def _fail(self, began_ns: int) -> None:
        if self.state == CLOSED:
            idle_ms = min(self._reading(began_ns), LAST_MS - 1) - self._stamp(self.failed_ns)
            if self.failures == 0 or idle_ms > self.circuit.trip_window_ms:
                self.failures = 0
            self.failures, self.failed_ns = self.failures + 1, self.now_ns()
            if self.failures < self.circuit.failure_threshold:
                return
        self._become(OPEN)
        self.opened_ns = self.now_ns()

    def _become(self, state: int, *, forced: bool = False) -> None:
        old, was_forced = self.state, self.forced
        self.state, self.forced = state, forced
        self.lease_outstanding = self.due = False
        self.failures = self.successes = 0
        self.generation = (self.generation + 1) % 1024
        if state != old or forced or was_forced:
            self.on_change(shown(old, was_forced), shown(state, forced))

    def _stamp(self, instant_ns: int) -> int:
        return min(max(0, math.ceil(Fraction(instant_ns - self.origin_ns, MS))), LAST_MS - 1)

    def _reading(self, instant_ns: int) -> int:
        return max(0, math.floor(Fraction(instant_ns - self.origin_ns, MS)))

    def _now_ms(self) -> int:
        return self._reading(self.now_ns())

    def _passed(self, since_ns: int, wait_ms: int) -> bool:
        return self._now_ms() - self._stamp(since_ns) >= wait_ms


def shown(state: int, forced: bool) -> str:
    """Write a state as events of it do."""
    return f"{state} forced" if forced else f"{state}"


def shown_word(word: int) -> str:
    """Write the state in an engine's word in the same way."""
    return shown(word >> 62, bool(word >> 61 & 1))
