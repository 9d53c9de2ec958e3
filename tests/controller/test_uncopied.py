"""What holds threads, counts and circuits refuses to be pickled and copied, and says what to do instead."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import AsyncBackpressureController, BackpressureController, CircuitBreaker, InMemoryStatsProvider
from backpressure._controller.gate import AsyncGate, Gate

if TYPE_CHECKING:
    from collections.abc import Callable

WAYS: list[Callable[[Any], object]] = [copy.copy, copy.deepcopy]
WAYS += [partial(pickle.dumps, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)]


class OwnController(BackpressureController):
    """A user's."""


def things(engine_name: str) -> list[tuple[object, str]]:
    """Return one of each kind, and what its refusal must say."""
    provider = InMemoryStatsProvider({"q": 0})
    blocking = OwnController(None, provider, _engine=engine_name)
    awaited = AsyncBackpressureController(None, provider, _engine=engine_name)
    alone = CircuitBreaker(_engine=engine_name)
    return [
        (blocking, "OwnController does not pickle .* from the same BackpressureConfig"),
        (awaited, "AsyncBackpressureController does not pickle .* from the same BackpressureConfig"),
        (blocking.gate("low", "q"), r"Gate does not pickle .* controller\.gate\(\)"),
        (awaited.gate("low", "q"), r"AsyncGate does not pickle .* controller\.gate\(\)"),
        (alone, "CircuitBreaker does not pickle .* from the same CircuitConfig"),
        (alone.try_acquire(), "Ticket does not pickle .* in the process that got it"),
        (blocking._engine, "Engine does not pickle .* from the same BackpressureConfig"),
        (blocking.circuit("q"), r"CircuitBreaker does not pickle .* controller\.circuit\(\)"),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_they_refuse(engine_name: str, way: Callable[[Any], object]) -> None:
    for thing, said in things(engine_name):
        with pytest.raises(TypeError, match=said):
            way(thing)
        if way is not copy.copy:
            with pytest.raises(TypeError, match=said):
                way({"inside": [thing]})


def test_what_they_decide_does_pickle(engine_name: str) -> None:
    with BackpressureController(None, InMemoryStatsProvider({"q": 5_000}), _engine=engine_name) as controller:
        decision = controller.suggest_throttle("low", "q")
        assert pickle.loads(pickle.dumps(decision)) == decision
        assert pickle.loads(pickle.dumps(controller.health()))["queues"]["q"]["backlog"] == 5_000


@pytest.mark.parametrize("way", WAYS[2:])
def test_their_methods_refuse_as_well(engine_name: str, way: Callable[[Any], object]) -> None:
    controller = BackpressureController(None, InMemoryStatsProvider({"q": 0}), _engine=engine_name)
    for method in (controller.run, controller.suggest_throttle):
        with pytest.raises(TypeError, match=r"does not pickle .* from the same BackpressureConfig"):
            way(method)


def test_the_classes_themselves_pickle() -> None:
    for kind in (BackpressureController, AsyncBackpressureController, CircuitBreaker, Gate, AsyncGate):
        assert pickle.loads(pickle.dumps(kind)) is kind
