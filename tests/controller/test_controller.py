"""`BackpressureController`, on both engines, on a clock that stands still."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import backpressure
from backpressure import (
    AsyncBackpressureController,
    BacklogThresholds,
    BacklogWindow,
    BackpressureConfig,
    BackpressureController,
    CircuitConfig,
    CircuitOpenError,
    CircuitState,
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    CurveConfig,
    InMemoryStatsProvider,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    PollingConfig,
    Priority,
    QueueConfig,
    QueueStats,
    Reason,
    RecoveryStrategy,
    StatsUnavailableError,
    ThrottledError,
    Zone,
)
from backpressure.testing import ManualClock
from support.controller_fixtures import being_read, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from backpressure import StateChange
    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController

OUTAGE = StatsUnavailableError("no server", error_type="connect")


def fail() -> None:
    raise RuntimeError("the server is gone")


def open_circuit(controller: BackpressureController, queue_name: str = "empty") -> None:
    for _ in range(5):
        controller.record_failure(queue_name)
    assert controller.get_circuit_state(queue_name) is CircuitState.OPEN


def reasons(controller: BackpressureController, queue_name: str, priority: Priority) -> dict[str, int]:
    totals = controller._engine.totals().get((queue_name, priority.value))
    counts = totals.reasons if totals else (0,) * len(Reason)
    return {str(reason): count for reason, count in zip(Reason, counts, strict=True) if count}


def test_any_number_of_queues_may_be_allowed(make_controller: MakeController) -> None:
    assert make_controller(None, BackpressureConfig(max_queues=2**70)).run("low", "empty", int) == 0


class TestLifeCycle:
    def test_calls_before_start_are_refused(self, make_controller: MakeController) -> None:
        controller = make_controller(start=False)
        calls: list[Callable[[], object]] = [
            lambda: controller.suggest_throttle("low", "green"),
            lambda: controller.run("low", "green", int),
            lambda: controller.refresh("green"),
        ]
        for call in calls:
            with pytest.raises(ControllerNotStartedError, match="call start"):
                call()

    def test_calls_after_stop_are_refused_as_stopped(self, controller: BackpressureController) -> None:
        controller.suggest_throttle("low", "empty")
        controller.stop()
        with pytest.raises(ControllerStoppedError, match="make a new one"):
            controller.suggest_throttle("low", "empty")
        with pytest.raises(ControllerStoppedError):
            controller.start()

    def test_start_and_stop_are_idempotent(
        self, controller: BackpressureController, started: list[threading.Thread]
    ) -> None:
        controller.start()
        assert started == []
        controller.stop()
        controller.stop()

    def test_start_polls_before_it_returns(self, controller: BackpressureController) -> None:
        assert controller.health()["queues"]["full"]["backlog"] == 100_000

    def test_a_failing_first_poll_is_not_raised(
        self, make_controller: MakeController, provider: InMemoryStatsProvider
    ) -> None:
        provider.fail_with(OUTAGE)
        controller = make_controller()
        assert controller.health()["polling_errors"] == {"connect": 1}
        assert controller.suggest_throttle("low", "green").reason is Reason.FALLBACK_CONSERVATIVE

    def test_stop_wakes_sleepers(self, make_controller: MakeController) -> None:
        clock = ManualClock()
        controller = make_controller(clock=clock)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(controller.run, "medium", "red", fail)
            eventually(lambda: clock.sleeping() == 2)  # the poller is the other one
            controller.stop()
            with pytest.raises(ControllerStoppedError):
                running.result(10)

    def test_stop_does_not_wait_for_a_hung_provider(self, make_controller: MakeController) -> None:
        release = threading.Event()

        class Hanging(InMemoryStatsProvider):
            def get_all_queue_stats(self) -> Any:
                release.wait(30)
                return {}

        controller = make_controller(
            Hanging(), BackpressureConfig(polling=PollingConfig(timeout=0.01)), clock=None, start=False
        )
        starter = threading.Thread(target=controller.start)
        starter.start()
        stopper = threading.Thread(target=controller.stop)
        stopper.start()
        stopper.join(5)
        alive = stopper.is_alive()
        release.set()
        starter.join(5)
        assert not alive
        assert controller._poller._current is None, "start() must not bring back what stop() ended"

    def test_bad_arguments_are_refused(
        self, provider: InMemoryStatsProvider, engine_name: str, engine_module: EngineModule
    ) -> None:
        with pytest.raises(ConfigurationError, match="stats_provider is a object"):
            BackpressureController(None, object(), _engine=engine_name)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="give a BackpressureConfig"):
            BackpressureController({}, provider, _engine=engine_name)  # type: ignore[arg-type]

    def test_a_provider_that_is_awaited_is_refused(self, engine_name: str) -> None:
        class Awaited:
            async def get_queue_stats(self, queue_name: str) -> Any: ...
            async def get_all_queue_stats(self) -> Any: ...

        class Wrapper:
            def __init__(self, inner: Any) -> None:
                self._inner = inner

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

        class Called:
            async def __call__(self, *_: Any) -> Any: ...

        class Attributes:
            get_queue_stats = Called()
            get_all_queue_stats = staticmethod(partial(Awaited().get_all_queue_stats))

        wrong: Any
        for wrong in (Awaited(), Wrapper(Awaited()), Attributes()):
            with pytest.raises(ConfigurationError, match=r"an AsyncBackpressureController, or .*RedisStats") as caught:
                BackpressureController(None, wrong, _engine=engine_name)
            assert caught.value.field == "stats_provider"
            AsyncBackpressureController(None, wrong, _engine=engine_name)

    @pytest.mark.parametrize("awaited", ["get_queue_stats", "get_all_queue_stats", "get_many"])
    def test_a_provider_of_both_kinds_is_refused(self, engine_name: str, awaited: str) -> None:
        async def wait(*_: object) -> Any: ...

        mixed: Any = InMemoryStatsProvider({})
        setattr(mixed, awaited, wait)
        for kind in (BackpressureController, AsyncBackpressureController):
            with pytest.raises(ConfigurationError, match=rf"of which {awaited}\(\) is to be awaited and the rest not"):
                kind(None, mixed, _engine=engine_name)


class TestSuggestions:
    @pytest.mark.parametrize(
        ("queue_name", "priority", "delay", "zone"),
        [
            ("empty", "low", 0, Zone.GREEN),
            ("green", "medium", 0, Zone.GREEN),
            ("yellow", "medium", 0.255, Zone.YELLOW),
            ("yellow", "high", (0.010 + 0.490 * 250 / 4000) / 2, Zone.YELLOW),
            ("red", "medium", 2.75, Zone.RED),
            ("full", "medium", 5.0, Zone.RED),
            ("full", "high", 2.5, Zone.RED),
        ],
    )
    def test_delay_follows_the_law(
        self, controller: BackpressureController, queue_name: str, priority: str, delay: float, zone: Zone
    ) -> None:
        decision = controller.suggest_throttle(priority, queue_name)
        assert decision.delay == pytest.approx(delay, abs=1e-9)
        assert decision.zone is zone
        assert decision.reason == f"backlog_{zone}"
        assert not decision.should_shed
        assert decision.priority is Priority.parse(priority)
        assert decision.queue_name == queue_name
        assert decision.retry_after == (decision.delay or None)

    def test_low_is_shed_when_red_is_deep(self, controller: BackpressureController) -> None:
        decision = controller.suggest_throttle("low", "full")
        assert decision.should_shed
        assert decision.reason is Reason.BACKLOG_RED_SHED
        assert math.isinf(decision.delay)
        assert decision.retry_after == 7.5
        assert decision.backlog_size == 100_000
        with pytest.raises(JobShedError, match="shed at a backlog of 100000"):
            decision.wait()

    def test_green_answers_may_be_shared_and_throttled_ones_are_not(self, controller: BackpressureController) -> None:
        assert controller.suggest_throttle("low", "empty") is controller.suggest_throttle(Priority.LOW, "empty")
        first = controller.suggest_throttle("medium", "red")
        second = controller.suggest_throttle("medium", "red")
        assert first == second
        assert first is not second

    @pytest.mark.parametrize("priority", [0, 1, 2, True, False, None, "LOW", "urgent", 1.0, [], object()])
    def test_other_priorities_are_refused(self, controller: BackpressureController, priority: Any) -> None:
        controller.suggest_throttle("low", "empty")
        with pytest.raises(InvalidPriorityError, match='"low", "medium", "high"'):
            controller.suggest_throttle(priority, "empty")
        with pytest.raises(InvalidPriorityError):
            controller.run(priority, "empty", int)

    @pytest.mark.parametrize("name", ["", "a\n", "\ud800", "x" * 256, "__other__", None, 3, b"q", ["q"]])
    def test_bad_queue_names_are_refused(self, controller: BackpressureController, name: Any) -> None:
        with pytest.raises(InvalidQueueError):
            controller.suggest_throttle("low", name)
        assert name not in list(controller.health()["queues"])

    def test_a_str_subclass_names_its_queue(self, controller: BackpressureController) -> None:
        class Name(str):
            __slots__ = ()

        decision = controller.suggest_throttle("low", Name("empty"))
        assert decision.queue_name == "empty"
        assert type(decision.queue_name) is str

    def test_a_new_poll_takes_effect_on_the_next_call(
        self, controller: BackpressureController, provider: InMemoryStatsProvider
    ) -> None:
        assert controller.suggest_throttle("medium", "empty").delay == 0
        provider.set("empty", 5_000)
        assert controller.refresh("empty")
        assert controller.suggest_throttle("medium", "empty").delay == 5
        provider.set("empty", 0)
        assert controller.refresh("empty")
        assert controller.suggest_throttle("medium", "empty").delay == 0

    def test_every_decision_is_counted_once(self, controller: BackpressureController) -> None:
        for _ in range(3):
            controller.suggest_throttle("low", "empty")
            controller.suggest_throttle("medium", "red")
            controller.suggest_throttle("low", "full")
            controller.run("medium", "red", int)
        assert reasons(controller, "empty", Priority.LOW) == {"backlog_green": 3}
        assert reasons(controller, "red", Priority.MEDIUM) == {"backlog_red": 6}
        assert reasons(controller, "full", Priority.LOW) == {"backlog_red_shed": 3}

    def test_the_cache_hit_rate_counts_computations(self, controller: BackpressureController) -> None:
        for _ in range(10):
            controller.suggest_throttle("low", "empty")
        assert controller.health()["cache_hit_rate"] == 0.9
        assert controller.health()["cache_size"] == 1

    def test_a_subclass_may_override_the_method(
        self, provider: InMemoryStatsProvider, engine_name: str, engine_module: EngineModule
    ) -> None:
        asked = []

        class Counting(BackpressureController):
            def suggest_throttle(  # type: ignore[override]
                self, priority: Priority | str, queue_name: str
            ) -> backpressure.ThrottleDecision:
                asked.append(queue_name)
                return super().suggest_throttle(priority, queue_name)

        with Counting(None, provider, _engine=engine_name) as controller:
            assert controller.suggest_throttle("low", "empty").delay == 0
        assert asked == ["empty"]


class TestFirstSight:
    def test_an_unlisted_queue_is_read_once_and_then_polled(self, make_controller: MakeController) -> None:
        reads: list[str] = []

        class Provider:
            def get_queue_stats(self, queue_name: str) -> QueueStats:
                reads.append(queue_name)
                return QueueStats(queue_name, 700)

            def get_all_queue_stats(self) -> dict[str, QueueStats | StatsUnavailableError]:
                return {}

        controller = make_controller(Provider())
        for _ in range(3):
            assert controller.suggest_throttle("medium", "new").backlog_size == 700
        assert reads == ["new"]
        assert controller._poller.poll()
        assert reads == ["new", "new"]

    def test_concurrent_callers_share_one_read(self, make_controller: MakeController) -> None:
        reads: list[str] = []
        release = threading.Event()

        class Slow(InMemoryStatsProvider):
            def get_queue_stats(self, queue_name: str) -> QueueStats:
                reads.append(queue_name)
                release.wait(10)
                return QueueStats(queue_name, 700)

        controller = make_controller(Slow())
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(controller.suggest_throttle, "medium", "new") for _ in range(8)]
            eventually(lambda: len(being_read(controller)) == 1)
            eventually(lambda: len(being_read(controller)["new"].waiting) == 8)
            release.set()
            assert {future.result(10).backlog_size for future in asking} == {700}
        assert reads == ["new"]

    def test_after_a_failed_read_the_fallback_holds_until_the_next_poll(
        self, make_controller: MakeController, provider: InMemoryStatsProvider
    ) -> None:
        controller = make_controller()
        provider.set("new", 0)
        provider.fail_with(OUTAGE)
        reads = controller.health()["polling_errors"]
        for _ in range(3):
            decision = controller.suggest_throttle("medium", "new")
            assert (decision.reason, decision.delay) == (Reason.FALLBACK_CONSERVATIVE, 0.5)
            assert decision.backlog_size is None
            assert decision.zone is None
        assert controller.health()["polling_errors"] == {**reads, "connect": 1}
        provider.fail_with(None)
        controller._poller.poll()
        assert controller.suggest_throttle("medium", "new").reason is Reason.BACKLOG_GREEN

    def test_an_event_loop_is_not_blocked(self, make_controller: MakeController) -> None:
        provider = InMemoryStatsProvider()
        controller = make_controller(provider)
        provider.set("new", 5_000)

        async def ask() -> backpressure.ThrottleDecision:
            return controller.suggest_throttle("medium", "new")

        decision = asyncio.run(ask())
        assert (decision.reason, decision.delay) == (Reason.COLD_START, 0)
        eventually(lambda: controller._engine.sample("new"))
        assert asyncio.run(ask()).delay == 5

    def test_an_override_needs_no_read(self, make_controller: MakeController, provider: InMemoryStatsProvider) -> None:
        controller = make_controller()
        controller.set_manual_override(True)
        provider.fail_with(OUTAGE)
        assert controller.suggest_throttle("low", "new").reason is Reason.MANUAL_OVERRIDE
        assert controller.health()["polling_errors"] == {}


class TestStaleness:
    CONFIG = BackpressureConfig(polling=PollingConfig(cache_ttl=10), recovery=RecoveryStrategy(graceful_degrade=100))

    def test_delay_moves_from_the_last_sample_to_the_fallback(
        self, make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
    ) -> None:
        controller = make_controller(None, self.CONFIG)
        provider.fail_with(OUTAGE)
        clock.advance(10)
        assert controller.suggest_throttle("medium", "red").delay == 2.75
        clock.advance(50)
        decision = controller.suggest_throttle("medium", "red")
        assert (decision.reason, decision.delay) == (Reason.STATS_STALE, (2.75 + 0.5) / 2)
        assert decision.backlog_size == 3_500
        shed = controller.suggest_throttle("low", "full")
        assert (shed.reason, shed.should_shed, shed.delay) == (Reason.STATS_STALE, False, (7.5 + 1) / 2)
        clock.advance(50)
        assert controller.suggest_throttle("medium", "red").delay == 0.5
        clock.advance(1e-9)
        decision = controller.suggest_throttle("medium", "red")
        assert (decision.reason, decision.delay) == (Reason.FALLBACK_CONSERVATIVE, 0.5)
        assert controller.health()["last_fallback"] is not None

    @pytest.mark.parametrize(
        ("mode", "delays"),
        [
            ("conservative", {"high": 0.1, "medium": 0.5, "low": 1.0}),
            ("permissive", {"high": 0, "medium": 0, "low": 0}),
            ("circuit_only", {"high": 0, "medium": 0, "low": 0}),
        ],
    )
    def test_fallback_modes(
        self,
        make_controller: MakeController,
        provider: InMemoryStatsProvider,
        mode: Any,
        delays: dict[str, float],
    ) -> None:
        provider.fail_with(OUTAGE)
        controller = make_controller(None, BackpressureConfig(recovery=RecoveryStrategy(fallback_mode=mode)))
        for priority, delay in delays.items():
            decision = controller.suggest_throttle(priority, "new")
            assert (decision.reason, decision.delay) == (f"fallback_{mode}", delay)

    def test_a_date_in_the_past_counts_as_age(
        self, make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
    ) -> None:
        old = clock.utc_now()
        provider.set("aging", 0, last_updated=old)
        clock.advance(31)
        controller = make_controller()
        assert controller.suggest_throttle("low", "aging").reason is Reason.STATS_STALE

    def test_without_polling_one_caller_reads_at_expiry(
        self, make_controller: MakeController, provider: InMemoryStatsProvider, clock: ManualClock
    ) -> None:
        controller = make_controller(None, BackpressureConfig(polling=PollingConfig(enabled=False)))
        assert controller.suggest_throttle("medium", "empty").delay == 0
        provider.set("empty", 5_000)
        clock.advance(30)
        assert controller.suggest_throttle("medium", "empty").delay == 0
        clock.advance(1e-9)
        assert controller.suggest_throttle("medium", "empty").delay == 5
        provider.fail_with(OUTAGE)
        clock.advance(31)
        assert controller.suggest_throttle("medium", "empty").reason is Reason.STATS_STALE
        errors = controller.health()["polling_errors"]
        assert controller.suggest_throttle("medium", "empty").reason is Reason.STATS_STALE
        assert controller.health()["polling_errors"] == errors


class TestRun:
    def test_returns_the_value_and_passes_arguments(self, controller: BackpressureController) -> None:
        assert controller.run("high", "empty", lambda *args, **kwargs: (args, kwargs), 1, b=2) == ((1,), {"b": 2})

    def test_sleeps_the_delay_with_jitter(self, controller: BackpressureController, clock: ManualClock) -> None:
        for _ in range(20):
            assert controller.refresh("red")  # twenty of them would outlast a sample
            before = clock.monotonic_ns()
            controller.run("medium", "red", int)
            assert 2.75 <= (clock.monotonic_ns() - before) / 1e9 <= 2.75 * 1.1

    def test_a_shed_job_is_not_run(self, controller: BackpressureController) -> None:
        with pytest.raises(JobShedError) as raised:
            controller.run("low", "full", fail)
        assert raised.value.queue_name == "full"
        assert raised.value.priority is Priority.LOW
        assert raised.value.retry_after == 7.5

    def test_max_wait_raises_instead_of_sleeping(self, controller: BackpressureController, clock: ManualClock) -> None:
        before = clock.monotonic_ns()
        with pytest.raises(ThrottledError, match=r"would wait 2\.750 s") as raised:
            controller.run("medium", "red", fail, max_wait=1)
        assert raised.value.retry_after == 2.75
        assert clock.monotonic_ns() == before
        assert reasons(controller, "red", Priority.MEDIUM) == {"backlog_red": 1}
        assert controller.run("medium", "red", int, max_wait=3) == 0

    @pytest.mark.parametrize("max_wait", [-1, math.nan, math.inf, True, "1"])
    def test_a_bad_max_wait_is_refused(self, controller: BackpressureController, max_wait: Any) -> None:
        with pytest.raises(ConfigurationError, match="max_wait"):
            controller.run("medium", "red", fail, max_wait=max_wait)

    def test_override_lets_sleepers_go(self, make_controller: MakeController) -> None:
        clock = ManualClock()
        controller = make_controller(clock=clock)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(controller.run, "medium", "red", int)
            eventually(lambda: clock.sleeping() == 2)
            controller.set_manual_override(True)
            assert running.result(10) == 0
        assert reasons(controller, "red", Priority.MEDIUM) == {"manual_override": 1}

    def test_does_not_block_an_event_loop(self, controller: BackpressureController) -> None:
        async def enqueue() -> None:
            with pytest.warns(RuntimeWarning, match="event loop"):
                controller.run("medium", "red", fail)

        with pytest.raises(backpressure.BackpressureError, match="would block the running event loop"):
            asyncio.run(enqueue())

    def test_refuses_coroutine_functions(self, controller: BackpressureController) -> None:
        async def enqueue() -> None: ...

        with pytest.raises(TypeError, match="coroutine function"):
            _ = controller.run("high", "empty", enqueue)

    def test_a_circuit_that_opens_during_the_sleep_stops_the_job(self, make_controller: MakeController) -> None:
        clock = ManualClock()
        controller = make_controller(clock=clock)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(controller.run, "medium", "red", int)
            eventually(lambda: clock.sleeping() == 2)
            open_circuit(controller, "red")
            clock.advance(3.1)
            with pytest.raises(CircuitOpenError):
                running.result(10)
        assert reasons(controller, "red", Priority.MEDIUM) == {"circuit_open": 1}


class TestSlotAndDecorator:
    def test_a_slot_reports_its_outcome(self, controller: BackpressureController) -> None:
        with controller.slot("low", "empty") as decision:
            assert decision.reason is Reason.BACKLOG_GREEN
        for _ in range(5):
            with pytest.raises(RuntimeError), controller.slot("low", "empty"):
                fail()
        with pytest.raises(CircuitOpenError), controller.slot("low", "empty"):
            pytest.fail("the body must not run")

    def test_a_decorated_function_keeps_its_name_and_value(self, controller: BackpressureController) -> None:
        @controller.throttled("low", "empty")
        def enqueue(event: int) -> int:
            """Enqueue one."""
            return event + 1

        assert (enqueue(1), enqueue.__name__, enqueue.__doc__) == (2, "enqueue", "Enqueue one.")

    def test_a_decorated_coroutine_function_awaits_its_turn(
        self, controller: BackpressureController, clock: ManualClock
    ) -> None:
        @controller.throttled("medium", "red")
        async def enqueue(event: int) -> int:
            return event + 1

        @controller.throttled("medium", "empty")
        async def broken() -> None:
            fail()

        before = clock.monotonic_ns()
        assert asyncio.run(enqueue(1)) == 2
        assert clock.monotonic_ns() - before >= 2.75e9
        for _ in range(5):
            with pytest.raises(RuntimeError):
                asyncio.run(broken())
        with pytest.raises(CircuitOpenError):
            asyncio.run(broken())

    def test_generators_are_refused(self, controller: BackpressureController) -> None:
        def generate() -> Iterator[int]:
            yield 1

        async def generate_async() -> AsyncIterator[int]:
            yield 1

        for function in (generate, generate_async):
            with pytest.raises(TypeError, match="generator function"):
                controller.throttled("low", "empty")(function)

    def test_the_decorator_checks_its_arguments_at_once(self, controller: BackpressureController) -> None:
        with pytest.raises(InvalidPriorityError):
            controller.throttled("urgent", "empty")
        with pytest.raises(InvalidQueueError):
            controller.throttled("low", "")


class TestCircuit:
    def test_failures_open_it_for_every_priority_and_recovery_closes_it(
        self, controller: BackpressureController, clock: ManualClock
    ) -> None:
        for _ in range(5):
            with pytest.raises(RuntimeError):
                controller.run("high", "empty", fail)
        for priority in ("low", "medium", "high"):
            decision = controller.suggest_throttle(priority, "empty")
            assert (decision.reason, decision.should_shed) == (Reason.CIRCUIT_OPEN, True)
            assert decision.retry_after == pytest.approx(60, abs=0.002)
        clock.advance(60.002)
        assert controller.get_circuit_state("empty") is CircuitState.OPEN
        for _ in range(3):
            assert controller.run("low", "empty", int) == 0
            if controller.get_circuit_state("empty") is CircuitState.HALF_OPEN:
                rejected = controller.suggest_throttle("high", "empty")
                assert rejected.reason is Reason.CIRCUIT_HALF_OPEN
                assert rejected.retry_after == pytest.approx(5, abs=0.002)
                clock.advance(5.002)
        assert controller.get_circuit_state("empty") is CircuitState.CLOSED

    def test_a_rejection_is_served_while_nothing_changes_and_tells_the_time_left(
        self, controller: BackpressureController, clock: ManualClock
    ) -> None:
        open_circuit(controller)
        first = controller.suggest_throttle("low", "empty")
        clock.advance(3)  # no poll is due yet
        second = controller.suggest_throttle("low", "empty")
        assert second is first
        assert second.retry_after == pytest.approx(57, abs=0.002)
        with pytest.raises(CircuitOpenError, match=r"retry in 57\.00"):
            second.wait()

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
    def test_interrupts_are_no_failures(self, controller: BackpressureController, error: type[BaseException]) -> None:
        def work() -> None:
            raise error

        for _ in range(6):
            with pytest.raises(error):
                controller.run("low", "empty", work)
        assert controller.get_circuit_state("empty") is CircuitState.CLOSED

    def test_own_and_excluded_errors_are_no_failures(self, make_controller: MakeController) -> None:
        config = BackpressureConfig(circuit=CircuitConfig(excluded_exceptions=(KeyError,)))
        controller = make_controller(None, config)

        def shed() -> None:
            raise JobShedError("of another queue")

        for error, work in ((KeyError, {}.popitem), (JobShedError, shed)):
            for _ in range(6):
                with pytest.raises(error):
                    controller.run("low", "empty", work)
        assert controller.get_circuit_state("empty") is CircuitState.CLOSED

    def test_a_success_starts_the_run_of_failures_anew(self, controller: BackpressureController) -> None:
        for _ in range(10):
            for _ in range(4):
                controller.record_failure("empty")
            controller.run("low", "empty", int)
        assert controller.get_circuit_state("empty") is CircuitState.CLOSED

    def test_an_outage_of_statistics_never_counts(
        self, controller: BackpressureController, provider: InMemoryStatsProvider
    ) -> None:
        provider.fail_with(OUTAGE)
        for _ in range(10):
            controller.refresh("empty")
        assert controller.get_circuit_state("empty") is CircuitState.CLOSED

    def test_reports_by_decision_count_for_their_own_generation(
        self, controller: BackpressureController, clock: ManualClock
    ) -> None:
        early = controller.suggest_throttle("low", "empty")
        open_circuit(controller)
        clock.advance(60.002)
        probe = controller.suggest_throttle("low", "empty")
        assert controller.get_circuit_state("empty") is CircuitState.HALF_OPEN
        controller.record_failure(early)
        assert controller.get_circuit_state("empty") is CircuitState.HALF_OPEN
        controller.record_failure(probe)
        assert controller.get_circuit_state("empty") is CircuitState.OPEN

    def test_shed_jobs_take_no_probe(self, controller: BackpressureController, clock: ManualClock) -> None:
        open_circuit(controller, "full")
        clock.advance(60.002)
        controller.refresh("full")
        assert controller.suggest_throttle("low", "full").reason is Reason.BACKLOG_RED_SHED
        assert controller.get_circuit_state("full") is CircuitState.OPEN
        assert controller.suggest_throttle("high", "full").reason is Reason.BACKLOG_RED
        assert controller.get_circuit_state("full") is CircuitState.HALF_OPEN

    def test_forced_open_beats_the_override(self, controller: BackpressureController, clock: ManualClock) -> None:
        circuit = controller.circuit("empty")
        circuit.force_open()
        controller.set_manual_override(True)
        decision = controller.suggest_throttle("high", "empty")
        assert (decision.reason, decision.retry_after) == (Reason.CIRCUIT_OPEN, None)
        clock.advance(86_400)
        assert controller.suggest_throttle("high", "empty").should_shed
        circuit.force_close()
        assert controller.suggest_throttle("high", "empty").reason is Reason.MANUAL_OVERRIDE

    def test_high_may_attempt(self, make_controller: MakeController) -> None:
        controller = make_controller(None, BackpressureConfig(circuit=CircuitConfig(high_priority="attempt")))
        open_circuit(controller)
        assert controller.run("high", "empty", int) == 0
        assert controller.suggest_throttle("medium", "empty").reason is Reason.CIRCUIT_OPEN
        controller.circuit("empty").force_open()
        assert controller.suggest_throttle("high", "empty").reason is Reason.CIRCUIT_OPEN

    def test_looking_creates_nothing(self, controller: BackpressureController) -> None:
        before = controller.health()["queues"].keys()
        assert controller.get_circuit_state("unknown") is CircuitState.CLOSED
        assert controller.circuit("unknown").state is CircuitState.CLOSED
        assert controller.circuit("unknown").stats()["state"] == "closed"
        assert controller.health()["queues"].keys() == before

    def test_listeners_hear_of_transitions(self, make_controller: MakeController) -> None:
        controller = make_controller(start=False)
        changes: list[StateChange] = []
        controller.add_listener(changes.append)
        controller.add_listener(lambda _: fail())
        controller.start()
        open_circuit(controller)
        assert [(change.kind, change.queue_name, change.old, change.new) for change in changes] == [
            ("circuit", "empty", "closed", "open")
        ]


class TestControls:
    @pytest.mark.parametrize(
        ("turn", "reason"),
        [("set_manual_override", Reason.MANUAL_OVERRIDE), ("set_emergency_mode", Reason.EMERGENCY_MODE)],
    )
    def test_everything_passes(self, controller: BackpressureController, turn: str, reason: Reason) -> None:
        open_circuit(controller, "full")
        getattr(controller, turn)(True)
        decision = controller.suggest_throttle("low", "full")
        assert (decision.reason, decision.delay, decision.should_shed) == (reason, 0, False)
        for _ in range(6):
            with pytest.raises(RuntimeError):
                controller.run("low", "green", fail)
        assert controller.get_circuit_state("green") is CircuitState.CLOSED
        getattr(controller, turn)(False)
        assert controller.suggest_throttle("low", "full").should_shed

    def test_an_override_can_expire(self, controller: BackpressureController, clock: ManualClock) -> None:
        controller.set_manual_override(True, for_=600)
        assert controller.health()["manual_override"]
        clock.advance(599.999)
        assert controller.suggest_throttle("low", "full").delay == 0
        clock.advance(0.001)
        assert not controller.health()["manual_override"]
        assert controller.suggest_throttle("low", "full").reason is not Reason.MANUAL_OVERRIDE

    def test_switches_start_as_configured(self, make_controller: MakeController) -> None:
        on = make_controller(None, BackpressureConfig(recovery=RecoveryStrategy(manual_override=True)))
        assert on.suggest_throttle("low", "full").reason is Reason.MANUAL_OVERRIDE
        on = make_controller(None, BackpressureConfig(recovery=RecoveryStrategy(emergency_mode=True)))
        assert on.suggest_throttle("low", "full").reason is Reason.EMERGENCY_MODE

    def test_only_bools_turn_switches(self, controller: BackpressureController) -> None:
        with pytest.raises(ConfigurationError):
            controller.set_manual_override(1)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError):
            controller.set_emergency_mode("on")  # type: ignore[arg-type]

    def test_observe_mode_lets_pass_and_tells_what_it_would_do(self, make_controller: MakeController) -> None:
        controller = make_controller(None, BackpressureConfig(mode="observe"))
        decision = controller.suggest_throttle("low", "full")
        assert (decision.reason, decision.delay, decision.should_shed) == (Reason.OBSERVE_ONLY, 0, False)
        assert decision.advised is not None
        assert decision.advised.reason is Reason.BACKLOG_RED_SHED
        assert controller.run("medium", "red", int) == 0
        assert reasons(controller, "full", Priority.LOW) == {"backlog_red_shed": 1}
        for _ in range(5):
            with pytest.raises(RuntimeError):
                controller.run("low", "empty", fail)
        assert controller.get_circuit_state("empty") is CircuitState.OPEN
        assert controller.run("low", "empty", int) == 0

    def test_reconfigure_keeps_breakers_and_changes_the_law(self, controller: BackpressureController) -> None:
        open_circuit(controller, "green")
        window = BacklogWindow(green_max=1, yellow_max=2, red_max=3)
        strict = BackpressureConfig(thresholds=BacklogThresholds(medium_priority=window))
        assert controller.suggest_throttle("medium", "yellow").zone is Zone.YELLOW
        controller.reconfigure(strict)
        assert controller.suggest_throttle("medium", "yellow").delay == 5
        assert controller.get_circuit_state("green") is CircuitState.OPEN
        with pytest.raises(ConfigurationError, match="circuit cannot change"):
            controller.reconfigure(BackpressureConfig(circuit=CircuitConfig(failure_threshold=1)))
        with pytest.raises(ConfigurationError, match="max_queues cannot change"):
            controller.reconfigure(BackpressureConfig(max_queues=1))

    def test_a_queue_may_have_settings_of_its_own(self, make_controller: MakeController) -> None:
        window = BacklogWindow(green_max=1, yellow_max=2, red_max=3)
        own = QueueConfig(
            thresholds=BacklogThresholds(medium_priority=window),
            curve=CurveConfig(red_max_delay=1.0),
            circuit=CircuitConfig(failure_threshold=1),
        )
        controller = make_controller(None, BackpressureConfig(queues={"yellow": own}))
        assert controller.suggest_throttle("medium", "yellow").delay == 1
        assert controller.suggest_throttle("medium", "full").delay == 5
        controller.record_failure("yellow")
        assert controller.get_circuit_state("yellow") is CircuitState.OPEN


class TestManyQueues:
    def test_names_beyond_the_limit_share_a_fallback(self, make_controller: MakeController) -> None:
        controller = make_controller(InMemoryStatsProvider(), BackpressureConfig(max_queues=2))
        for name in ("a", "b"):
            controller.suggest_throttle("low", name)
        decision = controller.suggest_throttle("low", "c")
        assert (decision.reason, decision.delay, decision.queue_name) == (Reason.UNTRACKED, 1.0, "c")
        assert controller.run("low", "c", int) == 0
        assert sorted(controller.health()["queues"]) == ["a", "b"]
        assert reasons(controller, "__other__", Priority.LOW) == {"untracked": 2}
        with pytest.raises(backpressure.BackpressureError, match="max_queues is reached"):
            controller.circuit("c").force_open()
        controller.record_failure("c")

    def test_idle_queues_make_room_and_keep_their_counts(
        self, make_controller: MakeController, clock: ManualClock
    ) -> None:
        controller = make_controller(InMemoryStatsProvider(), BackpressureConfig(max_queues=2))
        for name in ("a", "b"):
            controller.suggest_throttle("low", name)
        open_circuit(controller, "b")
        clock.advance(300.1)
        assert controller.suggest_throttle("low", "c").reason is Reason.FALLBACK_CONSERVATIVE
        assert sorted(controller.health()["queues"]) == ["b", "c"]
        assert reasons(controller, "__other__", Priority.LOW) == {"fallback_conservative": 1}
        assert controller.suggest_throttle("low", "d").reason is Reason.UNTRACKED


class TestWaiting:
    def test_wait_sleeps_and_returns(self, controller: BackpressureController, clock: ManualClock) -> None:
        before = clock.monotonic_ns()
        controller.suggest_throttle("medium", "red").wait()
        assert clock.monotonic_ns() - before >= 2.75e9
        controller.suggest_throttle("medium", "empty").wait()

    def test_wait_async(self, controller: BackpressureController, clock: ManualClock) -> None:
        before = clock.monotonic_ns()
        asyncio.run(controller.suggest_throttle("medium", "red").wait_async())
        assert clock.monotonic_ns() - before >= 2.75e9
        with pytest.raises(JobShedError):
            asyncio.run(controller.suggest_throttle("low", "full").wait_async())

    def test_stop_wakes_tasks(self, make_controller: MakeController) -> None:
        clock = ManualClock()
        controller = make_controller(clock=clock)

        async def main() -> None:
            waiting = asyncio.ensure_future(controller.suggest_throttle("medium", "red").wait_async())
            await asyncio.to_thread(eventually, lambda: clock.sleeping() == 2)
            controller.stop()
            await waiting

        with pytest.raises(ControllerStoppedError):
            asyncio.run(main())


def test_health_is_json_and_has_the_promised_keys(controller: BackpressureController) -> None:
    controller.suggest_throttle("low", "full")
    health = json.loads(json.dumps(controller.health(), allow_nan=False))
    assert health.keys() >= {
        "started",
        "stopped",
        "manual_override",
        "emergency_mode",
        "cache_hit_rate",
        "cache_size",
        "circuit_states",
        "polling_enabled",
        "last_fallback",
    }
    assert health["started"] is True
    assert health["circuit_states"]["full"] == "closed"
    assert health["engine"] in {"pure", "native"}


def test_threads_lose_no_count(controller: BackpressureController) -> None:
    names, rounds = ["empty", "red", "full"], 10_000

    def ask(seed: int) -> None:
        for step in range(rounds):
            controller.suggest_throttle("low" if step % 2 else "high", names[(seed + step) % 3])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    total = sum(sum(totals.reasons) for totals in controller._engine.totals().values())
    assert total == 8 * rounds


def test_errors_about_arguments_name_what_was_called(engine_name: str) -> None:
    with BackpressureController(None, InMemoryStatsProvider({"q": 0}), _engine=engine_name) as controller:
        run: Any = controller.run
        gate: Any = controller.gate("low", "q")
        for missing in ((), ("low",), ("low", "q")):
            with pytest.raises(TypeError, match=r"^BackpressureController\.run\(\) missing .*'work'"):
                run(*missing)
        with pytest.raises(TypeError, match=r"^BackpressureController\.run\(\) missing"):
            run(priority="low", queue_name="q")
        with pytest.raises(TypeError, match=r"^Gate\.run\(\) missing .*'work'"):
            gate.run()
