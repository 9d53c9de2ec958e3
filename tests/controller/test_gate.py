"""Gates, and `run` beside them: the calls of hot loops, with the machine's clock as in production."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    AsyncGate,
    BackpressureConfig,
    BackpressureController,
    CircuitConfig,
    CircuitOpenError,
    CircuitState,
    ConfigurationError,
    ControllerStoppedError,
    Gate,
    InMemoryStatsProvider,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    Priority,
    Reason,
    ThrottledError,
)
from backpressure._engine.totals import REASONS
from support.garbage import is_gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from backpressure import ThrottleDecision
    from backpressure._model.clock import Clock
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

ONE_FAILURE = BackpressureConfig(circuit=CircuitConfig(failure_threshold=1))


def counted(controller: BackpressureController, name: str = "empty") -> dict[str, int]:
    """Return how many decisions of each reason were counted for LOW jobs."""
    reasons = controller._engine.totals()[name, Priority.LOW.value].reasons
    return {str(reason): count for reason, count in zip(REASONS, reasons, strict=True) if count}


@pytest.fixture(params=["manual clock", "system clock"])
def time(request: pytest.FixtureRequest, clock: ManualClock) -> Clock | None:
    """Engines read the clock of the machine themselves, on a path of their own."""
    return clock if request.param == "manual clock" else None


@pytest.fixture
def controller(make_controller: MakeController, time: Clock | None) -> BackpressureController:
    return make_controller(None, ONE_FAILURE, clock=time)


@pytest.fixture(params=["controller", "gate"])
def run(request: pytest.FixtureRequest, controller: BackpressureController) -> Callable[..., Any]:
    """Run LOW jobs for the queue ``empty``, by either way."""
    if request.param == "gate":
        return controller.gate("low", "empty").run
    return lambda *args, **kwargs: controller.run("low", "empty", *args, **kwargs)


@pytest.fixture(params=["here", "another context", "another thread"])
def leave(request: pytest.FixtureRequest) -> Callable[[Callable[[], object]], object]:
    """Call something somewhere."""

    def elsewhere(function: Callable[[], object]) -> object:
        with ThreadPoolExecutor() as pool:
            return pool.submit(function).result(10)

    ways: dict[str, Callable[[Callable[[], object]], object]] = {
        "here": lambda function: function(),
        "another context": lambda function: contextvars.Context().run(function),
        "another thread": elsewhere,
    }
    return ways[request.param]


def fail() -> None:
    raise OSError("no server")


class TestRuns:
    def test_every_run_is_counted_and_passes_its_arguments(
        self, controller: BackpressureController, run: Callable[..., Any]
    ) -> None:
        for _ in range(5):
            assert run(lambda *args, **kwargs: (args, kwargs)) == ((), {})
            assert run(lambda *args, **kwargs: (args, kwargs), 1, [2], c=3) == ((1, [2]), {"c": 3})
            assert run(dict, b=2) == {"b": 2}
        assert counted(controller) == {"backlog_green": 15}

    def test_an_error_comes_out_as_it_is_and_counts_against_the_queue(
        self, controller: BackpressureController, run: Callable[..., Any]
    ) -> None:
        run(int)
        with pytest.raises(OSError, match="no server") as raised:
            run(fail)
        assert raised.traceback[-1].name == "fail"
        assert controller.get_circuit_state("empty") is CircuitState.OPEN
        with pytest.raises(CircuitOpenError):
            run(pytest.fail)
        assert counted(controller) == {"backlog_green": 2, "circuit_open": 1}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
    def test_an_interrupt_says_nothing_of_the_queue(
        self, controller: BackpressureController, run: Callable[..., Any], error: type[BaseException]
    ) -> None:
        def interrupted() -> None:
            raise error

        for _ in range(2):
            with pytest.raises(error):
                run(interrupted)
        assert controller.get_circuit_state("empty") is CircuitState.CLOSED

    def test_a_success_ends_a_run_of_failures(self, make_controller: MakeController, time: Clock | None) -> None:
        controller = make_controller(clock=time)
        gate = controller.gate("low", "empty")
        for _ in range(4):
            with pytest.raises(OSError, match="no server"):
                gate.run(fail)
        gate.run(int)
        assert controller.circuit("empty").stats()["failure_count"] == 0
        for _ in range(4):
            with pytest.raises(OSError, match="no server"):
                controller.run("low", "empty", fail)
        controller.run("low", "empty", int)
        assert controller.circuit("empty").stats()["failure_count"] == 0

    def test_a_coroutine_is_refused_and_closed(
        self, controller: BackpressureController, run: Callable[..., Any]
    ) -> None:
        async def enqueue() -> None: ...

        run(int)
        for _ in range(2):
            with pytest.raises(TypeError, match="enqueue is a coroutine function: use AsyncBackpressureController"):
                run(enqueue)
        assert controller.get_circuit_state("empty") is CircuitState.CLOSED

    def test_work_may_run_others(self, controller: BackpressureController, run: Callable[..., Any]) -> None:
        assert run(lambda: run(lambda: run(int) + 1) + 1) == 2
        assert counted(controller) == {"backlog_green": 3}

    def test_nothing_is_kept_of_the_work(self, run: Callable[..., Any]) -> None:
        class Event:
            pass

        event = Event()
        gone = weakref.ref(event)
        assert run(lambda event: event, event) is event
        del event
        assert is_gone(gone)

    def test_wrong_calls_say_so(self, controller: BackpressureController) -> None:
        untyped: Any = controller
        for call in (untyped.run, lambda: untyped.run("low"), untyped.gate("low", "empty").run):
            with pytest.raises(TypeError, match="missing"):
                call()
        with pytest.raises(TypeError, match="queue_name"):
            untyped.suggest_throttle("low")
        with pytest.raises(TypeError):
            untyped.gate("low", "empty").suggest(1)
        with pytest.raises(TypeError, match="not callable"):
            untyped.run("high", "green", 3)
        assert controller.suggest_throttle(queue_name="empty", priority="low").delay == 0

    def test_max_wait_is_the_controllers_and_all_keywords_are_the_gates_works(
        self, controller: BackpressureController
    ) -> None:
        assert controller.run("low", "empty", dict, max_wait=1, a=2) == {"a": 2}
        for _ in range(2):
            assert controller.gate("low", "empty").run(dict, max_wait=1) == {"max_wait": 1}
        with pytest.raises(ConfigurationError, match="max_wait"):
            controller.run("low", "empty", dict, max_wait=-1)

    def test_signatures_can_be_asked_for(self, controller: BackpressureController) -> None:
        gate = controller.gate("low", "empty")
        assert list(inspect.signature(gate.suggest).parameters) == []
        for call in (controller.run, controller.suggest_throttle, gate.run):
            assert inspect.signature(call).parameters

    def test_threads_lose_no_count(self, controller: BackpressureController) -> None:
        gate, done = controller.gate("low", "empty"), []

        def produce() -> None:
            for _ in range(1_000):
                gate.run(int)
                gate.suggest()
                controller.run("low", "empty", int)
                controller.suggest_throttle("low", "empty")
            done.append(True)

        threads = [threading.Thread(target=produce) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(done) == 8
        assert counted(controller) == {"backlog_green": 32_000}


class TestGate:
    def test_answers_as_its_controller(self, controller: BackpressureController) -> None:
        for name, reason in (("empty", Reason.BACKLOG_GREEN), ("full", Reason.BACKLOG_RED_SHED)):
            gate = controller.gate("low", name)
            assert [gate.suggest().reason for _ in range(3)] == [reason] * 3
            assert gate.suggest() is controller.suggest_throttle("low", name)
        with pytest.raises(JobShedError):
            controller.gate("low", "full").run(pytest.fail)
        assert counted(controller, "full") == {"backlog_red_shed": 6}

    def test_waits_as_advised(self, make_controller: MakeController, clock: ManualClock) -> None:
        gate = make_controller().gate("medium", "red")
        before = clock.monotonic_ns()
        assert gate.run(int) == 0
        with gate as decision:
            assert decision.delay == 2.75
        assert clock.monotonic_ns() - before >= 5.5e9

    def test_max_wait_holds_for_run_and_with(self, controller: BackpressureController) -> None:
        gate = controller.gate("medium", "red", max_wait=1)
        with pytest.raises(ThrottledError):
            gate.run(pytest.fail)
        with pytest.raises(ThrottledError), gate:
            pytest.fail("the body must not run")
        assert gate.suggest().delay == 2.75

    def test_a_body_is_reported(self, controller: BackpressureController) -> None:
        gate = controller.gate("low", "empty")
        with gate, gate as decision:
            assert decision.reason is Reason.BACKLOG_GREEN
        with pytest.raises(OSError, match="no server"), gate:
            fail()
        with pytest.raises(CircuitOpenError), gate:
            pytest.fail("the body must not run")

    def test_what_is_entered_here_may_be_left_anywhere(
        self, controller: BackpressureController, leave: Callable[[Callable[[], object]], object]
    ) -> None:
        gate = controller.gate("low", "empty")

        def body() -> Generator[None, None, None]:
            with gate:
                yield

        other, broken = body(), body()
        next(other)
        next(broken)
        with gate:  # left first, though entered last
            pass

        def throw() -> None:
            with pytest.raises(OSError, match="no server") as raised:
                broken.throw(OSError("no server"))
            assert raised.value.__context__ is None

        leave(throw)
        assert controller.get_circuit_state("empty") is CircuitState.OPEN
        leave(other.close)

    def test_each_entrance_is_left_by_its_own_decision(
        self, make_controller: MakeController, clock: ManualClock, leave: Callable[[Callable[[], object]], object]
    ) -> None:
        config = BackpressureConfig(circuit=CircuitConfig(failure_threshold=1, recovery_threshold=1))
        controller = make_controller(None, config.evolve({"polling.enabled": False}))
        gate, circuit = controller.gate("low", "empty"), controller.circuit("empty")

        def body() -> Generator[None, None, None]:
            with gate:
                yield

        early, probe = body(), body()
        next(early)
        circuit.record_failure()
        clock.advance(61)
        next(probe)
        leave(early.close)  # of an earlier period
        assert str(circuit.state) == "half-open"
        with pytest.raises(StopIteration):
            leave(lambda: next(probe))
        assert str(circuit.state) == "closed"

    def test_the_collector_may_leave_it(self, controller: BackpressureController) -> None:
        gate = controller.gate("low", "empty")
        seen: list[bool] = []

        def body(_: list[object]) -> Iterator[None]:
            try:
                with gate:
                    yield
            finally:
                seen.append(True)

        cycle: list[object] = []
        cycle.append(body(cycle))
        next(cycle[0])  # type: ignore[call-overload]
        del cycle
        gc.collect()
        assert seen == [True]

    def test_stacks_and_calls_by_hand_leave_it_too(
        self, controller: BackpressureController, leave: Callable[[Callable[[], object]], object]
    ) -> None:
        gate, circuit = controller.gate("low", "empty"), controller.circuit("empty")

        class Wrapper:
            def __enter__(self) -> object:
                return gate.__enter__()

            def __exit__(self, *error: object) -> None:
                gate.__exit__(*error)  # type: ignore[arg-type]

        def by_stack(manager: Any) -> Callable[[], object]:
            stack = contextlib.ExitStack()
            stack.enter_context(manager)

            def close() -> None:
                with stack.pop_all():
                    fail()

            return close

        def by_hand() -> Callable[[], object]:
            gate.__enter__()
            return lambda: gate.__exit__(OSError, OSError(), None)

        for enter in (functools.partial(by_stack, gate), functools.partial(by_stack, Wrapper()), by_hand):
            close = enter()
            with contextlib.suppress(OSError):
                leave(close)
            assert circuit.state is CircuitState.OPEN
            circuit.reset()
        gate.__exit__(None, None, None)  # nobody is inside

    def test_nothing_is_kept_of_who_never_leaves(self, controller: BackpressureController) -> None:
        gate = controller.gate("low", "empty")

        class Event:
            pass

        def abandon() -> weakref.ref[Event]:
            event = Event()
            gate.__enter__()
            return weakref.ref(event)

        abandoned = [abandon() for _ in range(3_000)]
        assert all(map(is_gone, abandoned[-10:]))
        assert not any(reference() for reference in abandoned)
        assert len(gate._entrances._by_hand) == 1_000
        gate.__exit__(None, None, None)
        assert len(gate._entrances._by_hand) == 999

    def test_a_look_at_the_exit_enters_nothing(self, controller: BackpressureController) -> None:
        gate = controller.gate("low", "empty")
        assert hasattr(gate, "__exit__")
        assert isinstance(gate, contextlib.AbstractContextManager)
        with contextlib.suppress(OSError), gate:
            fail()
        assert controller.get_circuit_state("empty") is CircuitState.OPEN

    def test_threads_may_be_inside_at_once(self, make_controller: MakeController) -> None:
        controller = make_controller()
        gate = controller.gate("low", "empty")
        both = threading.Barrier(2, timeout=10)

        def enter(broken: bool) -> None:
            with contextlib.suppress(OSError), gate:
                both.wait()
                if broken:
                    fail()
            both.wait()

        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(enter, broken) for broken in (True, False)]:
                done.result(20)
        assert counted(controller) == {"backlog_green": 2}

    def test_making_one_needs_no_start_and_creates_nothing(self, make_controller: MakeController) -> None:
        controller = make_controller(InMemoryStatsProvider(), start=False)
        gate = controller.gate("low", "unseen")
        assert controller.health()["queues"] == {}
        controller.start()
        assert gate.suggest().reason is Reason.FALLBACK_CONSERVATIVE
        controller.stop()
        with pytest.raises(ControllerStoppedError):
            gate.suggest()

    def test_bad_arguments_are_refused_at_once(self, controller: BackpressureController) -> None:
        untyped: Any = controller
        with pytest.raises(InvalidPriorityError):
            untyped.gate(1, "empty")
        with pytest.raises(InvalidQueueError):
            untyped.gate("low", "")
        with pytest.raises(ConfigurationError, match="max_wait"):
            untyped.gate("low", "empty", max_wait="soon")

    def test_is_a_gate_whatever_the_engine(self, controller: BackpressureController) -> None:
        gate = controller.gate("low", "empty", max_wait=2)
        assert isinstance(gate, Gate)
        assert (gate.priority, gate.queue_name, gate.max_wait) == (Priority.LOW, "empty", 2)
        assert repr(gate) == "<Gate: low jobs for queue 'empty'>"

    def test_outlives_an_eviction_of_its_queue(self, make_controller: MakeController, clock: ManualClock) -> None:
        provider = InMemoryStatsProvider({"a": 0})
        controller = make_controller(provider, BackpressureConfig(max_queues=1))
        gate = controller.gate("low", "a")
        gate.suggest()
        gate.suggest()
        provider.remove("a")
        clock.advance(300.1)
        controller.suggest_throttle("low", "b")
        assert gate.suggest().reason is Reason.UNTRACKED
        assert gate.run(int) == 0
        clock.advance(300.1)
        provider.set("a", 5_000)
        assert gate.suggest().reason is Reason.BACKLOG_RED_SHED
        assert counted(controller, "a") == {"backlog_red_shed": 1}
        assert counted(controller, "__other__") == {"backlog_green": 2, "untracked": 2, "fallback_conservative": 1}

    def test_a_subclass_keeps_the_methods_that_it_overrides(self, provider: InMemoryStatsProvider) -> None:
        class Mine(BackpressureController):
            def run(self, *args: Any, **kwargs: Any) -> Any:
                return "mine"

            def suggest_throttle(  # type: ignore[override]
                self, priority: Priority | str, queue_name: str
            ) -> ThrottleDecision:
                return super().suggest_throttle(priority, "empty")

        with Mine(None, provider) as controller:
            assert controller.run("low", "full", pytest.fail) == "mine"
            assert controller.suggest_throttle("low", "full").queue_name == "empty"


class TestAsyncGate:
    def test_answers_runs_and_reports(
        self, clock: ManualClock, provider: InMemoryStatsProvider, engine_name: str, engine_module: Any
    ) -> None:
        async def upper(text: str) -> str:
            await asyncio.sleep(0)
            return text.upper()

        async def enter(gate: AsyncGate, broken: bool) -> None:
            with contextlib.suppress(OSError):
                async with gate as decision:
                    assert decision.queue_name == "empty"
                    await asyncio.sleep(0)
                    if broken:
                        fail()

        async def main() -> None:
            async with AsyncBackpressureController(
                ONE_FAILURE, provider, clock=clock, _engine=engine_name
            ) as controller:
                gate = controller.gate("low", "empty")
                assert (await gate.suggest()).reason is Reason.BACKLOG_GREEN
                assert await gate.run(upper, "sent") == "SENT"
                assert await gate.run(str.upper, "sent") == "SENT"
                assert await controller.gate("medium", "red").run(int) == 0
                await asyncio.gather(*(enter(gate, broken=number == 7) for number in range(20)))
                assert controller.get_circuit_state("empty") is CircuitState.OPEN
                with pytest.raises(CircuitOpenError):
                    async with gate:
                        pytest.fail("the body must not run")
                with pytest.raises(ThrottledError):
                    await controller.gate("medium", "red", max_wait=1).run(pytest.fail)

        asyncio.run(main())

    def test_may_be_left_in_another_task_or_by_nobody(
        self, clock: ManualClock, provider: InMemoryStatsProvider, engine_name: str, engine_module: Any
    ) -> None:
        async def main() -> None:
            async with AsyncBackpressureController(
                ONE_FAILURE, provider, clock=clock, _engine=engine_name
            ) as controller:
                gate, circuit = controller.gate("low", "empty"), controller.circuit("empty")

                async def rows() -> AsyncIterator[int]:
                    async with gate:
                        yield 1

                async def stack() -> Any:
                    stack = contextlib.AsyncExitStack()
                    await stack.enter_async_context(gate)
                    return stack.__aexit__

                for _ in range(2):
                    stream = rows()
                    await asyncio.create_task(anext(stream))  # type: ignore[arg-type]
                    await stream.aclose()  # type: ignore[attr-defined]
                    assert circuit.state is CircuitState.CLOSED
                stream = rows()
                await asyncio.create_task(anext(stream))  # type: ignore[arg-type]
                with pytest.raises(OSError, match="no server") as raised:
                    await stream.athrow(OSError("no server"))  # type: ignore[attr-defined]
                assert raised.value.__context__ is None
                assert circuit.state is CircuitState.OPEN
                circuit.reset()
                close = await asyncio.create_task(stack())
                assert not await close(OSError, OSError(), None)
                assert circuit.state is CircuitState.OPEN
                circuit.reset()
                await asyncio.create_task(gate.__aenter__())
                await gate.__aexit__(OSError, OSError(), None)
                assert circuit.state is CircuitState.OPEN
                circuit.reset()
                abandoned.append(rows())
                await anext(abandoned[0])

        abandoned: list[Any] = []
        asyncio.run(main())
        abandoned.clear()
        gc.collect()
