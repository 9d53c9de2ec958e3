"""SAQ behind a controller, with SAQ's own worker on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import JobShedError, ThrottledError
from backpressure.providers.layouts import SAQLayout
from backpressure.testing import ManualClock
from integrations.async_watch import (
    CONFIG,
    HIGH_IS_RED,
    OVERLOAD,
    Run,
    decided,
    eventually,
    opens_the_circuit,
    protects_once,
)
from integrations.commands import command
from integrations.everywhere import WAYS, from_everywhere
from integrations.frameworks import required

required("saq")

import saq  # noqa: E402 - skipped before where it is missing
from saq.queue import JobError  # noqa: E402

from backpressure.integrations.saq import protect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import redis

    from backpressure import AsyncBackpressureController

# SAQ calls what redis-py 8 advises against.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

HIGH = {"backpressure_priority": "high"}


@pytest.fixture
def run(redis_client: redis.Redis, redis_url: str, engine_name: str, engine_module: object, clock: ManualClock) -> Run:
    """Run a test with a queue, and with a controller that sees an overload in it."""
    queues = dict.fromkeys(("mail", "news"), SAQLayout())
    return Run(engine_name, redis_url, clock, opened=queue, overload=lambda mail: mail.enqueue("work"), queues=queues)


@contextlib.asynccontextmanager
async def queue(url: str, name: str = "mail") -> AsyncIterator[Any]:
    queue = saq.Queue.from_url(url, name=name)
    try:
        yield queue
    finally:
        await queue.disconnect()


@contextlib.asynccontextmanager
async def working(queue: saq.Queue, *functions: Any, **options: Any) -> AsyncIterator[saq.Worker[Any]]:
    """Run a worker."""
    jobs = [(function.__name__, function) for function in (work, *functions)]
    worker: saq.Worker[Any] = saq.Worker(queue, jobs, concurrency=2, **options)
    running = asyncio.create_task(worker.start())
    try:
        yield worker
    finally:
        worker.event.set()
        await running


ran: list[Any] = []


@pytest.fixture(autouse=True)
def no_runs() -> None:
    ran.clear()


async def work(_: Any, *, name: str = "", fail: bool = False) -> str:
    ran.append(name)
    if fail:
        raise ValueError(name)
    return name


async def nightly(_: Any) -> None:
    ran.append("cron")


def test_under_overload_low_is_shed_and_high_passes(run: Run, redis_client: redis.Redis) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority={"other": "high", "*": "low"})
        keys = set(redis_client.keys())
        with pytest.raises(JobShedError):
            await mail.enqueue("work")
        assert set(redis_client.keys()) == keys, "a shed job left something behind"
        await mail.enqueue("other", name="argument")
        await mail.enqueue("work", meta=HIGH)
        await mail.enqueue(saq.Job("work", meta=HIGH))
        assert await mail.count("queued") == OVERLOAD + 3

    run(test)


@pytest.mark.parametrize(
    "enqueue",
    [
        lambda mail: mail.enqueue("work", scheduled=int(time.time()) + 30),
        lambda mail: mail.enqueue("work", key="1"),
        lambda mail: mail.enqueue(saq.Job("work")),
        lambda mail: mail.enqueue(saq.Job("work", meta=HIGH), meta={}),
        lambda mail: saq.Job("work").enqueue(mail),
        lambda mail: mail.apply("work", timeout=1),
        lambda mail: mail.map("work", [{}], timeout=1),
    ],
    ids=["scheduled", "keyed", "job", "changed", "job's own", "apply", "map"],
)
def test_every_way_of_enqueueing_is_gated(run: Run, redis_client: redis.Redis, enqueue: Any) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="low")
        keys = set(redis_client.keys())
        with pytest.raises(JobShedError):
            await enqueue(mail)
        assert set(redis_client.keys()) == keys

    run(test)


def test_the_queues_name_may_lead_elsewhere(run: Run, redis_url: str) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        async with queue(redis_url, "news") as news, queue(redis_url, "elsewhere") as elsewhere:
            protect(news, controller, priority={"mail": "high", "news": "low"})
            await news.enqueue("work")
            protect(elsewhere, controller, priority="low", queue={"elsewhere": "mail"})
            with pytest.raises(JobShedError):
                await elsewhere.enqueue("work")

    run(test)


def test_a_function_is_given_the_job(run: Run) -> None:
    jobs: list[saq.Job] = []

    def priority(job: saq.Job) -> str:
        jobs.append(job)
        return "high"

    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority=priority)
        given = {"a": 1}
        job = await mail.enqueue("work", key="1", kwargs=given, b=2)
        own = saq.Job("work", key="2")
        await mail.enqueue(own, timeout=5)
        assert (job.kwargs, own.timeout) == ({"a": 1, "b": 2}, 5)

    run(test)
    assert [(job.function, job.key, job.kwargs, job.timeout) for job in jobs] == [
        ("work", "1", {"a": 1, "b": 2}, 10),
        ("work", "2", None, 5),
    ]


def test_the_gate_comes_before_a_connection_and_the_time_of_enqueueing(
    run: Run, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="medium", max_wait=None)
        noted: list[tuple[str, int]] = []
        get_connection = mail.redis.connection_pool.get_connection

        async def connect(*args: Any, **kwargs: Any) -> Any:
            noted.append(("connection", clock.monotonic_ns()))
            return await get_connection(*args, **kwargs)

        async def callback(job: saq.Job) -> None:
            noted.append(("callback", clock.monotonic_ns()))

        monkeypatch.setattr(mail.redis.connection_pool, "get_connection", connect)
        mail.register_before_enqueue(callback)
        began, before = clock.monotonic_ns(), time.time() * 1000
        job = await mail.enqueue("work")
        assert [(what, at > began) for what, at in noted[:2]] == [("callback", True), ("connection", True)]
        assert before - 1 <= job.queued <= time.time() * 1000

    run(test)


def test_a_map_is_gated_once_and_enqueued_all_or_none(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="low")
        with pytest.raises(JobShedError):
            await mail.map("work", [{"meta": HIGH}, {"name": "low"}], timeout=1)
        assert await mail.count("incomplete") == OVERLOAD
        before = decided(controller)
        names = [str(number) for number in range(10)]
        async with working(mail):
            told = await mail.map("work", [{"name": name} for name in names], timeout=20, poll_interval=0.01, meta=HIGH)
        assert told == names
        assert decided(controller) == before + 1
        assert sorted(filter(None, ran)) == names

    run(test)


def test_a_map_takes_what_saqs_takes(run: Run) -> None:
    timeouts: list[int] = []

    async def note(job: saq.Job) -> None:
        timeouts.append(job.timeout)

    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="high")
        mail.register_before_enqueue(note)
        async with working(mail):
            told = await mail.map("work", iter([{"fail": True}, {"name": "done"}]), 15, True, 0.001)
        assert isinstance(told[0], JobError)
        assert told[1:] == ["done"]
        assert await mail.map("work", []) == []

    run(test)
    assert timeouts == [15, 15]


def test_what_an_enqueue_enqueues_follows_it(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        async def audit(job: saq.Job) -> None:
            if job.function == "work":
                await mail.enqueue("audit")

        protect(mail, controller, priority={"audit": "low", "work": "high"})
        mail.register_before_enqueue(audit)
        await mail.enqueue("work")
        assert await mail.count("queued") == OVERLOAD + 2

    run(test)


def test_a_job_that_fails_is_no_failure_of_the_queue(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="high")
        async with working(mail):
            for _ in range(5):
                with pytest.raises(JobError):
                    await mail.apply("work", fail=True, poll_interval=0.001)
        assert controller.circuit("mail").stats()["failure_count"] == 0

    run(test)


def test_a_batch_is_gated_once_for_each_priority(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="medium", max_wait=None)
        before = decided(controller)
        async with mail.batch():
            await asyncio.gather(*(mail.enqueue("work") for _ in range(5)))
            await mail.enqueue("work", meta=HIGH)
            await mail.enqueue("work", meta=HIGH)
        assert decided(controller) == before + 2
        await mail.enqueue("work")
        assert decided(controller) == before + 3
        assert await mail.count("queued") == OVERLOAD + 8

    run(test)


def test_a_batch_that_is_shed_leaves_no_job(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="low")

        async def both() -> None:
            async with mail.batch():
                await mail.enqueue("work", meta=HIGH)
                await mail.enqueue("work", key="shed")

        with pytest.raises(JobShedError):
            await both()
        assert await mail.count("incomplete") == OVERLOAD
        assert await mail.job("shed") is None

    run(test)


def test_a_batch_is_its_own_queues_and_ends(run: Run, redis_url: str) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="high")
        go = asyncio.Event()

        async def late() -> None:
            await go.wait()
            await mail.enqueue("work")

        async with queue(redis_url) as other:
            protect(other, controller, priority="high")
            before = decided(controller)
            async with mail.batch():
                await mail.enqueue("work")
                await other.enqueue("work")
                outlives = asyncio.create_task(late())
            assert decided(controller) == before + 2
        go.set()
        await outlives
        assert decided(controller) == before + 3

    run(test)


def test_nothing_of_a_retry_or_of_what_jobs_enqueue_is_lost_under_overload(run: Run, redis_url: str) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        loop = asyncio.get_running_loop()

        async def fail_once(context: Any) -> None:
            ran.append("try")
            if context["job"].attempts == 1:
                raise ValueError("once")
            await mail.enqueue("work", name="from a job")
            await asyncio.create_task(mail.enqueue("work", name="from a task of a job"))
            jobs = [{"name": "mapped"}, {"fail": True}]
            told = await mail.map("work", jobs, return_exceptions=True, poll_interval=0.001, ttl=60)
            assert told[0] == "mapped"
            assert isinstance(told[1], JobError)
            assert told[1].job.ttl == 60
            ran.append("all told")

        def on_a_thread(_: Any) -> None:
            asyncio.run_coroutine_threadsafe(mail.enqueue("work", name="from a thread"), loop).result()

        async def hook(_: Any) -> None:
            await mail.enqueue("work", name="from startup")

        await mail.enqueue("fail_once", retries=2)
        await mail.enqueue("on_a_thread")
        protect(mail, controller, priority="low")
        expected = {"from a job", "from a task of a job", "all told", "from a thread", "from startup"}
        # A worker with a queue of its own, whose jobs use the protected one.
        async with queue(redis_url) as own, working(own, fail_once, on_a_thread, startup=hook):
            await eventually(lambda: expected <= set(ran))
            with pytest.raises(JobShedError):  # it was an overload all the while, and here is no worker
                await mail.enqueue("work")
        assert ran.count("try") == 2

    run(test)


def test_cron_jobs_run_under_overload(run: Run, redis_client: redis.Redis) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="low")
        jobs: list[saq.CronJob[Any]] = [saq.CronJob(nightly, cron="0 0 * * *")]
        async with working(mail, cron_jobs=jobs) as worker:
            await eventually(lambda: redis_client.zscore("saq:mail:incomplete", "saq:job:mail:cron:nightly"))
            redis_client.zadd("saq:mail:incomplete", {"saq:job:mail:cron:nightly": 1})  # its time has come
            redis_client.delete("saq:mail:schedule")
            await worker.queue.schedule()
            await eventually(lambda: "cron" in ran)
        with pytest.raises(JobShedError):
            await mail.enqueue("work")

    run(test)


def test_a_worker_driven_by_hand_is_known_too(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        async def send_more(_: Any) -> None:
            await mail.enqueue("work", name="from a job")

        await mail.redis.delete("saq:mail:queued")
        await mail.enqueue("send_more")
        protect(mail, controller, priority="low")
        functions: Any = [("work", work), ("send_more", send_more)]
        worker: saq.Worker[Any] = saq.Worker(mail, functions, cron_jobs=[saq.CronJob(nightly, cron="0 0 * * *")])
        await worker.process()
        await worker.schedule()
        await worker.process()
        assert ran == ["from a job"]

    run(test)


def test_a_job_whose_key_is_taken_is_a_success(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="high")
        assert await mail.enqueue("work", key="once") is not None
        controller.record_failure("mail")
        assert await mail.enqueue("work", key="once") is None
        assert controller.circuit("mail").stats()["failure_count"] == 0
        assert await mail.count("queued") == OVERLOAD + 1

    run(test)


@pytest.mark.parametrize(
    "enqueue",
    [lambda mail: mail.enqueue("work"), lambda mail: mail.map("work", [{}, {}], timeout=1)],
    ids=["enqueue", "map"],
)
def test_a_server_that_refuses_opens_the_circuit(run: Run, redis_client: redis.Redis, enqueue: Any) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="high")
        await opens_the_circuit(lambda: enqueue(mail), redis_client)

    run(test)


def test_who_is_cancelled_while_waiting_leaves_nothing_behind(run: Run, redis_client: redis.Redis) -> None:
    clock = ManualClock()

    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="medium", max_wait=None)
        keys = set(redis_client.keys())
        async with mail.batch():
            waiting = [asyncio.create_task(mail.enqueue("work")) for _ in range(2)]
            while clock.sleeping() < 2:  # the first, which asks for both, and the poller
                await asyncio.sleep(0)
            waiting[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting[0]
            while clock.sleeping() < 2:  # the second asks in its stead
                await asyncio.sleep(0)
            waiting[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting[1]
        assert clock.sleeping() == 1
        assert set(redis_client.keys()) == keys
        await mail.enqueue("work", meta=HIGH)
        assert await mail.count("queued") == OVERLOAD + 1

    run(test, clock=clock)


def test_max_wait_bounds_the_wait(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        with pytest.raises(ThrottledError):
            await protect(mail, controller, priority="medium", max_wait=0.1).enqueue("work")

    run(test)


def test_a_queue_is_protected_once_and_by_a_controller_of_asyncio(run: Run) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        await protects_once(protect, mail, lambda: mail.enqueue("work"), controller)

    run(test)


def test_a_workers_whole_process_passes_though_no_controller_is_started(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    def sent() -> set[str]:
        keys: list[Any] = redis_client.keys("saq:job:later:*")
        return {key.decode().removeprefix("saq:job:later:") for key in keys}

    async def enqueue() -> None:
        async with queue(redis_url, "jobs") as jobs:
            await jobs.enqueue("work")

    with command(tmp_path, redis_url, "saq", "integrations.saq_worker.settings") as worker:
        worker.until(lambda: redis_client.exists("saq:job:jobs:cron:work"))
        asyncio.run(enqueue())
        worker.until(lambda: sent() == {"startup", "before", "after", *WAYS})
        worker.end()
    assert "shutdown" in sent()


def test_a_worker_beside_a_producer_opens_nothing_of_the_producers(run: Run, redis_url: str) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        raised: list[Any] = []

        async def everywhere(_: Any) -> None:
            raised.append(await from_everywhere(lambda way: mail.enqueue("work", name=way)))
            await go.wait()

        async def shutdown(_: Any) -> None:
            await mail.enqueue("work", name="shutdown")

        protect(mail, controller, priority="low")
        go = asyncio.Event()
        async with queue(redis_url, "own") as own:
            await own.enqueue("everywhere")
            async with working(own, everywhere, shutdown=shutdown):
                await eventually(lambda: raised)
                assert await from_everywhere(lambda _: mail.enqueue("work")) == [JobShedError] * len(WAYS)
                go.set()
            assert raised == [[None] * len(WAYS)]
            stopped: saq.Worker[Any] = saq.Worker(own, [], shutdown=shutdown)
            await stopped.stop()
        assert controller._passed.counts() == {("mail", "worker"): len(WAYS) + 2}

    run(test)


def test_what_named_jobs_enqueue_is_judged_but_not_what_hooks_around_them_do(run: Run, redis_url: str) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        raised: list[Any] = []

        async def campaign(_: Any) -> None:
            raised.append(await from_everywhere(lambda _: mail.enqueue("work")))

        async def around(_: Any) -> None:
            await mail.enqueue("work")

        protect(mail, controller, priority="low", inside_tasks={"campaign"})
        async with queue(redis_url, "own") as own:
            await own.enqueue("campaign")
            worker: saq.Worker[Any] = saq.Worker(
                own, [("campaign", campaign), ("work", around)], before_process=around, after_process=around
            )
            await worker.process()
            await own.enqueue("work")
            await worker.process()
        (told,) = raised
        shed = dict(zip(WAYS, told, strict=True))
        assert {shed["task"], shed["callback"], shed["to_thread"]} == {JobShedError}
        assert controller._passed.counts()["mail", "worker"] >= 5  # around both, and of the other job

    run(test)


@pytest.mark.parametrize("ahead", [61, 3600.5])
def test_jobs_scheduled_far_ahead_pass(run: Run, ahead: float) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="low")
        await mail.enqueue("work", scheduled=time.time() + ahead)
        assert controller._passed.counts() == {("mail", "scheduled"): 1}

    run(test)


def test_what_is_no_fault_of_the_queue_does_not_count(run: Run) -> None:
    class RejectedError(Exception):
        pass

    async def reject(job: saq.Job) -> None:
        raise RejectedError

    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        protect(mail, controller, priority="high")
        for enqueue in (mail.enqueue("work", name=object()), mail.map("work", [{"name": object()}])):
            with pytest.raises(TypeError, match="not JSON serializable"):
                await enqueue
        mail.register_before_enqueue(reject)
        with pytest.raises(RejectedError):
            await mail.enqueue("work")
        assert controller.circuit("mail").stats()["failure_count"] == 0

    run(test)


def test_high_goes_after_the_longest_wait(run: Run, clock: ManualClock) -> None:
    async def test(mail: Any, controller: AsyncBackpressureController) -> None:
        controller.reconfigure(CONFIG.evolve(HIGH_IS_RED))
        protect(mail, controller, priority="high", max_wait={"high": 0.05})
        began = clock.monotonic_ns()
        await mail.enqueue("work")
        assert clock.monotonic_ns() - began == 50_000_000

    run(test)
