"""taskiq behind a controller, with taskiq's own receiver on real brokers: a list and a stream."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import pickle
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure import (
    HIGH,
    AsyncBackpressureController,
    ConfigurationError,
    InMemoryStatsProvider,
    InvalidQueueError,
    JobShedError,
)
from backpressure.providers.layouts import TaskiqLayout
from backpressure.testing import ManualClock
from integrations import jobs
from integrations.async_watch import eventually, length, on_loop, watching
from integrations.commands import command
from integrations.contract.driver import OnLoop
from integrations.contract.framework import ON_LOOPS, Fault, Framework
from integrations.contract.promises import Contract
from integrations.everywhere import WAYS, from_everywhere
from integrations.frameworks import required
from integrations.jobs import JOBS, ran
from integrations.overload import OVERLOAD

required("taskiq")
required("taskiq_redis")

import taskiq  # noqa: E402 - skipped before where it is missing
from taskiq.api import run_receiver_task, run_scheduler_task  # noqa: E402
from taskiq.exceptions import SendTaskError  # noqa: E402
from taskiq.receiver import Receiver  # noqa: E402
from taskiq_redis import ListQueueBroker, ListRedisScheduleSource, RedisStreamBroker  # noqa: E402

from backpressure.integrations.taskiq import ENQUEUED_AT, BackpressureMiddleware, _reporting  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import redis

    from backpressure._engine.border import EngineModule
    from integrations.contract.framework import Exempt, Faults, Ways, WaysOfMany
    from integrations.contract.shop import Shop as ContractsShop

KINDS = pytest.mark.parametrize("kind", ["list", "stream"])


def make_broker(kind: str, url: str, queue_name: str, **options: Any) -> Any:
    if kind == "list":
        return ListQueueBroker(url, queue_name=queue_name, **options)
    return RedisStreamBroker(url, queue_name=queue_name, consumer_id="0", **options)


def of_taskiq(job: Any) -> Any:
    """Return a function of its own, for taskiq renames what it is given."""

    @functools.wraps(job)
    async def run(*args: Any) -> None:
        await job(*args)

    return run


def labelled(app: Any, **labels: Any) -> Any:
    """Kick a task with labels of its own."""
    return app.find_task("work").kicker().with_labels(**labels).kiq()


async def kick_many(app: Any, jobs: list[str]) -> None:
    await kick_all(app, [app.find_task(job) for job in jobs])


async def kick_many_kickers(app: Any, jobs: list[str]) -> None:
    priorities = {"important": HIGH, "work": "low"}
    kickers = [app.find_task("work").kicker().with_labels(backpressure_priority=priorities[job]) for job in jobs]
    await kick_all(app, kickers)


async def kick_all(app: Any, tasks: list[Any]) -> None:
    (middleware,) = (each for each in app.middlewares if isinstance(each, BackpressureMiddleware))
    async with middleware.admitted(*tasks), middleware.admitted(app.find_task("work")):
        await asyncio.gather(*(task.kiq() for task in tasks))


class Taskiq(Framework):
    title = "taskiq"
    driver = OnLoop()
    keys = ("mail",)
    kind = "list"
    ways: ClassVar[Ways] = {
        "kiq": lambda app: app.find_task("work").kiq(),
        "kicker": lambda app: app.find_task("work").kicker().kiq(),
        "delay": lambda app: labelled(app, delay=3600),  # taskiq-redis sends it at once
        "queue": lambda app: labelled(app, queue_name="mail"),
    }
    marks: ClassVar[Ways] = {
        "task": lambda app: app.find_task("important").kiq(),
        "call": lambda app: labelled(app, backpressure_priority="high"),
        "Priority": lambda app: labelled(app, backpressure_priority=HIGH),
    }
    many: ClassVar[WaysOfMany] = {"admitted": kick_many, "admitted kickers": kick_many_kickers}
    faults: ClassVar[Faults] = {"argument": Fault(lambda app: app.find_task("work").kiq(object()), SendTaskError)}
    exempt: ClassVar[Exempt] = {
        "test_jobs_of_another_time_are_not_judged_by_the_backlog_of_now": "taskiq-redis knows no delays",
        "test_a_job_that_is_there_already_is_no_failure": "to taskiq every task is a new one",
        "test_on_an_event_loop_nothing_sleeps": ON_LOOPS,
    }

    def layout(self, queue_name: str) -> TaskiqLayout:
        return TaskiqLayout(None if self.kind == "list" else "taskiq")

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Any]:
        self._url = url
        broker = make_broker(self.kind, url, "mail")
        broker.add_middlewares(taskiq.SimpleRetryMiddleware())
        for job in JOBS:
            broker.register_task(of_taskiq(job), task_name=job.__name__)
        broker.find_task("fail_once").labels["retry_on_error"] = True
        broker.find_task("important").labels["backpressure_priority"] = "high"
        for _ in range(OVERLOAD):
            await broker.find_task("work").kiq()
        await broker.startup()
        try:
            yield broker
        finally:
            await broker.shutdown()

    def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        app.add_middlewares(BackpressureMiddleware(controller, **options))
        return app

    def send(self, app: Any, job: str) -> Any:
        return app.find_task(job).kiq()

    def name_of(self, given: Any) -> str:
        return str(given.task_name)

    @contextlib.asynccontextmanager
    async def working(self, app: Any) -> AsyncIterator[None]:
        receiver = Receiver(app, max_async_tasks=10, run_startup=False)
        receiving = asyncio.create_task(receiver.listen(asyncio.Event()))
        try:
            yield
        finally:
            # A stream's broker may miss that it is cancelled, so have it end with the next task.
            receiver.max_tasks_to_execute = 1
            await self._kick_one_by_another_broker()
            await receiving

    async def _kick_one_by_another_broker(self) -> None:
        another = make_broker(self.kind, self._url, "mail")
        await another.register_task(of_taskiq(jobs.work), task_name="work").kiq()
        await another.shutdown()

    @contextlib.asynccontextmanager
    async def at_once(self, shop: ContractsShop) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        broker = taskiq.InMemoryBroker(await_inplace=True)
        shop.app = broker
        await shop.hook()
        yield broker.register_task(lambda: ran.append("at once"), task_name="at once", queue_name="mail").kiq
        await broker.shutdown()


class TaskiqStream(Taskiq):
    kind = "stream"


class TestContract(Contract):
    framework = Taskiq()


class TestContractOfStreams(Contract):
    framework = TaskiqStream()


class Shop:
    """A broker with its tasks, an overload in its queue ``mail``, and a controller that sees it."""

    def __init__(self, broker: Any, controller: AsyncBackpressureController, server: redis.Redis) -> None:
        self.broker = broker
        self.controller = controller
        self.server = server
        self.ran: list[str] = []
        self.labels: list[dict[str, Any]] = []

        async def work(name: str = "") -> None:
            self.ran.append(name)

        async def fail_once() -> None:
            self.ran.append("try")
            if self.ran.count("try") == 1:
                raise ValueError("once")

        self.work = broker.register_task(work, task_name="work")
        self.important = broker.register_task(work, task_name="important", backpressure_priority="high")
        self.fail_once = broker.register_task(fail_once, task_name="fail_once", retry_on_error=True)

    def protect(self, priority: Any = "low", **options: Any) -> BackpressureMiddleware:
        middleware = BackpressureMiddleware(self.controller, priority=priority, **options)
        self.broker.add_middlewares(middleware)
        return middleware

    def length(self, queue: str = "mail") -> int:
        return length(self.server, queue)

    async def receive(self, count: int) -> None:
        """Run `count` tasks by taskiq's receiver, without the mark that its command line leaves on the broker."""
        shop = self

        class Seen(taskiq.TaskiqMiddleware):
            def pre_execute(self, message: taskiq.TaskiqMessage) -> taskiq.TaskiqMessage:
                shop.labels.append(dict(message.labels))
                return message

        self.broker.add_middlewares(Seen())
        receiver = Receiver(self.broker, max_async_tasks=10, run_startup=False, max_tasks_to_execute=count)
        await receiver.listen(asyncio.Event())


class OpenShop:
    """Opens shops on the server under test, on the engine under test."""

    def __init__(self, engine_name: str, url: str, server: redis.Redis) -> None:
        self.engine_name = engine_name
        self.url = url
        self.server = server

    def broker(self, kind: str, queue_name: str, **options: Any) -> Any:
        return make_broker(kind, self.url, queue_name, **options)

    @contextlib.asynccontextmanager
    async def __call__(
        self, kind: str = "list", *, clock: ManualClock | None = None, **options: Any
    ) -> AsyncIterator[Shop]:
        broker = self.broker(kind, "mail", **options)
        plain = broker.register_task(lambda: None, task_name="plain")
        for _ in range(OVERLOAD):
            await plain.kiq()
        await broker.startup()
        layout = TaskiqLayout(None if kind == "list" else "taskiq")
        try:
            async with watching(self.engine_name, self.url, {"mail": layout, "clicks": layout}, clock) as controller:
                yield Shop(broker, controller, self.server)
        finally:
            await broker.shutdown()


@pytest.fixture
def open_shop(engine_name: str, engine_module: EngineModule, redis_url: str, redis_client: redis.Redis) -> OpenShop:
    return OpenShop(engine_name, redis_url, redis_client)


@KINDS
@on_loop
async def test_the_queue_is_the_label_or_the_brokers(open_shop: OpenShop, kind: str) -> None:
    async with open_shop(kind) as shop:
        shop.protect({"clicks": "low", "mail": "high"})
        await shop.work.kicker().with_labels(queue_name="clicks").kiq()
        await shop.work.kiq()
        assert (shop.length("clicks"), shop.length()) == (1, OVERLOAD + 1)


@on_loop
async def test_a_function_is_given_the_message(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        seen: list[Any] = []

        def priority(message: taskiq.TaskiqMessage) -> str:
            seen.append((message.task_name, message.args))
            return "low"

        shop.protect(priority, queue={"clicks": "mail"})
        with pytest.raises(JobShedError):
            await shop.work.kicker().with_labels(queue_name="clicks").kiq("me")
        assert seen == [("work", ["me"])]


@on_loop
async def test_a_broker_that_names_no_queue_needs_a_function(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        shop.protect(queue={"mail": "mail"})
        del shop.broker.queue_name
        with pytest.raises(InvalidQueueError, match="task 'work' names no queue, nor does ListQueueBroker"):
            await shop.work.kiq()
        with pytest.raises(JobShedError):
            await shop.work.kicker().with_labels(queue_name="mail").kiq()
        shop.broker.middlewares.clear()
        shop.protect(queue=lambda _: "mail")
        with pytest.raises(JobShedError):
            await shop.work.kiq()


@on_loop
async def test_cancelled_at_the_gate_a_task_leaves_nothing_and_holds_no_connection(open_shop: OpenShop) -> None:
    clock = ManualClock()
    async with open_shop(clock=clock, max_connection_pool_size=1, timeout=1) as shop:
        shop.protect("medium", max_wait=None)
        await eventually(lambda: clock.sleeping() == 1)  # the poller, until its next read
        tasks = asyncio.all_tasks()
        waiting = asyncio.create_task(shop.work.kiq())
        await eventually(lambda: clock.sleeping() == 2)
        await shop.important.kiq()  # by the one connection
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (clock.sleeping(), asyncio.all_tasks()) == (1, tasks)
        assert shop.length() == OVERLOAD + 1
        assert shop.controller.circuit("mail").stats()["failure_count"] == 0


@KINDS
@pytest.mark.parametrize("retry", [taskiq.SimpleRetryMiddleware(), taskiq.SmartRetryMiddleware(default_delay=0)])
@on_loop
async def test_nothing_of_a_retry_or_of_what_tasks_kick_is_lost_under_overload(
    open_shop: OpenShop, kind: str, retry: Any
) -> None:
    async with open_shop(kind) as shop:
        other = open_shop.broker(kind, "clicks")
        other.add_middlewares(BackpressureMiddleware(shop.controller, priority="low", queue={"clicks": "mail"}))
        elsewhere = other.register_task(lambda: None, task_name="elsewhere")

        async def kick_more() -> None:
            await shop.work.kiq("from a task")
            await elsewhere.kiq()

        shop.broker.add_middlewares(retry)
        await shop.fail_once.kiq()
        await shop.broker.register_task(kick_more, task_name="kick_more").kiq()
        shop.protect()
        await shop.receive(OVERLOAD + 4)
        assert sorted(shop.ran) == ["from a task", "try", "try"]
        assert shop.length("clicks") == 1
        for task in (shop.work, elsewhere):
            with pytest.raises(JobShedError):  # it was an overload all the while
                await task.kiq()
        await other.shutdown()


@on_loop
async def test_what_schedulers_send_passes(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        source = ListRedisScheduleSource(open_shop.url)
        scheduler = taskiq.TaskiqScheduler(shop.broker, [source])
        shop.broker.add_middlewares(taskiq.SmartRetryMiddleware(default_delay=0, schedule_source=source))
        await shop.fail_once.kiq()
        shop.protect()
        await shop.work.schedule_by_time(source, datetime.now(UTC), "scheduled")
        receiving = asyncio.create_task(shop.receive(OVERLOAD + 3))
        while not receiving.done():
            for due in await source.get_schedules():
                await scheduler.on_ready(source, due)
        assert sorted(shop.ran) == ["scheduled", "try", "try"]
        with pytest.raises(JobShedError):
            await shop.work.kiq()
        await source._connection_pool.disconnect()  # which its shutdown leaves open


def sent(server: redis.Redis) -> set[str]:
    """Return what the commands' program has sent."""
    messages: list[Any] = server.lrange("later", 0, -1)
    return {json.loads(message)["args"][0] for message in messages}


@pytest.mark.parametrize("pool", [[], ["--use-process-pool"]], ids=["threads", "processes"])
def test_a_workers_whole_process_passes_though_no_controller_is_started(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, pool: list[str]
) -> None:
    async def kick() -> None:
        broker = ListQueueBroker(redis_url, queue_name="jobs")
        await broker.register_task(lambda: None, task_name="work").kiq()
        await broker.shutdown()

    program = ("taskiq", "worker", "--workers", "1", *pool, "integrations.taskiq_worker:broker")
    with command(tmp_path, redis_url, *program) as worker:
        asyncio.run(kick())
        worker.until(lambda: sent(redis_client) == {"startup", "after work", *WAYS})
        worker.end()
    assert "shutdown" in sent(redis_client)


def test_a_schedulers_whole_process_passes_though_no_controller_is_started(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    with command(tmp_path, redis_url, "taskiq", "scheduler", "integrations.taskiq_worker:scheduler") as scheduler:
        scheduler.until(lambda: length(redis_client, "jobs"))
        scheduler.end()
    assert sent(redis_client) >= {"startup", "before a schedule"}


@on_loop
async def test_a_receiver_beside_a_producer_opens_nothing_of_the_producers_though_they_share_a_broker(
    open_shop: OpenShop,
) -> None:
    async with open_shop() as shop:
        shop.broker.add_event_handler(taskiq.TaskiqEvents.WORKER_STARTUP, lambda _: shop.work.kiq("startup"))
        raised: list[Any] = []
        go = asyncio.Event()

        async def everywhere() -> None:
            raised.append(await from_everywhere(shop.work.kiq))
            await go.wait()

        await shop.broker.register_task(everywhere, task_name="everywhere").kiq()
        shop.protect()
        receiving = asyncio.create_task(run_receiver_task(shop.broker, run_startup=True))
        await eventually(lambda: raised)
        assert shop.broker.is_worker_process
        assert await from_everywhere(shop.work.kiq) == [JobShedError] * len(WAYS)
        go.set()
        await eventually(lambda: {"startup", *WAYS} <= set(shop.ran))
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert raised == [[None] * len(WAYS)]
        assert shop.controller._passed.counts() == {("mail", "worker"): len(WAYS) + 1}


@on_loop
async def test_a_scheduler_beside_a_producer_opens_nothing_of_the_producers(open_shop: OpenShop) -> None:
    class Source(ListRedisScheduleSource):
        async def pre_send(self, task: object) -> None:
            await opened[0].work.kiq("before")
            held.set()
            await go.wait()

        async def post_send(self, task: taskiq.ScheduledTask) -> None:
            await super().post_send(task)
            sent_all.set()

    opened: list[Shop] = []
    held, go, sent_all = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with open_shop() as shop:
        opened.append(shop)
        source = Source(open_shop.url)
        shop.protect()
        await shop.work.schedule_by_time(source, datetime.now(UTC), "scheduled")
        scheduling = asyncio.create_task(run_scheduler_task(taskiq.TaskiqScheduler(shop.broker, [source])))
        await held.wait()
        assert await from_everywhere(shop.work.kiq) == [JobShedError] * len(WAYS)
        go.set()
        await sent_all.wait()
        assert shop.length() == OVERLOAD + 2
        scheduling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scheduling
        assert shop.controller._passed.counts() == {("mail", "worker"): 2}
        await source._connection_pool.disconnect()


@on_loop
async def test_retries_of_named_tasks_and_what_middlewares_kick_for_them_pass(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        tries: list[None] = []

        async def campaign() -> None:
            tries.append(None)
            with pytest.raises(JobShedError):
                await shop.work.kiq()
            if len(tries) == 1:
                raise ValueError

        class Around(taskiq.TaskiqMiddleware):
            async def post_execute(self, message: taskiq.TaskiqMessage, result: object) -> None:
                if message.task_name == "campaign":
                    await shop.work.kiq("around")

        shop.broker.add_middlewares(taskiq.SimpleRetryMiddleware(), Around())
        task = shop.broker.register_task(campaign, task_name="campaign", retry_on_error=True)
        await task.kiq()
        shop.protect(inside_tasks={"campaign"})
        await shop.receive(OVERLOAD + 3)
        assert len(tries) == 2
        assert shop.controller._passed.counts() == {("mail", "retry"): 1, ("mail", "worker"): 2}


@on_loop
async def test_a_delay_that_the_broker_knows_of_may_pass(open_shop: OpenShop) -> None:
    class Delaying(ListQueueBroker):
        __module__ = "taskiq_aio_pika.broker"

    async with open_shop() as shop:
        shop.protect()
        with pytest.raises(JobShedError):  # taskiq-redis sends it at once
            await shop.work.kicker().with_labels(delay=3600).kiq()
        broker = Delaying(open_shop.url, queue_name="mail")
        broker.add_middlewares(BackpressureMiddleware(shop.controller, priority="low"))
        task = broker.register_task(lambda: None, task_name="delayed")
        for delay in (30, "soon"):
            with pytest.raises(JobShedError):
                await task.kicker().with_labels(delay=delay).kiq()
        await task.kicker().with_labels(delay=61).kiq()
        assert shop.controller._passed.counts() == {("mail", "scheduled"): 1}
        await broker.shutdown()


@on_loop
async def test_what_is_no_fault_of_the_queue_does_not_count(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_shop() as shop:
        shop.protect("high")

        async def kick(_: taskiq.BrokerMessage) -> None:
            raise TypeError

        monkeypatch.setattr(shop.broker, "kick", _reporting(kick))
        for _ in range(5):
            with pytest.raises(SendTaskError):
                await shop.work.kiq()
        assert shop.controller.circuit("mail").stats()["failure_count"] == 0


@pytest.mark.parametrize("in_place", [True, False])
@on_loop
async def test_a_broker_in_memory_runs_tasks_whatever_the_backlog(open_shop: OpenShop, in_place: bool) -> None:
    async with open_shop() as shop:
        shop.protect()
        broker = taskiq.InMemoryBroker(await_inplace=in_place)
        stopped = AsyncBackpressureController(None, InMemoryStatsProvider({}))
        broker.add_middlewares(BackpressureMiddleware(stopped, priority="low"))
        task: Any = broker.register_task(lambda: shop.ran.append("at once"), task_name="at once")
        await task.kiq()
        await broker.wait_all()
        assert shop.ran == ["at once"]
        with pytest.raises(JobShedError):  # this is not inside of a task
            await shop.work.kiq()
        await broker.shutdown()


@on_loop
async def test_successes_are_reported_and_only_of_what_the_broker_took(
    open_shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_shop() as shop:
        shop.protect("high")
        for _ in range(4):
            shop.controller.record_failure("mail")
        await shop.work.kiq()
        shop.controller.record_failure("mail")
        assert str(shop.controller.get_circuit_state("mail")) == "closed"

        for _ in range(5):
            with pytest.raises(SendTaskError):  # cannot be serialized, which is no fault of the queue
                await shop.work.kiq(object())
        assert str(shop.controller.get_circuit_state("mail")) == "closed"
        await shop.work.kicker().with_labels(_retries=1).kiq()
        for _ in range(4):
            shop.controller.record_failure("mail")
        assert str(shop.controller.get_circuit_state("mail")) == "open"
        shop.controller.circuit("mail").reset()
        with pytest.raises(SendTaskError):
            await shop.work.kiq(object())
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@on_loop
async def test_what_a_broker_runs_at_once_may_kick_again(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_shop() as shop:

        async def kick(message: taskiq.BrokerMessage) -> None:
            if message.task_name == "work":
                await shop.important.kiq()
            raise ConnectionError

        monkeypatch.setattr(shop.broker, "kick", kick)
        shop.protect("high")
        with pytest.raises(SendTaskError):
            await shop.work.kiq()
        assert shop.controller.circuit("mail").stats()["failure_count"] == 2


@KINDS
@on_loop
async def test_tasks_carry_the_time_they_were_first_kicked(open_shop: OpenShop, kind: str) -> None:
    async with open_shop(kind) as shop:
        shop.broker.add_middlewares(taskiq.SimpleRetryMiddleware())
        shop.protect("high")
        before = time.time()
        await shop.fail_once.kiq()
        after = time.time()
        await shop.receive(OVERLOAD + 2)
        first, second = [labels[ENQUEUED_AT] for labels in shop.labels if "retry_on_error" in labels]
        assert before <= first <= after
        assert second == first
        assert ENQUEUED_AT not in shop.fail_once.labels


@on_loop
async def test_a_broker_is_protected_once_by_a_middleware_of_its_own(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        middleware = shop.protect()
        with pytest.raises(ConfigurationError, match="protected already"):
            shop.protect()
        with pytest.raises(ConfigurationError, match="the middleware is another's"):
            taskiq.InMemoryBroker().add_middlewares(middleware)


def test_errors_hold_no_password() -> None:
    broker = ListQueueBroker("redis://:canary@localhost:6379/0")
    controller = AsyncBackpressureController(None, InMemoryStatsProvider({}))
    broker.add_middlewares(BackpressureMiddleware(controller, priority="low"))
    with pytest.raises(ConfigurationError) as refused:
        broker.add_middlewares(BackpressureMiddleware(controller, priority="low"))
    assert b"canary" not in pickle.dumps(refused.value)
