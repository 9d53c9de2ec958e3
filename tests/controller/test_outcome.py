"""Outcomes of jobs: work that only promises, futures, groups of errors, and predicates, with every way to run a job."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import inspect
import logging
import threading
import types
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BackpressureController,
    BackpressureError,
    BatchError,
    BatchJob,
    CircuitBreaker,
    CircuitConfig,
    InMemoryStatsProvider,
    JobShedError,
)
from backpressure._controller.outcome import is_plain, verdict
from backpressure._runtime.foreign import Foreign

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator

    from backpressure._engine.border import EngineModule
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

    Way = Callable[[Callable[[], Any]], Any]

CONFIG = BackpressureConfig(circuit=CircuitConfig(failure_threshold=3, recovery_threshold=1))


class KafkaFuture:
    """As kafka-python's of today: awaitable, but not by asyncio."""

    def __init__(self) -> None:
        self.calls: list[list[Callable[..., object]]] = [[], []]
        self.told: tuple[int, object] | None = None

    def add_callback(self, function: Callable[..., object]) -> KafkaFuture:
        return self._add(0, function)

    def add_errback(self, function: Callable[..., object]) -> KafkaFuture:
        return self._add(1, function)

    def _add(self, kind: int, function: Callable[..., object]) -> KafkaFuture:
        self.calls[kind].append(function)
        if self.told is not None and self.told[0] == kind:
            function(self.told[1])
        return self

    def set_result(self, value: object) -> None:
        self._tell(0, value)

    def set_exception(self, error: BaseException) -> None:
        self._tell(1, error)

    def _tell(self, kind: int, what: object) -> None:
        self.told = kind, what
        for function in self.calls[kind]:
            function(what)

    def __await__(self) -> Iterator[Any]:
        yield self


FUTURES = [concurrent.futures.Future, KafkaFuture]


@pytest.fixture
def controller(make_controller: MakeController) -> BackpressureController:
    return make_controller(None, CONFIG)


@pytest.fixture
def breaker(engine_name: str, engine_module: EngineModule, clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker(CONFIG.circuit, clock=clock, _engine=engine_name)


def failures(circuit: CircuitBreaker) -> int:
    count: int = circuit.stats()["failure_count"]
    return count


WAYS = ["run", "patient run", "gate", "throttled", "batch", "breaker"]


@pytest.fixture(params=[0, 1], ids=["pristine", "after a failure"])
def before(request: pytest.FixtureRequest) -> int:
    """Return how many failures the circuit has to forget: into a pristine one, successes are not reported."""
    count: int = request.param
    return count


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, controller: BackpressureController, breaker: CircuitBreaker, before: int
) -> Way:
    """Return what runs work, in each of the ways that there are."""

    def batch(work: Callable[[], Any]) -> Any:
        try:
            return controller.process_batch([BatchJob("low", "empty", work)]).outcomes[0].value
        except BatchError as error:
            failed = error.exceptions[0]
        raise failed

    ways: dict[str, Way] = {
        "run": lambda work: controller.run("low", "empty", work),
        "patient run": lambda work: controller.run("low", "empty", work, max_wait=1),
        "gate": controller.gate("low", "empty").run,
        "throttled": controller.throttled("low", "empty")(wrapper),
        "batch": batch,
        "breaker": breaker.call,
    }
    controller.run("low", "empty", int)
    circuit = request.getfixturevalue("circuit")
    for _ in range(before):
        circuit.record_failure()
    return ways[request.param]


@pytest.fixture
def circuit(request: pytest.FixtureRequest, controller: BackpressureController, breaker: CircuitBreaker) -> Any:
    """Return the circuit that the way feeds."""
    params = request.node.callspec.params
    return breaker if params.get("way") == "breaker" else controller.circuit("empty")


def wrapper(work: Callable[[], Any]) -> Any:
    return work()


async def coroutine() -> None: ...


def generator() -> Generator[int, None, None]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@types.coroutine
def old_coroutine() -> Iterator[None]:
    yield


class Custom:
    def __await__(self) -> Iterator[None]:
        yield


class TestPromises:
    @pytest.mark.parametrize(
        ("work", "told"),
        [
            (coroutine, r"coroutine is a coroutine function: "),
            (generator, "generator is a generator function, whose work happens after the call: use slot"),
            (old_coroutine, "old_coroutine is a generator function"),
            (async_generator, "async_generator is a generator function"),
            (lambda: (number for number in [1]), "<genexpr> is a generator function"),
            (Custom, "returned an awaitable Custom, not its outcome: "),
        ],
        ids=["coroutine", "generator", "types.coroutine", "async generator", "expression", "custom"],
    )
    def test_are_refused_and_count_for_nothing(
        self, way: Way, circuit: CircuitBreaker, before: int, work: Callable[[], Any], told: str
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(TypeError, match=told) as refused:
                way(work)
            gc.collect()
        assert isinstance(refused.value, BackpressureError)
        assert refused.value.__context__ is None
        assert failures(circuit) == before

    def test_what_is_refused_is_closed(self, way: Way) -> None:
        begun, made = coroutine(), generator()
        for value in (begun, made):
            with pytest.raises(TypeError):
                way(functools.partial(wrapper, lambda value=value: value))  # type: ignore[misc]
        assert (inspect.getcoroutinestate(begun), inspect.getgeneratorstate(made)) == ("CORO_CLOSED", "GEN_CLOSED")

    @pytest.mark.filterwarnings("ignore:a BackpressureController is used on a running event loop:RuntimeWarning")
    def test_a_task_is_refused(self, way: Way, circuit: CircuitBreaker, before: int) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match=r"returned an awaitable (Task|Future), not its outcome"):
                way(lambda: asyncio.ensure_future(asyncio.sleep(0)))

        asyncio.run(main())
        assert failures(circuit) == before

    def test_the_message_names_the_work(self, breaker: CircuitBreaker) -> None:
        with pytest.raises(TypeError, match=r"^Custom returned an awaitable Custom.*: await it, and report with"):
            breaker.call(functools.partial(Custom))

    def test_wrappers_of_generator_functions_are_refused_too(self, controller: BackpressureController) -> None:
        for function in (generator, async_generator, functools.partial(generator)):
            with pytest.raises(TypeError, match="is a generator function"):
                controller.throttled("low", "empty")(function)

    def test_plain_types(self) -> None:
        made: list[Any] = [
            coroutine(),
            generator(),
            async_generator(),
            Custom(),
            concurrent.futures.Future(),
            KafkaFuture(),
        ]
        assert not any(is_plain(type(value)) for value in made)
        assert all(is_plain(type(value)) for value in (None, 1, "a", [], {}, object(), Custom, generator, iter([])))
        made[0].close()


@pytest.mark.parametrize("kind", FUTURES)
class TestFutures:
    def test_are_reported_when_done(self, way: Way, circuit: CircuitBreaker, before: int, kind: type[Any]) -> None:
        future = kind()
        assert way(lambda: future) is future
        assert failures(circuit) == before
        thread = threading.Thread(target=future.set_exception, args=[OSError("no broker")])
        thread.start()
        thread.join(10)
        assert failures(circuit) == before + 1
        other = kind()
        way(lambda: other)
        other.set_result(None)
        assert failures(circuit) == 0

    def test_that_are_done_are_reported_at_once(
        self, way: Way, circuit: CircuitBreaker, before: int, kind: type[Any]
    ) -> None:
        failed = kind()
        failed.set_exception(OSError("no broker"))
        assert way(lambda: failed) is failed
        assert failures(circuit) == before + 1
        done = kind()
        done.set_result(1)
        way(lambda: done)
        assert failures(circuit) == 0

    def test_an_errors_class_counts_as_when_raised(
        self, way: Way, circuit: CircuitBreaker, before: int, kind: type[Any]
    ) -> None:
        for error in (JobShedError(), KeyboardInterrupt(), concurrent.futures.CancelledError()):
            future = kind()
            way(functools.partial({"future": future}.get, "future"))
            future.set_exception(error)
        assert failures(circuit) == before


class TestFuturesOfExecutors:
    def test_a_cancelled_one_says_nothing(self, way: Way, circuit: CircuitBreaker, before: int) -> None:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        way(lambda: future)
        future.cancel()
        assert failures(circuit) == before

    def test_one_of_another_period_is_dropped(
        self, controller: BackpressureController, clock: ManualClock, circuit: CircuitBreaker
    ) -> None:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        controller.run("low", "empty", lambda: future, max_wait=1)
        circuit.reset()
        future.set_exception(OSError())
        assert failures(circuit) == 0

    def test_one_that_tells_twice_is_heard_once(self, way: Way, circuit: CircuitBreaker, before: int) -> None:
        future = KafkaFuture()
        way(lambda: future)
        for _ in range(3):
            future.set_exception(OSError())
        assert failures(circuit) == before + 1

    def test_one_that_cannot_be_asked_harms_nobody(
        self, way: Way, circuit: CircuitBreaker, before: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            def add_done_callback(self, _: object) -> None:
                raise OSError("mine")

        for _ in range(3):
            assert isinstance(way(Broken), Broken)
        assert failures(circuit) == before
        assert ["Broken cannot be asked" in record.getMessage() for record in caplog.records if record.exc_info] == [
            True
        ]


class TestAsyncio:
    """The asyncio controller awaits what can be awaited; the rest is as everywhere."""

    def run(self, engine_name: str, clock: ManualClock, test: Callable[..., Awaitable[None]]) -> None:
        async def main() -> None:
            provider = InMemoryStatsProvider({"empty": 0})
            async with AsyncBackpressureController(CONFIG, provider, clock=clock, _engine=engine_name) as controller:
                circuit = controller.circuit("empty")

                async def batch(work: Callable[[], Any]) -> Any:
                    try:
                        return (await controller.process_batch([BatchJob("low", "empty", work)])).outcomes[0].value
                    except BatchError as error:
                        raise error.exceptions[0] from None

                async def throttled(work: Callable[[], Any]) -> Any:
                    @controller.throttled("low", "empty")
                    async def call() -> Any:
                        value = work()
                        return await value if inspect.iscoroutine(value) else value

                    return await call()

                ways = [
                    functools.partial(controller.run, "low", "empty"),
                    controller.gate("low", "empty").run,
                    batch,
                    throttled,
                ]
                for way in ways:
                    circuit.reset()
                    circuit.record_failure()
                    await test(way, circuit)

        asyncio.run(main())

    def test_generators_are_refused(self, engine_name: str, engine_module: object, clock: ManualClock) -> None:
        async def test(way: Any, circuit: CircuitBreaker) -> None:
            for work in (generator, async_generator):
                with pytest.raises(TypeError, match="is a generator function") as refused:
                    await way(work)
                assert isinstance(refused.value, BackpressureError)
            assert failures(circuit) == 1

        self.run(engine_name, clock, test)

    @pytest.mark.parametrize("kind", FUTURES)
    def test_futures_of_threads_are_reported_when_done(
        self, engine_name: str, engine_module: object, clock: ManualClock, kind: type[Any]
    ) -> None:
        async def test(way: Any, circuit: CircuitBreaker) -> None:
            future = kind()
            assert await way(lambda: future) is future
            assert failures(circuit) == 1
            await asyncio.to_thread(future.set_exception, OSError("no broker"))
            assert failures(circuit) == 2

        self.run(engine_name, clock, test)

    def test_so_are_the_loops_that_are_awaited_for(
        self, engine_name: str, engine_module: object, clock: ManualClock
    ) -> None:
        async def test(way: Any, circuit: CircuitBreaker) -> None:
            loop = asyncio.get_running_loop()
            sent, done, dropped = loop.create_future(), loop.create_future(), loop.create_future()
            done.set_exception(OSError("no broker"))

            async def send(future: asyncio.Future[None]) -> asyncio.Future[None]:
                return future

            assert await way(lambda: send(sent)) is sent
            assert failures(circuit) == 1
            sent.set_exception(OSError("no broker"))
            await way(lambda: send(dropped))
            dropped.cancel()
            await asyncio.sleep(0)
            assert failures(circuit) == 2
            circuit.reset()
            await way(lambda: send(done))
            assert failures(circuit) == 1

        self.run(engine_name, clock, test)

    def test_what_is_awaited_and_still_to_be_awaited_is_refused(
        self, engine_name: str, engine_module: object, clock: ManualClock
    ) -> None:
        async def forgetful() -> Any:
            return coroutine()

        async def test(way: Any, circuit: CircuitBreaker) -> None:
            with pytest.raises(TypeError, match="coroutine is a coroutine function: await it inside the work"):
                await way(forgetful)
            assert failures(circuit) == 1

        self.run(engine_name, clock, test)

    def test_a_decorated_coroutine_function_of_the_other_controller(self, controller: BackpressureController) -> None:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()

        @controller.throttled("low", "empty")
        async def call(work: Callable[[], Any]) -> Any:
            return work()

        with pytest.raises(TypeError, match="is a generator function"):
            asyncio.run(call(generator))
        assert asyncio.run(call(lambda: future)) is future
        future.set_exception(OSError())
        assert failures(controller.circuit("empty")) == 1


SILENT = Foreign(logging.getLogger("silent"))
OWN, OTHER = JobShedError(), OSError()


def counts(error: BaseException, **circuit: Any) -> bool:
    told = verdict(error, CircuitConfig(**circuit), SILENT)
    assert told is None or told is False
    return told is False


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (OTHER, True),
            (OWN, False),
            (KeyError(), False),
            (concurrent.futures.CancelledError(), False),
            (asyncio.CancelledError(), False),
            (ExceptionGroup("", [OWN, KeyError()]), False),
            (ExceptionGroup("", [OWN, ExceptionGroup("", [OWN, ExceptionGroup("", [OTHER])])]), True),
            (BaseExceptionGroup("", [KeyboardInterrupt(), OWN]), False),
            (BaseExceptionGroup("", [asyncio.CancelledError(), ExceptionGroup("", [OTHER])]), True),
            (BatchError("", [OTHER]), False),
        ],
    )
    def test_a_group_counts_if_a_leaf_does(self, error: BaseException, expected: bool) -> None:
        assert counts(error, excluded_exceptions=(KeyError,)) is expected

    def test_a_group_may_be_excluded_itself(self) -> None:
        assert not counts(ExceptionGroup("", [OTHER]), excluded_exceptions=(ExceptionGroup,))

    def test_the_predicate_is_asked_about_each_leaf_that_is_left(self) -> None:
        asked: list[Exception] = []

        def throttled(error: Exception) -> bool:
            asked.append(error)
            return str(error) == "throttled"

        errors = [OSError("bad input"), KeyError(), OWN, ExceptionGroup("", [OSError("too long")])]
        config = {"excluded_exceptions": (KeyError,), "is_failure": throttled}
        assert not counts(ExceptionGroup("", errors), **config)
        assert sorted(map(str, asked)) == ["bad input", "too long"]
        assert counts(ExceptionGroup("", [*errors, OSError("throttled")]), **config)
        asked.clear()
        for error in (OWN, KeyError(), KeyboardInterrupt()):
            assert not counts(error, **config)
        assert asked == []

    def test_it_holds_on_every_way(self, engine_name: str, engine_module: object, clock: ManualClock) -> None:
        config = CircuitConfig(failure_threshold=1, is_failure=lambda error: "throttled" in str(error))
        breaker = CircuitBreaker(config, clock=clock, _engine=engine_name)
        own = BackpressureConfig(circuit=config).evolve({"queues.other.circuit.is_failure": bool})

        def fail(text: str) -> None:
            raise OSError(text)

        provider = InMemoryStatsProvider({"mail": 0, "other": 0})
        with BackpressureController(own, provider, clock=clock, _engine=engine_name) as controller:
            for call in (breaker.call, functools.partial(controller.run, "low", "mail")):
                with pytest.raises(OSError, match="bad input"):
                    call(fail, "bad input")
            assert str(breaker.state) == str(controller.get_circuit_state("mail")) == "closed"
            for call in (breaker.call, functools.partial(controller.run, "low", "mail")):
                with pytest.raises(OSError, match="throttled"):
                    call(fail, "throttled")
            with pytest.raises(OSError, match="bad input"):
                controller.run("low", "other", fail, "bad input")
            states = (breaker.state, controller.get_circuit_state("mail"), controller.get_circuit_state("other"))
            assert [str(state) for state in states] == ["open"] * 3

    @pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError, SystemExit])
    def test_one_that_raises_is_told_once_and_counts(
        self, controller: BackpressureController, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
    ) -> None:
        def broken(_: Exception) -> bool:
            raise kind("mine")

        breaker = CircuitBreaker(CircuitConfig(is_failure=broken))
        for _ in range(3):
            with pytest.raises(OSError, match="no server") as raised:
                breaker.call(_fail)
            assert raised.value.__context__ is None
        assert failures(breaker) == 3
        assert [record.getMessage().partition(" ")[0] for record in caplog.records if record.exc_info] == ["is_failure"]


def _fail() -> None:
    raise OSError("no server")
