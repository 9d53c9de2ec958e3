"""One random life, led by both engines at once: whatever is done to them, nobody can tell them apart.

Both have the same clock and hosts alike. After every step the answers are compared, with what the hosts were asked for
(every argument of every decision), the breakers' words, the counts and the samples.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
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

from backpressure.errors import ControllerNotStartedError
from backpressure.settings import CircuitSettings, EngineSettings, LawSettings
from backpressure.types import Priority, Reason, ThrottleDecision, Zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._engine import Engine, EngineModule

MS = 1_000_000
SECOND = 1_000 * MS
ORIGIN = 7_000 * SECOND + 123_456

LAW = LawSettings(
    windows=((10, 20, 120), (100, 200, 400), (1_000, 2_000, 4_000)),
    yellow_min_ns=10 * MS,
    yellow_max_ns=500 * MS,
    red_max_ns=5 * SECOND,
    scales=((3, 2), (1, 1), (1, 2)),
    shed_permille=800,
    scale_yellow=True,
)
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
    laws={"own": attrs.evolve(LAW, windows=((1, 2, 3),) * 3, scale_yellow=False)},
    circuits={
        "own": attrs.evolve(CIRCUIT, failure_threshold=1, recovery_threshold=1, high_attempts=True),
    },
    cache_ttl_ns=2 * SECOND,
    check_after_ns=SECOND,
    check_every_ns=400 * MS,
    degrade_ns=3 * SECOND,
    fallback_ns=(SECOND, 500 * MS, 100 * MS),
    fallback_reason=Reason.FALLBACK_CONSERVATIVE,
    polling=True,
    observe=False,
    max_queues=3,
)
# Whatever has an edge: durations of the breaker, ages of samples, ends of overrides.
EDGES = [
    *(ms * MS for ms in (300, 400, 700, 3_000)),
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SETTINGS.cache_ttl_ns,
]
# Bounds of the zones and both sides of them; yellow, the narrowest, has more than its share.
BACKLOGS = [
    0,
    1,
    10,
    11,
    15,
    20,
    21,
    100,
    101,
    120,
    150,
    180,
    200,
    400,
    1_000,
    1_001,
    1_500,
    2_000,
    2_001,
    4_000,
    2**53 - 1,
]
# Fresh, overdue, expired and all but forgotten.
AGES = [0, 0, 1_500 * MS, 2 * SECOND, 2 * SECOND + 1, 3 * SECOND, 5 * SECOND]
# From there to where the next call falls into another case.
LATER = [edge + near for edge in (400 * MS, SECOND, 2 * SECOND) for near in (0, 1)]
NAMES = ["q", "own", "über", "r", "s"]


class Text(str):
    """A str that is none exactly."""

    __slots__ = ()


names = st.sampled_from(NAMES)
priorities = st.sampled_from([*Priority, "low", "medium", "high"])
edges = st.builds(lambda edge, near: edge + near, st.sampled_from(EDGES), st.sampled_from([-1, 0, 1, MS]))
steps = edges | st.sampled_from([0, 1, MS - 1, MS, 50 * MS])
odd_priorities: st.SearchStrategy[Any] = st.sampled_from([0, 1, True, None, 2.0, "HIGH", "", [], Text("low")])
odd_names: st.SearchStrategy[Any] = st.sampled_from(
    ["", "x" * 256, "a\nb", "\ud800", "__other__", 5, None, b"q", [], Text("q")]
)
all_settings = st.builds(
    lambda fallback, **changes: attrs.evolve(SETTINGS, fallback_reason=fallback, **changes),
    st.sampled_from([Reason.FALLBACK_CONSERVATIVE, Reason.FALLBACK_PERMISSIVE, Reason.FALLBACK_CIRCUIT_ONLY]),
    polling=st.booleans(),
    observe=st.sampled_from([False, False, True]),
    degrade_ns=st.sampled_from([0, 1, 3 * SECOND]),
)
reads = st.tuples(st.just("sample"), st.sampled_from(BACKLOGS)) | st.sampled_from([("fail", 0), ("cold", 0)])


class Time:
    """Call it to read it."""

    def __init__(self) -> None:
        self.now_ns = ORIGIN

    def __call__(self) -> int:
        return self.now_ns


class FakeHost:
    """Builds decisions, answers reads as told, and writes down all that it is asked for."""

    def __init__(self, time: Time) -> None:
        self.now_ns: Callable[[], int] | None = time
        self.engine: Engine | None = None
        self.next_read: tuple[str, int] = ("fail", 0)
        self.heard: list[tuple[object, ...]] = []
        self.long_ways = 0
        self._time = time
        self._pacer: Any = SimpleNamespace(now_ns=time)
        self._ticks = itertools.count()

    def utc_now(self) -> datetime:
        # Another instant each time: so a time kept where the other engine asks anew is seen.
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(self._ticks))

    def decision(self, *args: Any) -> ThrottleDecision:
        self.heard.append(("decision", *map(plain, args)))
        priority, name, delay_ns, shed, reason, timestamp, backlog, zone, advised, ticket, *rest = args
        issued_ns, retry_at_ns, retry_delay_ns, computed = rest
        return ThrottleDecision(
            priority,
            name,
            math.inf if shed else delay_ns / 1e9,
            shed,
            reason,
            timestamp,
            backlog,
            zone,
            advised,
            self._pacer,
            ticket,
            issued_ns,
            retry_at_ns,
            None if retry_delay_ns is None else retry_delay_ns / 1e9,
            computed,
        )

    def admitted(self, planned: ThrottleDecision, ticket: Any) -> ThrottleDecision:
        self.heard.append(("admitted", plain(planned), plain(ticket)))
        return attrs.evolve(planned, ticket=ticket)

    def not_running(self) -> Exception:
        return ControllerNotStartedError("start it")

    def run(self, priority: Any, queue_name: str, work: Any, /, *args: Any, max_wait: Any = None, **kwargs: Any) -> Any:
        return self.run_within(priority, queue_name, max_wait, work, *args, **kwargs)

    def run_within(self, priority: Any, queue_name: str, max_wait: Any, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        assert self.engine is not None
        self.long_ways += 1
        decision = self.engine.plan(priority, queue_name)
        if decision.should_shed:
            raise RuntimeError(decision.reason)
        if decision.delay > 0:
            decision = self.engine.admit(decision)
        value = work(*args, **kwargs)
        self.report_success(decision, value)
        return value

    def report_success(self, decision: ThrottleDecision, value: object) -> None:
        assert self.engine is not None
        self.engine.record(decision, True)

    def report_error(self, decision: ThrottleDecision, error: BaseException) -> None:
        assert self.engine is not None
        self.heard.append(("error", plain(decision), str(error)))
        self.engine.record(decision, False)

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        self.heard.append(("read", queue_name, wait))
        assert self.engine is not None
        outcome, backlog = self.next_read
        if outcome == "cold":
            return Reason.COLD_START
        if outcome == "sample":
            self.engine.put_sample(queue_name, backlog, self._time())
        else:
            self.engine.read_failed(queue_name)
        return None

    def check_poller(self) -> None:
        self.heard.append(("check_poller",))

    def circuit_changed(self, queue_name: str, old: int, new: int) -> None:
        self.heard.append((f"{old} to {new}", queue_name))

    def zone_changed(self, queue_name: str, priority: Priority, old: Zone, new: Zone) -> None:
        self.heard.append((f"{priority}: {old} to {new}", queue_name))

    def override_ended(self) -> None:
        self.heard.append(("override ended", ""))

    def evicted(self, queue_name: str) -> None:
        self.heard.append(("evicted", queue_name))


def plain(value: object) -> object:
    """Return what of `value` must not differ between the engines."""
    if isinstance(value, ThrottleDecision):
        fields = attrs.fields(ThrottleDecision)
        return (*(plain(getattr(value, field.name)) for field in fields if field.name != "_pacer"), value.retry_after)
    if hasattr(value, "generation") and hasattr(value, "probe"):
        return ("ticket", value.generation, value.probe, repr(value))
    return value


class Pair(tuple[Any, ...]):
    """What both engines answered, in the order of the engines; `plain` of it does not differ."""

    __slots__ = ()


class Engines(RuleBasedStateMachine):
    """Leads both through the same life. Class attributes are set by the test that runs it."""

    modules: Mapping[str, EngineModule]
    reasons: Counter[Reason]
    happened: Counter[str]

    @initialize(settings=all_settings)
    def make(self, settings: EngineSettings) -> None:
        self.time = Time()
        self.hosts = [FakeHost(self.time) for _ in self.modules]
        pairs = zip(self.modules.values(), self.hosts, strict=True)
        self.engines = [module.Engine(settings, host) for module, host in pairs]
        for host, engine in zip(self.hosts, self.engines, strict=True):
            host.engine = engine
        self.planned: list[Pair] = []
        self.decided: list[Pair] = []
        self.gates: dict[tuple[Engine, Any, str], Any] = {}
        self.both(lambda engine: engine.set_running(True))

    def both(self, call: Callable[[Engine], Any]) -> Pair:
        return self.each(lambda engine, _: call(engine), Pair((None, None)))

    def each(self, call: Callable[[Engine, Any], Any], given: Pair) -> Pair:
        """Call each engine with its half of `given`; compare answers, errors and what the hosts heard."""
        answers: list[Any] = []
        for engine, half in zip(self.engines, given, strict=True):
            try:
                answers.append(call(engine, half))
            except Exception as error:  # noqa: BLE001 - errors are answers here
                answers.append((type(error), str(error)))
        one, other = map(plain, answers)
        assert one == other
        one_heard, other_heard = (host.heard for host in self.hosts)
        assert one_heard == other_heard
        self.happened.update(str(heard[0]) for heard in one_heard)
        for host in self.hosts:
            host.heard.clear()
        return Pair(answers)

    def decide(self, call: Callable[[Engine], Any]) -> Pair:
        pair = self.both(call)
        first = pair[0]
        if isinstance(first, ThrottleDecision):
            self.reasons[first.reason] += 1
            if first.advised is not None:
                self.reasons[first.advised.reason] += 1
            self.decided.append(pair)
        return pair

    # Decisions.

    @rule(priority=priorities, name=names, times=st.integers(1, 3))
    def suggest(self, priority: Any, name: str, times: int) -> None:
        for _ in range(times):  # the second may be an answer that lay ready
            self.decide(lambda engine: engine.suggest_throttle(priority, name))

    @rule(priority=priorities | odd_priorities, name=names | odd_names)
    def ask_oddly(self, priority: Any, name: Any) -> None:
        self.decide(lambda engine: engine.suggest_throttle(priority, name))
        self.decide(lambda engine: engine.plan(priority, name))

    @rule(priority=priorities, name=names)
    def plan(self, priority: Any, name: str) -> None:
        pair = self.decide(lambda engine: engine.plan(priority, name))
        if isinstance(pair[0], ThrottleDecision) and pair[0].delay > 0 and not pair[0].should_shed:
            self.planned.append(pair)

    @precondition(lambda self: self.planned)
    @rule(data=st.data(), wait_ns=steps)
    def admit(self, data: st.DataObject, wait_ns: int) -> None:
        planned = data.draw(st.sampled_from(self.planned))
        self.time.now_ns += wait_ns
        admitted = self.each(lambda engine, half: engine.admit(half), planned)
        if isinstance(admitted[0], ThrottleDecision):
            self.reasons[admitted[0].reason] += 1
            self.decided.append(admitted)

    @precondition(lambda self: self.planned)
    @rule(data=st.data())
    def count(self, data: st.DataObject) -> None:
        self.each(lambda engine, half: engine.count(half), data.draw(st.sampled_from(self.planned)))

    # Jobs, whose work may meddle with the queue. The answer says what was counted, whichever way they went.

    @rule(
        priority=priorities,
        name=names,
        outcomes=st.lists(st.sampled_from(["fine", "fine", "error", "failure noted", "reset"]), min_size=1, max_size=3),
        by_gate=st.booleans(),
        fresh=st.booleans(),
    )
    def work(self, priority: Any, name: str, outcomes: list[str], by_gate: bool, fresh: bool) -> None:
        if fresh:
            self.both(lambda engine: engine.put_sample(name, 0, self.time.now_ns))
            self.suggest(priority, name, 1)  # a go that lies ready
        for outcome in outcomes:
            self.both(functools.partial(self.job, priority, name, outcome, by_gate=by_gate))
        self.happened["job"] += len(outcomes)
        self.happened["long way"] += sum(host.long_ways for host in self.hosts)
        for host in self.hosts:
            host.long_ways = 0

    def job(self, priority: Any, name: str, outcome: str, engine: Engine, *, by_gate: bool) -> object:
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

        if not by_gate:
            return engine.run(priority, name, work, "ha", times=2)
        gate = self.gates.get((engine, priority, name))
        if gate is None:
            which = self.engines.index(engine)
            make = list(self.modules.values())[which].Gate
            gate = self.gates[engine, priority, name] = make(engine, self.hosts[which], priority, name, None)
        return plain(gate.suggest()), gate.run(work, "ha", times=2)

    # Outcomes.

    @precondition(lambda self: self.decided)
    @rule(data=st.data(), ok=st.booleans())
    def record(self, data: st.DataObject, ok: bool) -> None:
        decided = data.draw(st.sampled_from(self.decided[-4:]))
        self.each(lambda engine, half: engine.record(half, ok), decided)

    @rule(name=names, ok=st.booleans())
    def record_queue(self, name: str, ok: bool) -> None:
        self.both(lambda engine: engine.record_queue(name, ok))

    @rule(
        name=st.sampled_from(["q", "own"]),
        priority=priorities,
        late_ns=st.sampled_from([-1, 0, 2 * MS]),
        ok=st.booleans(),
    )
    def break_and_probe(self, name: str, priority: Any, late_ns: int, ok: bool) -> None:
        for _ in range(CIRCUIT.failure_threshold):
            self.both(lambda engine: engine.record_queue(name, False))
        self.suggest(priority, name, 1)  # a refusal that lies ready until the instant tried next
        breaker = self.engines[0].breaker(name, False)
        if breaker is not None and breaker.state():
            self.time.now_ns = max(self.time.now_ns, (breaker.retry_at_ns(breaker.word) or 0) + late_ns)
        pair = self.decide(lambda engine: engine.suggest_throttle(priority, name))
        self.decide(lambda engine: engine.suggest_throttle("low", name))
        if isinstance(pair[0], ThrottleDecision):
            self.each(lambda engine, half: engine.record(half, ok), pair)

    @rule(name=names | odd_names, act=st.sampled_from(["force_open", "force_close", "reset", "try_acquire"]))
    def handle(self, name: Any, act: str) -> None:
        def call(engine: Engine) -> object:
            breaker = engine.breaker(name, True)
            return None if breaker is None else getattr(breaker, act)()

        self.both(call)

    # Statistics.

    @rule(name=names, backlog=st.sampled_from(BACKLOGS), age_ns=steps | st.just(-MS))
    def put_sample(self, name: str, backlog: int, age_ns: int) -> None:
        self.both(lambda engine: engine.put_sample(name, backlog, self.time.now_ns - age_ns))

    @rule(
        name=names,
        backlog=st.sampled_from(BACKLOGS),
        age_ns=st.sampled_from(AGES),
        later_ns=st.sampled_from(LATER),
        priority=priorities,
    )
    def see(self, name: str, backlog: int, age_ns: int, later_ns: int, priority: Any) -> None:
        self.both(lambda engine: engine.put_sample(name, backlog, self.time.now_ns - age_ns))
        self.suggest(priority, name, 2)
        self.time.now_ns += later_ns
        self.suggest(priority, name, 1)

    @rule(read=reads)
    def next_read(self, read: tuple[str, int]) -> None:
        for host in self.hosts:
            host.next_read = read

    @rule(step=steps)
    def advance(self, step: int) -> None:
        self.time.now_ns += step

    # Switches.

    @rule(enabled=st.booleans(), for_ns=steps | st.none())
    def override(self, enabled: bool, for_ns: int | None) -> None:
        until_ns = None if for_ns is None else self.time.now_ns + for_ns
        self.both(lambda engine: engine.set_override(enabled, until_ns))

    @rule(enabled=st.sampled_from([False, False, True]))
    def emergency(self, enabled: bool) -> None:
        self.both(lambda engine: engine.set_emergency(enabled))
        self.both(lambda engine: engine.set_override(False))

    @rule(settings=all_settings)
    def configure(self, settings: EngineSettings) -> None:
        self.both(lambda engine: engine.configure(settings))

    @rule(priority=priorities, name=names)
    def stop_and_start(self, priority: Any, name: str) -> None:
        self.both(lambda engine: engine.set_running(False))
        self.decide(lambda engine: engine.suggest_throttle(priority, name))
        self.both(lambda engine: engine.set_running(True))

    # Whatever was done.

    @invariant()
    def nobody_can_tell_them_apart(self) -> None:
        if not hasattr(self, "engines"):
            return
        one, other = map(whole_state, self.engines)
        assert one == other


def whole_state(engine: Engine) -> dict[str, object]:
    """Return everything that can be asked of an engine."""
    state: dict[str, object] = {
        "names": engine.queue_names(),
        "cached": engine.cache_size(),
        "totals": engine.totals(),
        "types": {type(totals) for totals in engine.totals().values()},
        "switches": (engine.override(), engine.emergency()),
        "time": (engine.now_ns(), engine.origin_ns),
    }
    for name in NAMES:
        breaker = engine.breaker(name, False)
        if breaker is None:
            state[name] = None
            continue
        retry_at_ns = breaker.retry_at_ns(breaker.word) if breaker.state() else None
        times = (breaker.last_failure_ns, breaker.last_probe_ns)
        state[name] = (breaker.word, breaker.state(), retry_at_ns, times, engine.backlog(name))
    return state


def test_nobody_can_tell_them_apart(engine_modules: Mapping[str, EngineModule]) -> None:
    if len(engine_modules) < 2:
        pytest.skip("BACKPRESSURE_ENGINE leaves one engine out")
    reasons: Counter[Reason] = Counter()
    happened: Counter[str] = Counter()
    # Steps are cheap, and rare things must happen often enough.
    examples = max(500, settings().max_examples)
    machine = type("Machine", (Engines,), {"modules": engine_modules, "reasons": reasons, "happened": happened})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=60))
    # A life in which little happens proves little.
    assert set(reasons) == set(Reason), f"never seen: {set(Reason) - set(reasons)}"

    assert min(reasons.values()) >= 50, reasons
    events = ("admitted", "check_poller", "evicted", "read", "0 to 1", "1 to 2", "2 to 0", "2 to 1")
    assert min(happened[event] for event in events) >= 20, happened
    assert happened["1 to 2"] >= 200, happened
    assert 500 <= happened["long way"] <= 2 * happened["job"] - 500, happened
