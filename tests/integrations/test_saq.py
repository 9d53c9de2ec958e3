"""SAQ behind a controller, with SAQ's own worker on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure import CircuitOpenError, JobShedError
from backpressure.providers.layouts import SAQLayout
from backpressure.testing import ManualClock
from integrations import jobs
from integrations.async_watch import Run, eventually, on_loop
from integrations.commands import command
from integrations.contract.driver import OnLoop
from integrations.contract.framework import ON_LOOPS, Fault, Framework, Taken
from integrations.contract.promises import Contract
from integrations.everywhere import WAYS
from integrations.frameworks import required
from integrations.jobs import JOBS, errands, ran
from integrations.overload import OVERLOAD, decided

required("saq")

import saq  # noqa: E402 - skipped before where it is missing
from saq.queue import JobError  # noqa: E402

from backpressure.integrations.saq import protect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import redis

    from integrations.contract.framework import Exempt, Faults, Ways, WaysOfMany

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


async def batch(app: Any, jobs: list[str]) -> None:
    async with app.batch():
        for job in jobs:
            await app.enqueue(job)


class SAQ(Framework):
    title = "SAQ"
    driver = OnLoop()
    keys = ("saq:mail:incomplete",)
    ways: ClassVar[Ways] = {
        "enqueue": lambda app: app.enqueue("work"),
        "scheduled": lambda app: app.enqueue("work", scheduled=int(time.time()) + 30),
        "keyed": lambda app: app.enqueue("work", key="1"),
        "job": lambda app: app.enqueue(saq.Job("work")),
        "changed": lambda app: app.enqueue(saq.Job("work", meta=HIGH), meta={}),
        "job's own": lambda app: saq.Job("work").enqueue(app),
        "apply": lambda app: app.apply("work", timeout=1),
        "map": lambda app: app.map("work", [{}], timeout=1),
        "map of several": lambda app: app.map("work", [{"meta": HIGH}, {"name": "low"}], timeout=1),
    }
    marks: ClassVar[Ways] = {
        "call": lambda app: app.enqueue("work", meta=HIGH),
        "job": lambda app: app.enqueue(saq.Job("work", meta=HIGH)),
    }
    later: ClassVar[Ways] = {
        "a minute": lambda app: app.enqueue("work", scheduled=time.time() + 61),
        "an hour": lambda app: app.enqueue("work", scheduled=time.time() + 3600.5),
    }
    many: ClassVar[WaysOfMany] = {"batch": batch}
    faults: ClassVar[Faults] = {
        "argument": Fault(lambda app: app.enqueue("work", name=object()), TypeError),
        "in a map": Fault(lambda app: app.map("work", [{"name": object()}]), TypeError),
    }
    taken = Taken(lambda app: app.enqueue("work", key="once"), None, is_success=True)
    exempt: ClassVar[Exempt] = {
        "test_what_runs_at_once_runs_whatever_the_backlog": "SAQ has no queue that runs jobs at once",
        "test_on_an_event_loop_nothing_sleeps": ON_LOOPS,
    }

    def layout(self, queue_name: str) -> SAQLayout:
        return SAQLayout()

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Any]:
        async with queue(url) as mail:
            for _ in range(OVERLOAD):
                await mail.enqueue("work")
            yield mail

    def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        return protect(app, controller, **options)

    def send(self, app: Any, job: str) -> Any:
        return app.enqueue(job, retries=2 if job == "fail_once" else 1)

    def name_of(self, given: Any) -> str:
        return str(given.function)

    @contextlib.asynccontextmanager
    async def working(self, app: Any) -> AsyncIterator[None]:
        async with working(app, *(of_saq(job) for job in JOBS if job is not jobs.work)):
            yield

    async def send_more(self, app: Any) -> set[str]:
        """Send what waits for the results of others."""

        async def errand() -> None:
            await errands_own()
            told = await app.map("work", [{"name": "mapped"}, {"fail": True}], 20, True, 0.001, ttl=60)
            assert told[0] == "mapped"
            assert isinstance(told[1], JobError)
            assert told[1].job.ttl == 60
            ran.append("all told")

        errands_own, errands["errand"] = errands["errand"], errand
        return {"all told", "mapped"}


def of_saq(job: Any) -> Any:
    """Return a job as SAQ calls it."""

    @functools.wraps(job)
    async def run(_: Any) -> None:
        await job()

    return run


class TestContract(Contract):
    framework = SAQ()


@on_loop
async def test_the_queues_name_may_lead_elsewhere(run: Run, redis_url: str) -> None:
    async with run() as (_, controller), queue(redis_url, "news") as news, queue(redis_url, "elsewhere") as elsewhere:
        protect(news, controller, priority={"mail": "high", "news": "low"})
        await news.enqueue("work")
        protect(elsewhere, controller, priority="low", queue={"elsewhere": "mail"})
        with pytest.raises(JobShedError):
            await elsewhere.enqueue("work")


@on_loop
async def test_a_function_is_given_the_job(run: Run) -> None:
    jobs: list[saq.Job] = []

    def priority(job: saq.Job) -> str:
        jobs.append(job)
        return "high"

    async with run() as (mail, controller):
        protect(mail, controller, priority=priority)
        given = {"a": 1}
        job = await mail.enqueue("work", key="1", kwargs=given, b=2)
        own = saq.Job("work", key="2")
        await mail.enqueue(own, timeout=5)
        assert (job.kwargs, own.timeout) == ({"a": 1, "b": 2}, 5)
    assert [(job.function, job.key, job.kwargs, job.timeout) for job in jobs] == [
        ("work", "1", {"a": 1, "b": 2}, 10),
        ("work", "2", None, 5),
    ]


@on_loop
async def test_the_gate_comes_before_a_connection_and_the_time_of_enqueueing(
    run: Run, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run() as (mail, controller):
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


@on_loop
async def test_a_map_is_gated_once_and_enqueued_all_or_none(run: Run) -> None:
    async with run() as (mail, controller):
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


@on_loop
async def test_a_map_takes_what_saqs_takes(run: Run) -> None:
    timeouts: list[int] = []

    async def note(job: saq.Job) -> None:
        timeouts.append(job.timeout)

    async with run() as (mail, controller):
        protect(mail, controller, priority="high")
        mail.register_before_enqueue(note)
        async with working(mail):
            told = await mail.map("work", iter([{"fail": True}, {"name": "done"}]), 15, True, 0.001)
        assert isinstance(told[0], JobError)
        assert told[1:] == ["done"]
        assert await mail.map("work", []) == []
    assert timeouts == [15, 15]


@on_loop
async def test_what_an_enqueue_enqueues_follows_it(run: Run) -> None:
    async with run() as (mail, controller):

        async def audit(job: saq.Job) -> None:
            if job.function == "work":
                await mail.enqueue("audit")

        protect(mail, controller, priority={"audit": "low", "work": "high"})
        mail.register_before_enqueue(audit)
        await mail.enqueue("work")
        assert await mail.count("queued") == OVERLOAD + 2


@on_loop
async def test_a_job_that_fails_is_no_failure_of_the_queue(run: Run) -> None:
    async with run() as (mail, controller):
        protect(mail, controller, priority="high")
        async with working(mail):
            for _ in range(5):
                with pytest.raises(JobError):
                    await mail.apply("work", fail=True, poll_interval=0.001)
        assert controller.circuit("mail").stats()["failure_count"] == 0


@on_loop
async def test_a_batch_is_gated_once_for_each_priority(run: Run) -> None:
    async with run() as (mail, controller):
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


@on_loop
async def test_a_batch_that_is_shed_leaves_no_job(run: Run) -> None:
    async with run() as (mail, controller):
        protect(mail, controller, priority="low")

        async def both() -> None:
            async with mail.batch():
                await mail.enqueue("work", meta=HIGH)
                await mail.enqueue("work", key="shed")

        with pytest.raises(JobShedError):
            await both()
        assert await mail.count("incomplete") == OVERLOAD
        assert await mail.job("shed") is None


@on_loop
async def test_who_is_cancelled_in_a_batch_leaves_nothing_behind(run: Run, redis_client: redis.Redis) -> None:
    clock = ManualClock()

    async with run(clock=clock) as (mail, controller):
        protect(mail, controller, priority="medium", max_wait=None)
        keys = set(redis_client.keys())
        async with mail.batch():
            waiting = [asyncio.create_task(mail.enqueue("work")) for _ in range(2)]
            for one in waiting:  # the first asks for both, then the second in its stead
                await eventually(lambda: clock.sleeping() == 2)  # it, and the poller
                one.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await one
        assert clock.sleeping() == 1
        assert set(redis_client.keys()) == keys
        await mail.enqueue("work", meta=HIGH)
        assert await mail.count("queued") == OVERLOAD + 1


@on_loop
async def test_a_batch_is_its_own_queues_and_ends(run: Run, redis_url: str) -> None:
    async with run() as (mail, controller):
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


@pytest.mark.parametrize("whose", ["the producer's", "its own"])
@on_loop
async def test_what_a_worker_starts_with_and_its_threads_pass_whosever_its_queue_is(
    run: Run, redis_url: str, whose: str
) -> None:
    async with run() as (mail, controller):
        loop = asyncio.get_running_loop()

        def on_a_thread(_: Any) -> None:
            asyncio.run_coroutine_threadsafe(mail.enqueue("work", name="from a thread"), loop).result()

        async def startup(_: Any) -> None:
            await mail.enqueue("work", name="from startup")

        await mail.enqueue("on_a_thread")
        protect(mail, controller, priority="low")
        async with queue(redis_url) as own, working(mail if whose != "its own" else own, on_a_thread, startup=startup):
            await eventually(lambda: {"from a thread", "from startup"} <= set(ran))
            with pytest.raises(JobShedError):  # it was an overload all the while, and here is no worker
                await mail.enqueue("work")


@on_loop
async def test_cron_jobs_run_under_overload(run: Run, redis_client: redis.Redis) -> None:
    async with run() as (mail, controller):
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


@on_loop
async def test_a_worker_driven_by_hand_is_known_too(run: Run) -> None:
    async with run() as (mail, controller):

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


@on_loop
async def test_a_server_that_refuses_a_map_opens_the_circuit(run: Run, request: pytest.FixtureRequest) -> None:
    async with run() as (mail, controller):
        protect(mail, controller, priority="high")
        request.getfixturevalue("full_server")
        for _ in range(5):
            with pytest.raises(Exception, match="maxmemory"):
                await mail.map("work", [{}, {}], timeout=1)
        with pytest.raises(CircuitOpenError):
            await mail.map("work", [{}, {}], timeout=1)


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


@on_loop
async def test_what_a_worker_beside_a_producer_stops_with_passes(run: Run, redis_url: str) -> None:
    async with run() as (mail, controller):

        async def shutdown(_: Any) -> None:
            await mail.enqueue("work", name="shutdown")

        protect(mail, controller, priority="low")
        async with queue(redis_url, "own") as own:
            await own.enqueue("work", name="up")
            async with working(own, shutdown=shutdown):
                await eventually(lambda: "up" in ran)
            stopped: saq.Worker[Any] = saq.Worker(own, [], shutdown=shutdown)
            await stopped.stop()
        assert controller._passed.counts() == {("mail", "worker"): 2}
        with pytest.raises(JobShedError):
            await mail.enqueue("work")


@on_loop
async def test_what_hooks_around_named_jobs_enqueue_is_not_judged(run: Run, redis_url: str) -> None:
    async with run() as (mail, controller):

        async def campaign(_: Any) -> None:
            with pytest.raises(JobShedError):
                await mail.enqueue("work")
            ran.append("shed")

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
        assert ran == ["shed"]
        assert controller._passed.counts() == {("mail", "worker"): 5}  # around both, and of the other job


@on_loop
async def test_what_callbacks_raise_says_nothing_of_the_queue(run: Run) -> None:
    class RejectedError(Exception):
        pass

    async def reject(job: saq.Job) -> None:
        raise RejectedError

    async with run() as (mail, controller):
        protect(mail, controller, priority="high")
        mail.register_before_enqueue(reject)
        with pytest.raises(RejectedError):
            await mail.enqueue("work")
        assert controller.circuit("mail").stats()["failure_count"] == 0
