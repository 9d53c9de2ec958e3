"""A queue whose age is held, on both engines: when they ask its budget, and what they hand out by a lease meanwhile."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Barrier
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure._age.protocol import MILLION, Terms
from backpressure._engine.laws.age import AgeLaw, Judged
from backpressure._engine.sync import ForkLock
from backpressure._engine.totals import REASONS
from backpressure._model.budget import BudgetSettings
from backpressure._model.vocabulary import REFUSALS, Priority, Reason, Zone
from engine.parity.budget import FakeBudget, HeldError
from engine.parity.host import FakeHost
from engine.parity.test_engines_agree import LAW, SECOND, SETTINGS

if TYPE_CHECKING:
    from backpressure._engine.border import Engine, EngineModule
    from backpressure._engine.settings import EngineSettings
    from backpressure._model.decision import ThrottleDecision

AGE = AgeLaw(BudgetSettings.of(5.0), sheds_medium=False, safe_rate=0.0)
HOLDS = attrs.evolve(SETTINGS, law=AGE, laws={"table": LAW}, holds_ages=True)
LOW, MEDIUM, HIGH = Priority
ALL_FITS = Terms(MILLION, 100, 0, 0, 0, 0, 0)
NOTHING = Terms(0, 0, 0, 0, 0, 0, 0)
SAVED = Terms(0, 0, 0, 10 * MILLION, 1, 0, 0)  # ten places in the line, and no more


class World:
    """An engine, its host with a budget, and its clock."""

    def __init__(self, module: EngineModule, chosen: EngineSettings = HOLDS) -> None:
        self.now_ns = 7_000 * SECOND
        self.module = module
        self.lock = ForkLock()
        self.host = FakeHost(lambda: self.now_ns, lambda phase: module.Lease(phase, self.lock))
        self.engine: Engine = module.Engine(chosen, self.host)
        self.host.engine = self.engine
        self.engine.set_running(True)
        assert self.host.budget is not None
        self.budget: FakeBudget = self.host.budget

    def renew(self, terms: Terms, priority: Priority = LOW, fresh_ns: int = SECOND) -> None:
        self.budget.renew("q", priority, terms, fresh_ns)

    def suggest(self, priority: Priority = LOW, name: str = "q") -> ThrottleDecision:
        return self.engine.suggest_throttle(priority, name)

    def asked(self) -> int:
        """Return how often the budget was asked since this was last called."""
        told, self.host.told[:] = [what[0] for what in self.host.told], []
        assert not {"read", "hurry", "check_poller"} & set(told)
        return told.count("judge")

    def counts(self, priority: Priority = LOW) -> dict[Reason, int]:
        totals = self.engine.totals()["q", priority.value]
        assert totals.computed == 0
        return {reason: count for reason, count in zip(REASONS, totals.reasons, strict=True) if count}


@pytest.fixture
def world(engine_module: EngineModule) -> World:
    return World(engine_module)


Way = Callable[[World, Priority], object]


def _by_gate(act: str) -> Way:
    def go(world: World, priority: Priority) -> object:
        gate = world.module.Gate(world.engine, world.host, priority, "q", None, False)
        return gate.suggest() if act == "suggest" else gate.run(lambda: "done")

    return go


WAYS: dict[str, Way] = {
    "suggest": lambda world, priority: world.engine.suggest_throttle(priority, "q"),
    "suggest by text": lambda world, priority: world.engine.suggest_throttle(str(priority), "q"),
    "plan": lambda world, priority: world.engine.plan(priority, "q"),
    "run": lambda world, priority: world.engine.run(priority, "q", lambda: "done"),
    "gate's suggest": _by_gate("suggest"),
    "gate's run": _by_gate("run"),
}


@pytest.mark.parametrize(("priority", "terms"), [(LOW, ALL_FITS), (MEDIUM, SAVED), (HIGH, SAVED)])
@pytest.mark.parametrize("way", WAYS)
def test_after_one_go_the_lease_lets_others_go(world: World, way: str, priority: Priority, terms: Terms) -> None:
    world.renew(terms, priority)
    first = world.suggest(priority)
    assert world.asked() == 1
    for _ in range(5):
        went: Any = WAYS[way](world, priority)
        assert went == "done" or went is first
    assert world.asked() == 0
    reason = Reason.AGE_OPEN if priority is LOW else Reason.AGE_SHARE
    assert world.counts(priority) == {reason: 6}
    assert world.budget.lease("q", priority).take_counts() == ((5, 0, 0) if priority is LOW else (0, 5, 0))


@pytest.mark.parametrize("way", WAYS)
def test_a_job_that_the_lease_refuses_is_asked_for_once(world: World, way: str) -> None:
    world.renew(attrs.evolve(ALL_FITS, cap_jobs=4))
    world.suggest()
    WAYS[way](world, LOW)  # half of the cap is used
    assert world.asked() == 1
    for _ in range(2):
        WAYS[way](world, LOW)
        assert world.asked() == 1
    assert world.budget.lease("q", LOW).take_counts() == (1, 0, 0)
    assert world.counts() == {Reason.AGE_OPEN: 4}


def test_a_part_goes_evenly_whoever_lets_it_go(world: World) -> None:
    world.renew(attrs.evolve(ALL_FITS, share_ppm=750_000))
    went = [world.suggest().reason is Reason.AGE_SHARE for _ in range(40)]
    assert sum(went) == 30
    assert max(len(run) for run in "".join(".x"[goes] for goes in went).split(".")) == 3
    assert world.budget.lease("q", LOW).take_counts() == (29, 0, 10)
    assert world.asked() == 1
    assert world.counts() == {Reason.AGE_SHARE: 30, Reason.AGE_SHED: 10}


IMPATIENT: dict[str, Way] = {
    **{name: WAYS[name] for name in ("suggest", "suggest by text", "gate's suggest")},
    "plan": lambda world, priority: world.engine.plan(priority, "q", True),
}
PATIENT = {name: way for name, way in WAYS.items() if name not in IMPATIENT or name == "plan"}


@pytest.mark.parametrize("way", IMPATIENT)
def test_after_one_refusal_the_lease_refuses_others(world: World, way: str) -> None:
    world.budget.zone = Zone.RED
    world.engine.put_sample("q", 1_000, world.now_ns)
    world.renew(NOTHING)
    first = world.suggest()
    assert (first.should_shed, first.reason, first.retry_after) == (True, Reason.AGE_SHED, 2.0)
    assert (first.zone, first.backlog_size, first._ticket) == (Zone.RED, 1_000, None)
    assert all(IMPATIENT[way](world, LOW) is first for _ in range(1_000))
    assert world.asked() == 1
    assert world.counts() == {Reason.AGE_SHED: 1_001}
    assert world.budget.lease("q", LOW).take_counts() == (0, 0, 1_000)


@pytest.mark.parametrize("way", PATIENT)
def test_who_may_wait_is_not_refused_without_being_asked_about(world: World, way: str) -> None:
    world.renew(NOTHING)
    world.suggest()
    for _ in range(2):
        with nullcontext() if way == "plan" else pytest.raises(RuntimeError, match=Reason.AGE_SHED):
            PATIENT[way](world, LOW)
    assert world.asked() == 3
    assert world.budget.lease("q", LOW).take_counts() == (0, 0, 0)
    assert world.counts() == {Reason.AGE_SHED: 3}


@pytest.mark.parametrize("phase", [0, 1])
def test_beside_what_was_asked_for_lies_the_other_ready(world: World, phase: int) -> None:
    world.renew(attrs.evolve(ALL_FITS, share_ppm=500_000))
    world.budget.zone = Zone.YELLOW
    world.engine.put_sample("q", 9, world.now_ns)
    for _ in range(phase):
        world.budget.lease("q", LOW).offer()
    told = [world.suggest() for _ in range(4)]
    assert world.asked() == 1
    assert [it.should_shed for it in told] == [it == phase for it in (0, 1)] * 2
    for it in told:
        assert (it.zone, it.backlog_size, it._issued_ns, it._computed) == (Zone.YELLOW, 9, world.now_ns, False)
        assert it.reason is (Reason.AGE_SHED if it.should_shed else Reason.AGE_SHARE)
        assert it.retry_after == (2.0 if it.should_shed else None)
        assert (it._ticket is None) == it.should_shed
        if not it.should_shed:
            assert (it._ticket.generation, it._ticket.probe, it._ticket.issued_ns) == (0, False, world.now_ns)
    assert world.engine.run(LOW, "q", lambda: "went") == "went" if phase else world.suggest().should_shed
    assert world.asked() == 0


def test_a_refusal_is_of_its_terms(world: World) -> None:
    world.renew(NOTHING)
    world.suggest()
    world.renew(attrs.evolve(NOTHING, remainder_ppm=7))
    again = [world.suggest() for _ in range(3)]
    assert world.asked() == 2
    assert {it.retry_after for it in again} == {2.000000007}


def test_a_used_up_cap_refuses_but_where_all_fits(world: World) -> None:
    world.renew(attrs.evolve(ALL_FITS, share_ppm=999_999, cap_jobs=2))
    assert sum(not world.suggest().should_shed for _ in range(9)) == 2
    assert world.asked() == 1
    world.renew(attrs.evolve(ALL_FITS, cap_jobs=4))
    for _ in range(9):
        world.suggest()
    assert world.asked() == 8  # half of the cap went by the lease


def test_what_it_refuses_with_keeps_nobody_alive(engine_module: EngineModule) -> None:
    world = World(engine_module)
    world.renew(NOTHING)
    assert world.suggest() is world.suggest()  # it leads back to the world by what reads the clock
    gone = weakref.ref(world)
    del world
    gc.collect()
    assert gone() is None


def test_a_refusal_that_nothing_was_lent_beside_is_its_callers_own(world: World) -> None:
    world.budget.is_safe = True
    world.renew(NOTHING)
    refused = [world.suggest() for _ in range(3)]
    assert (world.asked(), len({id(it) for it in refused})) == (3, 3)


def test_a_delay_is_each_callers_own_turn(world: World) -> None:
    world.renew(attrs.evolve(NOTHING, rate_ujobs_per_s=10 * MILLION), MEDIUM)
    delays = [world.suggest(MEDIUM).delay for _ in range(3)]
    assert delays == [0.1, 0.2, 0.3]
    assert world.asked() == 3
    totals = world.engine.totals()["q", MEDIUM.value]
    assert (world.counts(MEDIUM), totals.delay_sum_ns) == ({Reason.AGE_WAIT: 3}, 600_000_000)


def test_a_planned_delay_counts_when_its_work_begins(world: World) -> None:
    world.renew(attrs.evolve(NOTHING, rate_ujobs_per_s=MILLION), MEDIUM)
    planned = world.engine.plan(MEDIUM, "q")
    assert (planned.reason, planned.delay, planned._ticket) == (Reason.AGE_WAIT, 1.0, None)
    assert ("q", MEDIUM.value) not in world.engine.totals()
    world.asked()
    admitted = world.engine.admit(planned)
    assert admitted._ticket is not None
    assert (world.asked(), world.counts(MEDIUM)) == (0, {Reason.AGE_WAIT: 1})


@pytest.mark.parametrize(("after_ns", "asked"), [(SECOND, 0), (SECOND + 1, 1)])
@pytest.mark.parametrize("way", WAYS)
def test_it_hands_out_until_the_terms_have_aged(world: World, way: str, after_ns: int, asked: int) -> None:
    world.renew(ALL_FITS)
    world.suggest()
    world.asked()
    world.now_ns += after_ns
    WAYS[way](world, LOW)
    assert world.asked() == asked


def test_its_use_is_noted_as_often_as_a_sample_is_believed(world: World) -> None:
    world.renew(ALL_FITS, fresh_ns=60 * SECOND)
    for asked in (1, 0, 1):
        world.suggest()
        assert world.asked() == asked
        world.now_ns += SETTINGS.cache_ttl_ns + (asked == 0)


def _fail_once(world: World) -> None:
    world.engine.record_queue("q", False)


def _override_for_a_moment(world: World) -> None:
    world.engine.set_override(True)
    world.engine.set_override(False)


CHANGES: dict[str, Callable[[World], object]] = {
    "sample": lambda world: world.engine.put_sample("q", 7, world.now_ns),
    "samples forgotten": lambda world: world.engine.forget_samples(),
    "configuration": lambda world: world.engine.configure(HOLDS),
    "override on and off": _override_for_a_moment,
    "breaker's word": _fail_once,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", IMPATIENT)
def test_what_a_refusal_was_made_of_ends_it(world: World, way: str, change: str) -> None:
    world.renew(NOTHING)
    world.suggest()
    world.asked()
    CHANGES[change](world)
    for _ in range(3):
        IMPATIENT[way](world, LOW)
    assert world.asked() == 1


@pytest.mark.parametrize(("after_ns", "asked"), [(SECOND, 0), (SECOND + 1, 1)])
@pytest.mark.parametrize("way", IMPATIENT)
def test_it_refuses_until_the_terms_have_aged(world: World, way: str, after_ns: int, asked: int) -> None:
    world.renew(NOTHING)
    world.suggest()
    world.asked()
    world.now_ns += after_ns
    IMPATIENT[way](world, LOW)
    assert world.asked() == asked


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_what_it_was_made_of_ends_it(world: World, way: str, change: str) -> None:
    world.renew(ALL_FITS)
    world.suggest()
    world.asked()
    CHANGES[change](world)
    WAYS[way](world, LOW)
    assert world.asked() == 1
    world.suggest()
    # A job that succeeds has the circuit forget its failure.
    assert world.asked() == (change == "breaker's word" and "run" in way)


def test_terms_that_have_aged_already_are_not_kept(world: World) -> None:
    world.renew(ALL_FITS, fresh_ns=-1)
    for _ in range(3):
        assert world.suggest().reason is Reason.AGE_OPEN
    assert world.asked() == 3


def test_without_a_lease_each_job_is_asked_for(world: World) -> None:
    world.renew(ALL_FITS)
    world.budget.is_safe = True
    decisions = [world.suggest() for _ in range(3)]
    assert {decision.reason for decision in decisions} == {Reason.AGE_SAFE}
    assert (world.asked(), len({id(decision) for decision in decisions})) == (3, 3)


def test_new_terms_hold_at_once(world: World) -> None:
    world.renew(ALL_FITS)
    world.suggest()
    world.renew(NOTHING)
    assert world.suggest().reason is Reason.AGE_SHED
    world.renew(ALL_FITS)
    world.asked()
    for _ in range(3):
        assert world.suggest().reason is Reason.AGE_OPEN
    assert world.asked() == 1
    world.renew(attrs.evolve(ALL_FITS, share_ppm=999_999))
    assert {world.suggest().reason for _ in range(3)} == {Reason.AGE_SHARE}
    assert world.asked() == 1


def test_another_lease_takes_the_place_of_the_last(world: World) -> None:
    world.renew(ALL_FITS)
    world.suggest()
    old = world.budget.leases.pop(("q", LOW))
    world.renew(attrs.evolve(ALL_FITS, cap_jobs=9))
    world.engine.configure(HOLDS)
    for _ in range(3):
        world.suggest()
    assert old.take_counts() == (0, 0, 0)
    assert world.budget.lease("q", LOW).take_counts() == (2, 0, 0)


def test_each_priority_has_its_own(world: World) -> None:
    for priority in Priority:
        world.renew(attrs.evolve(SAVED, share_ppm=MILLION, cap_jobs=100), priority)
        for _ in range(3):
            world.suggest(priority)
    assert world.asked() == 3
    assert [world.counts(priority) for priority in Priority] == [{Reason.AGE_OPEN: 3}] * 3


# Where the budget is not asked.


@pytest.mark.parametrize("chosen", [SETTINGS, HOLDS])
def test_never_of_a_queue_under_the_table(engine_module: EngineModule, chosen: EngineSettings) -> None:
    world = World(engine_module, chosen)
    name = "table" if chosen is HOLDS else "q"
    world.engine.put_sample(name, 0, world.now_ns)
    for priority in Priority:
        for _ in range(2):
            assert world.suggest(priority, name).reason is Reason.BACKLOG_GREEN
        world.engine.peek(priority, name)
    assert world.asked() == 0
    assert world.budget.leases == {}


def test_switches_come_first(world: World) -> None:
    world.renew(ALL_FITS)
    world.engine.set_emergency(True)
    assert world.suggest().reason is Reason.EMERGENCY_MODE
    world.engine.set_override(True)
    assert world.suggest().reason is Reason.MANUAL_OVERRIDE
    assert world.asked() == 0


def test_so_does_the_breaker(world: World) -> None:
    world.renew(ALL_FITS)
    world.suggest()
    world.asked()
    for _ in range(2):
        _fail_once(world)
    assert world.suggest().reason is Reason.CIRCUIT_OPEN
    assert world.asked() == 0
    world.now_ns += SECOND
    world.renew(ALL_FITS)
    probe = world.suggest()
    assert (probe.reason, probe._ticket.probe, world.asked()) == (Reason.AGE_OPEN, True, 1)
    assert world.suggest().reason is Reason.CIRCUIT_HALF_OPEN
    assert world.asked() == 0
    world.engine.record(probe, True)
    world.now_ns += SECOND // 2
    world.suggest()
    assert world.asked() == 1  # a go through a circuit that is not closed is no one else's


def test_a_circuit_that_is_forced_open_is_no_matter_of_age(world: World) -> None:
    world.renew(ALL_FITS)
    breaker = world.engine.breaker("q", True)
    assert breaker is not None
    breaker.force_open()
    assert world.suggest().reason is Reason.CIRCUIT_OPEN
    assert world.asked() == 0


def test_a_queue_without_state_has_no_budget(engine_module: EngineModule) -> None:
    world = World(engine_module, attrs.evolve(HOLDS, max_queues=1))
    world.suggest(name="first")
    world.asked()
    assert world.suggest().reason is Reason.UNTRACKED
    assert world.asked() == 0


def test_it_is_not_read_by_callers(engine_module: EngineModule) -> None:
    world = World(engine_module, attrs.evolve(HOLDS, polling=False))
    world.renew(ALL_FITS)
    for _ in range(2):
        world.suggest()
        world.now_ns += 60 * SECOND
    assert world.asked() == 2


def test_it_is_never_busy(world: World) -> None:
    world.engine.put_sample("q", 2**40, world.now_ns)
    world.engine.put_sample("table", 2**40, world.now_ns)
    for name in ("q", "table"):
        for priority in Priority:
            world.suggest(priority, name)
    assert world.engine.busy_queues() == ["table"]
    assert world.engine.cache_size() == 3  # those of the table


# Looks.


def test_a_look_asks_what_would_be_said_and_changes_nothing(world: World) -> None:
    world.renew(attrs.evolve(ALL_FITS, share_ppm=500_000, cap_jobs=3))
    world.renew(attrs.evolve(NOTHING, rate_ujobs_per_s=MILLION), MEDIUM)
    world.renew(SAVED, HIGH)
    world.budget.zone = Zone.YELLOW
    world.engine.put_sample("q", 5, world.now_ns)
    for _ in range(3):
        seen = [world.engine.peek(priority, "q") for priority in Priority]
        assert [decision.reason for decision in seen] == [Reason.AGE_SHARE, Reason.AGE_WAIT, Reason.AGE_SHARE]
        assert [decision.delay for decision in seen] == [0.0, 1.0, 0.0]
        assert {(decision.zone, decision.backlog_size) for decision in seen} == {(Zone.YELLOW, 5)}
        outlook = world.engine.outlook("q")
        assert [(seen["reason"], seen["delay_ns"], seen["shed"]) for seen in outlook] == [
            (Reason.AGE_SHARE, 0, False),
            (Reason.AGE_WAIT, 1_000_000_000, False),
            (Reason.AGE_SHARE, 0, False),
        ]
    assert world.asked() == 0
    assert world.engine.totals() == {}
    for lease in world.budget.leases.values():
        assert (lease.used, lease.take_counts()) == (0, (0, 0, 0))
    assert world.suggest().reason is Reason.AGE_SHED  # nothing is kept of what was seen


def test_a_look_does_not_end_what_lies_ready(world: World) -> None:
    world.renew(ALL_FITS)
    first = world.suggest()
    world.engine.peek(LOW, "q")
    world.engine.outlook("q")
    assert world.suggest() is first
    assert world.asked() == 1


# Observe mode.


def test_observe_mode_lets_all_go_and_tells_what_would_have_been(engine_module: EngineModule) -> None:
    world = World(engine_module, attrs.evolve(HOLDS, observe=True))
    world.renew(attrs.evolve(ALL_FITS, share_ppm=500_000))
    decisions = [world.suggest() for _ in range(4)]
    assert {decision.reason for decision in decisions} == {Reason.OBSERVE_ONLY}
    assert not any(decision.should_shed or decision.delay for decision in decisions)
    advised = [decision.advised.reason for decision in decisions if decision.advised is not None]
    assert advised == [Reason.AGE_SHED, Reason.AGE_SHARE] * 2
    assert world.counts() == {Reason.AGE_SHED: 2, Reason.AGE_SHARE: 2}
    let_go = world.engine.totals()["q", LOW.value].let_go
    assert dict(zip(REFUSALS, let_go, strict=True))[Reason.AGE_SHED] == 2
    assert world.asked() == 1


# What the budget raises.


@pytest.mark.parametrize("way", WAYS)
def test_who_has_to_wait_outside_is_not_counted(world: World, way: str) -> None:
    world.renew(ALL_FITS)
    world.budget.holds = 1
    with pytest.raises(HeldError):
        WAYS[way](world, LOW)
    assert world.asked() == 1
    assert world.engine.totals() == {}
    assert world.budget.lease("q", LOW).used == 0
    WAYS[way](world, LOW)
    assert (world.asked(), world.counts()) == (1, {Reason.AGE_OPEN: 1})


def test_who_has_to_wait_outside_takes_no_probe(world: World) -> None:
    for _ in range(2):
        _fail_once(world)
    world.now_ns += SECOND
    world.host.told.clear()
    world.renew(ALL_FITS)
    world.budget.holds = 1
    with pytest.raises(HeldError):
        world.suggest()
    probe = world.suggest()
    assert probe._ticket.probe


def test_a_look_raises_what_the_budget_does(world: World) -> None:
    world.suggest()

    def foresee(*_: object) -> object:
        raise LookupError("gone")

    world.budget.foresee = foresee  # type: ignore[method-assign,assignment]
    with pytest.raises(LookupError):
        world.engine.peek(LOW, "q")
    with pytest.raises(LookupError):
        world.engine.outlook("q")


# Many at once.


@pytest.mark.parametrize(
    ("priority", "terms", "reason"),
    [
        (LOW, attrs.evolve(ALL_FITS, cap_jobs=900), Reason.AGE_OPEN),
        (LOW, attrs.evolve(ALL_FITS, share_ppm=450_000, cap_jobs=2_000), Reason.AGE_SHARE),
        (MEDIUM, attrs.evolve(SAVED, burst_ujobs=900 * MILLION), Reason.AGE_SHARE),
    ],
)
def test_threads_use_each_permit_once(world: World, priority: Priority, terms: Terms, reason: Reason) -> None:
    world.renew(terms, priority)
    alone, together = world.budget.judge, Barrier(4)

    def judge(queue_name: str, priority: Priority, tenant: object = None) -> Judged:
        with world.lock():  # as whoever decides by the lease
            return alone(queue_name, priority, tenant)

    world.budget.judge = judge  # type: ignore[method-assign]

    def ask(_: int) -> list[Reason]:
        together.wait()
        return [world.suggest(priority).reason for _ in range(500)]

    with ThreadPoolExecutor(4) as pool:
        reasons = Counter(reason for asked in pool.map(ask, range(4)) for reason in asked)
    assert reasons[reason] == 900
    assert world.counts(priority) == reasons
    assert sum(world.budget.lease("q", priority).take_counts()) + world.asked() == 2_000
