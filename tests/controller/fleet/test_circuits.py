"""Circuits that operators hold open beside those that a process holds open by itself, on real breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backpressure import BackpressureController, CircuitState, InMemoryStatsProvider
from backpressure._controller.fleet.circuits import Circuits
from backpressure._controller.fleet.wanted import Wish
from backpressure._fleet.entries import Switch

if TYPE_CHECKING:
    from backpressure.testing import ManualClock

SECOND = 10**9


class World:
    """A controller, and what operators want of its circuit `q`."""

    def __init__(self, engine_name: str, clock: ManualClock) -> None:
        self.clock = clock
        self.controller = BackpressureController(None, InMemoryStatsProvider(), clock=clock, _engine=engine_name)
        self.here = self.controller.circuit("q")
        self.circuits = Circuits(self.controller._engine.breaker, clock.monotonic_ns)
        self.wishes: dict[str, Wish] = {}
        self.n = 0

    def want(self, action: str, seconds: float = 60) -> None:
        self.n += 1
        switch = Switch(
            kind="circuit",
            queue_name="q",
            action=action,  # type: ignore[arg-type]
            until_ms=0,
            by="ana",
            reason="x",
            n=self.n,
        )
        self.wishes = {"q": Wish(switch, self.clock.monotonic_ns() + round(seconds * SECOND))}
        self.follow()

    def forget(self) -> None:
        self.wishes = {}
        self.follow()

    def follow(self) -> None:
        self.circuits.follow(self.wishes)

    @property
    def left(self) -> float | None:
        """Seconds until it is closed, ``None`` without an end; 0 if it is not forced open."""
        stats = self.here.stats()
        left: float | None = stats["time_until_recovery"]
        return (None if left is None else round(left)) if stats["forced"] else 0


@pytest.fixture
def world(engine_name: str, clock: ManualClock) -> World:
    return World(engine_name, clock)


def test_it_is_open_until_its_time(world: World) -> None:
    world.want("open", 60)
    assert world.left == 60
    world.clock.advance(60.01)
    assert world.left == 0
    world.forget()
    assert world.here.state is CircuitState.CLOSED


def test_what_was_not_forced_is_closed_when_operators_let_go(world: World) -> None:
    world.want("open", 60)
    world.forget()
    assert (world.left, world.here.state) == (0, CircuitState.CLOSED)


@pytest.mark.parametrize(("here", "both"), [(None, None), (30, 60), (90, 90)])
def test_the_later_end_counts_and_what_is_wanted_here_stays(world: World, here: float | None, both: object) -> None:
    world.here.force_open(for_=here)
    world.want("open", 60)
    assert world.left == both
    world.follow()
    assert world.left == both
    world.forget()
    assert world.left == here


@pytest.mark.parametrize(("here", "both"), [(None, None), (30, 60), (90, 90)])
def test_what_is_wanted_here_later_stays_too(world: World, here: float | None, both: object) -> None:
    world.want("open", 60)
    world.here.force_open(for_=here)
    world.follow()
    assert world.left == both
    world.forget()
    assert world.left == here


def test_who_closes_it_here_does_not_open_the_fleets(world: World) -> None:
    for end in (world.here.force_close, world.here.reset):
        world.want("open", 60)
        end()
        world.follow()
        assert world.left == 60


def test_another_end_is_followed(world: World) -> None:
    world.here.force_open(for_=30)
    world.want("open", 60)
    world.want("open", 90)
    assert world.left == 90
    world.want("open", 40)
    assert world.left == 40
    world.forget()
    assert world.left == 30


def test_what_ended_here_meanwhile_is_not_brought_back(world: World) -> None:
    world.here.force_open(for_=30)
    world.want("open", 60)
    world.clock.advance(31)
    world.follow()
    world.forget()
    assert (world.left, world.here.state) == (0, CircuitState.CLOSED)


@pytest.mark.parametrize("action", ["close", "reset"])
def test_closing_ends_whatever_holds_it_and_once(world: World, action: str) -> None:
    world.here.force_open()
    world.want("open", 60)
    world.want(action)
    assert world.left == 0
    world.here.force_open(for_=5)
    world.follow()
    assert world.left == 5
    world.want(action)
    assert world.left == 0


def test_what_is_not_there_is_not_made_to_be_closed(world: World) -> None:
    world.want("close")
    assert world.controller._engine.queue_names() == []


def test_a_full_table_has_no_room(engine_name: str, clock: ManualClock) -> None:
    world = World(engine_name, clock)
    circuits = Circuits(lambda _name, _make: None, clock.monotonic_ns)
    world.want("open")
    circuits.follow(world.wishes)
    assert (circuits.without_room, circuits.count()) == ({"q"}, 0)
