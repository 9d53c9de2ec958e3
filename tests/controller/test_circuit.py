"""`CircuitBreaker` used alone, on both engines."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from backpressure import CircuitBreaker, CircuitConfig, CircuitOpenError
from backpressure._controller.outcome import verdict
from backpressure._runtime.foreign import Foreign

if TYPE_CHECKING:
    from backpressure._engine.border import EngineModule
    from backpressure.testing import ManualClock

CONFIG = CircuitConfig(failure_threshold=2, recovery_threshold=1, recovery_timeout=10, excluded_exceptions=(KeyError,))


@pytest.fixture
def breaker(engine_name: str, engine_module: EngineModule, clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker(CONFIG, clock=clock, _engine=engine_name)


def fail() -> None:
    raise RuntimeError("the server is gone")


def test_calls_pass_and_failures_open_it(breaker: CircuitBreaker, clock: ManualClock) -> None:
    assert breaker.call(pow, 2, 3) == 8
    for _ in range(2):
        with pytest.raises(RuntimeError):
            breaker.call(fail)
    assert str(breaker.state) == "open"
    told = r"circuit is open \(last failure: RuntimeError\): retry in 10\.00"
    with pytest.raises(CircuitOpenError, match=told) as raised:
        breaker.call(pow, 2, 3)
    assert raised.value.retry_after == pytest.approx(10, abs=0.002)
    clock.advance(10.002)
    assert breaker.call(pow, 2, 3) == 8
    assert str(breaker.state) == "closed"


def test_tickets_and_permits(breaker: CircuitBreaker, clock: ManualClock) -> None:
    assert breaker.allow()
    ticket = breaker.try_acquire()
    assert ticket is not None
    breaker.record_failure(ticket)
    breaker.record_failure()
    assert not breaker.allow()
    clock.advance(10.002)
    probe = breaker.try_acquire()
    assert probe is not None
    assert probe.probe
    assert breaker.try_acquire() is None
    breaker.record_failure(ticket)  # of an earlier generation
    assert str(breaker.state) == "half-open"
    breaker.record_success(probe)
    assert str(breaker.state) == "closed"


def test_excluded_exceptions_are_no_failures(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        with pytest.raises(KeyError):
            breaker.call({}.popitem)
    assert str(breaker.state) == "closed"


def test_a_coroutine_function_is_refused_and_counts_for_nothing(breaker: CircuitBreaker) -> None:
    async def work() -> None: ...

    for _ in range(5):
        with pytest.raises(TypeError, match="coroutine function: await it"):
            _ = breaker.call(work)
    assert breaker.stats()["failure_count"] == 0


def test_stats(breaker: CircuitBreaker, clock: ManualClock) -> None:
    start = clock.utc_now()
    assert breaker.stats() == {
        "state": "closed",
        "failure_count": 0,
        "success_count": 0,
        "last_failure": None,
        "last_failure_time": None,
        "last_probe_time": None,
        "failure_threshold": 2,
        "recovery_threshold": 1,
        "trip_window": 30.0,
        "recovery_timeout": 10.0,
        "probe_interval": 5.0,
        "forced": False,
        "generation": 0,
        "time_until_recovery": None,
    }
    breaker.record_failure()
    clock.advance(4)
    assert breaker.stats()["failure_count"] == 1
    assert breaker.stats()["last_failure_time"] == start
    breaker.record_failure()
    clock.advance(4)
    stats = breaker.stats()
    assert (stats["state"], stats["generation"]) == ("open", 1)
    assert stats["time_until_recovery"] == pytest.approx(6, abs=0.002)
    clock.advance(6.002)
    assert breaker.allow()
    stats = breaker.stats()
    assert (stats["state"], stats["last_probe_time"]) == ("half-open", start + timedelta(seconds=14.002))


def test_forcing(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.force_open()
    assert breaker.stats()["forced"] is True
    assert breaker.stats()["time_until_recovery"] is None
    clock.advance(86_400)
    with pytest.raises(CircuitOpenError, match="once it is released") as raised:
        breaker.call(pow, 2, 3)
    assert raised.value.retry_after is None
    breaker.force_close()
    assert breaker.call(pow, 2, 3) == 8
    breaker.record_failure()
    breaker.reset()
    assert breaker.stats()["last_failure_time"] is None
    assert breaker.stats()["failure_count"] == 0
    assert repr(breaker) == "<CircuitBreaker: closed>"


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), CircuitOpenError("x"), KeyError()]
)
def test_what_is_no_failure(error: BaseException) -> None:
    assert verdict(error, CONFIG, Foreign()) is None
    assert verdict(ValueError(), CONFIG, Foreign()) is False
