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

from backpressure._engine.settings import CircuitSettings
from support.breaker_model import CLOSED, HALF_OPEN, LAST_MS, MS, OPEN, BreakerModel, ModelTicket, shown_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
outcomes = st.sampled_from([True, True, False, False, None])
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
    changes: list[tuple[str, str]]


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
        self.changes: list[tuple[str, str]] = []
        self.model = self._make(BreakerModel, lambda old, new: self.changes.append((old, new)))
        for name, engine in self.engines.items():
            changes: list[tuple[str, str]] = []

            def note(old: int, new: int, changes: list[tuple[str, str]] = changes) -> None:
                changes.append((shown_word(old), shown_word(new)))

            self.subjects[name] = Subject(self._make(engine.Breaker, note), changes)
        for _ in range(generation):
            self._operate("force_close")

    def _make(self, make: Any, on_change: Callable[[Any, Any], None]) -> Any:
        return make(self.circuit, lambda: self.now_ns, origin_ns=ORIGIN, on_change=on_change)

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

    @rule(ticket=tickets, ok=outcomes, ago_ns=_around | st.just(60 * SECOND) | st.none())
    def settle(self, ticket: Tickets, ok: bool | None, ago_ns: int | None) -> None:
        self._record(ok, ticket, None if ago_ns is None else self.now_ns - ago_ns)

    @rule(ok=outcomes)
    def report_without_a_ticket(self, ok: bool | None) -> None:
        self._record(ok, None)

    @rule(ok=st.sampled_from([True, True, True, False, None]), returned=st.booleans())
    def work(self, ok: bool | None, returned: bool) -> None:
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
    @rule(idle_off_ns=_around, failing_ns=st.sampled_from([0, MS, 60 * SECOND]))
    def fail_slowly(self, idle_off_ns: int, failing_ns: int) -> None:
        """Attempts that take long to fail, apart by about the window."""
        self._record(False, None)
        self._advance("trip_window_ms", idle_off_ns)
        ticket = self._acquire()
        began_ns = self.now_ns
        self.now_ns += failing_ns
        if ticket is not None:
            self._record(False, ticket, began_ns)
            self.seen["failed slowly"] += failing_ns > 0

    @precondition(lambda self: self.model.state == CLOSED)
    @rule()
    def fail_until_open(self) -> None:
        for _ in range(self.circuit.failure_threshold):
            self._record(False, None)

    @rule(act=st.sampled_from(["force_open", "force_close", "reset", "hasten"]))
    def operate(self, act: str) -> None:
        self._operate(act)

    @rule(for_ns=st.integers(0, 3 * MS) | st.just(60 * SECOND), off_ns=_around)
    def force_for_a_time(self, for_ns: int, off_ns: int) -> None:
        until_ns = self.now_ns + for_ns
        self._operate("force_open", until_ns)
        self.now_ns = max(self.now_ns, until_ns + off_ns)
        self.model.look()
        for subject in self.subjects.values():
            assert subject.breaker.state() == self.model.state
        self.seen["forcing over" if self.model.state == CLOSED else "still forced"] += 1

    @precondition(lambda self: self.model.state != CLOSED and not self.model.forced)
    @rule(late_ns=st.sampled_from([0, 0, 0, MS, 60 * SECOND]))
    def give_a_lease_back(self, late_ns: int) -> None:
        self._wait_for_a_probe(0)
        ticket = self._acquire()
        self.now_ns += late_ns
        self._record(None, ticket)
        self._acquire()

    @precondition(lambda self: self.model.state == OPEN)
    @rule()
    def hasten_and_acquire(self) -> None:
        self._operate("hasten")
        self.seen["hastened"] += self._acquire() is not None

    # What must hold after every step.

    @invariant()
    def all_tell_the_same(self) -> None:
        self.seen["step"] += 1
        for subject in self.subjects.values():
            breaker = subject.breaker
            assert breaker.word == self.model.word()
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

    def _record(self, ok: bool | None, ticket: Tickets | None, began_ns: int | None = None) -> None:
        for name, subject in self.subjects.items():
            if ticket is None:
                subject.breaker.record(ok)
            else:
                subject.breaker.record(ok, ticket.by_engine[name], began_ns)
        before, failures = self.model.state, self.model.failures
        counted = self.model.record(ok, ticket.model if ticket else None, began_ns)
        after = self.model.state
        if counted and ok is None:
            self.seen["lease given back"] += 1
        elif not counted:
            self.seen["dropped with ticket" if ticket else "dropped without ticket"] += 1
        elif before == HALF_OPEN:
            self.seen[{HALF_OPEN: "probe succeeded", CLOSED: "recovered", OPEN: "reopened"}[after]] += 1
            self.seen["lease settled without ticket"] += ticket is None
        elif after == OPEN:
            self.seen["tripped"] += 1
        elif ok is False and failures and self.model.failures == 1:
            self.seen["failure too late for its run"] += 1
        self.seen["saturated"] += (self.now_ns - ORIGIN) // MS >= LAST_MS

    def _operate(self, act: str, *args: int) -> None:
        for breaker in (*(subject.breaker for subject in self.subjects.values()), self.model):
            getattr(breaker, act)(*args)


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
    "failed slowly": 50,
    "lease given back": 50,
    "hastened": 50,
    "forcing over": 50,
    "still forced": 50,
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
