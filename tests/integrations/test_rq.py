"""RQ's queue behind a controller, with RQ's own workers on a real server."""

from __future__ import annotations

import contextlib
import functools
import gc
import pickle
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import redis

from backpressure import HIGH, CircuitOpenError, InMemoryStatsProvider, JobShedError
from backpressure.providers.layouts import RQLayout
from integrations import rq_functions
from integrations.commands import command
from integrations.contract.driver import Blocking
from integrations.contract.framework import Fault, Framework, Taken
from integrations.contract.promises import Contract
from integrations.everywhere import BLOCKING_WAYS, from_everywhere_blocking
from integrations.frameworks import required
from integrations.jobs import errands, ran
from integrations.overload import OVERLOAD
from integrations.rq_functions import campaign, enqueue_more, fail_once, work

required("rq")

import rq  # noqa: E402 - skipped before where it is missing
from rq.command import send_stop_job_command  # noqa: E402
from rq.decorators import job as job_decorator  # noqa: E402
from rq.timeouts import TimerDeathPenalty  # noqa: E402

from backpressure.integrations._shared.workers import in_worker  # noqa: E402
from backpressure.integrations.rq import Queue  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from backpressure import BackpressureController
    from integrations.conftest import Watch
    from integrations.contract.framework import Exempt, Faults, Ways, WaysOfMany
    from integrations.contract.shop import Shop
    from support.controller_fixtures import MakeController

IS_RQ_2 = hasattr(rq.exceptions, "DuplicateJobError")
SINCE_RQ_2 = pytest.mark.skipif(not IS_RQ_2, reason="RQ 1 has no such thing")
REFUSED = (AttributeError, TypeError, ValueError, pickle.PicklingError, rq.exceptions.TimeoutFormatError)


prepare: Any = Queue.prepare_data
tomorrow = datetime.now(UTC) + timedelta(days=1)


class Embedded(rq.SimpleWorker):
    """A worker that runs on a producer's thread."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self) -> None:
        pass


class Unserialisable:
    def dumps(self, *_: object, **__: object) -> bytes:
        raise KeyError("of the serializer's own")

    loads = dumps


def with_its_own_serializer(queue: Any) -> Any:
    queue.serializer = Unserialisable()
    return queue


class RQ(Framework):
    title = "RQ"
    # RQ's own workers run jobs on the main thread; only there the threads of a job are known.
    driver = Blocking(judged={"here"})
    keys = ("rq:queue:mail", "rq:scheduled:mail")
    foreign = "saq"
    ways: ClassVar[Ways] = {
        "enqueue": lambda queue: queue.enqueue(work),
        "enqueue_call": lambda queue: queue.enqueue_call(work),
        "enqueue_in": lambda queue: queue.enqueue_in(timedelta(seconds=30), work),
        "enqueue_at": lambda queue: queue.enqueue_at(datetime.now(), work),  # noqa: DTZ005 - as RQ takes it
        "enqueue_job": lambda queue: queue.enqueue_job(rq.job.Job.create(work, connection=queue.connection)),
        "unique": lambda queue: queue.enqueue(work, unique=True, job_id="1"),
        "unique in": lambda queue: queue.enqueue_in(timedelta(seconds=30), work, unique=True, job_id="1"),
        "enqueue_many": lambda queue: queue.enqueue_many([prepare(work)]),
    }
    marks: ClassVar[Ways] = {
        "meta": lambda queue: queue.enqueue(work, meta={"backpressure_priority": "high"}),
        "meta of one of many": lambda queue: queue.enqueue_many([prepare(work, meta={"backpressure_priority": HIGH})]),
    }
    later: ClassVar[Ways] = {
        "at": lambda queue: queue.enqueue_at(tomorrow, work),
        "at a local time": lambda queue: queue.enqueue_at(tomorrow.replace(tzinfo=None), work),
        "in": lambda queue: queue.enqueue_in(timedelta(minutes=2), work),
    }
    many: ClassVar[WaysOfMany] = {
        "enqueue_many": lambda queue, jobs: queue.enqueue_many(prepare(getattr(rq_functions, job)) for job in jobs)
    }
    faults: ClassVar[Faults] = {
        "argument": Fault(lambda queue: queue.enqueue(work, lambda: None), REFUSED),
        "meta": Fault(lambda queue: queue.enqueue(work, meta={"why": lambda: None}), REFUSED),
        "later": Fault(lambda queue: queue.enqueue_in(timedelta(seconds=1), work, threading.Lock()), REFUSED),
        "of many": Fault(lambda queue: queue.enqueue_many([prepare(work), prepare(work, (lambda: None,))]), REFUSED),
        "serializer": Fault(lambda queue: with_its_own_serializer(queue).enqueue(work), KeyError),
        "no time": Fault(lambda queue: queue.enqueue_many([prepare(int, timeout=0)]), REFUSED),
        "timeout": Fault(lambda queue: queue.enqueue_many([prepare(int, timeout="soon")]), REFUSED),
        "retry": Fault(lambda queue: queue.enqueue_many([prepare(int, retry="often")]), REFUSED),
    }
    exempt: ClassVar[Exempt] = {
        "test_an_app_is_hooked_once": "a queue of RQ's is hooked as it is made",
        **({} if IS_RQ_2 else {"test_a_job_that_is_there_already_is_no_failure": "to RQ 1 every job is a new one"}),
    }

    def layout(self, queue_name: str) -> RQLayout:
        return RQLayout()

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Any]:
        with redis.Redis.from_url(url) as connection:
            queue = rq.Queue("mail", connection=connection)
            for _ in range(OVERLOAD):
                queue.enqueue(work)
            yield queue

    def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        return Queue("mail", connection=app.connection, controller=controller, **options)

    def send(self, app: Any, job: str) -> Any:
        options: dict[str, Any] = {"retry": rq.Retry(max=1)} if job == "fail_once" else {}
        return app.enqueue(getattr(rq_functions, job), **options)

    def name(self, job: str) -> str:
        return f"{rq_functions.__name__}.{job}"

    def name_of(self, given: Any) -> str:
        return str(given.func_name)

    @contextlib.asynccontextmanager
    async def working(self, app: Any) -> AsyncIterator[None]:
        """Run a worker all of whose queues are hooked as the app is."""
        hooked = type("Hooked", (Queue,), {"_hook": app._hook})
        embedded = Embedded(["mail"], connection=app.connection, queue_class=hooked)
        thread = threading.Thread(target=embedded.work, kwargs={"burst": True, "logging_level": "CRITICAL"})
        thread.start()
        yield
        thread.join()

    async def send_more(self, app: Any) -> set[str]:
        """Send what follows another job."""
        app.enqueue(work, "dependent", depends_on=app.enqueue(work))
        return {"dependent"}

    @contextlib.asynccontextmanager
    async def at_once(self, shop: Shop) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        await shop.hook(is_async=False)
        yield lambda: shop.app.enqueue(work, "at once")


if IS_RQ_2:
    RQ.taken = Taken(
        lambda queue: queue.enqueue(work, job_id="once", unique=True), rq.exceptions.DuplicateJobError, is_success=False
    )


class TestContract(Contract):
    framework = RQ()


@pytest.fixture(autouse=True)
def no_runs() -> None:
    """Forget what other tests ran."""
    ran.clear()


@pytest.fixture
def controller(watch: Watch, redis_client: redis.Redis) -> BackpressureController:
    """A controller that sees an overload in the queue ``mail``."""
    plain = rq.Queue("mail", connection=redis_client)
    for _ in range(OVERLOAD):
        plain.enqueue(work)
    controller = watch(RQLayout(), "mail")
    assert controller.health()["queues"]["mail"]["backlog"] == OVERLOAD
    return controller


def queue(redis_client: redis.Redis, controller: BackpressureController, **options: Any) -> Queue:
    return Queue("mail", connection=redis_client, controller=controller, **{"priority": "low", **options})


def drain(redis_client: redis.Redis, controller: BackpressureController) -> None:
    """Run all jobs in this process, by a worker all of whose queues are of a class that sheds low jobs."""

    class LowQueue(Queue):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, controller=controller, priority="low", **kwargs)

    worker = rq.SimpleWorker(["mail"], connection=redis_client, queue_class=LowQueue)
    worker.work(burst=True, logging_level="CRITICAL")


@pytest.mark.parametrize("retry", [rq.Retry(max=1), rq.Retry(max=1, interval=60)], ids=["at once", "later"])
def test_a_retry_under_overload_is_not_lost(
    redis_client: redis.Redis, controller: BackpressureController, retry: rq.Retry
) -> None:
    rq.Queue("mail", connection=redis_client).enqueue(fail_once, retry=retry)
    low_queue = queue(redis_client, controller)
    drain(redis_client, controller)  # retries, with an interval by schedule_job of this very queue
    for job_id in low_queue.scheduled_job_registry.get_job_ids():
        redis_client.zadd(low_queue.scheduled_job_registry.key, {job_id: 1})  # its time has come
    scheduler: Any = rq.scheduler.RQScheduler([low_queue], redis_client)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()
    drain(redis_client, controller)
    assert ran.count("try") == 2


PROGRAM = "integrations.rq_program"
AFTER = {name: rq.Callback(f"{PROGRAM}.{name}") for name in ("on_success", "on_failure", "on_stopped")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["worker", "--worker-class", "rq.Worker"],
        ["worker", "--worker-class", "rq.SimpleWorker"],
        ["worker", "--queue-class", f"{PROGRAM}.MailQueue", "--worker-class", "rq.SimpleWorker"],
        pytest.param(["worker", "--worker-class", "rq.worker.SpawnWorker"], marks=SINCE_RQ_2),
        pytest.param(
            ["worker", "--queue-class", f"{PROGRAM}.MailQueue", "--worker-class", "rq.worker.SpawnWorker"],
            marks=SINCE_RQ_2,
        ),
        ["worker-pool"],
    ],
    ids=lambda arguments: "-".join(arguments[2::2] or arguments),
)
def test_what_jobs_and_callbacks_enqueue_is_never_refused(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, arguments: list[str]
) -> None:
    plain = rq.Queue("mail", connection=redis_client)
    good = plain.enqueue(f"{PROGRAM}.send_more", on_success=AFTER["on_success"])
    bad = plain.enqueue(f"{PROGRAM}.fail", on_failure=AFTER["on_failure"])
    command_line = (arguments[0], "mail", "--url", redis_url, "--burst", *arguments[1:])
    with command(tmp_path, redis_url, "rq.cli", *command_line) as ended:
        output = ended.outcome()
    expected = {b"from a job", b"from a thread", b"from a pool", b"after success", b"after failure"}
    assert set(redis_client.lrange("ran", 0, -1)) == expected, output
    assert good.get_status(refresh=True) == "finished", output
    result = bad.latest_result()
    assert result is not None
    assert "ValueError: boom" in str(result.exc_string)
    assert "BackpressureError" not in str(result.exc_string)


def test_what_the_worker_itself_enqueues_when_a_job_was_stopped_is_not_refused(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    job = rq.Queue("mail", connection=redis_client).enqueue(f"{PROGRAM}.hang", on_stopped=AFTER["on_stopped"])
    with command(tmp_path, redis_url, "rq.cli", "worker", "mail", "--url", redis_url, "--burst") as worker:
        worker.until(lambda: redis_client.llen("hanging"))
        send_stop_job_command(redis_client, job.id)
        output = worker.outcome()
    assert redis_client.lrange("ran", 0, -1) == [b"after stop"], output


def test_threads_of_named_jobs_are_judged_where_the_worker_runs_on_the_main_thread(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    named = queue(redis_client, controller, inside_tasks={f"{campaign.__module__}.{campaign.__name__}"})
    raised: list[Any] = []

    async def fan_out() -> None:
        raised.extend(from_everywhere_blocking(lambda: named.enqueue(work)).values())

    errands["campaign"] = fan_out
    rq.Queue("other", connection=redis_client).enqueue(campaign)
    rq.SimpleWorker(["other"], connection=redis_client).work(burst=True, logging_level="CRITICAL")
    assert raised == [JobShedError] * len(BLOCKING_WAYS)
    assert named.count == OVERLOAD


def test_who_finds_a_job_abandoned_runs_its_callback_and_need_be_no_worker(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    rq_functions.queues["mail"] = queue(redis_client, controller)
    plain = rq.Queue("other", connection=redis_client)
    job = plain.enqueue(work, on_failure=rq.Callback(rq_functions.enqueue_after))
    job.set_status(rq.job.JobStatus.STARTED)
    registry = plain.started_job_registry
    redis_client.zadd(registry.key, {job.id if rq.version.VERSION.startswith("1.") else f"{job.id}:execution": 1})
    registry.cleanup()
    assert controller._passed.counts() == {("mail", "worker"): 1}


def test_a_job_that_runs_at_once_may_enqueue_and_so_may_its_callback(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    rq_functions.queues["mail"] = queue(redis_client, controller)
    at_once = rq.Queue("other", connection=redis_client, is_async=False)
    job = at_once.enqueue(enqueue_more, "mail", on_success=rq.Callback(rq_functions.enqueue_after))
    assert job.get_status() == "finished"
    assert controller._passed.counts() == {("mail", "worker"): 2}


class Sending:
    def method(self) -> None:
        pass

    def __call__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (work, f"{work.__module__}.work"),
        (f"{work.__module__}.work", f"{work.__module__}.work"),
        (len, "builtins.len"),
        (Sending().method, "method"),
        (Sending(), "__call__"),
        (functools.partial(work, "partly"), "__call__"),
    ],
)
def test_a_function_has_one_name_however_it_is_enqueued(
    redis_client: redis.Redis, controller: BackpressureController, function: Any, name: str
) -> None:
    table = queue(redis_client, controller, priority={name: "high"})
    assert table.enqueue(function).func_name == name
    table.enqueue_in(timedelta(seconds=1), function)
    (job,) = table.enqueue_many([Queue.prepare_data(function)])
    assert job.func_name == name
    assert table.count == OVERLOAD + 2


def test_jobs_that_wait_for_another_are_not_judged_by_the_backlog_of_now(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    low_queue = queue(redis_client, controller)
    first = low_queue.enqueue_at(datetime.now(UTC) + timedelta(days=1), work)
    low_queue.enqueue(work, depends_on=first)
    low_queue.enqueue_many([Queue.prepare_data(work, depends_on=first)])
    assert controller._passed.counts() == {("mail", "scheduled"): 3}
    assert low_queue.count == OVERLOAD
    with pytest.raises(JobShedError):  # all or none
        low_queue.enqueue_many([Queue.prepare_data(work, depends_on=first), Queue.prepare_data(work)])
    assert controller._passed.counts() == {("mail", "scheduled"): 3}, "none of these was enqueued"


@pytest.mark.parametrize("status", ["finished", "gone"])
def test_a_job_whose_dependencies_are_met_is_judged_for_it_waits_for_nothing(
    redis_client: redis.Redis, controller: BackpressureController, status: str
) -> None:
    low_queue = queue(redis_client, controller)
    first = rq.Queue("clicks", connection=redis_client, is_async=False).enqueue(work)
    if status == "gone":
        first.delete()
    with pytest.raises(JobShedError):
        low_queue.enqueue(work, depends_on=first)
    with pytest.raises(JobShedError):
        low_queue.enqueue_many([Queue.prepare_data(work, depends_on=first.id)])
    with pytest.raises(JobShedError):  # which asks for no dependencies
        low_queue.enqueue_in(timedelta(seconds=1), work, depends_on=first)
    with redis_client.pipeline() as pipeline, pytest.raises(JobShedError):
        low_queue.enqueue(work, depends_on=[first], pipeline=pipeline)
    assert controller._passed.counts() == {}
    assert low_queue.count == OVERLOAD


def test_a_failed_dependency_is_met_where_the_job_says_so(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    low_queue = queue(redis_client, controller)
    first = rq.Queue("clicks", connection=redis_client).enqueue(work)
    first.set_status(rq.job.JobStatus.FAILED)
    low_queue.enqueue(work, depends_on=first)
    assert low_queue.count == OVERLOAD
    with pytest.raises(JobShedError):
        low_queue.enqueue(work, depends_on=rq.job.Dependency([first], allow_failure=True))


def test_jobs_that_follow_each_other_in_one_enqueue_wait(
    redis_client: redis.Redis, calm: BackpressureController
) -> None:
    second = Queue.prepare_data(work, depends_on="first")
    queue(redis_client, calm).enqueue_many([Queue.prepare_data(work, job_id="first"), second])
    assert calm._passed.counts() == {("mail", "scheduled"): 1}


def test_a_server_that_is_gone_is_told_of_jobs_with_dependencies_too(calm: BackpressureController) -> None:
    dead = redis.Redis(port=1)
    with pytest.raises(redis.ConnectionError):
        queue(dead, calm, priority="high").enqueue(work, depends_on="first")
    assert failures(calm) == 1


def test_the_scheduler_of_cron_jobs_passes(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    cron = pytest.importorskip("rq.cron", reason="this RQ has no cron jobs")
    seen: list[bool] = []

    def enqueue_jobs(_: object) -> None:
        seen.append(in_worker())
        raise KeyboardInterrupt

    monkeypatch.setattr(cron.CronScheduler, "enqueue_jobs", enqueue_jobs)
    monkeypatch.setattr(cron.CronScheduler, "_install_signal_handlers", lambda _: None)
    cron.CronScheduler(connection=redis_client).start()
    assert seen == [True]


def test_a_bound_class_gates_the_queues_that_others_make(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    bound = Queue.bound(controller, priority={"important": "high", "*": "low"})
    delayed: Any = job_decorator("mail", connection=redis_client, queue_class=bound)(work)
    with pytest.raises(JobShedError):
        delayed.delay("me@example.org")
    for made in (bound.from_queue_key("rq:queue:mail", redis_client), *bound.all(redis_client)):
        with pytest.raises(JobShedError):
            made.enqueue(work)
    assert bound("important", connection=redis_client).enqueue(work) is not None
    assert isinstance(bound("mail", connection=redis_client), Queue)
    Queue("mail", connection=redis_client).enqueue(work)  # not bound


@pytest.mark.skipif(not hasattr(redis, "MaxConnectionsError"), reason="redis-py 5 has no such thing")
def test_a_pool_of_this_process_that_is_used_up_says_nothing_of_the_queue(
    redis_client: redis.Redis, calm: BackpressureController
) -> None:
    pool = redis.ConnectionPool(max_connections=1, **redis_client.get_connection_kwargs())
    taken = pool.get_connection()
    with pytest.raises(redis.MaxConnectionsError):
        queue(redis.Redis(connection_pool=pool), calm, priority="high").enqueue(work)
    assert failures(calm) == 0
    pool.release(taken)
    pool.close()


def failures(controller: BackpressureController) -> int:
    return int(controller.circuit("mail").stats()["failure_count"])


@pytest.fixture
def calm(make_controller: MakeController) -> BackpressureController:
    """A controller that sees no backlog."""
    return make_controller(InMemoryStatsProvider({"mail": 0}))


def test_a_pipeline_reports_when_it_is_executed(
    redis_client: redis.Redis, calm: BackpressureController, full_server: None
) -> None:
    high_queue = queue(redis_client, calm, priority="high")
    pipeline = redis_client.pipeline()
    high_queue.enqueue(work, pipeline=pipeline)
    high_queue.enqueue_many([Queue.prepare_data(work)], pipeline=pipeline)
    assert failures(calm) == 0
    with pytest.raises(redis.ResponseError):
        pipeline.execute()
    assert failures(calm) == 2
    pipeline.reset()
    assert failures(calm) == 2
    assert "execute" not in vars(pipeline)


def test_only_the_jobs_commands_are_looked_at_where_errors_are_results(
    redis_client: redis.Redis, calm: BackpressureController
) -> None:
    calm.record_failure("mail")
    high_queue = queue(redis_client, calm, priority="high")
    redis_client.set("text", "no list")

    def fill() -> None:
        with redis_client.pipeline() as pipeline:
            pipeline.rpush("text", 1)
            high_queue.enqueue_many([Queue.prepare_data(work)], pipeline=pipeline)
            pipeline.rpush("text", 1)
            assert [isinstance(result, Exception) for result in pipeline.execute(raise_on_error=False)].count(True) > 1

    fill()
    assert failures(calm) == 0, "the success was not reported"
    redis_client.set(high_queue.key, "no list")
    fill()
    assert failures(calm) == 1


@pytest.mark.parametrize("end", ["reset", "drop", "leave", "fail to fill", "watch"])
def test_a_pipeline_that_is_not_executed_gives_a_probe_back(
    redis_client: redis.Redis, make_controller: MakeController, clock: Any, end: str
) -> None:
    controller = make_controller(InMemoryStatsProvider({"mail": 0}))
    for _ in range(5):
        controller.record_failure("mail")
    clock.advance(61)
    high_queue = queue(redis_client, controller, priority="high")
    pipeline = redis_client.pipeline()
    if end == "watch":
        pipeline.watch("rq:queue:mail")  # type: ignore[no-untyped-call]
        redis_client.rpush("rq:queue:mail", "meanwhile")
    if end == "fail to fill":
        with pytest.raises(ValueError, match="0"):
            high_queue.enqueue_many([Queue.prepare_data(work, timeout=0)], pipeline=pipeline)
    else:
        high_queue.enqueue(work, pipeline=pipeline)
        with pytest.raises(CircuitOpenError):  # the probe is under way
            high_queue.enqueue(work)
    if end == "reset":
        pipeline.reset()
    elif end == "leave":
        with pipeline:
            pass
    elif end == "watch":
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    del pipeline
    gc.collect()
    high_queue.enqueue(work)
    assert str(controller.get_circuit_state("mail")) == "half-open"


@SINCE_RQ_2
def test_a_unique_job_is_sent_at_once_whatever_its_pipeline(
    redis_client: redis.Redis, calm: BackpressureController
) -> None:
    calm.record_failure("mail")
    high_queue = queue(redis_client, calm, priority="high")
    pipeline = redis_client.pipeline()
    high_queue.enqueue(work, job_id="1", unique=True, pipeline=pipeline)
    assert high_queue.count == 1
    assert failures(calm) == 0
