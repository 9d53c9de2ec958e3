"""Looking has no effect: a life with looks in it is the same life without them, on both engines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpressure._model.decision import issued
from backpressure._model.errors import ControllerNotStartedError, InvalidPriorityError, InvalidQueueError
from backpressure._model.vocabulary import AGE_REASONS, Priority, Reason, Zone
from engine.parity.host import FakeHost, plain
from engine.parity.test_engines_agree import SECOND, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backpressure._engine.border import Engine, EngineModule
    from backpressure._engine.settings import EngineSettings

NAMES = ["q", "own", "r", "s", "t"]


class StillHost(FakeHost):
    """Tells the time of its clock, so that a look takes none away."""

    def utc_now(self) -> datetime:
        return datetime.fromtimestamp(self._clock() / 1e9, UTC)


class World:
    """An engine, its host and its clock."""

    def __init__(self, module: EngineModule, chosen: EngineSettings = SETTINGS) -> None:
        self.now_ns = 7_000 * SECOND
        self.host = StillHost(lambda: self.now_ns, module.Lease)
        self.engine: Engine = module.Engine(chosen, self.host)
        self.host.engine = self.engine
        self.engine.set_running(True)
        self.decided: list[Any] = []

    def state(self) -> tuple[object, ...]:
        """Return all that can be seen, but for what is decided."""
        names = self.engine.queue_names()
        breakers = [self.engine.breaker(name, False) for name in names]
        return (
            names,
            self.engine.totals(),
            self.engine.cache_size(),
            self.engine.override(),
            [self.engine.sample(name) for name in names],
            [(breaker.word, breaker.last_probe_ns) for breaker in breakers if breaker is not None],
            (*self.host.told, sorted(self.host.gone)),
        )

    def look(self) -> None:
        """Look at everything, by both ways of looking, which see the same."""
        for name in NAMES:
            seen = [self.engine.peek(priority, name) for priority in Priority]
            for decision, outlined in zip(seen, self.engine.outlook(name), strict=True):
                words = (decision.advised or decision)._answer
                probe_ns = words.retry_at_ns and max(0, words.retry_at_ns - self.now_ns)
                assert (words.zone, words.should_shed, words.reason) == (
                    outlined["zone"],
                    outlined["shed"],
                    outlined["reason"],
                )
                assert (round((words.retry_delay or 0) * 1e9), probe_ns) == (
                    outlined["delay_ns"],
                    outlined["probe_ns"],
                )


def ask(world: World, priority: Priority, name: str) -> object:
    world.decided.append(world.engine.suggest_throttle(priority, name))
    return plain(world.decided[-1])


def report(world: World, ok: bool | None) -> None:
    if world.decided:
        world.engine.record(world.decided[-1], ok)


def force(world: World, name: str, for_ns: int | None) -> None:
    breaker = world.engine.breaker(name, True)
    if breaker is not None:
        breaker.force_open(None if for_ns is None else world.now_ns + for_ns)


def wait(world: World, span_ns: int) -> None:
    world.now_ns += span_ns


def fail_often(world: World, name: str) -> None:
    for _ in range(2):
        world.engine.record_queue(name, False)


def overrule(world: World, for_ns: int | None) -> None:
    world.engine.set_override(True, None if for_ns is None else world.now_ns + for_ns)


names, spans = (
    st.sampled_from(NAMES),
    st.sampled_from([1, 300, 700, 1_000, 2_001, 4_000, 20_001]).map((1_000_000).__mul__),
)
steps = st.one_of(
    st.tuples(st.just(ask), st.sampled_from(Priority), names),
    st.tuples(st.just(ask), st.sampled_from(Priority), names),
    st.tuples(st.just(report), st.sampled_from([True, False, None])),
    st.tuples(st.just(force), names, st.none() | spans),
    st.tuples(st.just(fail_often), names),
    st.tuples(st.just(overrule), st.none() | spans),
    st.tuples(st.just(wait), spans),
    st.tuples(st.just(wait), spans),
    st.tuples(st.just(lambda world, name, backlog: world.engine.put_sample(name, backlog, world.now_ns)), names,
              st.sampled_from([0, 15, 119, 500, 5_000])),
    st.tuples(st.just(lambda world: world.engine.set_override(False))),
)  # fmt: skip
lives = st.lists(steps, max_size=40)
worlds = st.builds(
    lambda **changes: attrs.evolve(SETTINGS, **changes),
    polling=st.booleans(),
    observe=st.sampled_from([False, False, True]),
)


@settings(max_examples=150)
@given(life=lives, chosen=worlds)
def test_a_life_with_looks_is_the_life_without(
    engine_modules: Mapping[str, EngineModule], life: list[Any], chosen: EngineSettings
) -> None:
    for module in engine_modules.values():
        lived, watched = World(module, chosen), World(module, chosen)
        for step, *arguments in life:
            watched.look()
            assert step(lived, *arguments) == step(watched, *arguments)
            watched.look()
            assert lived.state() == watched.state()


@settings(max_examples=150)
@given(life=lives, priority=st.sampled_from(Priority), name=names)
def test_what_was_foreseen_is_what_happens(
    engine_modules: Mapping[str, EngineModule], life: list[Any], priority: Priority, name: str
) -> None:
    """Where no read comes between, the decision is the one that was foreseen, but for its ticket."""
    for module in engine_modules.values():
        world = World(module)
        for step, *arguments in life:
            step(world, *arguments)
        told = len(world.host.told)
        seen = world.engine.peek(priority, name)
        decided = world.engine.suggest_throttle(priority, name)
        if any(what[0] in {"read", "check_poller"} for what in world.host.told[told:]):
            continue
        if seen._answer.reason is Reason.COLD_START and decided.reason in AGE_REASONS:
            continue  # what a budget will say that there is not yet is not known
        assert issued(seen._answer._replace(timestamp=decided.timestamp), None) == decided
        assert seen.retry_after == decided.retry_after


def test_a_look_does_not_keep_an_idle_queue(engine_module: EngineModule) -> None:
    world = World(engine_module)
    for name in NAMES[:3]:
        world.engine.put_sample(name, 0, world.now_ns)
    world.now_ns += 20 * SECOND + 1
    for name in NAMES[:3]:
        world.engine.peek("low", name)
    assert world.engine.peek("low", "new").reason is Reason.COLD_START
    world.engine.suggest_throttle("low", "new")
    assert world.engine.queue_names() == ["new"]


def test_a_name_beyond_the_table_is_foreseen_as_untracked(engine_module: EngineModule) -> None:
    world = World(engine_module)
    for name in NAMES[:3]:
        world.engine.put_sample(name, 0, world.now_ns)
    seen = world.engine.peek("low", "new")
    assert (seen.reason, seen.delay) == (Reason.UNTRACKED, 1.0)
    world.engine.set_emergency(True)
    assert world.engine.peek("low", "new").reason is Reason.EMERGENCY_MODE


def test_a_probe_is_foreseen_as_often_as_one_looks(engine_module: EngineModule) -> None:
    world = World(engine_module)
    world.engine.put_sample("q", 0, world.now_ns)
    fail_often(world, "q")
    refused = world.engine.peek("high", "q")
    assert (refused.should_shed, refused.reason, refused.retry_after) == (True, Reason.CIRCUIT_OPEN, 0.7)
    world.now_ns += SECOND
    for _ in range(3):
        assert not world.engine.peek("high", "q").should_shed
    assert world.engine.suggest_throttle("high", "q")._ticket.probe
    assert world.engine.peek("high", "q").reason is Reason.CIRCUIT_HALF_OPEN


def test_what_was_only_seen_cannot_be_reported(engine_module: EngineModule) -> None:
    world = World(engine_module)
    world.engine.put_sample("q", 0, world.now_ns)
    before = world.state()
    for ok in (False, False, False, True, None):
        world.engine.record(world.engine.peek("high", "q"), ok)
    assert world.state() == before


def test_a_look_at_nonsense_is_refused_as_a_call_is(engine_module: EngineModule) -> None:
    engine = World(engine_module).engine
    with pytest.raises(InvalidPriorityError):
        engine.peek("urgent", "q")
    for name in ("", "a\nb", "__other__", None, 5, "x" * 256):
        with pytest.raises(InvalidQueueError):
            engine.peek("low", name)  # type: ignore[arg-type]
    engine.set_running(False)
    with pytest.raises(ControllerNotStartedError):
        engine.peek("low", "q")


def test_zones_are_foreseen_for_each_priority(engine_module: EngineModule) -> None:
    world = World(engine_module)
    world.engine.put_sample("q", 150, world.now_ns)
    assert [world.engine.peek(priority, "q").zone for priority in Priority] == [Zone.RED, Zone.YELLOW, Zone.GREEN]
    assert world.engine.cache_size() == 0
