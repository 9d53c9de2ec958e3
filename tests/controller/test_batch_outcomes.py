"""`process_batch(on_outcome=…)`: told as each job ends, jobs read as they are needed, no more held than must be."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BatchError,
    BatchJob,
    BatchResult,
    ConfigurationError,
    ControllerStoppedError,
    CurveConfig,
    InMemoryStatsProvider,
    batch_result,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from backpressure import JobOutcome
    from backpressure._engine.border import EngineModule
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

NO_JITTER = BackpressureConfig(curve=CurveConfig(delay_jitter=0))


class Process(Protocol):
    """Runs a batch in a controller that is made for it."""

    def __call__(self, jobs: Iterable[BatchJob], on_outcome: Any, **options: Any) -> BatchResult: ...


@pytest.fixture(params=["sync", "async", "async iterable"])
def process(
    request: pytest.FixtureRequest,
    make_controller: MakeController,
    engine_name: str,
    engine_module: EngineModule,
    clock: ManualClock,
    provider: InMemoryStatsProvider,
) -> Process:
    async def one_by_one(jobs: Iterable[BatchJob]) -> AsyncIterator[BatchJob]:
        for job in jobs:
            await asyncio.sleep(0)
            yield job

    def run(jobs: Iterable[BatchJob], on_outcome: Any, **options: Any) -> BatchResult:
        if request.param == "sync":
            return make_controller(None, NO_JITTER).process_batch(jobs, on_outcome=on_outcome, **options)

        async def tell(job: BatchJob, outcome: JobOutcome) -> None:
            await asyncio.sleep(0)
            on_outcome(job, outcome)

        async def main() -> BatchResult:
            async with AsyncBackpressureController(NO_JITTER, provider, clock=clock, _engine=engine_name) as controller:
                if request.param == "async":
                    return await controller.process_batch(jobs, on_outcome=tell, **options)
                return await controller.process_batch(one_by_one(jobs), on_outcome=tell, **options)

        return asyncio.run(main())

    return run


class Told:
    """What was told, in its order, and how many jobs had been read by then."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self.read = 0
        self.most_ahead = 0

    def count(self, jobs: Iterable[BatchJob]) -> Iterator[BatchJob]:
        for job in jobs:
            self.read += 1
            yield job

    def __call__(self, job: BatchJob, outcome: JobOutcome) -> None:
        self.outcomes.append((job.queue_name, outcome.status))
        self.most_ahead = max(self.most_ahead, self.read - len(self.outcomes))


@pytest.fixture
def told() -> Told:
    return Told()


def endless(queue_name: str, work: Callable[[], object] = int, **options: Any) -> Iterator[BatchJob]:
    return (BatchJob("medium", queue_name, work, **options) for _ in itertools.count())


def test_each_job_is_told_as_it_ends_and_counted(process: Process, told: Told) -> None:
    def fail() -> None:
        raise OSError("no server")

    jobs = [
        BatchJob("medium", "red", int),
        BatchJob("low", "full", int),
        BatchJob("high", "empty", fail),
        BatchJob("high", "green", int),
    ]
    with pytest.raises(BatchError, match=r"1 of 4 jobs failed: see .exceptions, told as they ended") as raised:
        process(jobs, told)
    assert told.outcomes == [("full", "shed"), ("empty", "failed"), ("green", "succeeded"), ("red", "succeeded")]
    result = raised.value.result
    assert result is not None
    assert (result.outcomes, result.counts) == ((), {"shed": 1, "failed": 1, "succeeded": 2})
    assert (result.count("failed"), result.count("interrupted"), result.errors()) == (1, 0, [])


def test_green_jobs_are_read_one_at_a_time(process: Process, told: Told) -> None:
    jobs = itertools.islice(endless("empty"), 10_000)
    assert process(told.count(jobs), told).counts == {"succeeded": 10_000}
    assert told.most_ahead == 0


def test_while_a_stream_waits_a_hundred_jobs_are_held_and_no_more(process: Process, told: Told) -> None:
    jobs = itertools.islice(endless("red"), 300)
    assert process(told.count(jobs), told).counts == {"succeeded": 300}
    assert told.most_ahead == 99


def test_other_streams_overtake_one_that_waits(process: Process, told: Told) -> None:
    jobs = itertools.chain(itertools.islice(endless("red"), 3), itertools.islice(endless("empty"), 3))
    process(told.count(jobs), told)
    assert [queue_name for queue_name, _ in told.outcomes] == ["empty"] * 3 + ["red"] * 3


def test_an_endless_batch_ends_by_its_timeout_and_what_is_not_read_stays(process: Process, told: Told) -> None:
    jobs = endless("red")
    result = process(told.count(jobs), told, timeout=6)
    assert result.counts == {"succeeded": 2, "not_started": 100}
    assert len(told.outcomes) == told.read == 102
    assert isinstance(next(jobs), BatchJob)


def test_no_outcome_and_only_the_first_errors_are_kept(process: Process) -> None:
    class Value:
        pass

    values = weakref.WeakSet[Value]()
    most = 0

    def make() -> Value:
        values.add(value := Value())
        return value

    def note(_: BatchJob, __: JobOutcome) -> None:
        nonlocal most
        most = max(most, len(values))

    process(itertools.islice(endless("empty", make), 1_000), note)
    gc.collect()
    assert (most <= 3, len(values)) == (True, 0)

    def fail() -> None:
        raise ValueError("bad job")

    config = {"work": fail}
    with pytest.raises(BatchError, match=r"250 of 250 jobs failed: see .exceptions of the first 100") as raised:
        process((BatchJob("low", f"q{n}", **config) for n in range(250)), note)
    assert len(raised.value.exceptions) == 100
    assert batch_result(raised.value) == BatchResult((), {"failed": 250})


class TestCutShort:
    """Each job that was read is told once, whatever ends the batch."""

    def test_by_the_work(self, process: Process, told: Told) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        jobs = [BatchJob("low", "red", int), BatchJob("medium", "red", int), BatchJob("low", "empty", interrupt)]
        with pytest.raises(KeyboardInterrupt) as raised:
            process(told.count(jobs + jobs), told)
        assert sorted(told.outcomes) == [("empty", "interrupted"), ("red", "not_started"), ("red", "shed")]
        known = batch_result(raised.value)
        assert known is not None
        assert known.counts == {"shed": 1, "not_started": 1, "interrupted": 1}

    def test_by_on_outcome_which_is_told_nothing_more(self, process: Process, told: Told) -> None:
        def tell(job: BatchJob, outcome: JobOutcome) -> None:
            told(job, outcome)
            raise OSError("disk full")

        jobs = [BatchJob("medium", "red", int), BatchJob("low", "empty", int), BatchJob("low", "green", int)]
        with pytest.raises(OSError, match="disk full") as raised:
            process(told.count(jobs), tell)
        assert told.outcomes == [("empty", "succeeded")]
        assert batch_result(raised.value) == BatchResult((), {"succeeded": 1, "not_started": 1})

    def test_by_an_interrupt_of_on_outcome(self, process: Process, told: Told) -> None:
        def tell(job: BatchJob, outcome: JobOutcome) -> None:
            told(job, outcome)
            if outcome.status == "succeeded":
                raise KeyboardInterrupt

        jobs = [BatchJob("medium", "red", int), BatchJob("low", "empty", int), BatchJob("low", "green", int)]
        with pytest.raises(KeyboardInterrupt):
            process(told.count(jobs), tell)
        assert told.outcomes == [("empty", "succeeded"), ("red", "not_started")]

    def test_by_what_reads_the_jobs(self, process: Process, told: Told) -> None:
        def jobs() -> Iterator[BatchJob]:
            yield BatchJob("medium", "red", int)
            raise OSError("the table is gone")

        with pytest.raises(OSError, match="the table is gone") as raised:
            process(jobs(), told)
        assert told.outcomes == [("red", "not_started")]
        assert batch_result(raised.value) == BatchResult((), {"not_started": 1})

    def test_by_what_is_no_job(self, process: Process, told: Told) -> None:
        with pytest.raises(ConfigurationError, match="give BatchJob objects"):
            process([BatchJob("low", "empty", int), None], told)  # type: ignore[list-item]
        assert told.outcomes == [("empty", "succeeded")]

    def test_what_on_outcome_raises_then_hides_nothing(
        self, process: Process, told: Told, caplog: pytest.LogCaptureFixture
    ) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        def tell(job: BatchJob, outcome: JobOutcome) -> None:
            told(job, outcome)
            raise OSError("disk full")

        jobs = [BatchJob("medium", "red", int), BatchJob("low", "empty", interrupt)]
        with pytest.raises(KeyboardInterrupt):
            process(jobs, tell)
        assert sorted(told.outcomes) == [("empty", "interrupted"), ("red", "not_started")]
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [OSError]


def test_after_stop_the_rest_is_not_started(make_controller: MakeController, told: Told) -> None:
    controller = make_controller(None, NO_JITTER)
    errors: list[object] = []

    def tell(job: BatchJob, outcome: JobOutcome) -> None:
        told(job, outcome)
        errors.append(outcome.error)

    jobs = [BatchJob("low", "empty", controller.stop), *[BatchJob("low", "empty", int)] * 2]
    assert controller.process_batch(iter(jobs), on_outcome=tell).counts == {"succeeded": 1, "not_started": 2}
    assert [type(error) for error in errors[1:]] == [ControllerStoppedError] * 2


def test_on_outcome_must_be_of_the_controllers_kind(make_controller: MakeController) -> None:
    controller = make_controller(None, NO_JITTER)
    jobs = [BatchJob("low", "empty", int)]

    async def tell(_: BatchJob, __: JobOutcome) -> None: ...

    class Teller:
        __call__ = staticmethod(tell)

    with pytest.raises(TypeError, match="tell is a coroutine function: give a plain function, or use Async"):
        controller.process_batch(jobs, on_outcome=tell)
    with pytest.raises(TypeError, match="returned a coroutine: give a plain function"):
        controller.process_batch(jobs, on_outcome=Teller())
    with pytest.raises(ConfigurationError, match="on_outcome is 3: give a callable"):
        controller.process_batch(jobs, on_outcome=3)  # type: ignore[arg-type]


def test_an_async_iterable_needs_no_on_outcome(
    provider: InMemoryStatsProvider, engine_name: str, engine_module: EngineModule
) -> None:
    async def jobs() -> AsyncIterator[BatchJob]:
        for n in range(3):
            yield BatchJob("low", "empty", lambda n=n: n)  # type: ignore[misc]

    async def main() -> BatchResult:
        async with AsyncBackpressureController(None, provider, _engine=engine_name) as controller:
            return await controller.process_batch(jobs())

    assert [outcome.value for outcome in asyncio.run(main()).outcomes] == [0, 1, 2]


class TestTimeouts:
    """A timeout raises an error of its own, with the batch's as its cause; a task group, a group."""

    @pytest.fixture(params=["asyncio.timeout", "wait_for", "anyio", "group", "cancel"])
    def error(
        self,
        request: pytest.FixtureRequest,
        provider: InMemoryStatsProvider,
        engine_name: str,
        engine_module: EngineModule,
    ) -> BaseException:
        async def expire(controller: AsyncBackpressureController, jobs: list[BatchJob]) -> None:
            if request.param == "wait_for":
                await asyncio.wait_for(controller.process_batch(jobs), 0.01)
            elif request.param == "anyio":
                with anyio.fail_after(0.01):
                    await controller.process_batch(jobs)
            elif request.param == "cancel":
                task = asyncio.create_task(controller.process_batch(jobs))
                asyncio.get_running_loop().call_later(0.01, task.cancel)
                await task
            elif request.param == "group":
                async with asyncio.TaskGroup() as group, asyncio.timeout(0.01):
                    await controller.process_batch(jobs)
                    group.create_task(asyncio.sleep(0))
            else:
                async with asyncio.timeout(0.01):
                    await controller.process_batch(jobs)

        async def main() -> BaseException:
            async with AsyncBackpressureController(NO_JITTER, provider, _engine=engine_name) as controller:
                jobs = [BatchJob("high", "empty", lambda: asyncio.sleep(3600)) for _ in range(2)]
                try:
                    await expire(controller, jobs)
                except (TimeoutError, ExceptionGroup, asyncio.CancelledError) as error:
                    return error
            raise AssertionError

        return asyncio.run(main())

    def test_the_result_is_found(self, error: BaseException) -> None:
        known = batch_result(error)
        assert known is not None
        assert [outcome.status for outcome in known.outcomes] == ["interrupted", "not_started"]


def test_other_errors_belong_to_no_batch() -> None:
    error = OSError("x")
    error.__cause__ = error.__context__ = ValueError("y")
    error.__cause__.__context__ = error
    assert (batch_result(error), batch_result(None)) == (None, None)
