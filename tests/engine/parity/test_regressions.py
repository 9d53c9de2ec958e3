"""What the machine found: each defect once more, by itself, on each engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure._engine.settings import EngineSettings
from backpressure._engine.totals import REASONS
from backpressure._model.config.root import BackpressureConfig
from backpressure._model.vocabulary import OTHER_QUEUES, Priority, Reason
from engine.parity.host import FakeHost

if TYPE_CHECKING:
    from backpressure._engine.border import Engine, EngineModule

SECOND = 1_000_000_000
LOW = Priority.LOW
SETTINGS = attrs.evolve(EngineSettings.of(BackpressureConfig()), max_queues=1)
IDLE_NS = 10 * SETTINGS.cache_ttl_ns + 1


class World:
    """One engine with its host and clock."""

    def __init__(self, module: EngineModule) -> None:
        self.now_ns = SECOND
        self.host = FakeHost(lambda: self.now_ns)
        self.engine: Engine = module.Engine(SETTINGS, self.host)
        self.host.engine = self.engine
        self.engine.set_running(True)

    def count(self, name: str, reason: Reason) -> int:
        return self.engine.totals()[name, LOW.value].reasons[REASONS.index(reason)]


@pytest.fixture
def world(engine_module: EngineModule) -> World:
    return World(engine_module)


@pytest.mark.parametrize("act", ["admit", "refuse_late"])
def test_a_job_whose_queue_was_evicted_while_it_slept_is_counted(world: World, act: str) -> None:
    planned = world.engine.plan("low", "slept")
    world.now_ns += IDLE_NS
    breaker: Any = world.engine.breaker("newcomer", True)
    breaker.force_open()  # so that there is no room any more
    assert world.engine.queue_names() == ["newcomer"]
    getattr(world.engine, act)(planned)
    assert world.count(OTHER_QUEUES, Reason.FALLBACK_CONSERVATIVE) == 1


def test_a_call_whose_queue_is_evicted_meanwhile_is_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def counted() -> int:
        return sum(sum(totals.reasons) for totals in world.engine.totals().values())

    read = world.host.read

    def slow(name: str, wait: bool) -> Reason | None:
        if name == "slow":  # the machine was suspended, say
            world.now_ns += IDLE_NS
            world.engine.suggest_throttle("low", "newcomer")
        return read(name, wait)

    monkeypatch.setattr(world.host, "read", slow)
    world.engine.suggest_throttle("low", "slow")
    assert world.engine.queue_names() == ["newcomer"]
    assert counted() == 2
    for name in ("third", "fourth"):  # what lay aside is let go, with its counts
        world.now_ns += IDLE_NS
        world.engine.suggest_throttle("low", name)
    assert counted() == 4


def test_without_a_poller_any_more_callers_read_again_after_a_failure(world: World) -> None:
    world.engine.suggest_throttle("low", "q")
    world.now_ns += SETTINGS.check_every_ns
    world.engine.suggest_throttle("low", "q")
    assert world.host.told == [("read", "q", True), ("check_poller",)]  # the next read is the poller's
    world.engine.configure(attrs.evolve(SETTINGS, polling=False))
    world.host.next_read = ("sample", 0)
    assert world.engine.suggest_throttle("low", "q").reason is Reason.BACKLOG_GREEN


def test_with_a_poller_again_callers_leave_reading_to_it(world: World) -> None:
    world.engine.configure(attrs.evolve(SETTINGS, polling=False))
    world.engine.suggest_throttle("low", "q")
    world.engine.configure(attrs.evolve(SETTINGS, polling=True))
    world.now_ns += SETTINGS.check_every_ns
    world.engine.suggest_throttle("low", "q")
    assert world.host.told == [("read", "q", True), ("check_poller",)]


def test_a_queue_that_never_had_a_sample_has_the_poller_looked_after(world: World) -> None:
    for _ in range(3):
        for _ in range(2):
            world.engine.suggest_throttle("low", "q")
        world.now_ns += SETTINGS.check_every_ns
    assert world.host.told == [("read", "q", True)] + 3 * [("check_poller",)]


def test_a_queue_that_was_refused_all_the_time_is_not_idle(world: World) -> None:
    breaker: Any = world.engine.breaker("busy", True)
    breaker.force_open()
    for _ in range(11):
        world.engine.suggest_throttle("low", "busy")
        world.now_ns += SETTINGS.cache_ttl_ns
    breaker.force_close()
    assert world.engine.suggest_throttle("low", "newcomer").reason is Reason.UNTRACKED
    assert world.engine.queue_names() == ["busy"]


def test_nor_is_one_that_was_refused_after_its_sleeps(world: World) -> None:
    breaker: Any = world.engine.breaker("busy", True)
    world.engine.put_sample("busy", 150, world.now_ns)
    planned = world.engine.plan("low", "busy")
    assert planned.delay > 0
    breaker.force_open()
    for _ in range(11):
        assert world.engine.admit(planned).should_shed
        world.now_ns += SETTINGS.cache_ttl_ns
    breaker.force_close()
    assert world.engine.suggest_throttle("low", "newcomer").reason is Reason.UNTRACKED
    assert world.engine.queue_names() == ["busy"]


def test_an_eviction_voids_ready_answers_on_both_engines(engine_module: EngineModule) -> None:
    world = World(engine_module)
    world.engine.configure(attrs.evolve(SETTINGS, max_queues=2))
    world.engine.suggest_throttle("low", "idle")
    world.now_ns += IDLE_NS
    world.engine.put_sample("busy", 0, world.now_ns)
    ready = world.engine.suggest_throttle("low", "busy")
    assert world.engine.suggest_throttle("low", "busy") is ready
    world.engine.suggest_throttle("low", "newcomer")
    again = world.engine.suggest_throttle("low", "busy")
    assert again is not ready
    assert again.timestamp == ready.timestamp  # computed then


def test_a_refusal_that_lies_ready_does_not_delay_the_look_after_the_poller(world: World) -> None:
    world.engine.put_sample("q", 1_000, world.now_ns)
    world.now_ns += SETTINGS.check_after_ns + 1
    for _ in range(3):
        world.engine.suggest_throttle("low", "q")
        world.now_ns += SETTINGS.check_every_ns
    assert world.host.told.count(("check_poller",)) == 3
