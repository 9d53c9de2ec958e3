"""Which values of work are outcomes, and that each engine tells its host of all that are none."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, MagicMock, Mock, NonCallableMock

import pytest

from backpressure._controller.outcome import is_plain
from backpressure._engine.settings import EngineSettings
from backpressure._model.config.root import BackpressureConfig
from backpressure._model.vocabulary import Priority
from engine.parity.host import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure._engine.border import EngineModule
    from backpressure._model.decision import ThrottleDecision


class Equal(type):
    """Classes that are equal to anything, and have no hash."""

    def __eq__(cls, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Willing(type):
    """Classes that answer to any name."""

    def __getattr__(cls, name: str) -> str:
        return name


class Awaitable:
    def __await__(self) -> Iterator[None]:
        return iter(())


class CallbackAndErrback:
    def add_callback(self) -> None: ...
    def add_errback(self) -> None: ...


class OnlyCallback:
    def add_callback(self) -> None: ...


class OwnFuture(Future[int]): ...


class EqualFuture(Future[int], metaclass=Equal): ...


class EqualValue(metaclass=Equal): ...


class WillingValue(metaclass=Willing): ...


class Job: ...


async def coroutine() -> None: ...


def generator() -> Iterator[None]:
    yield


async def async_generator() -> Any:
    yield


def made_by_coroutine() -> Any:
    made = coroutine()
    made.close()
    return made


def asyncio_future() -> asyncio.Future[int]:
    loop = asyncio.new_event_loop()
    future = asyncio.Future[int](loop=loop)
    loop.close()
    return future


def with_attribute() -> Any:
    job: Any = Job()
    job.add_done_callback = print
    return job


VALUES: list[object] = [None, True, 1, 1.5, "text", b"bytes", [], (), {}, {1}, int, len]
PLAIN: list[Callable[[], object]] = [
    *(functools.partial(next, itertools.repeat(value)) for value in VALUES),
    Job,
    with_attribute,
    OnlyCallback,
    EqualValue,
    WillingValue,
    Mock,
    MagicMock,
    NonCallableMock,
    AsyncMock,
    functools.partial(Mock, spec=Future),
]
PROMISES: list[Callable[[], object]] = [
    made_by_coroutine,
    generator,
    async_generator,
    Awaitable,
    Future,
    OwnFuture,
    EqualFuture,
    CallbackAndErrback,
    asyncio_future,
]


@pytest.mark.parametrize("make", PLAIN)
def test_plain_values(make: Callable[[], object]) -> None:
    assert [is_plain(type(make())) for _ in range(2)] == [True, True]


@pytest.mark.parametrize("make", PROMISES)
def test_promises(make: Callable[[], object]) -> None:
    assert [is_plain(type(make())) for _ in range(2)] == [False, False]


class Told(FakeHost):
    """A host that keeps what it is told of outcomes."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self.outcomes: list[object] = []

    def report_success(self, decision: ThrottleDecision, value: object) -> None:
        self.outcomes.append(value)
        super().report_success(decision, value)

    def report_error(self, decision: ThrottleDecision, error: BaseException, began_ns: int) -> None:
        self.outcomes.append(error)
        super().report_error(decision, error, began_ns)


class World:
    """One engine, on which a go lies ready, with its host."""

    def __init__(self, module: EngineModule, calls: str, host: Told) -> None:
        self.host = host
        self.engine = host.engine = module.Engine(EngineSettings.of(BackpressureConfig()), host)
        self.engine.set_running(True)
        self.engine.put_sample("q", 0, 0)
        gate = module.Gate(self.engine, host, Priority.HIGH, "q", None, False)
        self.run: Callable[..., Any] = gate.run if calls == "gate" else functools.partial(self.engine.run, "high", "q")
        self.ready()

    def ready(self) -> None:
        """Have a go lie ready: the gate looks its queue up again after a run that found none."""
        self.run(int)
        assert self.host.long_ways == 1
        self.host.outcomes.clear()


@pytest.fixture(params=["engine", "gate"])
def calls(request: pytest.FixtureRequest) -> str:
    """Which of them runs the jobs."""
    calls: str = request.param
    return calls


@pytest.fixture
def world(engine_module: EngineModule, calls: str) -> World:
    return World(engine_module, calls, Told())


@pytest.mark.parametrize("make", PLAIN)
def test_a_plain_value_is_not_told_to_the_host(world: World, make: Callable[[], object]) -> None:
    value = make()
    assert [world.run(lambda: value) for _ in range(2)] == [value, value]
    assert (world.host.outcomes, world.host.long_ways) == ([], 1)


@pytest.mark.parametrize("make", PROMISES)
def test_a_promise_always_is(world: World, make: Callable[[], object]) -> None:
    value = make()
    assert all(world.run(lambda: value) is value for _ in range(2))
    assert all(told is value for told in world.host.outcomes)
    assert (len(world.host.outcomes), world.host.long_ways) == (2, 1)


def test_into_a_circuit_with_failures_all_is_told(world: World) -> None:
    world.engine.record_queue("q", False)
    world.run(str)
    assert world.host.outcomes == [""]


def test_more_types_than_are_remembered(world: World) -> None:
    """Among them some that come to lie where others lay, which nobody remembers any more."""
    promised = []
    for number in range(600):
        kind: Any = type("Kind", (), {"add_done_callback": None} if number % 3 == 0 else {})
        value = world.run(kind)
        assert type(value) is kind
        promised += [value] * (number % 3 == 0)
        if number % 100 == 0:
            gc.collect()
    assert world.host.outcomes == promised


def test_what_is_remembered_has_a_bound(world: World) -> None:
    alive: list[weakref.ref[type]] = []

    def run() -> None:
        kind: Any = type("Kind", (), {})
        alive.append(weakref.ref(kind))
        world.run(kind)

    for _ in range(1_000):
        run()
    gc.collect()
    assert sum(reference() is not None for reference in alive) <= 256


def test_what_the_question_raises_is_raised(engine_module: EngineModule, calls: str) -> None:
    class Asked(Told):
        def is_plain(self, kind: type) -> bool:
            raise KeyboardInterrupt

    world = World(engine_module, calls, Asked())
    with pytest.raises(KeyboardInterrupt):
        world.run(Job)
    assert world.host.outcomes == []


@pytest.mark.parametrize("error", [OSError("no broker"), SystemExit(3), GeneratorExit(), BaseException("any")])
def test_what_work_raises_is_told_as_it_was_raised(world: World, error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        world.run(work)
    assert raised.value is error
    assert [told is error for told in world.host.outcomes] == [True]
    assert error.__traceback__ is not None


def test_what_the_host_raises_comes_in_the_context_of_what_the_work_raised(
    engine_module: EngineModule, calls: str
) -> None:
    class Failing(Told):
        def report_error(self, decision: ThrottleDecision, error: BaseException, began_ns: int) -> None:
            seen.append(error.__traceback__)
            raise LookupError

    def work() -> None:
        raise OSError

    seen: list[object] = []
    world = World(engine_module, calls, Failing())
    with pytest.raises(LookupError) as raised:
        world.run(work)
    assert isinstance(raised.value.__context__, OSError)
    assert seen[0] is not None
