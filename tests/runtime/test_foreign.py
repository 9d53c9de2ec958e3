"""What listeners, log handlers, clocks and metrics raise harms no job, whatever its class; a signal goes through."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import logging
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    CircuitBreaker,
    CircuitConfig,
    InMemoryStatsProvider,
    MetricsCollector,
    PollingConfig,
    StateChange,
)
from backpressure._runtime.foreign import Foreign, raised_by_signal
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.controller_fixtures import MakeController


class Timeout(BaseException):
    """As gevent's."""


CLASSES = [OSError, Timeout, GeneratorExit, asyncio.CancelledError, SystemExit, KeyboardInterrupt, RecursionError]
CONFIG = BackpressureConfig(
    circuit=CircuitConfig(failure_threshold=1, recovery_threshold=1, recovery_timeout=10),
    polling=PollingConfig(interval=1_000),  # the background has no part in this
)


class Broken(logging.Handler):
    """Raises in the part of logging that it is told to, while it is on."""

    def __init__(self, part: str, error: type[BaseException]) -> None:
        super().__init__()
        self.on = False
        self.part, self.error = part, error
        self.setFormatter(self)  # type: ignore[arg-type]
        self.addFilter(lambda _: self.fail("filter"))

    def fail(self, part: str) -> bool:
        if self.on and part == self.part:
            raise self.error("mine")
        return True

    def format(self, record: logging.LogRecord) -> str:
        self.fail("formatter")
        return record.getMessage()

    def emit(self, record: logging.LogRecord) -> None:
        self.fail("handler")
        self.format(record)


def fail() -> None:
    raise ConnectionError("broker")


def life(controller: BackpressureController, provider: InMemoryStatsProvider, switch: Callable[[bool], None]) -> None:
    """Go through a job's every fate, while other people's code is broken."""
    clock: Any = controller._clock
    controller.run("high", "empty", int)
    switch(True)
    with pytest.raises(ConnectionError, match="broker") as raised:
        controller.run("high", "empty", fail)
    assert raised.value.__context__ is None
    assert str(controller.get_circuit_state("empty")) == "open"
    clock.advance(10.002)
    assert controller.refresh("empty")
    assert controller.run("high", "empty", lambda: "receipt") == "receipt"
    assert str(controller.get_circuit_state("empty")) == "closed"
    provider.set("empty", 9_000)
    assert controller.refresh("empty")
    assert str(controller.suggest_throttle("high", "empty").reason) == "backlog_red"
    controller.set_manual_override(True, for_=1)
    controller.set_emergency_mode(True)
    controller.set_emergency_mode(False)
    clock.advance(2)
    provider.fail_with(OSError("no server"))
    assert not controller.refresh("empty")
    with controller.slot("high", "empty"), controller.gate("high", "empty") as decision:
        assert decision.delay > 0
    switch(False)
    totals = controller._engine.totals()
    assert sum(sum(total.reasons) for total in totals.values()) == 6


class TestLogs:
    @pytest.mark.parametrize("error", CLASSES)
    @pytest.mark.parametrize("part", ["handler", "filter", "formatter"])
    def test_what_handlers_raise_harms_no_job_and_is_told_once(
        self,
        make_controller: MakeController,
        provider: InMemoryStatsProvider,
        capsys: pytest.CaptureFixture[str],
        part: str,
        error: type[BaseException],
    ) -> None:
        logger, handler = logging.getLogger(f"broken.{part}"), Broken(part, error)
        logger.setLevel(logging.DEBUG)
        logger.handlers = [handler]
        logger.propagate = False
        controller = make_controller(None, CONFIG, logger=logger, registry=CollectorRegistry())
        life(controller, provider, lambda on: setattr(handler, "on", on))
        kinds = {"circuit", "zone", "override", "emergency", "queue_stats"}
        assert capsys.readouterr().err.count("--- Logging error ---") == len(kinds)

    def test_nothing_is_told_where_logging_is_told_not_to(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging, "raiseExceptions", False)
        foreign = Foreign(Logger())  # type: ignore[arg-type]
        foreign.log(logging.INFO, "", kind="circuit")
        monkeypatch.setattr(logging, "raiseExceptions", True)
        monkeypatch.setattr(sys, "stderr", None)
        foreign.log(logging.INFO, "", kind="zone")
        assert capsys.readouterr().err == ""

    def test_a_stderr_that_logs_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        foreign = Foreign(Logger())  # type: ignore[arg-type]

        class Redirected(io.StringIO):
            def write(self, text: str) -> int:
                foreign.log(logging.INFO, text, kind="circuit")
                raise OSError("closed")

        monkeypatch.setattr(sys, "stderr", Redirected())
        foreign.log(logging.INFO, "", kind="circuit")


class Logger:
    def log(self, *_: object, **__: object) -> None:
        raise OSError("mine")


class TestListeners:
    @pytest.mark.parametrize("error", CLASSES)
    def test_what_they_raise_harms_no_job_and_is_logged_once(
        self,
        make_controller: MakeController,
        provider: InMemoryStatsProvider,
        caplog: pytest.LogCaptureFixture,
        error: type[BaseException],
    ) -> None:
        heard: list[StateChange] = []
        on = [False]

        def broken(_: StateChange) -> None:
            if on[0]:
                raise error("mine")

        controller = make_controller(None, CONFIG, registry=CollectorRegistry())
        for listener in (broken, heard.append):
            controller.add_listener(listener)
        life(controller, provider, lambda value: on.__setitem__(0, value))
        told = [vars(record)["change"] for record in caplog.records if "stays registered" in record.getMessage()]
        assert sorted(told) == ["circuit", "emergency", "override", "queue_stats", "zone"]
        assert len(heard) > len(told)

    def test_asyncio_has_the_same(self, engine_name: str, engine_module: object, clock: ManualClock) -> None:
        def broken(_: StateChange) -> None:
            raise asyncio.CancelledError

        async def main() -> object:
            provider = InMemoryStatsProvider({"empty": 0})
            async with AsyncBackpressureController(CONFIG, provider, clock=clock, _engine=engine_name) as controller:
                controller.add_listener(broken)
                with pytest.raises(ConnectionError) as raised:
                    await controller.run("high", "empty", fail)
                assert raised.value.__context__ is None
                clock.advance(10.002)
                await controller.refresh("empty")
                return await controller.run("high", "empty", asyncio.sleep, 0, "receipt")

        assert asyncio.run(main()) == "receipt"


class BrokenClock(ManualClock):
    """Cannot be read while it is broken."""

    error: type[BaseException] | None = None

    def monotonic_ns(self) -> int:
        if self.error is not None:
            raise self.error("mine")
        return super().monotonic_ns()

    def utc_now(self) -> datetime:
        if self.error is not None:
            raise self.error("mine")
        return super().utc_now()


class InterruptedClock(ManualClock):
    """Is interrupted by Ctrl-C at one of its readings."""

    left = 0

    def monotonic_ns(self) -> int:
        if threading.current_thread() is threading.main_thread():
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return super().monotonic_ns()


class TestClocks:
    @pytest.mark.parametrize("error", CLASSES)
    def test_the_last_reading_holds(
        self, make_controller: MakeController, caplog: pytest.LogCaptureFixture, error: type[BaseException]
    ) -> None:
        clock = BrokenClock(sleep_advances=True)
        controller = make_controller(None, CONFIG, clock=clock, registry=CollectorRegistry())
        clock.error = error
        assert controller.run("high", "empty", lambda: "receipt") == "receipt"
        with pytest.raises(ConnectionError, match="broker") as raised:
            controller.run("high", "empty", fail)
        assert raised.value.__context__ is None
        assert str(controller.get_circuit_state("empty")) == "open"
        assert controller.suggest_throttle("low", "full").timestamp <= datetime.now(UTC)
        clock.error = None
        clock.advance(10.002)
        assert controller.refresh("empty")
        assert controller.run("high", "empty", lambda: "receipt") == "receipt"
        told = [record.getMessage() for record in caplog.records if "raised" in record.getMessage()]
        assert sorted(told) == [
            "the clock's monotonic_ns() raised; its last reading holds",
            "the clock's utc_now() raised; the machine's is shown",
        ]

    def test_a_breaker_alone_has_the_same(self, engine_name: str, engine_module: object) -> None:
        clock = BrokenClock()
        breaker = CircuitBreaker(CONFIG.circuit, clock=clock, _engine=engine_name)
        clock.error = Timeout
        with pytest.raises(ConnectionError):
            breaker.call(fail)
        assert str(breaker.state) == "open"
        assert breaker.stats()["time_until_recovery"] == pytest.approx(10, abs=0.002)


class TestMetrics:
    @pytest.mark.parametrize("error", CLASSES)
    def test_a_flush_that_fails_is_told_once(
        self,
        make_controller: MakeController,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        error: type[BaseException],
    ) -> None:
        def flush(_: MetricsCollector) -> None:
            raise error("no space left on device")

        monkeypatch.setattr(MetricsCollector, "flush", flush)
        controller = make_controller(None, CONFIG, registry=CollectorRegistry())
        for _ in range(3):
            assert controller._poller.poll()
        controller.stop()
        told = [record.getMessage() for record in caplog.records if "metrics could not" in record.getMessage()]
        assert len(told) == 1


class TestSignals:
    """What a handler raises while other people's code runs is meant for whoever was interrupted."""

    @pytest.fixture
    def handler(self) -> Iterator[Callable[[Any], None]]:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def install(handler: Any) -> None:
            signal.signal(signal.SIGTERM, handler)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield install
        for number, old in before.items():
            signal.signal(number, old)

    def heard(self, number: int) -> bool:
        """Tell whether a signal that comes while a listener runs gets through to its caller."""
        controller = BackpressureController(None, InMemoryStatsProvider())
        controller.add_listener(lambda _: os.kill(os.getpid(), number))
        try:
            controller.set_emergency_mode(True)
        except (SystemExit, KeyboardInterrupt, TimeoutError):
            return True
        return False

    def test_ctrl_c_goes_through(self, handler: object) -> None:
        assert self.heard(signal.SIGINT)

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, TimeoutError])
    def test_so_does_what_a_handler_raises(self, handler: Callable[[Any], None], error: type[BaseException]) -> None:
        def plain(_: int, __: object) -> None:
            raise error

        def deeper(*arguments: object) -> None:
            plain(0, arguments)

        class Bound:
            def method(self, *_: object) -> None:
                sys.exit(3)

        for function in (plain, deeper, lambda *_: plain(0, None), Bound().method):
            handler(function)
            assert self.heard(signal.SIGTERM)

    def test_a_log_handler_may_be_interrupted_too(self, handler: object) -> None:
        class Slow:
            def log(self, *_: object, **__: object) -> None:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            Foreign(Slow()).log(logging.INFO, "", kind="circuit")  # type: ignore[arg-type]

    @pytest.mark.parametrize("asked", ["done", "exception"])
    def test_so_may_a_future_that_is_asked(self, handler: object, make_controller: MakeController, asked: str) -> None:
        class Slow(concurrent.futures.Future[None]):
            def __getattribute__(self, name: str) -> Any:
                if name == asked:
                    signal.raise_signal(signal.SIGINT)
                return super().__getattribute__(name)

        future = Slow()
        controller = make_controller(None, CONFIG, registry=CollectorRegistry())
        controller.record_failure("empty")
        controller._clock.advance(10.002)  # type: ignore[attr-defined]
        controller.refresh("empty")
        future.set_result(None)
        with pytest.raises(KeyboardInterrupt):
            controller.run("high", "empty", lambda: future)
        assert controller.circuit("empty").stats()["time_until_recovery"] == 0

    @pytest.mark.parametrize("ready", [True, False])
    @pytest.mark.parametrize("way", ["suggest", "run", "gate", "slot", "failing run", "breaker"])
    def test_so_may_each_reading_of_a_clock(
        self, handler: object, make_controller: MakeController, engine_name: str, way: str, ready: bool
    ) -> None:
        clock = InterruptedClock()
        config = BackpressureConfig(polling=PollingConfig(enabled=False))
        controller = make_controller(None, config, clock=clock, registry=CollectorRegistry())
        circuit = controller.circuit("empty")
        alone = CircuitBreaker(clock=clock, _engine=engine_name)

        def slot() -> None:
            with controller.slot("low", "empty"):
                pass

        def failing() -> None:
            with pytest.raises(ConnectionError):
                controller.run("low", "empty", fail)

        ways: dict[str, Callable[[], object]] = {
            "suggest": lambda: controller.suggest_throttle("low", "empty"),
            "run": lambda: controller.run("low", "empty", int),
            "gate": lambda: controller.gate("low", "empty").run(int),
            "slot": slot,
            "failing run": failing,
            "breaker": lambda: alone.call(int),
        }
        for reading in range(1, 100):
            for breaker in (circuit, alone):
                breaker.reset()
                breaker.record_failure()
            if ready:
                controller.suggest_throttle("low", "empty")
            clock.left = reading
            heard = False
            try:
                ways[way]()
            except KeyboardInterrupt:
                heard = True
            if clock.left > 0:
                break
            assert heard
        assert 1 < reading < 99

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, OSError])
    def test_what_a_listener_raises_itself_is_no_signals(self, error: type[BaseException]) -> None:
        def raising() -> None:
            raise error

        def leaving() -> None:
            sys.exit(1)

        for function in (raising, leaving):
            with pytest.raises(BaseException) as raised:  # noqa: PT011 - of any class
                function()
            assert not raised_by_signal(raised.value)

    def test_other_threads_hear_no_signals(self) -> None:
        judged: list[bool] = []

        def handler(_: int, __: object) -> None:
            sys.exit()

        def work() -> None:
            with pytest.raises(SystemExit) as raised:
                handler(0, sys._getframe())
            judged.append(raised_by_signal(raised.value))

        work()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
        assert judged == [True, False]
