"""`process_batch`, in both controllers and on both engines: order, pace, and that nothing is lost."""

from __future__ import annotations

import asyncio
import functools
import pickle
import signal
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from backpressure import (
    AsyncBackpressureController,
    BackpressureConfig,
    BatchError,
    BatchJob,
    BatchResult,
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    CurveConfig,
    InMemoryStatsProvider,
    InvalidPriorityError,
    InvalidQueueError,
    JobShedError,
    StatsUnavailableError,
    ThrottledError,
    is_retryable,
)
from backpressure._engine.word import Word
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController

NO_JITTER = BackpressureConfig(curve=CurveConfig(delay_jitter=0))


class Process(Protocol):
    """Runs a batch in a controller that is made for it."""

    def __call__(self, jobs: list[BatchJob], **options: Any) -> BatchResult: ...


@pytest.fixture(params=["sync", "async"])
def process(
    request: pytest.FixtureRequest,
    make_controller: MakeController,
    engine_name: str,
    engine_module: EngineModule,
    clock: ManualClock,
    provider: InMemoryStatsProvider,
) -> Process:
    def in_sync(jobs: list[BatchJob], prepare: Callable[[Any], object] = id, **options: Any) -> BatchResult:
        controller = make_controller(None, NO_JITTER)
        prepare(controller)
        return controller.process_batch(jobs, **options)

    def in_async(jobs: list[BatchJob], prepare: Callable[[Any], object] = id, **options: Any) -> BatchResult:
        async def main() -> BatchResult:
            async with AsyncBackpressureController(NO_JITTER, provider, clock=clock, _engine=engine_name) as controller:
                prepare(controller)
                return await controller.process_batch(jobs, **options)

        return asyncio.run(main())

    return in_sync if request.param == "sync" else in_async


class Log:
    """Jobs that note when they ran."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.start_ns = clock.monotonic_ns()
        self.ran: list[tuple[str, float]] = []

    def job(self, name: str, priority: str, queue_name: str, **options: Any) -> BatchJob:
        def work() -> str:
            self.ran.append((name, round((self.clock.monotonic_ns() - self.start_ns) / 1e9, 6)))
            return name

        return BatchJob(priority, queue_name, work, **options)


@pytest.fixture
def log(clock: ManualClock) -> Log:
    return Log(clock)


def statuses(result: BatchResult) -> list[str]:
    return [outcome.status for outcome in result.outcomes]


def test_each_stream_keeps_its_own_pace(process: Process, log: Log) -> None:
    result = process(
        [
            log.job("slow 1", "medium", "red"),  # 2.75 s each
            log.job("slow 2", "medium", "red"),
            log.job("fast 1", "low", "empty"),
            log.job("middle", "high", "full"),  # 2.5 s
            log.job("fast 2", "low", "empty"),
        ]
    )
    assert [outcome.value for outcome in result.outcomes] == ["slow 1", "slow 2", "fast 1", "middle", "fast 2"]
    assert log.ran == [("fast 1", 0), ("fast 2", 0), ("middle", 2.5), ("slow 1", 2.75), ("slow 2", 5.5)]


def test_high_goes_first_among_those_due_and_then_the_input_order(process: Process, log: Log) -> None:
    process([log.job(f"{priority} {n}", priority, "empty") for n in range(2) for priority in ("low", "high", "medium")])
    assert [name for name, _ in log.ran] == ["high 0", "high 1", "medium 0", "medium 1", "low 0", "low 1"]


def test_a_shed_ends_that_job_only(process: Process, log: Log) -> None:
    result = process([log.job("a", "low", "full"), log.job("b", "low", "empty"), log.job("c", "low", "full")])
    assert statuses(result) == ["shed", "succeeded", "shed"]
    assert isinstance(result.outcomes[0].error, JobShedError)
    assert result.outcomes[0].retry_after == 7.5
    assert result.count("shed") == 2


def test_what_is_not_due_in_time_is_not_started(process: Process, log: Log) -> None:
    result = process([log.job(str(n), "medium", "red") for n in range(4)], timeout=6)
    assert statuses(result) == ["succeeded", "succeeded", "not_started", "not_started"]
    assert result.outcomes[2].retry_after == pytest.approx(2.75)
    assert log.ran[-1] == ("1", 5.5)


def test_max_wait_leaves_a_job_alone(process: Process, log: Log) -> None:
    result = process([log.job("a", "medium", "red", max_wait=1), log.job("b", "medium", "red", max_wait=3)])
    assert statuses(result) == ["not_started", "succeeded"]
    assert isinstance(result.outcomes[0].error, ThrottledError)
    assert result.outcomes[0].retry_after == 2.75


def test_failures_are_raised_together_after_all_were_handled(process: Process, log: Log) -> None:
    def fail() -> None:
        raise OSError("no server")

    def fail_otherwise() -> None:
        raise ValueError("bad job")

    jobs = [BatchJob("high", "empty", fail), log.job("fine", "low", "empty"), BatchJob("low", "green", fail_otherwise)]
    with pytest.raises(BatchError, match="2 of 3 jobs failed") as raised:
        process(jobs)
    assert {type(error) for error in raised.value.exceptions} == {OSError, ValueError}
    result = raised.value.result
    assert result is not None
    assert statuses(result) == ["failed", "succeeded", "failed"]
    matching, rest = raised.value.split(OSError)
    assert isinstance(matching, BatchError)
    assert isinstance(rest, BatchError)
    assert matching.result is result
    assert is_retryable(raised.value)
    copied = pickle.loads(pickle.dumps(BatchError("1 of 1 jobs failed", [OSError("x")], BatchResult(()))))
    assert (str(copied), copied.result) == ("1 of 1 jobs failed (1 sub-exception)", BatchResult(()))


def test_an_open_circuit_blocks_what_is_left(process: Process, log: Log) -> None:
    def fail() -> None:
        raise OSError("no server")

    jobs = [BatchJob("low", "empty", fail) for _ in range(7)]
    with pytest.raises(BatchError) as raised:
        process(jobs)
    assert raised.value.result is not None
    assert statuses(raised.value.result) == ["failed"] * 5 + ["circuit_open"] * 2
    assert isinstance(raised.value.result.outcomes[6].error, CircuitOpenError)


def test_an_interrupt_ends_the_batch_at_once(process: Process, log: Log) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    jobs = [log.job("a", "high", "empty"), BatchJob("medium", "empty", interrupt), log.job("c", "low", "empty")]
    with pytest.raises(KeyboardInterrupt) as raised:
        process(jobs)
    assert statuses(raised.value.batch_result) == ["succeeded", "interrupted", "not_started"]  # type: ignore[attr-defined]


def test_an_interrupt_after_the_last_job_loses_no_outcome(
    process: Process, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: BatchResult) -> list[Exception]:
        raise KeyboardInterrupt

    monkeypatch.setattr(BatchResult, "errors", interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        process([log.job("a", "low", "empty")])
    assert statuses(raised.value.batch_result) == ["succeeded"]  # type: ignore[attr-defined]


def test_a_cancelled_batch_tells_what_had_begun(
    engine_name: str, engine_module: EngineModule, provider: InMemoryStatsProvider
) -> None:
    begun: list[int] = []

    async def hang(n: int) -> None:
        begun.append(n)
        await asyncio.Event().wait()

    async def main() -> BatchResult:
        async with AsyncBackpressureController(NO_JITTER, provider, _engine=engine_name) as controller:
            jobs = [BatchJob("high", "empty", functools.partial(hang, n)) for n in range(2)]
            task = asyncio.create_task(controller.process_batch(jobs))
            while not begun:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as raised:
                await task
            result: BatchResult = raised.value.batch_result  # type: ignore[attr-defined]
            return result

    assert statuses(asyncio.run(main())) == ["interrupted", "not_started"]
    assert begun == [0]


def test_an_interrupted_wait_has_begun_nothing(process: Process, log: Log, clock: ManualClock) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    def prepare(controller: Any) -> None:
        controller._sleeper.pause = controller._sleeper.pause_async = lambda *_: interrupt(0)

    with pytest.raises(KeyboardInterrupt) as raised:
        process([log.job("a", "medium", "red"), log.job("b", "low", "empty")], prepare=prepare)
    assert statuses(raised.value.batch_result) == ["not_started", "succeeded"]  # type: ignore[attr-defined]


class TestSignals:
    """Workers of RQ and Celery end a job that takes too long by a handler that raises an ordinary `Exception`."""

    @pytest.fixture(autouse=True)
    def handler(self) -> Iterator[None]:
        def expire(_: int, __: object) -> None:
            raise TimeoutError("the job takes too long")

        before = signal.signal(signal.SIGTERM, expire)
        yield
        signal.signal(signal.SIGTERM, before)

    @pytest.mark.parametrize("when", ["deciding", "asking again", "waiting"])
    def test_what_a_handler_raises_ends_the_batch(self, process: Process, log: Log, clock: Any, when: str) -> None:
        controllers: list[Any] = []

        def strike(*_: object) -> Any:
            signal.raise_signal(signal.SIGTERM)

        def prepare(controller: Any) -> None:
            controllers.append(controller)
            if when == "waiting":
                controller._sleeper.pause = controller._sleeper.pause_async = strike
            else:
                kind = {"deciding": "zone", "asking again": "circuit"}[when]
                controller.add_listener(lambda change: change.kind == kind and change.new != "open" and strike())

        def force() -> None:
            controllers[0].circuit("empty").force_open(for_=1)
            clock.advance(1)

        jobs = [BatchJob("high", "green", force), log.job("b", "low", "empty"), log.job("c", "medium", "red")]
        with pytest.raises(TimeoutError, match="too long") as raised:
            process(jobs if when == "asking again" else jobs[1:], prepare=prepare)
        expected = {
            "deciding": ["not_started"] * 2,
            "asking again": ["succeeded", *["not_started"] * 2],
            "waiting": ["succeeded", "not_started"],
        }
        assert statuses(raised.value.batch_result) == expected[when]  # type: ignore[attr-defined]


class TestTheBreakerIsAskedRightBeforeTheWork:
    """Whatever a job's delay: other jobs, and other threads, may have run since it was decided."""

    def test_not_through_a_circuit_forced_open_meanwhile(self, process: Process, log: Log) -> None:
        controllers: list[Any] = []
        jobs = [
            BatchJob("high", "green", lambda: controllers[0].circuit("empty").force_open()),
            log.job("b", "low", "empty"),
        ]
        result = process(jobs, prepare=controllers.append)
        assert statuses(result) == ["succeeded", "circuit_open"]
        assert isinstance(result.outcomes[1].error, CircuitOpenError)
        assert log.ran == []

    def test_not_through_a_circuit_that_tripped_meanwhile(self, process: Process, log: Log) -> None:
        controllers: list[Any] = []

        def trip() -> None:
            for _ in range(5):
                controllers[0].record_failure("empty")

        result = process([BatchJob("high", "green", trip), log.job("b", "low", "empty")], prepare=controllers.append)
        assert statuses(result) == ["succeeded", "circuit_open"]

    def test_never_after_stop(self, process: Process, log: Log) -> None:
        controllers: list[Any] = []

        def stop() -> None:
            controllers[0]._set_stopped()

        jobs = [BatchJob("high", "green", stop), log.job("b", "low", "empty"), log.job("c", "medium", "red")]
        result = process(jobs, prepare=controllers.append)
        assert statuses(result) == ["succeeded", "not_started", "not_started"]
        assert [type(outcome.error) for outcome in result.outcomes[1:]] == [ControllerStoppedError] * 2
        assert log.ran == []

    def test_a_probe_goes_by_a_lease_that_runs(self, process: Process, clock: ManualClock) -> None:
        controllers: list[Any] = []
        left: list[float] = []

        def prepare(controller: Any) -> None:
            controllers.append(controller)
            for _ in range(5):
                controller.record_failure("empty")
            clock.advance(60)

        jobs = [
            BatchJob("high", "green", lambda: clock.advance(60)),
            BatchJob("low", "empty", lambda: left.append(stats()["time_until_recovery"])),
        ]

        def stats() -> dict[str, Any]:
            found: dict[str, Any] = controllers[0].circuit("empty").stats()
            return found

        assert statuses(process(jobs, prepare=prepare)) == ["succeeded"] * 2
        assert left == [5.0]

    @pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, None])
    def test_a_probe_that_is_not_begun_gives_its_lease_back(
        self, process: Process, log: Log, clock: ManualClock, end: type[BaseException] | None
    ) -> None:
        controllers: list[Any] = []

        def prepare(controller: Any) -> None:
            controllers.append(controller)
            for _ in range(5):
                controller.record_failure("empty")
            clock.advance(60)

        def work() -> None:
            if end is not None:
                raise end
            clock.advance(6)  # beyond the batch's timeout, and to the next probe

        jobs = [BatchJob("high" if end else "low", "green" if end else "empty", work), log.job("b", "low", "empty")]
        if end is None:
            result = process(jobs, prepare=prepare, timeout=0.5)
        else:
            with pytest.raises(end) as raised:
                process(jobs, prepare=prepare)
            result = raised.value.batch_result  # type: ignore[attr-defined]
        assert (result.outcomes[1].status, log.ran) == ("not_started", [])
        assert not Word.unpack(controllers[0]._engine.breaker("empty", False).word).leased

    def test_each_job_is_counted_once_as_it_ends(self, process: Process, log: Log) -> None:
        controllers: list[Any] = []

        def prepare(controller: Any) -> None:
            controllers.append(controller)
            controller._engine.suggest_throttle("low", "empty")  # its answer is ready now

        def force() -> None:
            controllers[0].circuit("empty").force_open()
            raise KeyboardInterrupt

        jobs = [BatchJob("high", "green", force), log.job("b", "low", "empty"), log.job("c", "medium", "green")]
        with pytest.raises(KeyboardInterrupt):
            process(jobs, prepare=prepare)
        jobs[0] = BatchJob("high", "green", lambda: controllers[-1].circuit("empty").force_open())
        assert statuses(process(jobs, prepare=prepare)) == ["succeeded", "circuit_open", "succeeded"]
        for controller, rejected, last in zip(controllers, (0, 1), (0, 1), strict=True):
            totals = controller._engine.totals()
            assert sum(totals["green", 2].reasons) == 1
            assert sum(totals["empty", 0].reasons) == 1 + rejected
            assert totals["empty", 0].refused() == (0, rejected, 0)
            assert sum(totals["green", 1].reasons if last else ()) == last
            assert (("green", 1) in totals) == bool(last)

    def test_a_go_is_counted_once(self, process: Process, log: Log) -> None:
        controllers: list[Any] = []
        process([log.job(str(n), "low", "empty") for n in range(10)], prepare=controllers.append)
        (totals,) = controllers[0]._engine.totals().values()
        assert sum(totals.reasons) == 10


def test_an_override_lets_all_go_at_once(process: Process, log: Log) -> None:
    result = process(
        [log.job(str(n), "low", "full") for n in range(3)],
        prepare=lambda controller: controller.set_manual_override(True),
    )
    assert statuses(result) == ["succeeded"] * 3
    assert log.ran[-1] == ("2", 0)


def test_an_outage_of_statistics_loses_no_job(process: Process, log: Log, provider: InMemoryStatsProvider) -> None:
    provider.fail_with(StatsUnavailableError("no server"))
    result = process([log.job(str(n), "high", f"unseen-{n}") for n in range(3)])
    assert statuses(result) == ["succeeded"] * 3
    assert log.ran == [("0", 0.1), ("1", 0.1), ("2", 0.1)]


class Ticking(ManualClock):
    """A clock that never shows the same time twice: real ones do not either."""

    def monotonic_ns(self) -> int:
        self.advance(1e-6)
        return super().monotonic_ns()


@pytest.mark.parametrize("timeout", [0, 1e300, None])
def test_jobs_without_delay_are_due_as_the_batch_begins(make_controller: MakeController, timeout: float | None) -> None:
    ran: list[int] = []
    provider = InMemoryStatsProvider({str(n): 0 for n in range(4)})
    controller = make_controller(provider, clock=Ticking())
    jobs = [BatchJob("high" if n % 2 else "low", str(n), functools.partial(ran.append, n)) for n in range(4)]
    assert controller.process_batch(jobs, timeout=timeout).count("succeeded") == 4
    assert ran == [1, 3, 0, 2]


def test_an_empty_batch_is_fine(process: Process) -> None:
    assert process([]) == BatchResult(())


def test_ten_thousand_jobs_end_in_ten_thousand_outcomes(process: Process) -> None:
    done: list[int] = []
    result = process([BatchJob("low", "empty", functools.partial(done.append, n)) for n in range(10_000)])
    assert result.count("succeeded") == 10_000
    assert done == list(range(10_000))


def test_bad_jobs_are_refused_before_anything_runs(process: Process, log: Log) -> None:
    with pytest.raises(InvalidPriorityError):
        BatchJob("urgent", "empty", bool)
    with pytest.raises(InvalidQueueError):
        BatchJob("low", "", bool)
    with pytest.raises(ConfigurationError, match="give a callable"):
        BatchJob("low", "empty", 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="give BatchJob objects"):
        process([log.job("a", "low", "empty"), ("low", "empty", bool)])  # type: ignore[list-item]
    for timeout in (-1, 10**400):
        with pytest.raises(ConfigurationError, match="timeout"):
            process([], timeout=timeout)
    assert log.ran == []


def test_awaitable_work_is_awaited(clock: ManualClock, engine_name: str, engine_module: EngineModule) -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 3

    async def main() -> BatchResult:
        provider = InMemoryStatsProvider({"empty": 0})
        async with AsyncBackpressureController(None, provider, clock=clock, _engine=engine_name) as controller:
            return await controller.process_batch([BatchJob("low", "empty", work)])

    assert asyncio.run(main()).outcomes[0].value == 3


def test_a_batch_needs_a_running_controller(make_controller: MakeController) -> None:
    with pytest.raises(ControllerNotStartedError):
        make_controller(start=False).process_batch([])
