"""The pure engine's counts: exact on any number of threads, and adding up."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._engine.pure.counters import Counters
from backpressure._engine.sync import Tally
from backpressure._engine.totals import DELAY_BUCKETS_NS, REASONS, Totals
from backpressure._model.vocabulary import LAW_REASONS, MISS_REASONS, Reason

MS = 1_000_000


def counted(totals: Totals) -> dict[Reason, int]:
    return {reason: count for reason, count in zip(REASONS, totals.reasons, strict=True) if count}


def test_a_tally_counts_its_calls() -> None:
    tally = Tally()
    assert tally.value == 0
    for expected in range(1, 1_001):
        tally.add()
        assert tally.value == expected
        assert tally.value == expected  # reading does not count


def test_starts_at_nothing() -> None:
    assert Counters().totals() == Totals()


@pytest.mark.parametrize("reason", Reason)
def test_counts_each_reason_by_itself(reason: Reason) -> None:
    counters = Counters()
    for _ in range(3):
        counters.count(reason, goes=False, delay_ns=0, computed=False)
    assert counted(counters.totals()) == {reason: 3}
    assert counters.totals()[1:] == Totals()[1:]
    assert counters.row(reason, goes=False).value == 3


def test_a_ready_answer_adds_by_its_tally_alone() -> None:
    counters = Counters()
    add = counters.row(Reason.BACKLOG_GREEN, goes=True).add
    for _ in range(5):
        add()
    assert counted(counters.totals()) == {Reason.BACKLOG_GREEN: 5}


def test_computed_answers_are_counted_apart() -> None:
    counters = Counters()
    counters.count(Reason.BACKLOG_GREEN, goes=True, delay_ns=0, computed=True)
    counters.count(Reason.BACKLOG_GREEN, goes=True, delay_ns=0, computed=False)
    assert counters.totals().computed == 1


def test_buckets_are_those_of_the_metric() -> None:
    assert [bound / 1e9 for bound in DELAY_BUCKETS_NS] == [0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10]


@pytest.mark.parametrize("bucket", range(len(DELAY_BUCKETS_NS)))
def test_a_buckets_bound_belongs_to_it(bucket: int) -> None:
    bound = DELAY_BUCKETS_NS[bucket]
    for delay_ns, expected in ((bound - 1, bucket), (bound, bucket), (bound + 1, bucket + 1)):
        counters = Counters()
        counters.count(Reason.BACKLOG_RED, goes=True, delay_ns=delay_ns, computed=False)
        totals = counters.totals()
        assert [index for index, count in enumerate(totals.delays) if count] == [expected]
        assert totals.delay_sum_ns == delay_ns


def test_no_delay_is_not_observed() -> None:
    counters = Counters()
    counters.count(Reason.BACKLOG_GREEN, goes=True, delay_ns=0, computed=False)
    counters.count(Reason.BACKLOG_RED_SHED, goes=True, delay_ns=0, computed=False)
    assert sum(counters.totals().delays) == 0


def test_what_observe_mode_let_go_was_not_refused() -> None:
    counters = Counters()
    for reason in Reason:
        counters.count(reason, goes=True, delay_ns=0, computed=False)
    assert counted(counters.totals()) == dict.fromkeys(Reason, 1)
    assert counters.totals().refused() == (0, 0, 0)
    for reason in (
        Reason.BACKLOG_RED_SHED,
        Reason.CIRCUIT_OPEN,
        Reason.CIRCUIT_HALF_OPEN,
        Reason.AGE_SHED,
        Reason.MEMORY,
    ):
        counters.count(reason, goes=False, delay_ns=0, computed=False)
    counters.count_late()
    assert counters.totals().refused() == (3, 2, 1)


@given(st.lists(st.tuples(st.sampled_from(Reason), st.integers(0, 20_000 * MS), st.booleans(), st.booleans())))
def test_totals_add_up(decisions: list[tuple[Reason, int, bool, bool]]) -> None:
    whole, halves = Counters(), (Counters(), Counters())
    for index, (reason, delay_ns, computed, goes) in enumerate(decisions):
        for counters in (whole, halves[index % 2]):
            counters.count(reason, goes=goes, delay_ns=delay_ns, computed=computed)
    totals = whole.totals()
    assert halves[0].totals().plus(halves[1].totals()) == totals
    assert totals.plus(Totals()) == totals
    assert sum(totals.reasons) == len(decisions)
    assert totals.computed == sum(computed for _, _, computed, _ in decisions)
    assert sum(totals.delays) == sum(delay_ns > 0 for _, delay_ns, *_ in decisions)
    assert totals.delay_sum_ns == sum(delay_ns for _, delay_ns, *_ in decisions)


def test_law_and_miss_reasons_are_disjoint() -> None:
    assert not set(LAW_REASONS) & set(MISS_REASONS)
    assert tuple(Reason) == REASONS


def test_eight_threads_lose_no_count() -> None:
    counters = Counters()
    barrier = threading.Barrier(8)
    rounds = 2_000

    def work() -> None:
        barrier.wait()
        for number in range(rounds):
            counters.count(
                REASONS[number % len(REASONS)], goes=number % 2 == 0, delay_ns=number % 3 * MS, computed=number % 2 == 0
            )

    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)

    totals = counters.totals()
    assert totals.reasons == tuple(8 * len(range(index, rounds, len(REASONS))) for index in range(len(REASONS)))
    assert totals.computed == 8 * rounds // 2
    assert totals.delays[:3] == (8 * len(range(1, rounds, 3)), 8 * len(range(2, rounds, 3)), 0)
    assert totals.delay_sum_ns == 8 * sum(number % 3 for number in range(rounds)) * MS
