"""The circuit breaker told a second time: plain attributes, unrounded instants, no packed word and no lock.

It shares no code with the engines, so that what the three agree on is not one mistake made once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure.settings import CircuitSettings

CLOSED, OPEN, HALF_OPEN = 0, 1, 2
MS = 1_000_000
LAST_MS = 2**40 - 1


@dataclass(eq=False)
class ModelTicket:
    """Permission to do one piece of work."""

    generation: int
    probe: bool
    used: bool = False


class BreakerModel:
    """One queue's breaker, called as an engine's is. Instants are those of the clock, in nanoseconds."""

    def __init__(
        self,
        circuit: CircuitSettings,
        now_ns: Callable[[], int],
        *,
        origin_ns: int,
        on_change: Callable[[int, int], object],
    ) -> None:
        self.circuit = circuit
        self.now_ns = now_ns
        self.origin_ns = origin_ns
        self.state = CLOSED
        self.forced = False
        self.generation = 0
        self.failures = 0  # in a row, while closed
        self.run_started_ns = origin_ns
        self.opened_ns = origin_ns
        self.successes = 0  # of probes, while half-open
        self.lease_outstanding = False
        self.leased_ns = origin_ns
        self.last_failure_ns: int | None = None
        self.last_probe_ns: int | None = None
        self.on_change = on_change

    # What callers do.

    def would_admit(self) -> bool:
        if self.state == OPEN:
            return not self.forced and self._passed(self.opened_ns, self.circuit.recovery_timeout_ms)
        return self.state == CLOSED or self._passed(self.leased_ns, self.circuit.probe_interval_ms)

    def try_acquire(self) -> ModelTicket | None:
        if not self.would_admit():
            return None
        if self.state == CLOSED:
            return ModelTicket(self.generation, probe=False)
        if self.state == OPEN:
            self._become(HALF_OPEN)
        self.lease_outstanding = True
        self.leased_ns = self.last_probe_ns = self.now_ns()
        return ModelTicket(self.generation, probe=True)

    def record(self, ok: bool, ticket: ModelTicket | None = None) -> bool:
        """Tell whether the result counted."""
        if ticket is not None and ticket.probe:
            if ticket.used:
                return False
            ticket.used = True
        if self.state == OPEN or (ticket is not None and ticket.generation != self.generation):
            return False
        if self.state == HALF_OPEN and ticket is None and not self.lease_outstanding:
            return False
        if ok:
            self._succeed()
        else:
            self.last_failure_ns = self.now_ns()
            self._fail()
        return True

    def force_open(self) -> None:
        self._become(OPEN)
        self.forced = True
        self.opened_ns = self.now_ns()

    def force_close(self) -> None:
        self._become(CLOSED)

    def reset(self) -> None:
        self._become(CLOSED)
        self.last_failure_ns = self.last_probe_ns = None

    # What can be seen.

    def retry_at_ns(self) -> int | None:
        """Return the first nanosecond that admits a probe, while not closed."""
        if self.forced:
            return None
        since, wait_ms = (
            (self.opened_ns, self.circuit.recovery_timeout_ms)
            if self.state == OPEN
            else (self.leased_ns, self.circuit.probe_interval_ms)
        )
        return self.origin_ns + (self._stamp(since) + wait_ms) * MS

    def word(self) -> int:
        """Write the state down as the engines keep it: 2 + 1 + 1 + 10 + 10 + 40 bits."""
        count, stamp = {
            CLOSED: (self.failures, self._stamp(self.run_started_ns) if self.failures else 0),
            OPEN: (0, self._stamp(self.opened_ns)),
            HALF_OPEN: (self.successes, self._stamp(self.leased_ns)),
        }[self.state]
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

    def _fail(self) -> None:
        if self.state == CLOSED:
            if self.failures == 0 or self._elapsed_ms(self.run_started_ns) > self.circuit.trip_window_ms:
                self.failures, self.run_started_ns = 0, self.now_ns()
            self.failures += 1
            if self.failures < self.circuit.failure_threshold:
                return
        self._become(OPEN)
        self.opened_ns = self.now_ns()

    def _become(self, state: int) -> None:
        old, self.state = self.state, state
        self.forced = self.lease_outstanding = False
        self.failures = self.successes = 0
        self.generation = (self.generation + 1) % 1024
        if state != old:
            self.on_change(old, state)

    def _stamp(self, instant_ns: int) -> int:
        return min(max(0, math.ceil(Fraction(instant_ns - self.origin_ns, MS))), LAST_MS)

    def _elapsed_ms(self, since_ns: int) -> int:
        now_ms = min(max(0, math.floor(Fraction(self.now_ns() - self.origin_ns, MS))), LAST_MS)
        return max(0, now_ms - self._stamp(since_ns))

    def _passed(self, since_ns: int, wait_ms: int) -> bool:
        return self._elapsed_ms(since_ns) >= wait_ms
