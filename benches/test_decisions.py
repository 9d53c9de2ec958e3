"""What one decision costs, by kind, on both engines: `make bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

    from backpressure import BackpressureController

T = TypeVar("T")

# Equal to the stored names, but not identical: that is what callers have.
EMPTY, FULL = (f"{word}-queue" for word in ("empty", "full"))


def repeatedly(benchmark: BenchmarkFixture, iterations: int, function: Callable[..., T], *args: object) -> T:
    """Time a call that takes nanoseconds: in rounds of many; return its value."""
    pedantic: Callable[..., T] = benchmark.pedantic
    return pedantic(function, args=args, rounds=50, iterations=iterations, warmup_rounds=2)


@pytest.mark.benchmark(group="suggest_throttle, green, ready")
def test_hit(benchmark: BenchmarkFixture, controller: BackpressureController) -> None:
    decision = repeatedly(benchmark, 20_000, controller.suggest_throttle, "low", EMPTY)
    assert decision is controller.suggest_throttle("low", EMPTY)


@pytest.mark.benchmark(group="suggest_throttle, shed")
def test_shed(benchmark: BenchmarkFixture, controller: BackpressureController) -> None:
    repeatedly(benchmark, 20_000, controller.suggest_throttle, "low", FULL)
    assert controller.suggest_throttle("low", FULL).should_shed


@pytest.mark.benchmark(group="suggest_throttle, circuit open")
def test_open_circuit(benchmark: BenchmarkFixture, controller: BackpressureController) -> None:
    controller.circuit(EMPTY).force_open()
    repeatedly(benchmark, 20_000, controller.suggest_throttle, "low", EMPTY)
    assert controller.suggest_throttle("low", EMPTY).should_shed


@pytest.mark.benchmark(group="suggest_throttle, throttled")
def test_throttled(benchmark: BenchmarkFixture, controller: BackpressureController) -> None:
    repeatedly(benchmark, 1_000, controller.suggest_throttle, "high", FULL)
    assert controller.suggest_throttle("high", FULL).delay == 2.5


@pytest.mark.benchmark(group="a new sample, and the first decision on it")
def test_first_computation(benchmark: BenchmarkFixture, controller: BackpressureController) -> None:
    engine = controller._engine
    controller.suggest_throttle("low", EMPTY)

    def sample_and_decide() -> None:
        engine.put_sample(EMPTY, 0, engine.now_ns())
        controller.suggest_throttle("low", EMPTY)

    repeatedly(benchmark, 1_000, sample_and_decide)


@pytest.mark.benchmark(group="run of a no-op in green")
def test_run(benchmark: BenchmarkFixture, controller: BackpressureController) -> None:
    repeatedly(benchmark, 2_000, controller.run, "low", EMPTY, bool)
    assert controller.run("low", EMPTY, bool) is False
