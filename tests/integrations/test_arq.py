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
from integrations.async_watch import OVERLOAD, Run, opens_the_circuit, protects_once
from integrations.frameworks import required

required("arq")

from arq import Retry, Worker, create_pool, cron, func  # type: ignore[import-not-found] # noqa: E402
from arq.connections import ArqRedis, RedisSettings  # type: ignore[import-not-found] # noqa: E402

from backpressure.integrations import arq as integration  # noqa: E402
from backpressure.integrations.arq import protect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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
        {"_defer_by": 3600},
        {"_defer_until": datetime.now(UTC) + timedelta(hours=1)},
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
        protect(pool, controller, priority="medium")
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
        protect(pool, controller, priority="medium")
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
