"""The circuit breaker of both engines, one promise a test. Time is a number that the tests move."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import attrs
import pytest

from backpressure._engine.pure import breaker as pure_breaker
from backpressure._engine.settings import CircuitSettings
from backpressure._engine.word import state_of
from backpressure._model.config.circuit import CircuitConfig

CLOSED, OPEN, HALF_OPEN = 0, 1, 2
MS = 1_000_000
SECOND = 1_000 * MS
ORIGIN = 7_000 * SECOND
LAST_MS = 2**40 - 1

CIRCUIT = CircuitSettings.of(
    CircuitConfig(
        failure_threshold=3, recovery_threshold=2, trip_window=30.0, recovery_timeout=60.0, probe_interval=5.0
    )
)
TRIP_WINDOW, RECOVERY, PROBE = 30 * SECOND, 60 * SECOND, 5 * SECOND

# Where within a millisecond things happen decides how they are rounded.
fractions = pytest.mark.parametrize("fraction_ns", [0, 1, 499_999, 999_999])


class Time:
    """Call it to read it; `meanwhile` happens once, while it is read."""

    def __init__(self, now_ns: int = ORIGIN) -> None:
        self.now_ns = now_ns
        self.meanwhile: Callable[[], object] | None = None

    def __call__(self) -> int:
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()
        return self.now_ns


class Fields(NamedTuple):
    """The word, read from its binary digits."""

    state: int
    forced: int
    leased: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    generation: int
    stamp_ms: int


def fields(breaker: Any) -> Fields:
    digits = f"{breaker.word:064b}"
    bounds = (0, 2, 3, 4, 14, 24, 64)
    return Fields(*(int(digits[start:end], 2) for start, end in itertools.pairwise(bounds)))


class Bench:
    """A breaker, its time and the changes of state that it told of."""

    def __init__(self, engine: Any, circuit: CircuitSettings = CIRCUIT, **options: Any) -> None:
        self.circuit = circuit
        self.time = Time(options.pop("now_ns", ORIGIN))
        self.changes: list[tuple[int, int]] = []
        self.breaker = engine.Breaker(circuit, self.time, on_change=self.heard, **options)

    def heard(self, old: int, new: int) -> None:
        assert self.breaker.word == new
        self.changes.append((state_of(old), state_of(new)))

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.record(False)

    def trip(self) -> None:
        self.fail(self.circuit.failure_threshold)
        assert self.breaker.state() == OPEN

    def half_open(self) -> Any:
        """Trip, wait and return the first probe's ticket."""
        self.trip()
        self.time.now_ns = self.retry_at()
        ticket = self.breaker.try_acquire()
        assert ticket is not None
        assert self.breaker.state() == HALF_OPEN
        return ticket

    def retry_at(self) -> int:
        at_ns: int | None = self.breaker.retry_at_ns(self.breaker.word)
        assert at_ns is not None
        return at_ns

    def next_probe(self) -> Any:
        self.time.now_ns = self.retry_at()
        ticket = self.breaker.try_acquire()
        assert ticket is not None
        return ticket


@pytest.fixture
def bench(engine_module: Any) -> Bench:
    return Bench(engine_module)


# Closed.


def test_starts_closed_with_an_empty_word(bench: Bench) -> None:
    assert bench.breaker.word == 0
    assert bench.breaker.state() == CLOSED
    assert (bench.breaker.last_failure_ns, bench.breaker.last_probe_ns) == (None, None)


def test_closed_admits_everybody_and_takes_nothing(bench: Bench) -> None:
    tickets = [bench.breaker.try_acquire() for _ in range(1_000)]
    assert all(ticket is not None and not ticket.probe and ticket.generation == 0 for ticket in tickets)
    assert bench.breaker.word == 0


def test_trips_on_consecutive_failures_and_not_one_sooner(bench: Bench) -> None:
    bench.fail(2)
    assert bench.breaker.state() == CLOSED
    assert fields(bench.breaker).count == 2
    bench.fail()
    assert fields(bench.breaker) == Fields(OPEN, forced=0, leased=0, count=0, generation=1, stamp_ms=0)
    assert bench.changes == [(CLOSED, OPEN)]


@pytest.mark.parametrize("threshold", [1, 2, 1_000])
def test_every_threshold_is_exact(engine_module: Any, threshold: int) -> None:
    bench = Bench(engine_module, attrs.evolve(CIRCUIT, failure_threshold=threshold))
    bench.fail(threshold - 1)
    assert bench.breaker.state() == CLOSED
    bench.fail()
    assert bench.breaker.state() == OPEN


def test_a_success_starts_the_run_anew(bench: Bench) -> None:
    bench.fail(2)
    bench.breaker.record(True)
    assert bench.breaker.word == 0
    bench.fail(2)
    assert bench.breaker.state() == CLOSED
    bench.fail()
    assert bench.breaker.state() == OPEN


def test_a_success_with_nothing_to_forget_does_not_even_read_the_clock(bench: Bench) -> None:
    bench.breaker.force_close()  # another generation is none of it
    bench.time.meanwhile = read = lambda: None
    bench.breaker.record(True)
    assert bench.time.meanwhile is read
    bench.fail()
    assert bench.time.meanwhile is None


def test_ticketed_results_count_like_those_without(bench: Bench) -> None:
    tickets = [bench.breaker.try_acquire() for _ in range(3)]
    for ticket in tickets:
        bench.breaker.record(False, ticket)
    assert bench.breaker.state() == OPEN


def test_a_closed_circuits_ticket_stands_for_its_generation_and_may_be_shared(bench: Bench) -> None:
    ticket = bench.breaker.try_acquire()
    for _ in range(3):
        bench.breaker.record(False, ticket)
    assert bench.breaker.state() == OPEN


@fractions
def test_failures_exactly_a_window_apart_trip(bench: Bench, fraction_ns: int) -> None:
    bench.time.now_ns += fraction_ns
    bench.fail()
    bench.time.now_ns += TRIP_WINDOW // 2
    bench.fail()
    bench.time.now_ns += TRIP_WINDOW - TRIP_WINDOW // 2
    bench.fail()
    assert bench.breaker.state() == OPEN


@fractions
def test_failures_two_milliseconds_more_apart_do_not(bench: Bench, fraction_ns: int) -> None:
    bench.time.now_ns += fraction_ns
    bench.fail(2)
    bench.time.now_ns += TRIP_WINDOW + 2 * MS
    bench.fail()
    assert bench.breaker.state() == CLOSED
    assert fields(bench.breaker).count == 1


def test_the_windows_edge_to_the_nanosecond(bench: Bench) -> None:
    bench.time.now_ns += 1  # rounds up to 1 ms
    bench.fail(2)
    started = fields(bench.breaker)
    assert (started.count, started.stamp_ms) == (2, 1)
    bench.time.now_ns = ORIGIN + TRIP_WINDOW + 2 * MS  # the first instant that rounds down to more than the window
    bench.fail()
    assert fields(bench.breaker).count == 1

    bench.breaker.record(True)
    assert fields(bench.breaker).stamp_ms == 0
    bench.time.now_ns = ORIGIN + 1
    bench.fail(2)
    bench.time.now_ns = ORIGIN + TRIP_WINDOW + 2 * MS - 1
    bench.fail()
    assert bench.breaker.state() == OPEN


def test_a_late_failure_is_the_first_of_a_new_run(bench: Bench) -> None:
    bench.fail(2)
    bench.time.now_ns += TRIP_WINDOW + MS
    bench.fail(2)
    assert bench.breaker.state() == CLOSED
    assert fields(bench.breaker)[3:] == (2, 0, (TRIP_WINDOW + MS) // MS)
    bench.time.now_ns += TRIP_WINDOW
    bench.fail()
    assert bench.breaker.state() == OPEN


def test_the_window_is_measured_from_the_last_failure_not_the_first(bench: Bench) -> None:
    bench.fail()
    bench.time.now_ns += TRIP_WINDOW
    bench.fail()
    bench.time.now_ns += TRIP_WINDOW
    bench.fail()
    assert bench.breaker.state() == OPEN


def test_failing_time_is_no_idle_time(bench: Bench) -> None:
    for _ in range(3):
        ticket, began_ns = bench.breaker.try_acquire(), bench.time.now_ns
        bench.time.now_ns += 2 * TRIP_WINDOW
        bench.breaker.record(False, ticket, began_ns)
    assert bench.breaker.state() == OPEN


@pytest.mark.parametrize(("idle_ms", "state"), [(30_000, OPEN), (30_001, CLOSED)])
def test_idle_time_before_a_slow_failure_ends_the_run(bench: Bench, idle_ms: int, state: int) -> None:
    bench.fail(2)
    bench.time.now_ns += idle_ms * MS
    began_ns = bench.time.now_ns
    bench.time.now_ns += 58_800 * MS
    bench.breaker.record(False, bench.breaker.try_acquire(), began_ns)
    assert bench.breaker.state() == state


def test_attempts_that_fail_slowly_side_by_side_are_one_run(bench: Bench) -> None:
    tickets = [bench.breaker.try_acquire() for _ in range(3)]
    for ticket in tickets:
        bench.time.now_ns += 2 * TRIP_WINDOW
        bench.breaker.record(False, ticket)
    assert bench.breaker.state() == OPEN


def test_an_attempt_began_when_its_ticket_was_issued_if_nobody_knows_better(bench: Bench) -> None:
    bench.fail(2)
    bench.time.now_ns += TRIP_WINDOW
    ticket = bench.breaker.try_acquire()
    assert ticket.issued_ns == bench.time.now_ns
    bench.time.now_ns += 2 * TRIP_WINDOW
    bench.breaker.record(False, ticket)
    assert bench.breaker.state() == OPEN


# Open.


@fractions
def test_open_rejects_for_the_whole_timeout_and_at_most_two_milliseconds_more(bench: Bench, fraction_ns: int) -> None:
    bench.time.now_ns += fraction_ns
    bench.trip()
    opened_ns = bench.time.now_ns
    for late_ns in (0, MS, RECOVERY // 2, RECOVERY - MS, RECOVERY - 1):
        bench.time.now_ns = opened_ns + late_ns
        assert bench.breaker.try_acquire() is None
    bench.time.now_ns = opened_ns + RECOVERY + 2 * MS
    assert bench.breaker.try_acquire() is not None


@fractions
def test_retry_at_is_the_first_nanosecond_that_admits(bench: Bench, fraction_ns: int) -> None:
    bench.time.now_ns += fraction_ns
    for open_again in (bench.trip, lambda: bench.breaker.record(False)):
        open_again()
        assert RECOVERY <= bench.retry_at() - bench.time.now_ns <= RECOVERY + 2 * MS
        bench.time.now_ns = bench.retry_at() - 1
        assert bench.breaker.try_acquire() is None
        bench.time.now_ns += 1
        assert bench.breaker.try_acquire() is not None


def test_is_reported_open_until_the_first_admission(bench: Bench) -> None:
    bench.trip()
    bench.time.now_ns += 1_000 * RECOVERY
    assert bench.breaker.state() == OPEN
    assert bench.changes == [(CLOSED, OPEN)]
    ticket = bench.breaker.try_acquire()
    assert ticket.probe
    assert bench.breaker.state() == HALF_OPEN
    assert bench.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN)]


def test_the_first_admission_is_the_first_probe(bench: Bench) -> None:
    ticket = bench.half_open()
    stamp_ms = (bench.time.now_ns - ORIGIN) // MS
    assert fields(bench.breaker) == Fields(HALF_OPEN, forced=0, leased=1, count=0, generation=2, stamp_ms=stamp_ms)
    assert (ticket.probe, ticket.generation) == (True, 2)
    assert bench.breaker.try_acquire() is None


@pytest.mark.parametrize("ok", [True, False])
def test_open_drops_every_result(bench: Bench, ok: bool) -> None:
    ticket = bench.breaker.try_acquire()
    bench.trip()
    word, failed_ns = bench.breaker.word, bench.breaker.last_failure_ns
    bench.time.now_ns += SECOND
    bench.breaker.record(ok)
    bench.breaker.record(ok, ticket)
    assert bench.breaker.word == word
    assert bench.breaker.last_failure_ns == failed_ns


# Half-open.


def test_successful_probes_close_it(bench: Bench) -> None:
    bench.breaker.record(True, bench.half_open())
    assert fields(bench.breaker)[:4] == (HALF_OPEN, 0, 0, 1)
    bench.breaker.record(True, bench.next_probe())
    assert fields(bench.breaker) == Fields(CLOSED, forced=0, leased=0, count=0, generation=3, stamp_ms=0)
    assert bench.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


@pytest.mark.parametrize("successes", [0, 1])
def test_one_failed_probe_opens_it_again(bench: Bench, successes: int) -> None:
    ticket = bench.half_open()
    for _ in range(successes):
        bench.breaker.record(True, ticket)
        ticket = bench.next_probe()
    bench.time.now_ns += 1
    bench.breaker.record(False, ticket)
    stamp_ms = -(-(bench.time.now_ns - ORIGIN) // MS)
    assert fields(bench.breaker) == Fields(OPEN, forced=0, leased=0, count=0, generation=3, stamp_ms=stamp_ms)
    bench.time.now_ns += RECOVERY - 1
    assert bench.breaker.try_acquire() is None


@pytest.mark.parametrize("threshold", [1, 2, 3, 1_000])
def test_every_recovery_threshold_is_exact(engine_module: Any, threshold: int) -> None:
    bench = Bench(engine_module, attrs.evolve(CIRCUIT, recovery_threshold=threshold))
    ticket = bench.half_open()
    for _ in range(threshold - 1):
        bench.breaker.record(True, ticket)
        assert bench.breaker.state() == HALF_OPEN
        ticket = bench.next_probe()
    bench.breaker.record(True, ticket)
    assert bench.breaker.state() == CLOSED


@fractions
@pytest.mark.parametrize("outcome", [None, True])
def test_one_probe_an_interval_settled_or_not(bench: Bench, fraction_ns: int, outcome: bool | None) -> None:
    bench.trip()
    bench.time.now_ns = bench.retry_at() + fraction_ns
    ticket = bench.breaker.try_acquire()
    leased_ns = bench.time.now_ns
    if outcome is not None:
        bench.breaker.record(outcome, ticket)
    for late_ns in (0, MS, PROBE - MS, PROBE - 1):
        bench.time.now_ns = leased_ns + late_ns
        assert bench.breaker.try_acquire() is None
    bench.time.now_ns = leased_ns + PROBE + 2 * MS
    assert bench.breaker.try_acquire() is not None
    assert bench.breaker.try_acquire() is None


def test_probes_that_never_report_leak_nothing(bench: Bench) -> None:
    bench.half_open()
    for _ in range(100):
        assert bench.next_probe().probe
        assert bench.breaker.try_acquire() is None
    assert fields(bench.breaker)[:5] == (HALF_OPEN, 0, 1, 0, 2)


def test_a_late_probe_of_the_same_round_still_counts(bench: Bench) -> None:
    late = bench.half_open()
    bench.breaker.record(True, bench.next_probe())
    bench.breaker.record(True, late)
    assert bench.breaker.state() == CLOSED


# Tickets.


@pytest.mark.parametrize("ok", [True, False])
def test_a_result_of_another_generation_is_dropped(bench: Bench, ok: bool) -> None:
    closed = bench.breaker.try_acquire()
    first = bench.half_open()
    word = bench.breaker.word
    bench.breaker.record(ok, closed)
    assert bench.breaker.word == word

    bench.breaker.record(False, first)
    second = bench.next_probe()
    third = bench.next_probe()
    word, failed_ns = bench.breaker.word, bench.breaker.last_failure_ns
    bench.breaker.record(ok, first)  # used, and of a round that is over
    assert (bench.breaker.word, bench.breaker.last_failure_ns) == (word, failed_ns)

    bench.breaker.record(True, third)
    bench.breaker.record(True, second)
    assert bench.breaker.state() == CLOSED
    bench.breaker.record(ok, third)
    bench.breaker.record(ok, closed)
    assert fields(bench.breaker)[:4] == (CLOSED, 0, 0, 0)


def test_an_overtaken_probes_result_is_dropped_by_the_next_round(bench: Bench) -> None:
    slow = bench.half_open()
    bench.breaker.record(False, bench.next_probe())
    bench.next_probe()
    word = bench.breaker.word
    bench.breaker.record(True, slow)
    assert bench.breaker.word == word


@pytest.mark.parametrize("again", [True, False])
def test_a_probes_ticket_settles_once(bench: Bench, again: bool) -> None:
    ticket = bench.half_open()
    bench.breaker.record(True, ticket)
    word, failed_ns = bench.breaker.word, bench.breaker.last_failure_ns
    bench.breaker.record(again, ticket)
    assert bench.breaker.word == word
    assert bench.breaker.last_failure_ns == failed_ns


def test_half_open_lets_one_result_without_a_ticket_settle_the_lease(bench: Bench) -> None:
    bench.half_open()
    bench.breaker.record(True)
    assert fields(bench.breaker)[:4] == (HALF_OPEN, 0, 0, 1)
    word = bench.breaker.word
    bench.breaker.record(True)
    bench.breaker.record(False)
    assert bench.breaker.word == word
    bench.next_probe()
    bench.breaker.record(True)
    assert bench.breaker.state() == CLOSED


def test_a_failure_without_a_ticket_settles_the_lease_too(bench: Bench) -> None:
    bench.half_open()
    bench.breaker.record(False)
    assert bench.breaker.state() == OPEN


def test_a_lease_that_its_ticket_settled_is_gone_for_results_without_one(bench: Bench) -> None:
    bench.breaker.record(True, bench.half_open())
    bench.breaker.record(False)
    assert bench.breaker.state() == HALF_OPEN


# Forced.


def test_forced_open_holds_for_ever(bench: Bench) -> None:
    bench.breaker.force_open()
    assert fields(bench.breaker)[:5] == (OPEN, 1, 0, 0, 1)
    assert bench.changes == [(CLOSED, OPEN)]
    for _ in range(3):
        bench.time.now_ns += 1_000 * RECOVERY
        assert bench.breaker.try_acquire() is None
        assert bench.breaker.retry_at_ns(bench.breaker.word) is None
        bench.breaker.record(True)
        assert bench.breaker.state() == OPEN


@pytest.mark.parametrize("release", ["force_close", "reset"])
def test_force_close_and_reset_release_it_and_are_not_sticky(bench: Bench, release: str) -> None:
    bench.breaker.force_open()
    getattr(bench.breaker, release)()
    assert fields(bench.breaker) == Fields(CLOSED, forced=0, leased=0, count=0, generation=2, stamp_ms=0)
    assert bench.breaker.try_acquire() is not None
    bench.trip()
    assert bench.changes == [(CLOSED, OPEN), (OPEN, CLOSED), (CLOSED, OPEN)]


@pytest.mark.parametrize("act", ["force_open", "force_close", "reset"])
@pytest.mark.parametrize("state", [CLOSED, OPEN, HALF_OPEN])
def test_each_bumps_the_generation_from_every_state(bench: Bench, act: str, state: int) -> None:
    tickets = [bench.breaker.try_acquire()]
    if state == OPEN:
        bench.trip()
    elif state == HALF_OPEN:
        tickets.append(bench.half_open())
    before = fields(bench.breaker)
    told = len(bench.changes)
    getattr(bench.breaker, act)()
    after = fields(bench.breaker)
    expected = OPEN if act == "force_open" else CLOSED
    assert after.generation == before.generation + 1
    assert (after.state, after.forced, after.leased, after.count) == (expected, expected == OPEN, 0, 0)
    assert bench.changes[told:] == ([(state, expected)] if state != expected or act == "force_open" else [])
    for ticket in tickets:
        bench.breaker.record(False, ticket)
        assert fields(bench.breaker) == after


def test_forced_open_for_a_time_is_closed_by_the_first_look_after_it(bench: Bench) -> None:
    bench.trip()
    bench.breaker.force_open(ORIGIN + 600 * SECOND)
    assert bench.retry_at() == ORIGIN + 600 * SECOND
    bench.time.now_ns = ORIGIN + 600 * SECOND - 1
    assert bench.breaker.try_acquire() is None
    assert bench.breaker.state() == OPEN
    bench.time.now_ns += 1
    assert bench.breaker.state() == CLOSED
    assert bench.breaker.try_acquire() is not None
    assert bench.changes == [(CLOSED, OPEN), (OPEN, OPEN), (OPEN, CLOSED)]


def test_asking_is_a_look_too(bench: Bench) -> None:
    bench.breaker.force_open(ORIGIN + SECOND)
    bench.time.now_ns = ORIGIN + SECOND
    ticket = bench.breaker.try_acquire()
    assert (ticket.probe, ticket.generation) == (False, 2)


@pytest.mark.parametrize("until_ns", [-(10**30), 0, ORIGIN - 1, ORIGIN])
def test_forced_open_until_the_past_is_over_at_once(bench: Bench, until_ns: int) -> None:
    bench.breaker.force_open(until_ns)
    assert bench.breaker.state() == CLOSED


def test_forced_open_for_longer_than_any_clock_runs_holds(bench: Bench) -> None:
    bench.breaker.force_open(10**30)
    bench.time.now_ns = ORIGIN + 1_000_000 * RECOVERY
    assert bench.breaker.state() == OPEN


def test_the_last_forcing_holds(bench: Bench) -> None:
    bench.breaker.force_open(ORIGIN + SECOND)
    bench.breaker.force_open()
    bench.time.now_ns += 1_000 * RECOVERY
    assert bench.breaker.state() == OPEN
    bench.breaker.force_open(bench.time.now_ns + SECOND)
    bench.time.now_ns += SECOND
    assert bench.breaker.state() == CLOSED


def test_a_result_after_a_forced_opening_counts(bench: Bench) -> None:
    bench.breaker.force_open(bench.time.now_ns + SECOND)
    bench.fail(3)
    bench.time.now_ns += SECOND
    bench.fail(2)
    assert fields(bench.breaker)[:4] == (CLOSED, 0, 0, 2)
    bench.fail()
    assert bench.changes == [(CLOSED, OPEN), (OPEN, CLOSED), (CLOSED, OPEN)]


# Hastened, given back.


def test_a_hastened_circuit_admits_its_first_probe_at_once(bench: Bench) -> None:
    bench.trip()
    bench.breaker.hasten()
    assert bench.breaker.state() == OPEN
    assert bench.retry_at() <= bench.time.now_ns
    assert bench.breaker.try_acquire().probe
    assert bench.breaker.try_acquire() is None
    assert bench.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN)]


def test_only_an_open_circuit_is_hastened_and_none_that_is_forced(bench: Bench) -> None:
    for prepare in (list, bench.half_open, bench.breaker.force_open):
        prepare()
        word = bench.breaker.word
        bench.breaker.hasten()
        assert bench.breaker.word == word


def test_a_failed_probe_after_hastening_waits_the_whole_timeout(bench: Bench) -> None:
    bench.trip()
    bench.breaker.hasten()
    bench.breaker.record(False, bench.breaker.try_acquire())
    assert bench.retry_at() == bench.time.now_ns + RECOVERY


def test_a_probe_that_came_to_nothing_gives_its_lease_back(bench: Bench) -> None:
    bench.breaker.record(None, bench.half_open())
    assert fields(bench.breaker)[:5] == (HALF_OPEN, 0, 0, 0, 2)
    probe = bench.breaker.try_acquire()
    assert probe.probe
    assert bench.breaker.try_acquire() is None
    bench.breaker.record(True, probe)
    assert fields(bench.breaker).count == 1


def test_a_lease_is_given_back_once_and_by_its_holder_alone(bench: Bench) -> None:
    late = bench.half_open()
    probe = bench.next_probe()
    word = bench.breaker.word
    bench.breaker.record(None, late)
    bench.breaker.record(None)
    assert bench.breaker.word == word
    bench.breaker.record(None, probe)
    bench.breaker.record(True, probe)
    assert fields(bench.breaker)[:4] == (HALF_OPEN, 0, 0, 0)


def test_what_says_nothing_changes_nothing_in_a_closed_circuit(bench: Bench) -> None:
    bench.fail(2)
    word = bench.breaker.word
    ticket = bench.breaker.try_acquire()
    bench.breaker.record(None, ticket)
    assert bench.breaker.word == word
    bench.breaker.record(False, ticket)
    assert bench.breaker.state() == OPEN


def test_the_last_failure_that_counted_is_remembered_by_name(bench: Bench) -> None:
    ticket = bench.breaker.try_acquire()
    for failure in ("OSError", "TimeoutError", "ConnectionError"):
        bench.breaker.record(False, ticket, None, failure)
    assert (bench.breaker.state(), bench.breaker.last_failure) == (OPEN, "ConnectionError")
    bench.breaker.record(False, ticket, None, "came too late to count")
    bench.breaker.record(True, ticket)
    assert bench.breaker.last_failure == "ConnectionError"
    bench.breaker.reset()
    assert bench.breaker.last_failure is None


def test_force_close_forgets_a_run_of_failures(bench: Bench) -> None:
    bench.fail(2)
    bench.breaker.force_close()
    bench.fail(2)
    assert bench.breaker.state() == CLOSED


def test_reset_forgets_the_times_and_force_close_keeps_them(bench: Bench) -> None:
    ticket = bench.half_open()
    bench.breaker.record(False, ticket)
    times = (bench.breaker.last_failure_ns, bench.breaker.last_probe_ns)
    assert times == (bench.time.now_ns, bench.time.now_ns)
    bench.breaker.force_close()
    assert (bench.breaker.last_failure_ns, bench.breaker.last_probe_ns) == times
    bench.breaker.reset()
    assert (bench.breaker.last_failure_ns, bench.breaker.last_probe_ns) == (None, None)


# Time and the word.


def test_times_are_those_of_results_that_counted(bench: Bench) -> None:
    bench.time.now_ns += 123
    bench.fail()
    assert bench.breaker.last_failure_ns == ORIGIN + 123
    bench.time.now_ns += 1
    bench.breaker.record(True)
    assert bench.breaker.last_failure_ns == ORIGIN + 123
    assert bench.breaker.last_probe_ns is None
    bench.half_open()
    assert bench.breaker.last_probe_ns == bench.time.now_ns


def test_the_origin_is_the_first_reading_or_what_is_given(engine_module: Any) -> None:
    own = Bench(engine_module)
    own.time.now_ns += 3 * MS
    own.fail()
    assert fields(own.breaker).stamp_ms == 3
    given = Bench(engine_module, origin_ns=ORIGIN - 10 * MS)
    given.fail()
    assert fields(given.breaker).stamp_ms == 10


def test_shifting_all_time_changes_nothing(engine_module: Any) -> None:
    words = []
    for shift in (0, 1, 10**18):
        bench = Bench(engine_module, now_ns=ORIGIN + shift)
        bench.time.now_ns += 1_234_567
        bench.breaker.record(True, bench.half_open())
        bench.next_probe()
        words.append(bench.breaker.word)
    assert words[0] == words[1] == words[2]


def test_a_clock_that_goes_back_makes_nothing_early(bench: Bench) -> None:
    bench.trip()
    bench.time.now_ns = ORIGIN - SECOND
    assert bench.breaker.try_acquire() is None
    bench.breaker.reset()
    bench.fail()
    assert fields(bench.breaker).stamp_ms == 0
    bench.fail(2)
    assert bench.breaker.state() == OPEN


@pytest.mark.parametrize("past_ms", [0, 1, 2**41, 2**43])
def test_milliseconds_saturate_and_never_wrap(engine_module: Any, past_ms: int) -> None:
    bench = Bench(engine_module, origin_ns=0, now_ns=(LAST_MS + past_ms) * MS)
    bench.fail(2)
    assert fields(bench.breaker) == Fields(CLOSED, forced=0, leased=0, count=2, generation=0, stamp_ms=LAST_MS - 1)
    bench.time.now_ns += TRIP_WINDOW // 2
    bench.fail()
    assert fields(bench.breaker) == Fields(OPEN, forced=0, leased=0, count=0, generation=1, stamp_ms=LAST_MS - 1)
    assert bench.breaker.retry_at_ns(bench.breaker.word) == (LAST_MS - 1) * MS + RECOVERY
    bench.time.now_ns += RECOVERY  # no stamp tells when it opened: rather probed early than refused for ever
    for _ in range(2):
        assert bench.breaker.try_acquire().probe
        bench.time.now_ns += 10 * RECOVERY
    bench.breaker.record(False)
    assert bench.breaker.state() == OPEN
    assert bench.breaker.try_acquire().probe


def test_a_run_of_failures_across_the_last_stamp_opens(engine_module: Any) -> None:
    bench = Bench(engine_module, origin_ns=0, now_ns=LAST_MS * MS)
    for _ in range(3):
        bench.time.now_ns += 10 * TRIP_WINDOW
        bench.fail()
    assert bench.breaker.state() == OPEN


def test_the_last_recovery_before_saturation_works(engine_module: Any) -> None:
    bench = Bench(engine_module, origin_ns=0, now_ns=LAST_MS * MS - RECOVERY)
    bench.half_open()
    assert bench.time.now_ns == LAST_MS * MS
    assert fields(bench.breaker).stamp_ms == LAST_MS - 1


@pytest.mark.parametrize("act", ["force_open", "force_close", "reset"])
def test_the_generation_wraps_without_touching_its_neighbours(bench: Bench, act: str) -> None:
    for _ in range(1_023):
        bench.breaker.force_close()
    assert fields(bench.breaker) == Fields(CLOSED, forced=0, leased=0, count=0, generation=1_023, stamp_ms=0)
    bench.fail(2)
    getattr(bench.breaker, act)()
    expected = OPEN if act == "force_open" else CLOSED
    stamp_ms = LAST_MS if act == "force_open" else 0
    assert fields(bench.breaker) == (expected, expected == OPEN, 0, 0, 0, stamp_ms)


def test_rounds_go_on_across_the_wrap(bench: Bench) -> None:
    for _ in range(1_022):
        bench.breaker.force_close()
    ticket = bench.half_open()
    assert ticket.generation == 0
    bench.breaker.record(True, ticket)
    bench.breaker.record(True, bench.next_probe())
    assert fields(bench.breaker)[:5] == (CLOSED, 0, 0, 0, 1)


@pytest.mark.parametrize("ok", [True, False])
def test_open_drops_even_a_ticket_from_a_whole_wrap_ago(bench: Bench, ok: bool) -> None:
    ticket = bench.breaker.try_acquire()
    for _ in range(1_023):
        bench.breaker.force_close()
    bench.breaker.force_open()
    word = bench.breaker.word
    assert fields(bench.breaker)[:5] == (OPEN, 1, 0, 0, ticket.generation)
    bench.breaker.record(ok, ticket)
    assert bench.breaker.word == word


def test_one_whole_life_step_by_step(bench: Bench) -> None:
    breaker, time = bench.breaker, bench.time
    breaker.record(True)
    bench.fail(2)
    breaker.record(True)
    bench.fail(3)
    assert breaker.try_acquire() is None
    time.now_ns += RECOVERY - MS
    assert breaker.try_acquire() is None
    time.now_ns += MS
    breaker.record(True, breaker.try_acquire())
    assert breaker.state() == HALF_OPEN
    time.now_ns += PROBE
    breaker.record(False, breaker.try_acquire())
    assert breaker.state() == OPEN
    time.now_ns += RECOVERY
    breaker.record(True, breaker.try_acquire())
    time.now_ns += PROBE
    breaker.record(True, breaker.try_acquire())
    assert breaker.state() == CLOSED
    assert bench.changes == [
        (CLOSED, OPEN),
        (OPEN, HALF_OPEN),
        (HALF_OPEN, OPEN),
        (OPEN, HALF_OPEN),
        (HALF_OPEN, CLOSED),
    ]


def test_nobody_need_listen(engine_module: Any) -> None:
    breaker = engine_module.Breaker(CIRCUIT, Time())
    for _ in range(3):
        breaker.record(False)
    assert breaker.state() == OPEN


def test_a_forked_child_never_finds_the_pure_lock_held(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = pure_breaker.Breaker(CIRCUIT, Time())
    with breaker._lock():
        monkeypatch.setattr("os.getpid", lambda: -1)
        breaker.record(False)
    assert breaker.word >> 50 == 1


# Threads.


def test_who_finds_it_closed_meanwhile_goes_without_a_lease(bench: Bench) -> None:
    bench.trip()
    bench.time.now_ns = bench.retry_at()
    bench.time.meanwhile = bench.breaker.force_close
    ticket = bench.breaker.try_acquire()
    assert (ticket.probe, ticket.generation) == (False, 2)
    assert fields(bench.breaker) == Fields(CLOSED, forced=0, leased=0, count=0, generation=2, stamp_ms=0)


def test_who_finds_the_lease_taken_meanwhile_is_rejected(bench: Bench) -> None:
    bench.trip()
    bench.time.now_ns = bench.retry_at()
    overtaker: list[Any] = []
    bench.time.meanwhile = lambda: overtaker.append(bench.breaker.try_acquire())
    assert bench.breaker.try_acquire() is None
    assert overtaker[0].probe
    assert bench.changes[1:] == [(OPEN, HALF_OPEN)]


@pytest.mark.parametrize("ok", [True, False])
def test_a_result_is_dropped_when_the_round_ends_meanwhile(bench: Bench, ok: bool) -> None:
    ticket = bench.half_open()
    bench.time.meanwhile = bench.breaker.force_open
    bench.breaker.record(ok, ticket)
    assert fields(bench.breaker)[:5] == (OPEN, 1, 0, 0, 3)


THREADS = 8


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let threads take turns a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


def in_threads(work: Callable[[int], None]) -> None:
    """Run `work` in eight threads at once and raise what any of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def body(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=body, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])


@pytest.mark.usefixtures("eager_switches")
def test_threads_never_take_more_than_one_probe_an_interval(engine_module: Any) -> None:
    bench = Bench(engine_module, attrs.evolve(CIRCUIT, failure_threshold=1))
    rounds = 3_000
    tickets: list[Any] = []
    start, end = threading.Barrier(THREADS), threading.Barrier(THREADS)

    def probe(index: int) -> None:
        for number in range(rounds):
            if index == 0:
                if number % 2 == 0:  # from closed or half-open to the edge of half-open; else to the next lease's
                    bench.breaker.record(False, tickets[-1] if tickets else None)
                    assert bench.breaker.state() == OPEN
                bench.time.now_ns = bench.retry_at()
            start.wait()
            ticket = bench.breaker.try_acquire()
            if ticket is not None:
                tickets.append(ticket)
            end.wait()
            if index == 0:
                assert len(tickets) == number + 1

    def guarded(index: int) -> None:
        try:
            probe(index)
        except BaseException:
            start.abort()
            end.abort()
            raise

    in_threads(guarded)
    assert len(tickets) == rounds
    assert bench.changes.count((OPEN, HALF_OPEN)) == rounds // 2


@pytest.mark.usefixtures("eager_switches")
def test_threads_lose_no_failure(engine_module: Any) -> None:
    bench = Bench(engine_module, attrs.evolve(CIRCUIT, failure_threshold=1_000))
    in_threads(lambda _: bench.fail(124))
    assert fields(bench.breaker).count == THREADS * 124
    in_threads(lambda _: bench.fail(1))
    assert bench.breaker.state() == OPEN
    assert bench.changes == [(CLOSED, OPEN)]


@pytest.mark.usefixtures("eager_switches")
def test_threads_settle_a_probes_ticket_once(engine_module: Any) -> None:
    bench = Bench(engine_module, attrs.evolve(CIRCUIT, recovery_threshold=1_000))
    tickets = [bench.half_open(), *(bench.next_probe() for _ in range(199))]

    def settle(_: int) -> None:
        for ticket in tickets:
            bench.breaker.record(True, ticket)

    in_threads(settle)
    assert fields(bench.breaker).count == len(tickets)
