"""One queue's budget in a process: who goes at once, who is held, who waits in line, and what becomes of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure import AgeConfig, BackpressureConfig, Reason, Zone
from backpressure._age.protocol import HIGH, LEVELS, MILLION, Answer, BacklogSeen, Terms
from backpressure._controller.age.budget import Budget
from backpressure._controller.age.caller import Caller
from backpressure._engine.choice import load
from backpressure._engine.laws.age import AgeLaw, Judged
from backpressure._engine.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._controller.age.caller import Wakes

MEDIUM, LOW = LEVELS[1:]
SECOND_US = 1_000_000
TICK_US = SECOND_US
SHUT = Terms(0, 0, 0, 2 * MILLION, 0, 0, 0)
OPEN = Terms(MILLION, 1_000, 0, 1_000 * MILLION, 1, 0, 0)


def rate(jobs_per_s: float) -> Terms:
    return Terms(0, 0, int(jobs_per_s * MILLION), 2 * MILLION, 0, 0, 0)


class World:
    """A budget, its clock, and what it asked for."""

    def __init__(self, make_lease: Callable[..., Any], **age: Any) -> None:
        config = BackpressureConfig(age=AgeConfig(target=5.0, **age))
        self.now_us = 7_000 * SECOND_US
        self.calls = 0
        self.observes = False
        self.settings = EngineSettings.of(config)
        law = AgeLaw.of(config.age)
        self.budget = Budget(
            law,
            "a1",
            make_lease,
            lambda: self.now_us,
            self._call,
            lambda: self.settings,
            lambda: self.observes,
            lambda: 2 * SECOND_US,
            lambda low, high: (low + high) / 2,
        )

    def _call(self) -> None:
        self.calls += 1

    def answer(self, *terms: Terms, age_ms: int = 5_000, **changes: Any) -> None:
        """Call the store, and be answered with these terms of HIGH, MEDIUM and LOW."""
        self.report()
        self.renew(*terms, age_ms=age_ms, **changes)

    def report(self, seen: BacklogSeen | None = None) -> Any:
        return self.budget.report(seen)

    def renew(self, *terms: Terms, age_ms: int = 5_000, **changes: Any) -> None:
        high, medium, low = terms or (SHUT, SHUT, SHUT)
        answer = Answer(
            now_ms=1,
            ticks=9,
            drain_mjobs_per_s=200_000,
            budget_mjobs_per_s=200_000,
            age_ms=age_ms,
            backlog_jobs=1_000,
            processes=10,
            spare_mjobs_per_s=0,
            is_sampler=False,
            wait_ms=1_000,
            terms=(high, medium, low),
        )
        self.budget.renew(attrs.evolve(answer, **changes))

    def arrive(
        self, level: int, limit: float | None = None, *, patient: bool | None = None, jobs: int = 1, **how: bool
    ) -> Judged | Caller:
        waits = level != LOW if limit is None else limit >= 2
        return self.budget.arrive(
            level,
            None if limit is None else int(limit * SECOND_US),
            patient=waits if patient is None else patient,
            holds=how.get("holds", True),
            delays=how.get("delays", False),
            jobs=jobs,
        )

    def caller(self, level: int, limit: float | None = None, **how: Any) -> Caller:
        caller = self.arrive(level, limit, **how)
        assert isinstance(caller, Caller)
        return caller

    def told(self, level: int, limit: float | None = None, **how: Any) -> Judged:
        judged = self.arrive(level, limit, **how)
        assert isinstance(judged, Judged)
        return judged

    def look(self, caller: Caller) -> Judged | float:
        return self.budget.look(caller)

    def is_settled(self, caller: Caller) -> bool:
        return isinstance(self.look(caller), Judged)


@pytest.fixture(params=["native", "pure"])
def make(request: pytest.FixtureRequest) -> Callable[..., World]:
    lease = load(request.param).Lease
    return lambda **age: World(lease, **age)


class TestHeld:
    def test_who_comes_first_is_held_for_the_first_answer(self, make: Callable[..., World]) -> None:
        world = make()
        caller = world.caller(MEDIUM)
        assert (world.look(caller), world.calls) == (2.0, 1)
        world.report()
        world.renew(OPEN, attrs.evolve(OPEN, go_jobs=1), OPEN)
        judged = world.look(caller)
        assert isinstance(judged, Judged)
        assert (judged.reason, judged.delay_ns, judged.shed) == (Reason.AGE_OPEN, 0, False)

    def test_those_for_whom_an_answer_has_no_place_are_refused_or_wait(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer()
        world.now_us += 2 * SECOND_US
        impatient = [world.caller(MEDIUM, 0.5) for _ in range(3)]
        patient = [world.caller(MEDIUM) for _ in range(2)]
        world.report()
        world.renew(SHUT, attrs.evolve(rate(10), go_jobs=2), SHUT)
        outcomes = [world.look(caller) for caller in impatient]
        assert all(isinstance(outcome, Judged) for outcome in outcomes)
        assert [outcome.delay_ns > 0 for outcome in outcomes] == [False, False, True]  # type: ignore[union-attr]
        assert [world.is_settled(caller) for caller in patient] == [False, False]
        world.now_us += SECOND_US // 5
        assert [world.is_settled(caller) for caller in patient] == [True, True]

    def test_who_came_during_the_call_is_decided_by_the_answer(self, make: Callable[..., World]) -> None:
        world = make()
        world.report()
        caller, low = world.caller(MEDIUM), world.caller(LOW)
        world.renew(OPEN, OPEN, OPEN)
        assert world.is_settled(caller)
        assert world.is_settled(low)

    def test_an_answer_that_does_not_come_in_time_is_not_waited_for(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, SHUT, attrs.evolve(OPEN, cap_jobs=5))
        world.now_us += 2 * SECOND_US
        callers = [world.caller(LOW, 0.3) for _ in range(3)]
        world.report()
        world.now_us += SECOND_US // 2
        outcomes = [world.look(caller) for caller in callers]
        assert [isinstance(it, Judged) and not it.shed for it in outcomes] == [True, False, False]  # one, by old terms
        world.renew(SHUT, SHUT, attrs.evolve(OPEN, go_jobs=3))  # nobody is left for them
        assert world.report().enqueued == 0

    def test_high_that_will_not_wait_is_never_held(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer()
        world.now_us += 60 * SECOND_US
        assert world.told(HIGH, 0.5).delay_ns == 0

    def test_who_never_waits_goes_by_old_terms(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(OPEN, OPEN, attrs.evolve(OPEN, cap_jobs=5))
        world.now_us += 60 * SECOND_US
        told = [world.told(LOW, holds=False) for _ in range(3)]
        assert [it.shed for it in told] == [False, True, True]
        assert world.calls == 3  # it is to be called, until it is

    def test_who_gives_up_is_counted_off(self, make: Callable[..., World]) -> None:
        world = make()
        callers = [world.caller(MEDIUM), world.caller(LOW)]
        for caller in callers:
            world.budget.leave(caller)
        report = world.report()
        assert [(it.held, it.held_patient, it.waiting) for it in report.demands] == [(0, 0, 0)] * 3

    def test_who_gives_up_after_it_was_let_go_hands_that_back(self, make: Callable[..., World]) -> None:
        world = make()
        caller = world.caller(MEDIUM)
        world.report()
        world.renew(SHUT, attrs.evolve(SHUT, go_jobs=1), SHUT)
        world.budget.leave(caller)
        for _ in range(3):
            world.budget.lease.let_go_anyway(MEDIUM)
        assert world.report().enqueued == 2


class TestLine:
    def test_first_come_first_served_at_the_pace_of_the_budget(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(100), SHUT, wait_ms=100_000)
        callers = [world.caller(MEDIUM) for _ in range(5_000)]
        went: list[list[int]] = []
        for _ in range(10):
            world.now_us += SECOND_US
            went.append([place for place, caller in enumerate(callers) if world.is_settled(caller)])
            callers = callers[len(went[-1]) :]
        assert [len(places) for places in went] == pytest.approx([100] * 10, abs=2)
        assert all(places == list(range(len(places))) for places in went)

    def test_who_looks_late_is_not_overtaken(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(1), SHUT, wait_ms=100_000)
        callers = [world.caller(MEDIUM) for _ in range(4)]
        world.now_us += 3 * SECOND_US
        assert world.is_settled(callers[2])
        assert [caller.goes for caller in callers] == [True, True, True, None]

    def test_a_changed_drain_reaches_those_who_sleep(self, make: Callable[..., World]) -> None:
        class Flag:
            def __init__(self) -> None:
                self.is_set = False

            def set(self) -> None:
                self.is_set = True

        world = make()
        world.answer(SHUT, rate(1), SHUT)
        callers = [world.caller(MEDIUM) for _ in range(50)]
        flags = [Flag() for _ in callers]
        for caller, flag in zip(callers, flags, strict=True):
            wake: Wakes = flag
            caller.wake = wake
            world.look(caller)
        world.now_us += TICK_US
        world.answer(SHUT, rate(100), SHUT)
        assert all(flag.is_set for flag in flags[1:])
        world.now_us += SECOND_US // 2
        assert sum(world.is_settled(caller) for caller in callers) == 50

    def test_who_gives_up_hands_its_place_on(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(1), SHUT, wait_ms=100_000)
        first, second, third = (world.caller(MEDIUM) for _ in range(3))
        world.budget.leave(second)
        world.now_us += 2 * SECOND_US
        assert world.is_settled(first)
        assert world.is_settled(third)
        assert world.budget.waiting() == (0, 0, 0)

    def test_high_goes_after_half_of_the_target(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(wait_ms=100_000)
        caller = world.caller(HIGH)
        world.now_us += 2_499_000
        assert not world.is_settled(caller)
        world.now_us += 1_000
        assert world.is_settled(caller)

    def test_high_goes_when_it_waits_no_longer(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(wait_ms=100_000)
        caller = world.caller(HIGH, 2.0)
        world.now_us += 2 * SECOND_US
        judged = world.look(caller)
        assert isinstance(judged, Judged)
        assert judged.delay_ns == 0

    def test_whose_turn_comes_too_late_is_told_so_and_takes_no_place(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(1), SHUT, wait_ms=100_000)
        waiting = [world.caller(MEDIUM) for _ in range(9)]
        judged = world.told(MEDIUM, 5.0)
        assert judged.delay_ns > 5_000_000_000
        assert world.budget.waiting() == (0, len(waiting), 0)

    def test_whose_turn_gets_too_late_is_told_so_in_time(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(1), SHUT, wait_ms=100_000)
        caller = world.caller(MEDIUM, 3.0)
        world.now_us += SECOND_US // 10
        world.answer(SHUT, rate(0), SHUT, wait_ms=100_000)
        outcome = world.look(caller)
        assert isinstance(outcome, float)
        assert outcome == pytest.approx(2.9)
        world.now_us += 3 * SECOND_US
        judged = world.look(caller)
        assert isinstance(judged, Judged)
        assert judged.delay_ns > 3_000_000_000
        assert world.budget.waiting() == (0, 0, 0)

    def test_low_waits_only_where_it_says_for_how_long(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, SHUT, rate(1), wait_ms=100_000)
        assert world.told(LOW).shed
        assert isinstance(world.arrive(LOW, 10.0), Caller)

    def test_who_takes_care_of_delays_gets_its_place_as_one(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(1), SHUT, wait_ms=100_000)
        told = [world.told(MEDIUM, delays=True, holds=False) for _ in range(7)]
        assert [round(it.delay_ns / 1e9) for it in told] == pytest.approx([1, 2, 3, 4, 5, 5, 5], abs=1)
        assert {it.reason for it in told[1:]} == {Reason.AGE_WAIT}
        assert world.budget.waiting() == (0, 0, 0)

    def test_an_answer_lets_those_in_line_go(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(0.1), SHUT)
        callers = [world.caller(MEDIUM) for _ in range(3)]
        world.now_us += SECOND_US
        world.answer(SHUT, attrs.evolve(rate(0.1), go_jobs=2), SHUT)
        assert [world.is_settled(caller) for caller in callers] == [True, True, False]


class TestSeveralJobsAtOnce:
    def test_it_is_their_turn_when_it_is_the_last_ones(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(10), SHUT, wait_ms=100_000)
        first, second = world.caller(MEDIUM, jobs=5), world.caller(MEDIUM)
        world.now_us += SECOND_US * 3 // 10
        assert not world.is_settled(first)
        world.now_us += SECOND_US * 2 // 10
        assert world.is_settled(first)
        world.now_us += SECOND_US // 10
        assert world.is_settled(second)
        report = world.report()
        assert (report.enqueued, report.demands[MEDIUM].gone) == (6, 6)

    def test_all_their_places_are_handed_on(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(10), SHUT, wait_ms=100_000)
        first, second = world.caller(MEDIUM, jobs=50), world.caller(MEDIUM)
        world.budget.leave(first)
        world.now_us += SECOND_US // 10
        assert world.is_settled(second)

    def test_an_answer_may_let_go_of_some_of_them(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(1), SHUT)
        caller = world.caller(MEDIUM, jobs=5)
        world.now_us += SECOND_US // 10
        world.answer(SHUT, attrs.evolve(rate(1), go_jobs=3), SHUT, wait_ms=100_000)
        assert not world.is_settled(caller)
        assert world.report().demands[MEDIUM].waiting == 2
        world.renew(SHUT, rate(1), SHUT)
        world.now_us += 2 * SECOND_US
        assert world.is_settled(caller)
        assert world.report().enqueued == 2  # the answer counted three

    def test_who_gives_up_hands_back_what_it_got(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(1), SHUT)
        caller = world.caller(MEDIUM, jobs=5)
        world.now_us += SECOND_US // 10
        world.answer(SHUT, attrs.evolve(rate(1), go_jobs=3), SHUT)
        world.budget.leave(caller)
        world.budget.lease.let_go_anyway(MEDIUM, 5)
        report = world.report()
        assert (report.enqueued, report.demands[MEDIUM].waiting) == (2, 0)
        assert world.budget.waiting() == (0, 0, 0)

    def test_half_of_them_go_by_half_a_share(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, SHUT, Terms(500_000, 1_000, 0, 0, 0, 0, 0))
        told = [not world.told(LOW, jobs=10).shed for _ in range(20)]
        assert sum(told) == 10
        assert world.report().enqueued == 100

    def test_those_held_go_together_or_not_at_all(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer()
        world.now_us += 2 * SECOND_US
        callers = [world.caller(LOW, 0.5, jobs=4) for _ in range(3)]
        assert world.report().demands[LOW].held == 12
        world.renew(SHUT, SHUT, attrs.evolve(SHUT, go_jobs=10))
        assert [isinstance(it, Judged) and not it.shed for it in map(world.look, callers)] == [True, True, False]
        world.budget.lease.let_go_anyway(LOW, 5)
        assert world.report().enqueued == 3  # two of ten found nobody

    def test_whom_the_engine_let_go_counts_for_all(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(OPEN, OPEN, OPEN)
        for level in (MEDIUM, LOW):
            world.told(level)
            world.budget.go_along(level, 9)
        report = world.report()
        assert (report.enqueued, report.demands[MEDIUM].gone, report.demands[LOW].decided) == (20, 10, 10)


class TestRefusals:
    def test_low_is_shed_and_medium_told_when_to_come_again(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(age_ms=5_200)
        low, medium = world.told(LOW, 0.5), world.told(MEDIUM, 0.5)
        assert (low.shed, low.reason, low.delay_ns) == (True, Reason.AGE_SHED, 5_200_000_000)
        assert (medium.shed, medium.reason, medium.delay_ns) == (False, Reason.AGE_WAIT, 5_200_000_000)

    def test_the_delay_is_longer_than_its_caller_waits(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(age_ms=0)
        assert world.told(MEDIUM, 1.9).delay_ns > 1_900_000_000

    def test_medium_is_shed_if_so_wanted(self, make: Callable[..., World]) -> None:
        world = make(medium="shed")
        world.answer()
        assert world.told(MEDIUM, 0.5).shed

    @pytest.mark.parametrize(
        ("age_ms", "zone"), [(0, Zone.GREEN), (2_499, Zone.GREEN), (2_500, Zone.YELLOW), (5_001, Zone.RED)]
    )
    def test_the_zone_is_that_of_the_age(self, make: Callable[..., World], age_ms: int, zone: Zone) -> None:
        world = make()
        world.answer(OPEN, OPEN, OPEN, age_ms=age_ms)
        assert world.told(LOW).zone is zone
        assert world.budget.foresee(LOW).zone is zone


class TestLent:
    """What a caller is told has others of its priority decided by the lease."""

    def test_beside_a_refusal_is_what_a_go_is_told_and_the_other_way_round(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, SHUT, attrs.evolve(OPEN, share_ppm=500_000), age_ms=3_000)
        refused, went = sorted((world.told(LOW) for _ in range(2)), key=lambda it: it.delay_ns, reverse=True)
        shed, go = (Zone.YELLOW, 3_000_000_000, True, Reason.AGE_SHED), (Zone.YELLOW, 0, False, Reason.AGE_SHARE)
        for it, own, others in ((refused, shed, go), (went, go, shed)):
            assert it.other is not None
            assert (it[:4], it.other[:4], it.other.lease) == (own, others, None)
            share = world.budget.lease.levels[LOW]
            until_ns = world.budget.lease.fresh_until_us * 1_000 - 1
            assert (it.lease, it.patient, it.until_ns, it.renewal) == (share, False, until_ns, share.renewal)

    def test_where_all_fits_there_is_no_refusal(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(OPEN, OPEN, attrs.evolve(OPEN, cap_jobs=1))
        assert world.told(LOW).other is None
        refused = world.told(LOW, holds=False)
        assert (refused.shed, refused.lease) == (True, None)

    @pytest.mark.parametrize("level", [HIGH, MEDIUM])
    def test_who_goes_by_the_line_is_refused_by_nothing_that_lies_ready(
        self, make: Callable[..., World], level: int
    ) -> None:
        world = make(medium="shed")
        world.answer(SHUT, SHUT, SHUT)
        told = world.told(level, 0.5)
        assert (told.shed, told.other) == (level == MEDIUM, None)
        world.answer(OPEN, OPEN, OPEN)
        assert world.told(level).other is None

    def test_without_a_store_each_refusal_is_its_callers_own(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer()
        while not world.budget.lease.is_safe:
            world.now_us += TICK_US
            world.report()
            world.budget.fail(None)
        refused = world.told(LOW)
        assert (refused.shed, refused.lease) == (True, None)

    def test_nothing_is_lent_to_who_looks_or_is_observed(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, SHUT, attrs.evolve(OPEN, share_ppm=500_000))
        world.observes = True
        told = [world.budget.foresee(LOW), *(world.told(LOW) for _ in range(2))]
        world.answer()
        told.append(world.budget.foresee(LOW))
        assert {it.lease for it in told} == {None}


class TestWithoutAStore:
    def test_the_fallback_holds_before_the_first_answer(self, make: Callable[..., World]) -> None:
        world = make()
        for level, ms in ((HIGH, 100), (MEDIUM, 500), (LOW, 1_000)):
            judged = world.told(level, holds=False)
            assert (judged.delay_ns, judged.shed, judged.reason) == (
                ms * 1_000_000,
                False,
                Reason.FALLBACK_CONSERVATIVE,
            )
        assert world.report().enqueued == 3  # they go, after these delays

    def test_those_who_are_held_get_it_when_the_call_fails(self, make: Callable[..., World]) -> None:
        world = make()
        caller = world.caller(MEDIUM)
        world.report()
        world.budget.fail(None)
        judged = world.look(caller)
        assert isinstance(judged, Judged)
        assert judged.reason is Reason.FALLBACK_CONSERVATIVE
        assert world.told(MEDIUM).reason is Reason.FALLBACK_CONSERVATIVE  # nobody is held until the next try

    def test_and_so_when_no_answer_comes(self, make: Callable[..., World]) -> None:
        world = make()
        callers = [world.caller(MEDIUM), world.caller(LOW)]
        world.report()
        world.now_us += 2 * SECOND_US
        for caller in callers:
            judged = world.look(caller)
            assert isinstance(judged, Judged)
            assert judged.reason is Reason.FALLBACK_CONSERVATIVE
        assert world.budget.waiting() == (0, 0, 0)

    def test_or_the_rate_of_a_process_by_itself(self, make: Callable[..., World]) -> None:
        world = make(safe_rate=2)
        world.report()
        world.budget.fail(None)
        assert [world.told(LOW, 0.1).shed for _ in range(4)] == [False, False, True, True]
        world.now_us += SECOND_US // 2
        assert world.told(MEDIUM).reason is Reason.AGE_SAFE
        assert world.told(MEDIUM).delay_ns > 0
        assert world.told(HIGH).delay_ns == 0

    def lose(self, world: World, seen: Callable[[int], BacklogSeen | None] = lambda _: None) -> None:
        for tick in range(5):
            world.now_us += TICK_US
            world.report()
            world.budget.fail(seen(tick))

    def test_a_lost_store_is_waited_out_for_three_ticks(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(OPEN, OPEN, OPEN)
        assert world.budget.state == "coordinated"
        self.lose(world)
        assert world.budget.state == "safe"
        assert world.told(HIGH).reason is Reason.AGE_SAFE
        world.answer(OPEN, OPEN, OPEN)
        assert world.budget.state == "coordinated"

    def test_where_the_queue_can_be_read_its_age_is_followed(self, make: Callable[..., World]) -> None:
        slow, fast = make(), make()
        for world, jobs in ((slow, 4_000), (fast, 100)):
            world.answer(OPEN, OPEN, OPEN)
            self.lose(world, lambda tick, jobs=jobs: BacklogSeen(jobs + tick, None, 0))  # type: ignore[misc]
            self.lose(world, lambda tick, jobs=jobs: BacklogSeen(jobs + tick, None, 0))  # type: ignore[misc]
            assert world.budget.state == "local"
        rates = [world.budget.lease.levels[MEDIUM].rate_ujobs_per_s for world in (slow, fast)]
        assert 0 < rates[0] < rates[1]

    def test_those_in_line_go_on_at_the_rate_that_is_left(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(SHUT, rate(1), SHUT)
        callers = [world.caller(MEDIUM) for _ in range(3)]
        self.lose(world)
        assert [world.is_settled(caller) for caller in callers] == [True, True, True]


class TestCounts:
    def test_a_job_that_is_not_in_the_queue_yet_is_not_told(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(OPEN, OPEN, OPEN)
        for _ in range(3):
            world.told(LOW)
            world.budget.begin()
        assert world.report().enqueued == 0
        world.renew(OPEN, OPEN, OPEN)
        world.budget.end()
        world.budget.end()
        assert world.report().enqueued == 2

    def test_nor_is_one_whose_caller_does_not_know_yet(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer()
        world.now_us += 2 * SECOND_US
        caller = world.caller(MEDIUM)
        world.report()
        world.renew(SHUT, attrs.evolve(SHUT, go_jobs=1), SHUT)  # the script has counted it
        for _ in range(2):
            world.budget.lease.let_go_anyway(MEDIUM)
        assert world.report().enqueued == 1
        world.renew()
        world.look(caller)
        assert world.report().enqueued == 1

    def test_an_enqueue_that_failed_is_taken_back(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(OPEN, OPEN, OPEN)
        for _ in range(3):
            world.told(LOW)
        world.budget.take_back()
        assert world.report().enqueued == 2

    def test_observed_jobs_count_whether_they_would_go_or_not(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer()
        world.observes = True
        told = [world.told(MEDIUM) for _ in range(4)]
        assert {it.lease for it in told} == {None}
        report = world.report()
        assert (report.enqueued, report.demands[MEDIUM].decided) == (4, 4)

    def test_what_the_engine_lets_go_by_itself_counts(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(OPEN, OPEN, OPEN)
        low, medium = world.told(LOW), world.told(MEDIUM)
        assert low.lease is not None
        assert medium.lease is not None
        assert all(low.lease.take_share() for _ in range(3))
        assert all(medium.lease.take_saved(world.now_us) for _ in range(2))
        report = world.report()
        assert (report.demands[LOW].decided, report.demands[MEDIUM].gone, report.enqueued) == (4, 3, 7)

    def test_looking_takes_nothing(self, make: Callable[..., World]) -> None:
        world = make()
        world.answer(OPEN, OPEN, rate(0))
        seen = [(level, world.budget.foresee(level)) for level in LEVELS for _ in range(3)]
        assert {level: it.shed for level, it in seen} == {HIGH: False, MEDIUM: False, LOW: True}
        assert world.report().demands[LOW].decided == 0

    @pytest.mark.parametrize("seed", range(30))
    def test_nobody_is_lost_and_nothing_is_counted_twice(self, make: Callable[..., World], seed: int) -> None:
        draw, world = random.Random(seed), make()
        callers: list[Caller] = []
        went = told = dealt = sent = 0
        calling = False
        for _ in range(400):
            world.now_us += draw.choice([0, 1_000, 50_000, 300_000])
            act = draw.random()
            if act < 0.5:
                level, jobs = draw.choice(LEVELS), draw.choice([1, 1, 1, 3, 20])
                outcome = world.arrive(level, draw.choice([None, 0.3, 4.0]), jobs=jobs)
                if isinstance(outcome, Caller):
                    callers.append(outcome)
                elif not world.budget.lease.has_terms or (not outcome.shed and outcome.delay_ns == 0):
                    went += jobs
            elif act < 0.6 and callers:
                world.budget.leave(callers.pop(draw.randrange(len(callers))))
            elif act < 0.75:
                if not calling:
                    sent, calling = world.report().enqueued, True
                elif draw.random() < 0.2:
                    world.budget.fail(None)
                    calling = False
                else:
                    terms = [
                        attrs.evolve(draw.choice([SHUT, OPEN, rate(3)]), go_jobs=draw.randrange(4)) for _ in LEVELS
                    ]
                    dealt += sum(it.go_jobs for it in terms)
                    world.renew(*terms)
                    told, calling = told + sent, False
            for caller in [it for it in callers if world.is_settled(it)]:
                callers.remove(caller)
                went += caller.jobs if caller.goes else 0
        if calling:
            world.budget.fail(None)
        lines = [sum(caller.left for caller in line) for line in world.budget._lines]
        assert lines == world.budget.lease._waiting
        for caller in callers:
            world.budget.leave(caller)
        assert world.budget.waiting() == (0, 0, 0)
        assert world.budget.lease._waiting == [0, 0, 0]
        assert world.budget.lease.unfinished == 0
        # What the answers dealt was counted by them.
        assert told + world.budget.lease._enqueued + dealt == went
