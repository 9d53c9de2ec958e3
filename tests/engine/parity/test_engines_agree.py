"""One random life, led at once by every engine and by a model of the specification: nobody can tell them apart.

All have the same clock. After every step the answers are compared, with what the hosts were told, the breakers' words,
the counts and the samples; between the engines, with every argument of every decision built as well.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from backpressure._age.protocol import MILLION, Terms
from backpressure._engine.laws.age import AgeLaw
from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._engine.settings import CircuitSettings, EngineSettings, PatternSettings
from backpressure._engine.totals import Totals
from backpressure._model.budget import BudgetSettings
from backpressure._model.decision import ThrottleDecision
from backpressure._model.vocabulary import Priority, Reason, Zone
from engine.parity.host import FakeHost, plain
from engine.parity.model import Answer, DecisionModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._engine.border import Engine, EngineModule
    from engine.parity.budget import FakeBudget

MS = 1_000_000
SECOND = 1_000 * MS
ORIGIN = 7_000 * SECOND + 123_456
AGED = "r"  # the queue whose age is held

LAW = ThreeZoneLaw(
    windows=((10, 20, 120), (100, 200, 400), (1_000, 2_000, 4_000)),
    yellow_min_ns=10 * MS,
    yellow_max_ns=500 * MS,
    red_max_ns=5 * SECOND,
    scales=((3, 2), (1, 1), (1, 2)),
    shed_permille=800,
    scale_yellow=True,
    memory_permille=(850, 900),
)
AGE = AgeLaw(BudgetSettings.of(5.0), sheds_medium=False, safe_rate=0.0)
CIRCUIT = CircuitSettings(
    failure_threshold=2,
    recovery_threshold=2,
    trip_window_ms=3_000,
    recovery_timeout_ms=700,
    probe_interval_ms=300,
    high_attempts=False,
)
SETTINGS = EngineSettings(
    law=LAW,
    circuit=CIRCUIT,
    laws={"own": attrs.evolve(LAW, windows=((1, 2, 3),) * 3, scale_yellow=False), AGED: AGE},
    circuits={"own": attrs.evolve(CIRCUIT, failure_threshold=1, recovery_threshold=1, high_attempts=True)},
    observed={},
    patterns=(),
    one_mode=True,
    cache_ttl_ns=2 * SECOND,
    check_after_ns=SECOND,
    check_every_ns=400 * MS,
    degrade_ns=3 * SECOND,
    fallback_ns=(SECOND, 500 * MS, 100 * MS),
    fallback_reason=Reason.FALLBACK_CONSERVATIVE,
    polling=True,
    observe=False,
    max_queues=3,
    holds_ages=True,
)
# Bounds of the zones and both sides of them; yellow, the narrowest, has more than its share.
BACKLOGS = [
    0,
    1,
    2,
    10,
    11,
    13,
    15,
    18,
    20,
    21,
    100,
    101,
    102,
    120,
    150,
    180,
    200,
    400,
    1_000,
    1_001,
    1_200,
    1_500,
    1_800,
]
BACKLOGS += [2_000, 2_001, 4_000, 2**53 - 1]
# From one case of a call into another: durations of the breaker, ages of samples, idleness.
SPANS = [edge * MS for edge in (0, 50, 300, 400, 700, 1_000, 2_000, 3_000, 5_000, 20_000)]
NAMES = ["q", "own", "über", AGED, "s"]


class Text(str):
    """A str that is none exactly."""

    __slots__ = ()


names = st.sampled_from(NAMES)
priorities: st.SearchStrategy[Any] = st.sampled_from([*Priority, "low", "medium", "high"])
odd_priorities: st.SearchStrategy[Any] = st.sampled_from([0, 1, True, None, 2.0, "HIGH", "", [], Text("low")])
odd_names: st.SearchStrategy[Any] = st.sampled_from(
    ["", "x" * 256, "a\nb", "\ud800", "__other__", 5, None, b"q", [], Text("q")]
)
offsets = st.sampled_from([-MS, -1, 0, 1, MS])
spans = st.builds(lambda span, off: max(0, span + off), st.sampled_from(SPANS), offsets)
backlogs = st.sampled_from(BACKLOGS)
picks = st.integers(0, 9)
fallbacks = st.sampled_from(
    [
        (Reason.FALLBACK_CONSERVATIVE, SETTINGS.fallback_ns),
        (Reason.FALLBACK_PERMISSIVE, (0, 0, 0)),
        (Reason.FALLBACK_CIRCUIT_ONLY, (0, 0, 0)),
    ]
)
PATTERNS = (
    PatternSettings("ü*r", attrs.evolve(LAW, windows=((5, 6, 7),) * 3), attrs.evolve(CIRCUIT, trip_window_ms=9), None),
    PatternSettings("*", None, None, True),
)
sections = st.sampled_from(
    [
        {},
        {},
        {"observed": {"own": False, "s": True}, "one_mode": False},
        {"patterns": PATTERNS, "one_mode": False},
    ]
)
terms = st.builds(
    Terms,
    share_ppm=st.sampled_from([0, 300_000, 999_999, MILLION, MILLION, MILLION]),
    cap_jobs=st.sampled_from([0, 1, 2, 7, 100, 100]),
    rate_ujobs_per_s=st.sampled_from([0, 123_457, 3 * MILLION, 10**9]),
    burst_ujobs=st.sampled_from([0, MILLION, 5 * MILLION + 1, 100 * MILLION]),
    fill=st.sampled_from([0, 1, 1]),
    go_jobs=st.just(0),
    remainder_ppm=st.integers(0, MILLION - 1),
)
all_settings = st.builds(
    lambda fallback, own, **changes: attrs.evolve(
        SETTINGS, fallback_reason=fallback[0], fallback_ns=fallback[1], **own, **changes
    ),
    fallbacks,
    sections,
    law=st.sampled_from([LAW, LAW, LAW, AGE, attrs.evolve(LAW, shed_permille=0, scales=((5, 3), (2, 3), (1, 3)))]),
    polling=st.booleans(),
    observe=st.sampled_from([False, False, True]),
    degrade_ns=st.sampled_from([0, 1, 3 * SECOND]),
)
reads = st.tuples(st.just("sample"), backlogs) | st.sampled_from([("fail", 0), ("cold", 0)])


@attrs.frozen
class Subject:
    """An engine with its host."""

    module: EngineModule
    engine: Engine
    host: FakeHost


# What a call answered: every engine, then the model.
Answers = tuple[Any, ...]


class Life(RuleBasedStateMachine):
    """Leads all through the same life. Class attributes are set by the test that runs it."""

    modules: Mapping[str, EngineModule]
    reasons: Counter[Reason]
    happened: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = ORIGIN
        self.subjects: list[Subject] = []
        self.planned: list[Answers] = []
        self.decided: list[Answers] = []

    @initialize(chosen=all_settings)
    def make(self, chosen: EngineSettings) -> None:
        self.model = DecisionModel(chosen, self.time)
        for module in self.modules.values():
            host = FakeHost(self.time, module.Lease)
            host.engine = module.Engine(chosen, host)
            self.subjects.append(Subject(module, host.engine, host))
        self.all(lambda engine: engine.set_running(True))

    def time(self) -> int:
        return self.now_ns

    # Everything is done to all of them.

    def all(self, call: Callable[[Any], Any]) -> Answers:
        return self.each(lambda engine, _: call(engine), (None,) * (len(self.subjects) + 1))

    def each(self, call: Callable[[Any, Any], Any], given: Answers) -> Answers:
        """Call each with its own part of `given`; compare answers, errors and what the hosts were told."""
        engines = [subject.engine for subject in self.subjects]
        by_engines = [_attempt(call, engine, part) for engine, part in zip(engines, given[:-1], strict=True)]
        self.model.evicted_by_engines = self.subjects[0].host.gone
        self.model.told_to_engines = self.subjects[0].host.told
        self.model.foreseen_by_engines = _real_reason(by_engines[0])
        by_model = _attempt(call, self.model, given[-1])
        expected = self._seen(by_model)
        for answer in by_engines:
            assert self._seen(answer) == expected
            assert plain(answer) == plain(by_engines[0])
        for subject in self.subjects:
            assert subject.host.told == self.model.told
            assert subject.host.gone == self.model.gone
            assert subject.host.built == self.subjects[0].host.built
        self.happened.update(str(what[0]) for what in self.model.told)
        self.happened["evicted"] += len(self.model.gone)
        for subject in self.subjects:
            subject.host.forget()
        self.model.told.clear()
        self.model.gone.clear()
        return (*by_engines, by_model)

    def decide(self, call: Callable[[Any, Any], Any], given: Answers | None = None) -> Answers:
        answers = self.all(lambda engine: call(engine, None)) if given is None else self.each(call, given)
        answer = answers[-1]
        if isinstance(answer, Answer):
            self.reasons[answer.reason] += 1
            if answer.advised is not None:
                self.reasons[answer.advised.reason] += 1
            self.decided.append(answers)
        return answers

    def _seen(self, answer: Any) -> object:
        if isinstance(answer, Answer):
            return answer.seen(self.now_ns)
        if isinstance(answer, ThrottleDecision):
            ticket = answer._ticket
            return (
                answer.priority,
                answer.queue_name,
                answer.delay,
                answer.should_shed,
                answer.reason,
                answer.backlog_size,
                answer.zone,
                answer.retry_after,
                ticket and (ticket.generation, ticket.probe),
                answer.advised and self._seen(answer.advised),
            )
        if isinstance(answer, tuple):
            return tuple(map(self._seen, answer))
        if hasattr(answer, "generation"):
            return (answer.generation, answer.probe)
        return answer

    # Decisions.

    @rule(priority=priorities, name=names, times=st.integers(1, 3))
    def suggest(self, priority: Any, name: str, times: int) -> None:
        for _ in range(times):  # the second may be an answer that lay ready
            self.decide(lambda engine, _: engine.suggest_throttle(priority, name))

    @rule(priority=priorities, name=names)
    def peek(self, priority: Any, name: str) -> None:
        answers = self.all(lambda engine: engine.peek(priority, name))
        if isinstance(answers[-1], Answer):
            self.happened[f"foreseen {(answers[-1].advised or answers[-1]).reason}"] += 1

    @rule(priority=priorities | odd_priorities, name=names | odd_names)
    def ask_oddly(self, priority: Any, name: Any) -> None:
        self.all(lambda engine: engine.peek(priority, name))
        self.decide(lambda engine, _: engine.suggest_throttle(priority, name))
        self.decide(lambda engine, _: engine.plan(priority, name))

    @rule(priority=priorities, name=names, impatient=st.booleans())
    def plan(self, priority: Any, name: str, impatient: bool = False) -> None:
        answers = self.decide(lambda engine, _: engine.plan(priority, name, impatient))
        if isinstance(answers[-1], Answer) and not answers[-1].shed:
            self.planned.append(answers)

    @precondition(lambda self: self.planned)
    @rule(pick=picks, span_ns=spans)
    def admit(self, pick: int, span_ns: int) -> None:
        self.now_ns += span_ns
        planned = self.planned[-1 - pick % len(self.planned)]
        answers = self.decide(lambda engine, planned: engine.admit(planned), planned)
        self.happened["admitted"] += 1
        self.happened["go admitted again"] += planned[-1].delay_ns == 0
        self.happened["go admitted anew"] += planned[-1].delay_ns == 0 and answers[-1] is not planned[-1]

    @precondition(lambda self: any(planned[-1].delay_ns for planned in self.planned))
    @rule(pick=picks)
    def refuse_late(self, pick: int) -> None:
        waits = [planned for planned in self.planned if planned[-1].delay_ns]  # a go is counted by now
        self.each(lambda engine, planned: engine.refuse_late(planned), waits[-1 - pick % len(waits)])

    # Jobs, whose work may meddle with the queue.

    @rule(
        priority=priorities,
        name=names,
        outcomes=st.lists(st.sampled_from(["fine", "fine", "error", "failure noted", "reset"]), min_size=1, max_size=3),
        by_gate=st.booleans(),
        fresh=st.booleans(),
    )
    def work(self, priority: Any, name: str, outcomes: list[str], by_gate: bool, fresh: bool) -> None:
        if fresh:
            self.put_sample(name, 0, 0)
            self.suggest(priority, name, 1)  # a go that lies ready
        gates = tuple(s.module.Gate(s.engine, s.host, priority, name, None, False) for s in self.subjects)
        for outcome in outcomes:
            self._run(gates if by_gate else None, priority, name, outcome)
        self.happened["job"] += len(outcomes)
        self.happened["long way"] += sum(subject.host.long_ways for subject in self.subjects)
        for subject in self.subjects:
            subject.host.long_ways = 0

    def _run(self, gates: Answers | None, priority: Any, name: str, outcome: str) -> None:
        key = priority, name
        if gates is None:
            self.all(lambda engine: engine.run(priority, name, _job(engine, name, outcome), "ha", times=2))
        else:
            # One after the other: one call of an engine asks its budget once at most, so it is known of which it was.
            given = (*gates, None)
            self.each(lambda engine, gate: (gate.suggest if gate else partial(engine.suggest_throttle, *key))(), given)
            self.each(
                lambda engine, gate: (gate.run if gate else partial(engine.run, *key))(
                    _job(engine, name, outcome), "ha", times=2
                ),
                given,
            )

    # Outcomes.

    @precondition(lambda self: self.decided)
    @rule(pick=picks, ok=st.sampled_from([True, False, False, None]), span_ns=spans | st.none())
    def record(self, pick: int, ok: bool | None, span_ns: int | None) -> None:
        decided = self.decided[-1 - pick % len(self.decided)]
        counted = self.model.results
        began_ns = None if span_ns is None else self.now_ns - span_ns
        self.each(lambda engine, decision: engine.record(decision, ok, began_ns, f"after {span_ns}"), decided)
        self.happened["result counted" if self.model.results > counted else "result dropped"] += 1

    @rule(name=names, ok=st.booleans())
    def record_queue(self, name: str, ok: bool) -> None:
        self.all(lambda engine: engine.record_queue(name, ok))

    @rule(
        name=st.sampled_from(["q", "own"]),
        priority=priorities,
        off_ns=offsets,
        ok=st.sampled_from([True, False, None]),
        hastened=st.sampled_from([False, False, False, True]),
    )
    def break_and_probe(self, name: str, priority: Any, off_ns: int, ok: bool | None, hastened: bool) -> None:
        for _ in range(CIRCUIT.failure_threshold):
            self.all(lambda engine: engine.record_queue(name, False))
        self.suggest(priority, name, 1)  # a refusal that lies ready until the instant tried next
        breaker = self.model.breaker(name, False)
        if breaker is not None and breaker.state:
            self.now_ns = max(self.now_ns, (breaker.retry_at_ns() or 0) + off_ns)
        if hastened:
            self.all(lambda engine: engine.hasten(name))
        self.peek(priority, name)
        answers = self.decide(lambda engine, _: engine.suggest_throttle(priority, name))
        self.decide(lambda engine, _: engine.suggest_throttle("low", name))
        self.peek(priority, name)
        if isinstance(answers[-1], Answer):
            self.each(lambda engine, decision: engine.record(decision, ok), answers)
            self.suggest(priority, name, 1)  # a probe where the last one came to nothing

    @rule(name=names, act=st.sampled_from(["force_close", "reset", "try_acquire", "hasten"]), broken=st.booleans())
    def handle(self, name: str, act: str, broken: bool = False) -> None:
        for _ in range(CIRCUIT.failure_threshold if broken else 0):
            self.record_queue(name, False)

        def call(engine: Any) -> object:
            breaker = engine.breaker(name, True)
            return None if breaker is None else getattr(breaker, act)()

        self.all(call)

    @rule(priority=priorities, name=names, act=st.sampled_from(["force_close", "force_open"]), span_ns=spans)
    def plan_and_meddle(self, priority: Any, name: str, act: str, span_ns: int) -> None:
        self.put_sample(name, 0, 0)
        self.plan(priority, name)
        if self.planned:
            self.handle(name, act)
            self.admit(0, span_ns)
            self.handle(name, "force_close")

    @rule(
        name=names, for_ns=spans | st.none(), priority=priorities, off_ns=offsets, broken=st.sampled_from([False, True])
    )
    def force_open(self, name: str, for_ns: int | None, priority: Any, off_ns: int, broken: bool) -> None:
        for _ in range(CIRCUIT.failure_threshold if broken else 0):
            self.record_queue(name, False)
        until_ns = None if for_ns is None else self.now_ns + for_ns

        def call(engine: Any) -> None:
            breaker = engine.breaker(name, True)
            if breaker is not None:
                breaker.force_open(until_ns)

        self.all(call)
        self.suggest(priority, name, 2)
        self.peek(priority, name)
        if until_ns is not None:
            self.now_ns = max(self.now_ns, until_ns + off_ns)
            self.peek(priority, name)
            self.suggest(priority, name, 1)

    # Statistics and time.

    @rule(
        name=names,
        backlog=backlogs,
        age_ns=spans | st.just(-MS),
        oldest_age_ns=st.none() | spans,
        memory_permille=st.sampled_from([None, None, None, 0, 850, 900]),
    )
    def put_sample(
        self,
        name: str,
        backlog: int,
        age_ns: int,
        oldest_age_ns: int | None = None,
        memory_permille: int | None = None,
    ) -> None:
        as_of_ns = self.now_ns - age_ns
        self.all(lambda engine: engine.put_sample(name, backlog, as_of_ns, oldest_age_ns, memory_permille))

    @rule(
        name=names, backlog=backlogs, priority=priorities, memory_permille=st.sampled_from([849, 850, 899, 900, 5_000])
    )
    def lack_memory(self, name: str, backlog: int, priority: Any, memory_permille: int) -> None:
        self.put_sample(name, backlog, 0, None, memory_permille)
        self.peek(priority, name)
        self.suggest(priority, name, 2)

    @rule(name=names, backlog=backlogs, priority=priorities, pick=picks, off_ns=offsets)
    def see_a_sample_age(self, name: str, backlog: int, priority: Any, pick: int, off_ns: int) -> None:
        self.put_sample(name, backlog, 0)
        self.suggest(priority, name, 2)
        self.advance_to_an_edge(pick, off_ns)
        self.peek(priority, name)
        self.suggest(priority, name, 1)

    @rule(read=reads)
    def next_read(self, read: tuple[str, int]) -> None:
        self.model.next_read = read
        for subject in self.subjects:
            subject.host.next_read = read

    @rule(read_first=st.sampled_from([False, False, True]))
    def have_them_read_first(self, read_first: bool) -> None:
        self.model.read_first = read_first
        for subject in self.subjects:
            subject.host.read_first = read_first

    @rule(priority=priorities, name=names)
    def forget_samples(self, priority: Any, name: str) -> None:
        self.all(lambda engine: engine.forget_samples())
        self.suggest(priority, name, 1)

    @rule(span_ns=spans)
    def advance(self, span_ns: int) -> None:
        self.now_ns += span_ns

    @rule(pick=picks, off_ns=offsets)
    def advance_to_an_edge(self, pick: int, off_ns: int) -> None:
        edges = self.model.edges()
        if edges:
            self.now_ns = max(self.now_ns, edges[pick % len(edges)] + off_ns)
            self.happened[f"{off_ns} from an edge"] += 1

    @rule(name=names, newcomer=names, priority=priorities, backlog=backlogs)
    def come_when_others_are_idle(self, name: str, newcomer: str, priority: Any, backlog: int) -> None:
        self.now_ns += 25 * SECOND
        self.put_sample(name, backlog, 0)
        self.suggest(priority, name, 1)
        self.peek(priority, newcomer)
        self.suggest(priority, newcomer, 1)
        self.suggest(priority, name, 1)

    # Budgets.

    def budgets(self, act: Callable[[FakeBudget], object]) -> None:
        """Do the same to the budgets of all, and compare what comes of it."""
        assert self.model.budget is not None
        came = [act(subject.host.budget) for subject in self.subjects if subject.host.budget is not None]
        assert [act(self.model.budget)] * len(came) == came

    @rule(
        name=names | st.just(AGED),
        priority=st.sampled_from(Priority),
        granted=terms,
        fresh_ns=spans,
        off_ns=offsets,
        jobs=st.integers(0, 8),
    )
    def renew(self, name: str, priority: Priority, granted: Terms, fresh_ns: int, off_ns: int, jobs: int) -> None:
        self.budgets(lambda budget: budget.renew(name, priority, granted, fresh_ns))
        self.suggest(priority, name, jobs)
        self.peek(priority, name)
        self.now_ns += max(0, fresh_ns + off_ns)
        self.suggest(priority, name, 2)

    @rule(
        name=names | st.just(AGED),
        priority=st.sampled_from(Priority),
        act=st.sampled_from(["offer", "take_ticket", "prolong", "leave_places", "is_used_up"]),
    )
    def use_its_lease(self, name: str, priority: Priority, act: str) -> None:
        def use(budget: FakeBudget) -> object:
            lease = budget.lease(name, priority)
            if act == "take_ticket":
                return lease.due_in_us(lease.take_ticket(), budget.now_us())
            return lease.leave_places(2) if act == "leave_places" else getattr(lease, act)()

        self.budgets(use)
        self.suggest(priority, name, 1)

    @rule(name=names | st.just(AGED), share_ppm=st.sampled_from([0, 300_000, 999_999]), jobs=st.integers(1, 8))
    def press(self, name: str, share_ppm: int, jobs: int) -> None:
        """Have most LOW jobs refused, or few."""
        granted = Terms(share_ppm, 100, 0, 0, 0, 0, share_ppm)
        self.budgets(lambda budget: budget.renew(name, Priority.LOW, granted, SECOND))
        self.suggest(Priority.LOW, name, jobs)
        self.plan(Priority.LOW, name, impatient=True)

    @rule(zone=st.sampled_from([None, *Zone]), is_safe=st.sampled_from([False, False, True]))
    def tell_of_the_age(self, zone: Zone | None, is_safe: bool) -> None:
        def tell(budget: FakeBudget) -> None:
            budget.zone, budget.is_safe = zone, is_safe

        self.budgets(tell)

    @rule(priority=priorities, holds=st.integers(1, 2), by_gate=st.booleans())
    def have_callers_wait_outside(self, priority: Any, holds: int, by_gate: bool) -> None:
        def hold(budget: FakeBudget) -> None:
            budget.holds = holds

        self.budgets(hold)
        self.work(priority, AGED, ["fine"], by_gate, fresh=False)
        self.plan(priority, AGED)
        self.budgets(lambda budget: setattr(budget, "holds", 0))

    # Switches.

    @rule(enabled=st.booleans(), for_ns=spans | spans | st.none())
    def override(self, enabled: bool, for_ns: int | None) -> None:
        until_ns = None if for_ns is None else self.now_ns + for_ns
        self.all(lambda engine: engine.set_override(enabled, until_ns))
        for name in NAMES[:2]:
            self.peek("low", name)

    @rule(enabled=st.sampled_from([False, False, False, False, True]), for_ns=spans | spans | st.none())
    def emergency(self, enabled: bool, for_ns: int | None) -> None:
        until_ns = None if for_ns is None else self.now_ns + for_ns
        self.all(lambda engine: engine.set_emergency(enabled, until_ns))
        self.all(lambda engine: engine.set_override(False))

    @rule(chosen=all_settings)
    def configure(self, chosen: EngineSettings) -> None:
        self.all(lambda engine: engine.configure(chosen))

    @rule(priority=priorities, name=names)
    def stop_and_start(self, priority: Any, name: str) -> None:
        self.all(lambda engine: engine.set_running(False))
        self.peek(priority, name)
        self.decide(lambda engine, _: engine.suggest_throttle(priority, name))
        if self.planned:
            self.decide(lambda engine, planned: engine.admit(planned), self.planned[-1])
        self.all(lambda engine: engine.set_running(True))

    # Whatever was done.

    @invariant()
    def nobody_can_tell_them_apart(self) -> None:
        if not self.subjects:
            return
        self.happened["step"] += 1
        model = self.model
        expected = (sorted(model.queue_names()), model.totals(), model.override(), model.emergency(), model.origin_ns)
        for subject in self.subjects:
            engine = subject.engine
            totals = engine.totals()
            assert (
                sorted(engine.queue_names()),
                totals,
                engine.override(),
                engine.emergency(),
                engine.origin_ns,
            ) == expected
            assert engine.cache_size() == self.subjects[0].engine.cache_size()
            assert engine.busy_queues() == self.subjects[0].engine.busy_queues()
            # They note the use of an answer that lay ready when they made it.
            assert set(model.busy_queues(9)) <= set(engine.busy_queues()) <= set(model.busy_queues(10))
            assert {type(total) for total in totals.values()} <= {Totals}
            for name in NAMES:
                self._compare_queue(engine, name)
        self.budgets(_shown)
        self.happened["let go by a lease"] += model.let_go
        self.happened["refused by a lease"] += model.refused
        model.let_go = model.refused = 0

    def _compare_queue(self, engine: Engine, name: str) -> None:
        breaker, expected = engine.breaker(name, False), self.model.breaker(name, False)
        assert engine.sample(name) == self.model.sample(name)
        if breaker is None or expected is None:
            assert breaker is None
            assert expected is None
            return
        assert breaker.word == expected.word()
        assert (breaker.last_failure, breaker.last_failure_ns) == (expected.last_failure, expected.last_failure_ns)
        assert breaker.last_probe_ns == expected.last_probe_ns
        if expected.state:
            assert breaker.retry_at_ns(breaker.word) == expected.retry_at_ns()


def _attempt(call: Callable[[Any, Any], Any], engine: Any, part: Any) -> Any:
    try:
        return call(engine, part)
    except Exception as error:  # noqa: BLE001 - errors are answers here
        return type(error), str(error)


def _shown(budget: FakeBudget) -> object:
    """Return all that can be seen of the leases; their counts are taken by that."""
    now_us = budget.now_us()
    return {
        key: (
            *(lease.share_ppm, lease.cap_jobs, lease.used, lease.rate_ujobs_per_s, lease.remainder_ppm, lease.renewal),
            *(lease.foresee_us(now_us), lease.take_counts()),
        )
        for key, lease in budget.leases.items()
    }


def _real_reason(answer: Any) -> Reason | None:
    """Return why a decision is what it is, or was before it was observed."""
    return getattr(getattr(answer, "advised", None) or answer, "reason", None)


def _job(engine: Any, name: str, outcome: str) -> Callable[..., str]:
    def work(word: str, *, times: int) -> str:
        if outcome == "error":
            raise LookupError(word)
        if outcome == "failure noted":
            engine.record_queue(name, False)
        if outcome == "reset":
            breaker = engine.breaker(name, False)
            if breaker is not None:
                breaker.reset()
        return word * times

    return work


EVENTS = (
    *("0 to 1", "1 to 0", "1 to 2", "2 to 0", "2 to 1"),
    *("0 to 1 forced", "1 to 1 forced", "1 forced to 1 forced", "1 forced to 0"),
    *("go admitted again", "go admitted anew"),
    *(f"foreseen {reason}" for reason in Reason if reason is not Reason.OBSERVE_ONLY),
    *("admitted", "check_poller", "evicted", "hurry", "override ended", "read", "result counted", "result dropped"),
    *(f"{off_ns} from an edge" for off_ns in (-MS, -1, 0, 1, MS)),
    *(f"{priority}: green to {zone}" for priority in Priority for zone in (Zone.YELLOW, Zone.RED)),
)


@pytest.mark.timeout(600)  # it takes a minute, on a stalled machine several
def test_nobody_can_tell_them_apart(engine_modules: Mapping[str, EngineModule]) -> None:
    reasons: Counter[Reason] = Counter()
    happened: Counter[str] = Counter()
    # Steps are cheap, and rare things must happen often enough.
    examples = max(1_300, settings().max_examples)
    machine = type("Machine", (Life,), {"modules": engine_modules, "reasons": reasons, "happened": happened})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=60))
    print(f"{happened['step']} cases")
    # A life in which little happens proves little.
    assert happened["step"] >= 30_000, happened
    assert {reason for reason in Reason if reasons[reason] < 50} == set(), reasons
    assert {event for event in EVENTS if happened[event] < 50} == set(), happened
    assert happened["1 to 2"] >= 200, happened
    assert happened["let go by a lease"] >= 500, happened
    assert happened["refused by a lease"] >= 500, happened
    assert happened["long way"] >= 500, happened
    assert len(engine_modules) * happened["job"] - happened["long way"] >= 200 * len(engine_modules), happened
