"""What one process does with its terms: who goes, who waits, who is held, and what the next call tells."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure._age.lease import NEVER_US, Dealt, Lease, QueueLease
from backpressure._age.protocol import HIGH, MILLION, NO_SAMPLER, Answer, BacklogSeen, Demand, Report, Terms
from backpressure._model.budget import BudgetSettings

MEDIUM, LOW = 1, 2
SECOND_US = 1_000_000
SETTINGS = BudgetSettings.of(5.0)
NOTHING = Terms(0, 0, 0, 2 * MILLION, 0, 0, 0)
ALL_FITS = Terms(MILLION, 100, 0, MILLION, 0, 0, 0)
NOBODY = Dealt(0, 0, 0)


def answer(
    high: Terms = NOTHING, medium: Terms = NOTHING, low: Terms = NOTHING, *, wait_ms: int = 1_000, sampler: bool = False
) -> Answer:
    return Answer(
        now_ms=1,
        ticks=9,
        drain_mjobs_per_s=200_000,
        budget_mjobs_per_s=200_000,
        age_ms=5_000,
        backlog_jobs=1_000,
        processes=10,
        spare_mjobs_per_s=0,
        is_sampler=sampler,
        wait_ms=wait_ms,
        terms=(high, medium, low),
    )


def after_a_call(medium: Terms = NOTHING, *, wait_ms: int = 1_000, sampler: bool = False) -> QueueLease:
    """Return a process that called at 0 and was answered at once."""
    lease = QueueLease(SETTINGS, "a1", (0, 0, 0))
    lease.report(0)
    lease.renew(0, answer(medium=medium, wait_ms=wait_ms, sampler=sampler))
    return lease


def told(lease: QueueLease, now_us: int, level: int = MEDIUM) -> tuple[int, Demand, int]:
    report = lease.report(now_us)
    return report.since_ms, report.demands[level], report.enqueued


class TestCallersWhoWillNotWait:
    @given(share=st.integers(0, MILLION), phase=st.integers(0, MILLION - 1), offers=st.integers(1, 500))
    def test_exactly_the_share_goes(self, share: int, phase: int, offers: int) -> None:
        lease = Lease(phase)
        lease.renew(0, attrs.evolve(NOTHING, share_ppm=share, cap_jobs=offers))
        assert sum(lease.offer() for _ in range(offers)) == (phase + share * offers) // MILLION

    def test_they_go_evenly(self) -> None:
        lease = Lease(0)
        lease.renew(0, attrs.evolve(NOTHING, share_ppm=250_000, cap_jobs=100))
        assert [lease.offer() for _ in range(8)] == 2 * [False, False, False, True]

    def test_the_cap_ends_it_and_an_answer_begins_anew(self) -> None:
        lease = Lease(0)
        for _ in range(2):
            lease.renew(0, attrs.evolve(ALL_FITS, cap_jobs=2))
            assert [lease.offer() for _ in range(4)] == [True, True, False, False]
            assert lease.is_used_up()

    def test_by_stale_terms_one_goes(self) -> None:
        lease = Lease(0)
        lease.renew(0, ALL_FITS)
        assert all(lease.offer() for _ in range(50))
        assert [lease.offer_stale(aged=True) for _ in range(3)] == [True, False, False]

    def test_by_terms_that_are_used_up_and_not_old_none_goes(self) -> None:
        lease = Lease(0)
        lease.renew(0, attrs.evolve(ALL_FITS, cap_jobs=3))
        assert all(lease.offer() for _ in range(3))
        assert not lease.offer_stale(aged=False)

    def test_a_share_beyond_all_is_all(self) -> None:
        lease = Lease(0)
        lease.renew(0, attrs.evolve(ALL_FITS, share_ppm=2 * MILLION))
        assert lease.offer()
        assert (lease.share_ppm, lease.carry_ppm) == (MILLION, 0)

    def test_what_is_used_fits_into_a_word(self) -> None:
        lease = Lease(0)
        lease.renew(0, attrs.evolve(ALL_FITS, cap_jobs=2**40))
        assert lease.cap_jobs == 2**21 - 1


class TestCallersWhoWill:
    def lease(self, rate: int = 10, burst: int = 2, *, fill: int = 0, phase: int = 0) -> Lease:
        lease = Lease(phase)
        lease.renew(0, Terms(0, 0, rate * MILLION, burst * MILLION, fill, 0, 0))
        return lease

    def test_they_go_first_come_first_served_at_the_rate(self) -> None:
        lease = self.lease(rate=10)
        tickets = [lease.take_ticket() for _ in range(5)]
        assert [lease.due_in_us(ticket, 0) for ticket in tickets] == [100_000 * number for number in range(1, 6)]

    def test_a_due_time_is_exact(self) -> None:
        lease = self.lease(rate=3, phase=123_457)
        ticket = lease.take_ticket()
        due = lease.due_in_us(ticket, 0)
        assert lease.due_in_us(ticket, due) == 0
        assert lease.due_in_us(ticket, due - 1) > 0

    def test_without_a_rate_nobody_goes(self) -> None:
        lease = self.lease(rate=0)
        assert lease.due_in_us(lease.take_ticket(), 10**12) == NEVER_US

    def test_a_pause_saves_a_burst_and_no_more(self) -> None:
        lease = self.lease(rate=10, burst=3)
        lease.renew(60 * SECOND_US, Terms(0, 0, 10 * MILLION, 3 * MILLION, 0, 0, 0))
        dues = [lease.due_in_us(lease.take_ticket(), 60 * SECOND_US) for _ in range(4)]
        assert dues == [0, 0, 0, 100_000]

    def test_a_burst_may_be_there_at_once(self) -> None:
        lease = self.lease(fill=1)
        assert [lease.due_in_us(lease.take_ticket(), 0) for _ in range(3)] == [0, 0, 100_000]

    def test_who_waits_keeps_the_place_when_terms_are_renewed(self) -> None:
        lease = self.lease(rate=1)
        tickets = [lease.take_ticket() for _ in range(10)]
        lease.renew(SECOND_US, Terms(0, 0, 100 * MILLION, 2 * MILLION, 0, 0, 0))
        assert [lease.due_in_us(ticket, SECOND_US) for ticket in tickets] == [10_000 * n for n in range(10)]

    def test_who_gives_up_leaves_the_place_to_those_behind(self) -> None:
        lease = self.lease(rate=10)
        _, second = lease.take_ticket(), lease.take_ticket()
        lease.leave_places(1)
        assert lease.due_in_us(second, 0) == 100_000

    def test_high_waits_half_the_target_at_most(self) -> None:
        lease = after_a_call()
        for level, longest in ((HIGH, 1_500_000), (MEDIUM, NEVER_US)):
            ticket = lease.take_ticket(level, 0)
            assert ticket is not None
            assert lease.due_in_us(level, ticket, SECOND_US, SECOND_US) == longest

    def test_a_wait_can_be_foreseen_without_a_ticket(self) -> None:
        lease = after_a_call(attrs.evolve(NOTHING, rate_ujobs_per_s=10 * MILLION))
        assert [lease.foresee_us(MEDIUM, 0) for _ in range(2)] == [100_000, 100_000]


class TestWhoIsHeld:
    def test_a_new_process_calls_at_once_and_holds_all_but_high(self) -> None:
        lease = QueueLease(SETTINGS, "a1", (0, 0, 0))
        assert lease.call_at_us == 0
        assert not lease.is_stale(HIGH, 0, patient=False)
        assert lease.is_stale(HIGH, 0, patient=True)
        assert lease.is_stale(LOW, 0, patient=False)

    def test_terms_are_fresh_for_as_long_as_the_answer_says_from_when_it_was_asked(self) -> None:
        lease = QueueLease(SETTINGS, "a1", (0, 0, 0))
        lease.report(50)
        lease.renew(90, answer(wait_ms=800), spread_ppm=900_000)
        assert not lease.is_stale(LOW, 50 + 719_999, patient=False)
        assert lease.is_stale(LOW, 50 + 720_000, patient=False)

    def test_while_all_fits_a_used_up_cap_holds_and_asks_again(self) -> None:
        lease = after_a_call(attrs.evolve(ALL_FITS, cap_jobs=1))
        assert lease.decide(MEDIUM, 10_000)
        assert lease.is_stale(MEDIUM, 20_000, patient=False)
        assert not lease.is_stale(MEDIUM, 20_000, patient=True)
        lease.hold(MEDIUM, 20_000, patient=False)
        assert lease.call_at_us == 50_000  # a twentieth of a tick after the last call

    def test_where_not_all_fits_a_used_up_cap_refuses(self) -> None:
        lease = after_a_call(attrs.evolve(ALL_FITS, share_ppm=999_999, cap_jobs=0))
        assert not lease.is_stale(MEDIUM, 20_000, patient=False)
        assert not lease.decide(MEDIUM, 20_000)

    def test_one_call_tells_of_all_that_are_held(self) -> None:
        lease = after_a_call()
        for patient in (False, True, False):
            lease.hold(MEDIUM, SECOND_US, patient=patient)
        asked_at_us = lease.call_at_us
        assert told(lease, SECOND_US)[1] == Demand(held=2, held_patient=1)
        assert (asked_at_us, lease.call_at_us) == (SECOND_US, None)
        lease.hold(MEDIUM, SECOND_US + 1, patient=False)  # came during the call: is offered again after it
        lease.renew(SECOND_US + 2, answer())
        assert told(lease, SECOND_US + 3)[1] == Demand()

    def test_a_jump_is_told_early(self) -> None:
        lease = after_a_call(attrs.evolve(ALL_FITS, cap_jobs=4))
        assert [lease.decide(MEDIUM, 200_000) for _ in range(2)] == [True, True]
        assert lease.call_at_us == SECOND_US
        assert lease.decide(MEDIUM, 200_000)
        assert lease.call_at_us == 200_000

    def test_a_stale_decision_does_not_call_early(self) -> None:
        lease = after_a_call(attrs.evolve(ALL_FITS, cap_jobs=1))
        assert lease.decide_stale(MEDIUM, 200_000)
        assert lease.call_at_us == SECOND_US


class TestWhatIsDealt:
    def test_held_go_first_then_who_waits_then_held_patiently(self) -> None:
        lease = after_a_call()
        for _ in range(2):
            assert lease.take_ticket(MEDIUM, 0) is not None
        for patient in (False, True, True):
            lease.hold(MEDIUM, SECOND_US, patient=patient)
        lease.report(SECOND_US)
        dealt = lease.renew(SECOND_US, answer(medium=attrs.evolve(NOTHING, go_jobs=4, remainder_ppm=7)))
        assert dealt == (NOBODY, Dealt(held=1, waiting=2, held_patient=1), NOBODY)
        since_ms, demand, enqueued = told(lease, SECOND_US + 10_000)
        assert (since_ms, enqueued) == (10, 0)
        assert demand == Demand(gone=2, remainder_ppm=7)

    def test_where_calls_are_far_apart_who_was_dealt_to_does_not_count_again(self) -> None:
        lease = after_a_call()
        lease.take_ticket(MEDIUM, 0)
        lease.report(SECOND_US)
        lease.renew(SECOND_US, answer(medium=attrs.evolve(NOTHING, go_jobs=1), wait_ms=2_201))
        assert told(lease, SECOND_US + 10_000)[1].gone == 0

    def test_who_was_dealt_to_leaves_the_place_to_those_behind(self) -> None:
        lease = after_a_call()
        first, second = (lease.take_ticket(MEDIUM, 0) for _ in range(2))
        assert first is not None
        assert second is not None
        lease.report(SECOND_US)
        lease.renew(SECOND_US, answer(medium=attrs.evolve(NOTHING, rate_ujobs_per_s=MILLION, go_jobs=1)))
        assert lease.due_in_us(MEDIUM, second, SECOND_US, SECOND_US) == SECOND_US

    def test_what_nobody_was_left_for_is_given_back(self) -> None:
        lease = after_a_call()
        lease.hold(MEDIUM, SECOND_US, patient=False)
        lease.report(SECOND_US)
        lease.unhold(MEDIUM, patient=False, asked=True)
        assert lease.renew(SECOND_US, answer(medium=attrs.evolve(NOTHING, go_jobs=1)))[MEDIUM] == NOBODY
        for _ in range(3):
            lease.let_go_anyway(MEDIUM)
        assert told(lease, 2 * SECOND_US)[2] == 2

    def test_a_job_that_was_not_enqueued_is_taken_back_and_a_debt_is_carried(self) -> None:
        lease = after_a_call(ALL_FITS)
        for _ in range(2):
            lease.take_back()  # they were dealt a place, which the state counted by itself
        assert told(lease, SECOND_US)[2] == 0
        lease.renew(SECOND_US, answer(medium=ALL_FITS))
        assert all(lease.decide(MEDIUM, SECOND_US) for _ in range(4))
        lease.take_back()
        assert told(lease, 2 * SECOND_US)[2] == 1

    def test_a_refused_job_that_is_only_observed_counts_as_enqueued(self) -> None:
        lease = after_a_call()
        assert not lease.decide(MEDIUM, 10)
        lease.let_go_anyway(MEDIUM)
        assert told(lease, SECOND_US)[1:] == (Demand(decided=1), 1)

    def test_an_offer_that_a_call_told_of_does_not_count_again(self) -> None:
        lease = after_a_call(ALL_FITS)
        for _ in range(2):
            lease.hold(MEDIUM, SECOND_US, patient=False)
        assert told(lease, SECOND_US)[1].held == 2
        lease.unhold(MEDIUM, patient=False, asked=True)
        assert lease.decide_stale(MEDIUM, SECOND_US, asked=True)
        lease.renew(SECOND_US, answer())
        assert told(lease, 2 * SECOND_US)[1].decided == 0

    def test_one_that_no_call_told_of_counts(self) -> None:
        lease = after_a_call(ALL_FITS)
        lease.hold(MEDIUM, SECOND_US, patient=False)
        lease.unhold(MEDIUM, patient=False, asked=False)
        lease.decide_stale(MEDIUM, SECOND_US)
        assert told(lease, SECOND_US)[1] == Demand(decided=1)


class TestWhenItCalls:
    def test_after_an_answer_it_is_asked_when_the_terms_have_aged(self) -> None:
        lease = after_a_call()
        assert lease.call_at_us == SECOND_US
        assert not lease.is_due(SECOND_US - 1)
        assert lease.call_at_us == SECOND_US

    def test_who_has_nothing_to_tell_does_not_until_an_offer_comes(self) -> None:
        lease = after_a_call(ALL_FITS)
        assert not lease.is_due(SECOND_US)
        assert lease.call_at_us is None
        assert not lease.is_due(90 * SECOND_US)
        assert lease.decide_stale(MEDIUM, 90 * SECOND_US)
        assert lease.is_due(90 * SECOND_US)

    def test_the_first_call_has_nothing_to_tell(self) -> None:
        lease = QueueLease(SETTINGS, "a1", (0, 0, 0))
        assert lease.is_due(0)
        lease.report(0)
        assert not lease.is_due(10 * SECOND_US)  # in flight

    def test_a_sampler_does_until_nothing_passed_for_ten_ticks(self) -> None:
        lease = after_a_call(sampler=True)
        for second in range(1, 11):
            assert lease.is_due(second * SECOND_US)
            lease.report(second * SECOND_US)
            lease.renew(second * SECOND_US, answer(sampler=True))
        assert not lease.is_due(11 * SECOND_US)
        assert lease.call_at_us is None

    def test_a_sampler_that_had_something_to_tell_begins_to_count_anew(self) -> None:
        lease = after_a_call(ALL_FITS, sampler=True)
        lease.decide(MEDIUM, 8 * SECOND_US)
        for second in (8, 18):
            assert lease.is_due(second * SECOND_US)
            lease.report(second * SECOND_US)
            lease.renew(second * SECOND_US, answer(sampler=True))
        assert not lease.is_due(19 * SECOND_US)

    @pytest.mark.parametrize(("demand_mjobs_per_s", "stays"), [(100, True), (99, False)])
    def test_a_sampler_does_as_long_as_a_job_in_ten_ticks_is_asked_for(
        self, demand_mjobs_per_s: int, stays: bool
    ) -> None:
        lease = after_a_call(sampler=True)
        asked = attrs.evolve(answer(sampler=True), demand_mjobs_per_s=(0, demand_mjobs_per_s, 0))
        for second in range(1, 11):
            assert lease.is_due(second * SECOND_US)
            lease.report(second * SECOND_US)
            lease.renew(second * SECOND_US, asked)
        assert lease.is_due(11 * SECOND_US) == stays

    def test_a_debt_alone_is_nothing_to_tell(self) -> None:
        lease = after_a_call()
        lease.take_back()
        assert not lease.is_due(SECOND_US)

    def test_who_cannot_read_the_queue_is_no_sampler(self) -> None:
        lease = QueueLease(SETTINGS, NO_SAMPLER, (0, 0, 0))
        lease.report(0)
        lease.renew(0, answer(sampler=True))
        assert not lease.is_sampler

    @pytest.mark.parametrize("what", ["gone", "refused", "observed", "waiting", "let go by the engine"])
    def test_something_to_tell_is_told_when_the_terms_have_aged(self, what: str) -> None:
        lease = after_a_call(ALL_FITS if what in {"gone", "let go by the engine"} else NOTHING)
        if what in {"gone", "refused"}:
            assert lease.decide(MEDIUM, 10) is (what == "gone")
        elif what == "observed":
            lease.let_go_anyway(MEDIUM)
        elif what == "waiting":
            assert lease.take_ticket(MEDIUM, 10) is not None
        else:
            assert lease.levels[MEDIUM].take_share()
        assert lease.call_at_us == SECOND_US
        assert lease.is_due(SECOND_US)

    def test_dealt_jobs_are_nothing_to_tell(self) -> None:
        lease = after_a_call()
        lease.hold(MEDIUM, 10, patient=False)
        lease.report(10)
        assert lease.renew(10, answer(medium=attrs.evolve(NOTHING, go_jobs=1)))[MEDIUM].held == 1
        assert not lease.is_due(2 * SECOND_US)  # the state counted it, and one offer costs one call

    def test_woken_from_idleness_it_reports_as_new(self) -> None:
        lease = after_a_call()
        lease.hold(MEDIUM, 60 * SECOND_US, patient=True)
        assert told(lease, 60 * SECOND_US) == (0, Demand(held_patient=1), 0)

    @pytest.mark.parametrize("decided", [1, 3])
    def test_with_a_decided_offer_it_reports_how_long_it_was(self, decided: int) -> None:
        lease = after_a_call(ALL_FITS)
        for _ in range(decided):
            lease.decide_stale(MEDIUM, 60 * SECOND_US)
        assert told(lease, 60 * SECOND_US)[:2] == (60_000, Demand(decided=decided))

    def test_who_had_to_wait_is_told_of_once_though_gone(self) -> None:
        lease = after_a_call()
        assert lease.take_ticket(MEDIUM, 0) is not None
        lease.go_from_line(MEDIUM)
        assert told(lease, SECOND_US)[1] == Demand(gone=1, waiting=1)
        lease.renew(SECOND_US, answer())
        assert told(lease, 2 * SECOND_US)[1] == Demand()

    def test_who_gave_up_is_not_one_that_waits(self) -> None:
        lease = after_a_call()
        for _ in range(3):
            lease.take_ticket(MEDIUM, 0)
        lease.give_up(MEDIUM)
        assert told(lease, SECOND_US)[1].waiting == 2

    def test_the_report_carries_what_a_lost_state_begins_with(self) -> None:
        report = after_a_call().report(SECOND_US, BacklogSeen(5, None, 3), 900)
        assert (report.seed_drain_mjobs_per_s, report.seed_processes) == (200_000, 10)
        assert (report.seen, report.limit_permille) == (BacklogSeen(5, None, 3), 900)


class TestALostStore:
    def test_a_failed_call_is_told_again_a_tick_later(self) -> None:
        lease = after_a_call(ALL_FITS)
        lease.decide(MEDIUM, 10)
        first = lease.report(SECOND_US)
        lease.fail(SECOND_US + 500)
        assert lease.call_at_us == 2 * SECOND_US + 500
        lease.decide(MEDIUM, SECOND_US + 600)
        second = lease.report(2 * SECOND_US)
        assert first.demands[MEDIUM] == Demand(decided=1)
        assert (second.demands[MEDIUM], second.enqueued, second.since_ms) == (Demand(decided=2), 2, 2_000)

    def test_who_is_held_meanwhile_waits_for_the_next_try(self) -> None:
        lease = after_a_call()
        lease.report(SECOND_US)
        lease.fail(SECOND_US)
        for now_us in (SECOND_US + 1, SECOND_US + 500_000):
            lease.hold(MEDIUM, now_us, patient=True)
            assert lease.call_at_us == 2 * SECOND_US
            assert not lease.is_due(now_us)
        assert lease.is_due(2 * SECOND_US)

    def test_where_there_is_nothing_to_tell_it_is_not_tried(self) -> None:
        lease = after_a_call(sampler=True)
        lease.report(SECOND_US)
        lease.fail(SECOND_US)  # and no sampler any more
        assert not lease.is_due(2 * SECOND_US)
        lease.hold(MEDIUM, 3 * SECOND_US, patient=False)
        assert lease.is_due(3 * SECOND_US)

    def test_the_last_terms_go_on_for_three_ticks(self) -> None:
        lease = after_a_call(attrs.evolve(ALL_FITS, share_ppm=999_999, cap_jobs=3))
        for tick in range(1, 4):
            now_us = tick * SECOND_US
            lease.report(now_us)
            lease.fail(now_us)
            assert not lease.is_safe
            assert not lease.is_stale(MEDIUM, now_us, patient=False)
            assert sum(lease.decide(MEDIUM, now_us) for _ in range(5)) == 3

    def lost(self, admitted_a_tick: int, share_ppm: int = 999_999) -> tuple[QueueLease, int]:
        """Return a process that let pass so many jobs a tick, then lost the store; and the time."""
        lease, now_us = after_a_call(), 0
        medium = Terms(share_ppm, 100, 0, 0, 0, 0, 0)
        others = attrs.evolve(medium)
        for _ in range(20):
            now_us += SECOND_US
            for _ in range(admitted_a_tick):
                lease.decide(MEDIUM, now_us)
            lease.report(now_us)
            lease.renew(now_us, answer(others, medium, others))
        while not lease.is_safe:
            now_us += SECOND_US
            lease.report(now_us)
            lease.fail(now_us)
        return lease, now_us

    def passes(self, lease: QueueLease, now_us: int, seconds: int = 100) -> float:
        went = sum(lease.decide(MEDIUM, now_us + step * 10_000) for step in range(100 * seconds))
        return went / seconds

    def test_then_nine_tenths_of_what_passed_before_may(self) -> None:
        lease, now_us = self.lost(admitted_a_tick=20)
        assert self.passes(lease, now_us) == pytest.approx(0.9 * 20, rel=0.05)

    def test_where_all_fitted_a_part_of_the_drain_may_at_least(self) -> None:
        lease, now_us = self.lost(admitted_a_tick=2, share_ppm=MILLION)
        assert self.passes(lease, now_us) == pytest.approx(0.9 * (2 + (20 - 2) / 3), rel=0.05)

    def test_high_goes_and_nobody_is_held(self) -> None:
        lease, now_us = self.lost(admitted_a_tick=0)
        assert not lease.is_stale(LOW, now_us, patient=True)
        assert not lease.decide(LOW, now_us)
        assert lease.decide(HIGH, now_us)

    def test_a_process_that_never_had_terms_says_so(self) -> None:
        lease = QueueLease(SETTINGS, "a1", (0, 0, 0))
        for second in range(1_000, 1_010):
            assert lease.report(second * SECOND_US).since_ms == 1_000 * (second - 1_000)
            lease.decide(HIGH, second * SECOND_US)
            lease.fail(second * SECOND_US)
            assert not lease.has_terms
            assert not lease.is_safe
        report = lease.report(1_010 * SECOND_US)
        assert (report.since_ms, report.demands[HIGH].decided) == (10_000, 10)
        lease.renew(1_010 * SECOND_US, answer())
        assert lease.has_terms

    def test_an_answer_ends_it(self) -> None:
        lease, now_us = self.lost(admitted_a_tick=0)
        lease.report(now_us + SECOND_US)
        lease.renew(now_us + SECOND_US, answer(medium=ALL_FITS))
        assert not lease.is_safe
        assert lease.decide(MEDIUM, now_us + SECOND_US)
        assert lease.call_at_us == now_us + 2 * SECOND_US


class TestOffersOfSeveralJobs:
    def test_they_go_when_the_share_has_let_as_many_go(self) -> None:
        lease = after_a_call(attrs.evolve(ALL_FITS, share_ppm=500_000))
        went = [lease.decide(MEDIUM, 10, jobs=3) for _ in range(8)]
        assert (sum(went), went[:2]) == (4, [False, True])
        assert told(lease, SECOND_US)[1:] == (Demand(decided=24), 12)

    def test_one_between_them_is_one_of_all(self) -> None:
        lease = after_a_call(attrs.evolve(ALL_FITS, share_ppm=500_000, cap_jobs=20))
        went = sum(3 * lease.decide(MEDIUM, 10, jobs=3) + lease.decide(MEDIUM, 10) for _ in range(8))
        assert went <= 16
        assert told(lease, SECOND_US)[2] == went

    def test_by_stale_terms_they_wait_for_as_many_answers_as_jobs(self) -> None:
        lease = after_a_call(ALL_FITS)
        assert not lease.decide_stale(MEDIUM, 2 * SECOND_US, jobs=2)
        assert not lease.decide_stale(MEDIUM, 2 * SECOND_US, jobs=2)
        assert told(lease, 3 * SECOND_US)[1:] == (Demand(decided=4), 0)

    def test_held_they_count_as_what_they_are(self) -> None:
        lease = after_a_call()
        lease.hold(MEDIUM, SECOND_US, patient=False, jobs=5)
        lease.hold(MEDIUM, SECOND_US, patient=True, jobs=7)
        lease.unhold(MEDIUM, patient=True, asked=False, jobs=7)
        assert told(lease, SECOND_US)[1] == Demand(held=5)
        lease.unhold(MEDIUM, patient=False, asked=True, jobs=5)
        assert lease.renew(SECOND_US, answer(medium=attrs.evolve(NOTHING, go_jobs=5)))[MEDIUM] == NOBODY

    def test_in_the_line_they_have_as_many_places(self) -> None:
        lease = after_a_call(attrs.evolve(NOTHING, rate_ujobs_per_s=10 * MILLION))
        ticket = lease.take_ticket(MEDIUM, 0, jobs=4)
        assert ticket is not None
        assert lease.due_in_us(MEDIUM, ticket, 0, 0) == 400_000
        lease.take_ticket(MEDIUM, 0, jobs=2)
        lease.give_up(MEDIUM, jobs=4)
        assert lease.foresee_us(MEDIUM, 0) == 300_000
        lease.go_from_line(MEDIUM, jobs=2)
        assert told(lease, SECOND_US)[1:] == (Demand(gone=2, waiting=1), 2)

    @pytest.mark.parametrize("level", [MEDIUM, LOW])
    def test_those_that_go_along_with_one_are_charged(self, level: int) -> None:
        terms = Terms(MILLION, 100, 0, 10 * MILLION, 1, 0, 0)
        lease = QueueLease(SETTINGS, "a1", (0, 0, 0))
        lease.report(0)
        lease.renew(0, answer(medium=terms, low=terms))
        one = lease.levels[level]
        assert one.take_share() if level == LOW else one.take_saved(0)
        lease.go_along(level, 4)
        expected = Demand(decided=5) if level == LOW else Demand(gone=5)
        assert told(lease, SECOND_US, level)[1:] == (expected, 5)
        assert one.used == 5 if level == LOW else sum(one.take_saved(0) for _ in range(9)) == 5

    def test_those_that_are_not_enqueued_yet_are_told_of_when_they_are(self) -> None:
        lease = after_a_call(ALL_FITS)
        assert all(lease.decide(MEDIUM, 10) for _ in range(3))
        lease.unfinished = 2
        assert told(lease, SECOND_US)[1:] == (Demand(decided=3), 1)
        lease.renew(SECOND_US, answer(medium=ALL_FITS))
        assert not lease.is_due(2 * SECOND_US)
        lease.unfinished = 0
        lease.decide_stale(MEDIUM, 2 * SECOND_US)
        assert lease.is_due(2 * SECOND_US)
        assert told(lease, 2 * SECOND_US)[2] == 3


class TestALostStoreBesideAQueueThatCanBeRead:
    def lost(self) -> tuple[QueueLease, int]:
        lease, now_us = after_a_call(), 0
        medium = Terms(MILLION, 200, 0, 0, 0, 0, 0)
        for _ in range(20):
            lease.report(now_us := now_us + SECOND_US)
            lease.renew(now_us, answer(medium=medium))
            lease.go_along(LOW, 100)
        while not lease.is_safe:
            now_us = self.fail(lease, now_us)
        return lease, now_us

    def fail(self, lease: QueueLease, now_us: int, seen: BacklogSeen | None = None) -> int:
        lease.report(now_us + SECOND_US)
        lease.fail(now_us + SECOND_US, seen)
        return now_us + SECOND_US

    def rate(self, lease: QueueLease) -> int:
        return sum(level.rate_ujobs_per_s for level in lease.levels)

    @pytest.mark.parametrize(("age_ms", "factor"), [(5_000, 1.0), (10_000, 0.9), (0, 1.1), (60_000, 0.5)])
    def test_the_rate_follows_the_age_by_a_tenth_of_what_it_is_off(self, age_ms: int, factor: float) -> None:
        lease, now_us = self.lost()
        before = self.rate(lease)
        self.fail(lease, now_us, BacklogSeen(1_000, age_ms, 0))
        assert lease.is_local
        assert self.rate(lease) == pytest.approx(before * factor, rel=0.01)

    def test_and_the_growth(self) -> None:
        lease, now_us = self.lost()
        before = self.rate(lease)
        for jobs in (1_000, 1_100):  # a hundred a second, half of the drain
            now_us = self.fail(lease, now_us, BacklogSeen(jobs, 5_000, 0))
        assert self.rate(lease) == pytest.approx(before * 0.8, rel=0.01)

    def test_within_bounds(self) -> None:
        for age_ms, bound in ((10**6, 0.02), (0, 4.0)):
            lease, now_us = self.lost()
            before = self.rate(lease)
            for _ in range(60):
                now_us = self.fail(lease, now_us, BacklogSeen(1_000, age_ms, 0))
            assert self.rate(lease) == pytest.approx(before * bound, rel=0.05)

    def test_an_answer_ends_it(self) -> None:
        lease, now_us = self.lost()
        now_us = self.fail(lease, now_us, BacklogSeen(1_000, 5_000, 0))
        lease.report(now_us + SECOND_US)
        lease.renew(now_us + SECOND_US, answer())
        assert (lease.is_safe, lease.is_local) == (False, False)


@attrs.define
class Lock:
    """Counts how often it was taken."""

    taken: int = 0

    def __call__(self) -> Lock:
        return self

    def __enter__(self) -> None:
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        pass


def state(lease: Lease) -> list[object]:
    return [getattr(lease, name) for name in Lease.__slots__]


class TestWhatAnEngineLetsGo:
    @given(
        terms=st.builds(
            Terms,
            st.sampled_from([0, 1, 333_333, 999_999, MILLION]),
            st.integers(0, 9),
            *(st.just(0) for _ in range(5)),
        ),
        phase=st.integers(0, MILLION - 1),
        offers=st.integers(1, 30),
    )
    def test_it_and_who_is_asked_let_go_what_offers_would(self, terms: Terms, phase: int, offers: int) -> None:
        alone, both = Lease(phase), Lease(phase)
        for lease in (alone, both):
            lease.renew(0, terms)
        for _ in range(offers):
            goes = alone.offer()
            assert (both.take_share() or (not both.refuse_share(1) and both.offer())) == goes
        assert (both.carry_ppm, both.used) == (alone.carry_ppm, alone.used)
        shared, gone, refused = both.take_counts()
        if terms.share_ppm < MILLION:
            assert (shared, gone, refused) == (alone.used, 0, offers - alone.used)
        else:
            assert (shared, gone, refused) == (min(alone.used, terms.cap_jobs // 2), 0, 0)

    def test_where_it_does_not_nothing_has_happened(self) -> None:
        for terms in (NOTHING, attrs.evolve(ALL_FITS, cap_jobs=1), attrs.evolve(ALL_FITS, share_ppm=1)):
            lease = Lease(0)
            lease.renew(0, terms)
            before = state(lease)
            assert not lease.take_share()
            assert not lease.take_saved(0)
            assert not lease.refuse_share(0)  # of the terms before
            assert state(lease) == before
        carries = Lease(MILLION - 1)
        carries.renew(0, attrs.evolve(ALL_FITS, share_ppm=1))
        used_up = Lease(0)
        used_up.renew(0, attrs.evolve(ALL_FITS, cap_jobs=0))
        for lease in (carries, used_up):
            before = state(lease)
            assert not lease.refuse_share(lease.renewal)
            assert state(lease) == before

    @pytest.mark.parametrize(("share_ppm", "goes"), [(MILLION, 4), (999_999, 9)])
    def test_while_all_fits_half_of_the_cap_is_left_to_who_tells_of_more(self, share_ppm: int, goes: int) -> None:
        lease = Lease(MILLION - 1)
        lease.renew(0, attrs.evolve(ALL_FITS, share_ppm=share_ppm, cap_jobs=9))
        assert sum(lease.take_share() for _ in range(20)) == goes

    def test_a_ticket_is_taken_only_where_its_job_may_go(self) -> None:
        lease = Lease(0)
        lease.renew(0, Terms(0, 0, MILLION, 2 * MILLION, 1, 0, 0))
        assert [lease.take_saved(0) for _ in range(3)] == [True, True, False]
        assert lease.foresee_us(0) == SECOND_US
        assert [lease.take_saved(SECOND_US) for _ in range(2)] == [True, False]
        assert lease.take_counts() == (0, 3, 0)

    def test_each_is_told_of_once(self) -> None:
        lease = after_a_call(Terms(MILLION, 100, 0, 2 * MILLION, 1, 0, 0))
        medium = lease.levels[MEDIUM]
        assert all(medium.take_share() for _ in range(3))
        assert medium.take_saved(0)
        assert lease.is_due(SECOND_US)
        assert medium.take_share()
        medium.renew(0, NOTHING)
        assert all(medium.refuse_share(medium.renewal) for _ in range(2))
        assert told(lease, SECOND_US)[1:] == (Demand(decided=6, gone=1), 5)
        lease.renew(SECOND_US, answer())
        assert told(lease, 2 * SECOND_US)[1:] == (Demand(), 0)

    def test_it_counts_towards_what_passes_when_the_store_is_lost(self) -> None:
        lease, now_us = after_a_call(), 0
        medium = Terms(MILLION, 200, 0, 0, 0, 0, 0)
        for _ in range(20):
            lease.report(now_us := now_us + SECOND_US)
            lease.renew(now_us, answer(medium=medium))
            assert sum(lease.levels[MEDIUM].take_share() for _ in range(150)) == 100
        while not lease.is_safe:
            lease.report(now_us := now_us + SECOND_US)
            lease.fail(now_us)
        assert lease.levels[MEDIUM].rate_ujobs_per_s == pytest.approx(0.9 * 100 * MILLION, rel=0.05)

    def test_it_keeps_apart_from_what_is_done_under_the_lock(self) -> None:
        lock = Lock()
        lease = Lease(0, lock)
        lease.renew(0, ALL_FITS)
        assert lock.taken == 0  # whoever renews has it already
        lease.take_share()
        lease.take_saved(0)
        lease.renew(0, NOTHING)
        assert lease.refuse_share(2)
        lease.take_counts()
        assert lock.taken == 4


def test_no_count_is_lost_whatever_happens() -> None:
    for seed in range(50):
        draw = random.Random(seed)
        lease, now_us, decided, enqueued, sent = after_a_call(ALL_FITS), 0, 0, 0, Report(producer_id="a1", since_ms=0)
        told_decided = told_enqueued = 0
        for _ in range(200):
            now_us += draw.randrange(400_000)
            step = draw.randrange(4)
            if step == 0:
                decided += 1
                enqueued += lease.decide(LOW, now_us)
            elif step == 3:
                low = lease.levels[LOW]
                went = low.take_share()
                decided, enqueued = decided + (went or low.refuse_share(low.renewal)), enqueued + went
                if went and draw.random() < 0.2:
                    lease.take_back()
                    enqueued -= 1
            elif step == 1 and not lease.in_flight:
                sent = lease.report(now_us)
            elif lease.in_flight and draw.random() < 0.5:
                lease.fail(now_us)
            elif lease.in_flight:
                told_decided += sent.demands[LOW].decided
                told_enqueued += sent.enqueued
                lease.renew(now_us, answer(low=draw.choice([ALL_FITS, NOTHING])))
        if lease.in_flight:
            lease.fail(now_us)
        rest = lease.report(now_us)
        assert told_decided + rest.demands[LOW].decided == decided
        assert told_enqueued + rest.enqueued == enqueued
