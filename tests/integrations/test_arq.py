"""arq behind a controller, with arq's own worker on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure import HIGH, JobShedError
from backpressure.providers.layouts import ArqLayout
from integrations import jobs
from integrations.async_watch import Run, on_loop
from integrations.commands import command
from integrations.contract.driver import OnLoop
from integrations.contract.framework import ON_LOOPS, Fault, Framework, Taken
from integrations.contract.promises import Contract
from integrations.everywhere import WAYS
from integrations.frameworks import required
from integrations.jobs import JOBS, OnceError, ran
from integrations.overload import OVERLOAD

required("arq")

from arq import Retry, Worker, create_pool, cron, func  # type: ignore[import-not-found] # noqa: E402
from arq.connections import ArqRedis, RedisSettings  # type: ignore[import-not-found] # noqa: E402
from arq.jobs import SerializationError  # type: ignore[import-not-found] # noqa: E402

from backpressure.integrations import arq as integration  # noqa: E402
from backpressure.integrations.arq import protect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import redis

    from backpressure.testing import ManualClock
    from integrations.contract.framework import Exempt, Faults, Ways

# The worker closes its pool as redis-py 5 has long advised against.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")

QUEUE = "arq:queue"


@pytest.fixture
def run(redis_client: redis.Redis, redis_url: str, engine_name: str, engine_module: object, clock: ManualClock) -> Run:
    """Run a test with a pool, and with a controller that sees an overload in its queue."""
    queues = dict.fromkeys((QUEUE, "news"), ArqLayout())
    return Run(engine_name, redis_url, clock, opened=pool, overload=lambda own: own.enqueue_job("work"), queues=queues)


@contextlib.asynccontextmanager
async def pool(url: str, **options: Any) -> AsyncIterator[Any]:
    pool = await create_pool(RedisSettings.from_dsn(url), **options)
    try:
        yield pool
    finally:
        await pool.aclose(close_connection_pool=True)


def worker(pool: Any, *functions: Any, **options: Any) -> Any:
    jobs = [func(function, name=function.__name__) for function in (work, *functions)]
    options = {"redis_pool": pool, "max_tries": 2, "poll_delay": 0.01, **options}
    return Worker(jobs, burst=True, handle_signals=False, **options)


async def drain(*arguments: Any, **options: Any) -> None:
    """Have a worker run all jobs."""
    await worker(*arguments, **options).async_run()


@pytest.fixture(autouse=True)
def no_runs() -> None:
    ran.clear()


async def work(_: dict[str, Any], *names: Any) -> None:
    ran.extend(names)


async def nightly(_: dict[str, Any]) -> None:
    ran.append("cron")


class Arq(Framework):
    title = "arq"
    driver = OnLoop()
    keys = ("mail",)
    ways: ClassVar[Ways] = {
        "enqueue_job": lambda app: app.enqueue_job("work"),
        "by": lambda app: app.enqueue_job("work", _defer_by=30),
        "until": lambda app: app.enqueue_job("work", _defer_until=datetime.now(UTC) + timedelta(seconds=30)),
        "keyed": lambda app: app.enqueue_job("work", _job_id="1"),
        "queue": lambda app: app.enqueue_job("work", _queue_name="mail"),
        "first try": lambda app: app.enqueue_job("work", _job_try=1),
    }
    marks: ClassVar[Ways] = {
        "call": lambda app: app.enqueue_job("work", _backpressure_priority="high"),
        "Priority": lambda app: app.enqueue_job("work", _backpressure_priority=HIGH),
    }
    later: ClassVar[Ways] = {
        "by": lambda app: app.enqueue_job("work", _defer_by=61),
        "by a timedelta": lambda app: app.enqueue_job("work", _defer_by=timedelta(minutes=2)),
        "until": lambda app: app.enqueue_job("work", _defer_until=datetime.now(UTC) + timedelta(hours=1)),
        "until a local time": lambda app: app.enqueue_job(
            "work",
            _defer_until=datetime.now() + timedelta(hours=1),  # noqa: DTZ005 - arq takes it
        ),
    }
    faults: ClassVar[Faults] = {
        "argument": Fault(lambda app: app.enqueue_job("work", lambda: None), SerializationError),
        "expires": Fault(lambda app: app.enqueue_job("work", _expires="1h"), TypeError),
        "both times": Fault(
            lambda app: app.enqueue_job("work", _defer_by=1, _defer_until=datetime.now(UTC)), RuntimeError
        ),
    }
    taken = Taken(lambda app: app.enqueue_job("work", _job_id="once"), None, is_success=True)
    exempt: ClassVar[Exempt] = {
        "test_many_are_gated_once_and_sent_all_or_none": "arq enqueues one job at a time",
        "test_what_runs_at_once_runs_whatever_the_backlog": "arq has no mode that runs jobs at once",
        "test_on_an_event_loop_nothing_sleeps": ON_LOOPS,
    }

    def layout(self, queue_name: str) -> ArqLayout:
        return ArqLayout()

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Any]:
        async with pool(url, default_queue_name="mail") as own:
            for _ in range(OVERLOAD):
                await own.enqueue_job("work")
            yield own

    def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        return protect(app, controller, **options)

    def send(self, app: Any, job: str) -> Any:
        return app.enqueue_job(job)

    def name_of(self, given: Any) -> str:
        return str(given.function)

    @contextlib.asynccontextmanager
    async def working(self, app: Any) -> AsyncIterator[None]:
        others = [of_arq(job) for job in JOBS if job is not jobs.work]
        working = asyncio.create_task(drain(app, *others, queue_name="mail"))
        try:
            yield
        finally:
            await working


def of_arq(job: Any) -> Any:
    """Return a job as arq calls it."""

    @functools.wraps(job)
    async def run(_: dict[str, Any]) -> None:
        try:
            await job()
        except OnceError:
            raise Retry from None

    return run


class TestContract(Contract):
    framework = Arq()


@on_loop
async def test_the_queue_is_the_jobs_or_the_pools(run: Run, redis_client: redis.Redis, redis_url: str) -> None:
    async with run() as (own, controller):
        protect(own, controller, priority={QUEUE: "low", "*": "high"})
        await own.enqueue_job("work", _queue_name="news")
        async with pool(redis_url, default_queue_name="news") as news:
            protect(news, controller, priority="low")
            await news.enqueue_job("work")
            with pytest.raises(JobShedError):
                await news.enqueue_job("work", _queue_name=QUEUE)
            assert redis_client.zcard("news") == 2
        async with pool(redis_url, default_queue_name="elsewhere") as mapped:
            protect(mapped, controller, priority="low", queue={"elsewhere": QUEUE})
            with pytest.raises(JobShedError):
                await mapped.enqueue_job("work")


@on_loop
async def test_a_function_is_given_the_job(run: Run) -> None:
    jobs: list[Any] = []

    def priority(job: Any) -> str:
        jobs.append(job)
        return "high"

    async with run() as (pool, controller):
        protect(pool, controller, priority=priority)
        await pool.enqueue_job("work", 1, _job_id="id", _defer_by=1, size=2)
    assert [(job.function, job.args, job.kwargs, job.job_id) for job in jobs] == [("work", (1,), {"size": 2}, "id")]
    known = inspect.signature(ArqRedis.enqueue_job).parameters
    assert {name for name in known if known[name].kind is inspect.Parameter.KEYWORD_ONLY} == integration._OPTIONS


@on_loop
async def test_the_gate_comes_before_a_connection_and_the_time_of_enqueueing(
    run: Run, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run() as (pool, controller):
        protect(pool, controller, priority="medium", max_wait=None)
        taken: list[int] = []
        get_connection = pool.connection_pool.get_connection

        async def noted(*args: Any, **kwargs: Any) -> Any:
            taken.append(clock.monotonic_ns())
            return await get_connection(*args, **kwargs)

        monkeypatch.setattr(pool.connection_pool, "get_connection", noted)
        began = clock.monotonic_ns()
        before = datetime.now(UTC)
        job = await pool.enqueue_job("work")
        assert taken[0] > began, "a connection was held while waiting"
        told = await job.info()
        rounding = timedelta(milliseconds=1)  # arq keeps whole milliseconds
        assert before - rounding <= told.enqueue_time <= datetime.now(UTC) + rounding


@pytest.mark.parametrize("whose", ["the producer's", "its own"])
@on_loop
async def test_what_a_worker_starts_with_passes_whosever_its_pool_is(run: Run, redis_url: str, whose: str) -> None:
    async with run() as (protected, controller):

        async def send_more(_: dict[str, Any]) -> None:
            await asyncio.create_task(protected.enqueue_job("work", "from a task of a job"))

        async def startup(_: dict[str, Any]) -> None:
            await protected.enqueue_job("work", "from startup")

        await protected.enqueue_job("send_more")
        protect(protected, controller, priority="low")
        async with pool(redis_url) as unprotected:
            await drain(unprotected if whose == "its own" else protected, send_more, on_startup=startup)
        assert sorted(ran) == ["from a task of a job", "from startup"]
        with pytest.raises(JobShedError):  # it was an overload all the while, and here is no worker
            await protected.enqueue_job("work")


@on_loop
async def test_what_an_enqueue_enqueues_follows_it(run: Run, redis_client: redis.Redis) -> None:
    class Audited(ArqRedis):  # type: ignore[misc]
        async def enqueue_job(self, function: str, **options: Any) -> Any:
            if function != "audit":
                await self.enqueue_job("audit")
            return await super().enqueue_job(function, **options)

    async with run() as (pool, controller):
        audited = Audited(pool.connection_pool)
        protect(audited, controller, priority={"audit": "low", "work": "high"})
        await audited.enqueue_job("work")
        assert redis_client.zcard(QUEUE) == OVERLOAD + 2


@on_loop
async def test_a_job_enqueued_anew_for_another_try_passes(run: Run, redis_client: redis.Redis) -> None:
    async with run() as (pool, controller):
        await protect(pool, controller, priority="low").enqueue_job("work", _job_try=2)
        assert redis_client.zcard(QUEUE) == OVERLOAD + 1


@on_loop
async def test_cron_jobs_run_under_overload(run: Run) -> None:
    async with run() as (pool, controller):
        protect(pool, controller, priority="low")
        await drain(pool, cron_jobs=[cron(nightly, hour=0, run_at_startup=True)])
        assert ran == ["cron"]
        with pytest.raises(JobShedError):
            await pool.enqueue_job("work")


@on_loop
async def test_a_worker_driven_by_hand_is_known_too(run: Run, redis_client: redis.Redis) -> None:
    async with run() as (pool, controller):

        async def send_more(ctx: dict[str, Any]) -> None:
            await ctx["redis"].enqueue_job("work")

        await pool.enqueue_job("send_more", _job_id="more")
        protect(pool, controller, priority="low")
        by_hand = worker(pool, send_more, ctx={"redis": pool}, on_shutdown=send_more, cron_jobs=[cron(nightly, hour=0)])
        by_hand.cron_jobs[0].next_run = now = datetime.now(UTC)
        await by_hand.run_cron(now, 0.5)
        await by_hand.run_job("more", 0)
        await by_hand.close()
        assert redis_client.zcard(QUEUE) == OVERLOAD + 3  # of cron, of the job, and at shutdown


def test_a_workers_whole_process_passes_though_no_controller_is_started(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    def sent() -> set[str]:
        ids: Any = redis_client.zrange("later", 0, -1)
        return {one.decode() for one in ids}

    async def enqueue() -> None:
        async with pool(redis_url) as own:
            await own.enqueue_job("work")

    with command(tmp_path, redis_url, "arq", "integrations.arq_worker.WorkerSettings") as running:
        asyncio.run(enqueue())
        running.until(lambda: sent() == {"startup", "cron", "start of a job", "end of a job", *WAYS})
        running.end()
    assert "shutdown" in sent()


@on_loop
async def test_what_a_worker_beside_a_producer_stops_with_passes(run: Run, redis_url: str) -> None:
    async with run() as (protected, controller):
        stopped: list[asyncio.Task[Any]] = []

        async def shutdown(_: Any) -> None:
            await protected.enqueue_job("work", "shutdown")

        protect(protected, controller, priority="low")
        async with pool(redis_url, default_queue_name="own") as own:
            beside = worker(own, queue_name="own", on_shutdown=shutdown)
            beside.on_stop = lambda _: stopped.append(asyncio.create_task(protected.enqueue_job("work", "stop")))
            await asyncio.create_task(beside.async_run())
            await beside.close()
            await stopped[0]
        assert controller._passed.counts() == {(QUEUE, "worker"): 2}
        with pytest.raises(JobShedError):
            await protected.enqueue_job("work")


@on_loop
async def test_a_worker_on_a_producers_thread_is_that_thread(run: Run, redis_url: str) -> None:
    async with run() as (protected, controller):
        protect(protected, controller, priority="low")
        loop = asyncio.get_running_loop()
        passed: list[object] = []

        async def work_elsewhere(_: Any) -> None:
            enqueue = asyncio.run_coroutine_threadsafe(protected.enqueue_job("work"), loop)
            passed.append(await asyncio.wrap_future(enqueue))

        async def main() -> None:
            async with pool(redis_url, default_queue_name="own") as own:
                await own.enqueue_job("work_elsewhere")
                await drain(own, work_elsewhere, queue_name="own")

        await asyncio.to_thread(asyncio.run, main())
        with pytest.raises(JobShedError):
            await protected.enqueue_job("work")
        assert len(passed) == 1


@on_loop
async def test_what_hooks_around_named_jobs_enqueue_is_not_judged(run: Run, redis_url: str) -> None:
    async with run() as (protected, controller):

        async def campaign(_: Any) -> None:
            with pytest.raises(JobShedError):
                await protected.enqueue_job("work")
            ran.append("shed")

        async def around(_: Any) -> None:
            await protected.enqueue_job("work", "around")

        protect(protected, controller, priority="low", inside_tasks={"campaign"})
        async with pool(redis_url, default_queue_name="own") as own:
            await own.enqueue_job("campaign")
            hooks = {"on_job_start": around, "on_job_end": around, "after_job_end": around}
            await drain(own, campaign, queue_name="own", **hooks)
        assert ran == ["shed"]
        assert controller._passed.counts() == {(QUEUE, "worker"): 3}
