"""arq behind a controller, with arq's own worker on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import JobShedError, ThrottledError
from backpressure.providers.layouts import ArqLayout
from backpressure.testing import ManualClock
from integrations.async_watch import (
    CONFIG,
    HIGH_IS_RED,
    OVERLOAD,
    Run,
    eventually,
    opens_the_circuit,
    protects_once,
)
from integrations.commands import command
from integrations.everywhere import WAYS, from_everywhere
from integrations.frameworks import required

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

    from backpressure import AsyncBackpressureController

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


ran: list[Any] = []


@pytest.fixture(autouse=True)
def no_runs() -> None:
    ran.clear()


async def work(_: dict[str, Any], *names: Any) -> None:
    ran.extend(names)


async def nightly(_: dict[str, Any]) -> None:
    ran.append("cron")


def test_under_overload_low_is_shed_and_high_passes(run: Run, redis_client: redis.Redis) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        protect(pool, controller, priority={"other": "high", "*": "low"})
        keys = set(redis_client.keys())
        with pytest.raises(JobShedError):
            await pool.enqueue_job("work")
        assert set(redis_client.keys()) == keys, "a shed job left something behind"
        await pool.enqueue_job("other")
        await pool.enqueue_job("work", _backpressure_priority="high")
        assert redis_client.zcard(QUEUE) == OVERLOAD + 2

    run(test)


@pytest.mark.parametrize(
    "options",
    [
        {"_defer_by": 30},
        {"_defer_until": datetime.now(UTC) + timedelta(seconds=30)},
        {"_job_id": "1"},
        {"_queue_name": QUEUE},
        {"_job_try": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_way_of_enqueueing_is_gated(run: Run, redis_client: redis.Redis, options: dict[str, Any]) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        with pytest.raises(JobShedError):
            await protect(pool, controller, priority="low").enqueue_job("work", **options)
        assert redis_client.zcard(QUEUE) == OVERLOAD

    run(test)


def test_the_queue_is_the_jobs_or_the_pools(run: Run, redis_client: redis.Redis, redis_url: str) -> None:
    async def test(own: Any, controller: AsyncBackpressureController) -> None:
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

    run(test)


def test_a_function_is_given_the_job(run: Run) -> None:
    jobs: list[Any] = []

    def priority(job: Any) -> str:
        jobs.append(job)
        return "high"

    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        protect(pool, controller, priority=priority)
        await pool.enqueue_job("work", 1, _job_id="id", _defer_by=1, size=2)

    run(test)
    assert [(job.function, job.args, job.kwargs, job.job_id) for job in jobs] == [("work", (1,), {"size": 2}, "id")]
    known = inspect.signature(ArqRedis.enqueue_job).parameters
    assert {name for name in known if known[name].kind is inspect.Parameter.KEYWORD_ONLY} == integration._OPTIONS


def test_the_gate_comes_before_a_connection_and_the_time_of_enqueueing(
    run: Run, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
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
        assert before - timedelta(milliseconds=1) <= told.enqueue_time <= datetime.now(UTC)

    run(test)


def test_nothing_of_a_retry_or_of_what_jobs_enqueue_is_lost_under_overload(run: Run, redis_url: str) -> None:
    async def test(protected: Any, controller: AsyncBackpressureController) -> None:
        async def fail_once(ctx: dict[str, Any]) -> None:
            ran.append("try")
            if ctx["job_try"] == 1:
                raise Retry
            await ctx["redis"].enqueue_job("work", "from a job")
            await asyncio.create_task(protected.enqueue_job("work", "from a task of a job"))

        async def startup(ctx: dict[str, Any]) -> None:
            await ctx["redis"].enqueue_job("work", "from startup")

        await protected.enqueue_job("fail_once")
        protect(protected, controller, priority="low")
        await drain(protected, fail_once, on_startup=startup)
        assert sorted(ran) == ["from a job", "from a task of a job", "from startup", "try", "try"]
        async with pool(redis_url) as unprotected:  # a worker with a pool of its own, whose jobs use the protected one
            await unprotected.enqueue_job("fail_once")
            await drain(unprotected, fail_once)
        assert ran.count("from a task of a job") == 2
        with pytest.raises(JobShedError):  # it was an overload all the while, and here is no worker
            await protected.enqueue_job("work")

    run(test)


def test_what_an_enqueue_enqueues_follows_it(run: Run, redis_client: redis.Redis) -> None:
    class Audited(ArqRedis):  # type: ignore[misc]
        async def enqueue_job(self, function: str, **options: Any) -> Any:
            if function != "audit":
                await self.enqueue_job("audit")
            return await super().enqueue_job(function, **options)

    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        audited = Audited(pool.connection_pool)
        protect(audited, controller, priority={"audit": "low", "work": "high"})
        await audited.enqueue_job("work")
        assert redis_client.zcard(QUEUE) == OVERLOAD + 2

    run(test)


def test_a_job_enqueued_anew_for_another_try_passes(run: Run, redis_client: redis.Redis) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        await protect(pool, controller, priority="low").enqueue_job("work", _job_try=2)
        assert redis_client.zcard(QUEUE) == OVERLOAD + 1

    run(test)


def test_cron_jobs_run_under_overload(run: Run) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        protect(pool, controller, priority="low")
        await drain(pool, cron_jobs=[cron(nightly, hour=0, run_at_startup=True)])
        assert ran == ["cron"]
        with pytest.raises(JobShedError):
            await pool.enqueue_job("work")

    run(test)


def test_a_worker_driven_by_hand_is_known_too(run: Run, redis_client: redis.Redis) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
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

    run(test)


def test_a_job_that_exists_is_a_success(run: Run, redis_client: redis.Redis) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        protect(pool, controller, priority="high")
        assert await pool.enqueue_job("work", _job_id="once") is not None
        controller.record_failure(QUEUE)
        assert await pool.enqueue_job("work", _job_id="once") is None
        assert controller.circuit(QUEUE).stats()["failure_count"] == 0
        assert redis_client.zcard(QUEUE) == OVERLOAD + 1

    run(test)


def test_a_server_that_refuses_opens_the_circuit(run: Run, redis_client: redis.Redis) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        protect(pool, controller, priority="high")
        await opens_the_circuit(lambda: pool.enqueue_job("work"), redis_client)

    run(test)


def test_who_is_cancelled_while_waiting_leaves_nothing_behind(run: Run, redis_client: redis.Redis) -> None:
    clock = ManualClock()

    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        protect(pool, controller, priority="medium", max_wait=None)
        keys = set(redis_client.keys())
        waiting = asyncio.create_task(pool.enqueue_job("work"))
        while clock.sleeping() < 2:  # it, and the poller
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert clock.sleeping() == 1
        assert set(redis_client.keys()) == keys
        await pool.enqueue_job("work", _backpressure_priority="high")
        assert redis_client.zcard(QUEUE) == OVERLOAD + 1

    run(test, clock=clock)


def test_max_wait_bounds_the_wait(run: Run) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        with pytest.raises(ThrottledError):
            await protect(pool, controller, priority="medium", max_wait=0.1).enqueue_job("work")

    run(test)


def test_a_pool_is_protected_once_and_by_a_controller_of_asyncio(run: Run) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        await protects_once(protect, pool, lambda: pool.enqueue_job("work"), controller)

    run(test)


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


def test_a_worker_beside_a_producer_opens_nothing_of_the_producers(run: Run, redis_url: str) -> None:
    async def test(protected: Any, controller: AsyncBackpressureController) -> None:
        raised: list[Any] = []
        stopped: list[asyncio.Task[Any]] = []

        async def everywhere(_: Any) -> None:
            raised.append(await from_everywhere(lambda way: protected.enqueue_job("work", way)))
            await go.wait()

        async def shutdown(_: Any) -> None:
            await protected.enqueue_job("work", "shutdown")

        protect(protected, controller, priority="low")
        go = asyncio.Event()
        async with pool(redis_url, default_queue_name="own") as own:
            await own.enqueue_job("everywhere")
            beside = worker(own, everywhere, queue_name="own", on_shutdown=shutdown)
            beside.on_stop = lambda _: stopped.append(asyncio.create_task(protected.enqueue_job("work", "stop")))
            working = asyncio.create_task(beside.async_run())
            await eventually(lambda: raised)
            assert await from_everywhere(lambda _: protected.enqueue_job("work")) == [JobShedError] * len(WAYS)
            go.set()
            await working
            await beside.close()
            await stopped[0]
        assert raised == [[None] * len(WAYS)]
        assert controller._passed.counts() == {(QUEUE, "worker"): len(WAYS) + 2}

    run(test)


def test_a_worker_on_a_producers_thread_is_that_thread(run: Run, redis_url: str) -> None:
    async def test(protected: Any, controller: AsyncBackpressureController) -> None:
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

    run(test)


def test_what_named_jobs_enqueue_is_judged_but_not_what_hooks_around_them_do(run: Run, redis_url: str) -> None:
    async def test(protected: Any, controller: AsyncBackpressureController) -> None:
        raised: list[Any] = []

        async def campaign(_: Any) -> None:
            raised.append(await from_everywhere(lambda way: protected.enqueue_job("work", way)))

        async def around(_: Any) -> None:
            await protected.enqueue_job("work", "around")

        protect(protected, controller, priority="low", inside_tasks={"campaign"})
        async with pool(redis_url, default_queue_name="own") as own:
            await own.enqueue_job("campaign")
            hooks = {"on_job_start": around, "on_job_end": around, "after_job_end": around}
            await drain(own, campaign, queue_name="own", **hooks)
        (told,) = raised
        shed = dict(zip(WAYS, told, strict=True))
        assert {shed["task"], shed["callback"], shed["to_thread"]} == {JobShedError}
        assert controller._passed.counts()[QUEUE, "worker"] >= 3

    run(test)


@pytest.mark.parametrize(
    "options",
    [
        {"_defer_by": 61},
        {"_defer_by": timedelta(minutes=2)},
        {"_defer_until": datetime.now(UTC) + timedelta(hours=1)},
        {"_defer_until": datetime.now() + timedelta(hours=1)},  # noqa: DTZ005 - arq takes local time, too
    ],
    ids=str,
)
def test_jobs_deferred_far_ahead_pass(run: Run, options: dict[str, Any]) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        await protect(pool, controller, priority="low").enqueue_job("work", **options)
        assert controller._passed.counts() == {(QUEUE, "scheduled"): 1}

    run(test)


def test_what_is_no_fault_of_the_queue_does_not_count(run: Run) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        protect(pool, controller, priority="high")
        with pytest.raises(SerializationError):
            await pool.enqueue_job("work", lambda: None)
        with pytest.raises(TypeError, match="__round__"):
            await pool.enqueue_job("work", _expires="1h")
        with pytest.raises(RuntimeError, match="not both"):
            await pool.enqueue_job("work", _defer_by=1, _defer_until=datetime.now(UTC))
        assert controller.circuit(QUEUE).stats()["failure_count"] == 0

    run(test)


def test_high_goes_after_the_longest_wait(run: Run, clock: ManualClock) -> None:
    async def test(pool: Any, controller: AsyncBackpressureController) -> None:
        controller.reconfigure(CONFIG.evolve(HIGH_IS_RED))
        protect(pool, controller, priority="high", max_wait={"high": 0.05})
        began = clock.monotonic_ns()
        await pool.enqueue_job("work")
        assert clock.monotonic_ns() - began == 50_000_000

    run(test)
