"""Every engine's breaker and an independent model, driven by one clock: the same word after every step.

A random walk finds a half-open circuit rarely, so the walk is helped there, and what it saw is asserted at the end.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from backpressure.settings import CircuitSettings
from breaker_model import CLOSED, HALF_OPEN, LAST_MS, MS, OPEN, BreakerModel, ModelTicket

if TYPE_CHECKING:
    from collections.abc import Mapping

ORIGIN = 5_000_000_123
SECOND = 1_000 * MS


@st.composite
def circuits(draw: st.DrawFn) -> CircuitSettings:
    probe_ms, recovery_ms = sorted(draw(st.sampled_from([10, 11, 500, 5_000, 60_000])) for _ in range(2))
    return CircuitSettings(
        failure_threshold=draw(st.integers(1, 4)),
        recovery_threshold=draw(st.integers(1, 3)),
        trip_window_ms=draw(st.sampled_from([10, 500, 30_000])),
        recovery_timeout_ms=recovery_ms,
        probe_interval_ms=probe_ms,
        high_attempts=False,
    )


# Around an edge: to the nanosecond, and a rounding or two of milliseconds away from it.
_around = st.one_of(st.sampled_from([-MS, -1, 0, 1, MS - 1, MS, MS + 1, 2 * MS]), st.integers(-3 * MS, 3 * MS))
_elapsed = st.one_of(
    st.sampled_from([0, 1, MS - 1, MS]),
    st.integers(0, 3 * MS),
    st.integers(0, 100 * SECOND),
    st.integers(0, 2**39 * MS),
    st.integers(0, 100 * SECOND).map(lambda before_ns: LAST_MS * MS - before_ns),
)


@attrs.frozen
class Subject:
    """One engine's breaker and the changes of state it told of."""

    breaker: Any
    changes: list[tuple[int, int]]


@attrs.frozen(eq=False)
class Tickets:
    """One admission, as each engine and the model granted it."""

    by_engine: dict[str, Any]
    model: ModelTicket


class BreakersAgree(RuleBasedStateMachine):
    tickets: Bundle[Tickets] = Bundle("tickets")

    def __init__(self, engines: Mapping[str, Any], seen: Counter[str]) -> None:
        super().__init__()
        self.engines = engines
        self.seen = seen
        self.now_ns = ORIGIN
        self.subjects: dict[str, Subject] = {}

    @initialize(circuit=circuits(), elapsed_ns=_elapsed, generation=st.sampled_from([0, 0, 0, 1_020]))
    def build(self, circuit: CircuitSettings, elapsed_ns: int, generation: int) -> None:
        self.circuit = circuit
        self.now_ns = ORIGIN + elapsed_ns
        self.changes: list[tuple[int, int]] = []
        self.model = self._make(BreakerModel, self.changes)
        for name, engine in self.engines.items():
            changes: list[tuple[int, int]] = []
            self.subjects[name] = Subject(self._make(engine.Breaker, changes), changes)
        for _ in range(generation):
            self._operate("force_close")

    def _make(self, make: Any, changes: list[tuple[int, int]]) -> Any:
        return make(
            self.circuit,
            lambda: self.now_ns,
            origin_ns=ORIGIN,
            on_change=lambda old, new: changes.append((old, new)),
        )

    # Time.

    @rule(edge=st.sampled_from(["trip_window_ms", "recovery_timeout_ms", "probe_interval_ms"]), off_ns=_around)
    def advance_by_a_setting(self, edge: str, off_ns: int) -> None:
        self._advance(edge, off_ns)

    @rule(by_ns=st.one_of(st.integers(0, 3 * MS), st.integers(0, 100 * SECOND)))
    def advance(self, by_ns: int) -> None:
        self.now_ns += by_ns

    @precondition(lambda self: self.model.state != CLOSED and not self.model.forced)
    @rule(off_ns=_around)
    def advance_to_the_next_probe(self, off_ns: int) -> None:
        self._wait_for_a_probe(off_ns)

    # Callers.

    @rule(target=tickets)
    def acquire(self) -> Tickets | MultipleResults[Tickets]:
        return self._acquire() or multiple()

    @rule(ticket=tickets, ok=st.booleans())
    def settle(self, ticket: Tickets, ok: bool) -> None:
        self._record(ok, ticket)

    @rule(ok=st.booleans())
    def report_without_a_ticket(self, ok: bool) -> None:
        self._record(ok, None)

    @rule(ok=st.sampled_from([True, True, True, False]), returned=st.booleans())
    def work(self, ok: bool, returned: bool) -> None:
        """Do what a well-behaved producer does, from whatever state; its ticket comes back or gets lost."""
        if self.model.state != CLOSED and not self.model.forced:
            self._wait_for_a_probe(0)
        ticket = self._acquire()
        if ticket is not None:
            self._record(ok, ticket if returned else None)

    @precondition(lambda self: self.model.state == CLOSED)
    @rule(off_ns=_around)
    def fail_across_the_trip_window(self, off_ns: int) -> None:
        self._record(False, None)
        self._advance("trip_window_ms", off_ns)
        self._record(False, None)

    @precondition(lambda self: self.model.state == CLOSED)
    @rule()
    def fail_until_open(self) -> None:
        for _ in range(self.circuit.failure_threshold):
            self._record(False, None)

    @rule(act=st.sampled_from(["force_open", "force_close", "reset"]))
    def operate(self, act: str) -> None:
        self._operate(act)

    # What must hold after every step.

    @invariant()
    def all_tell_the_same(self) -> None:
        self.seen["step"] += 1
        for subject in self.subjects.values():
            breaker = subject.breaker
            assert breaker.word == self.model.word()
            assert breaker.state() == self.model.state
            assert breaker.last_failure_ns == self.model.last_failure_ns
            assert breaker.last_probe_ns == self.model.last_probe_ns
            assert subject.changes == self.changes
            if self.model.state != CLOSED:
                assert breaker.retry_at_ns(breaker.word) == self.model.retry_at_ns()

    # Steps, each taken by every engine and the model, and noted for the coverage.

    def _advance(self, edge: str, off_ns: int) -> None:
        self.now_ns += max(0, getattr(self.circuit, edge) * MS + off_ns)

    def _wait_for_a_probe(self, off_ns: int) -> None:
        retry_at_ns = self.model.retry_at_ns()
        assert retry_at_ns is not None
        self.now_ns = max(self.now_ns, retry_at_ns + off_ns)

    def _acquire(self) -> Tickets | None:
        granted = {name: subject.breaker.try_acquire() for name, subject in self.subjects.items()}
        before = self.model.state
        expected = self.model.try_acquire()
        if expected is None:
            assert not any(granted.values())
            self.seen["rejected, forced" if self.model.forced else "rejected"] += 1
            return None
        for ticket in granted.values():
            assert (ticket.generation, ticket.probe) == (expected.generation, expected.probe)
        if expected.probe:
            self.seen["half-open round" if before == OPEN else "further probe"] += 1
        return Tickets(granted, expected)

    def _record(self, ok: bool, ticket: Tickets | None) -> None:
        for name, subject in self.subjects.items():
            if ticket is None:
                subject.breaker.record(ok)
            else:
                subject.breaker.record(ok, ticket.by_engine[name])
        before, failures = self.model.state, self.model.failures
        counted = self.model.record(ok, ticket.model if ticket else None)
        after = self.model.state
        if not counted:
            self.seen["dropped with ticket" if ticket else "dropped without ticket"] += 1
        elif before == HALF_OPEN:
            self.seen[{HALF_OPEN: "probe succeeded", CLOSED: "recovered", OPEN: "reopened"}[after]] += 1
            self.seen["lease settled without ticket"] += ticket is None
        elif after == OPEN:
            self.seen["tripped"] += 1
        elif not ok and failures and self.model.failures == 1:
            self.seen["failure too late for its run"] += 1
        self.seen["saturated"] += (self.now_ns - ORIGIN) // MS >= LAST_MS

    def _operate(self, act: str) -> None:
        for breaker in (*(subject.breaker for subject in self.subjects.values()), self.model):
            getattr(breaker, act)()


EXPECTED = {
    "half-open round": 200,
    "further probe": 100,
    "probe succeeded": 50,
    "recovered": 50,
    "reopened": 50,
    "lease settled without ticket": 50,
    "dropped with ticket": 50,
    "dropped without ticket": 50,
    "tripped": 200,
    "failure too late for its run": 20,
    "rejected": 50,
    "rejected, forced": 20,
    "saturated": 20,
}


def test_engines_and_model_agree(engine_modules: Mapping[str, Any]) -> None:
    seen: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: BreakersAgree(engine_modules, seen),  # type: ignore[arg-type]  # any factory will do
        settings=settings(max_examples=max(500, settings().max_examples), stateful_step_count=60),
    )
    print(f"{seen['step']} cases")
    assert {what: count for what, count in EXPECTED.items() if seen[what] < count} == {}, dict(seen)
