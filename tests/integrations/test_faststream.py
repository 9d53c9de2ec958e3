"""FastStream behind a controller, with FastStream's own subscribers on a real server: lists, streams and channels."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from backpressure import (
    HIGH,
    AsyncBackpressureController,
    JobShedError,
)
from backpressure.providers.layouts import ListKey, StreamKey
from integrations.async_watch import eventually, length, on_loop, watching
from integrations.commands import command
from integrations.contract.driver import OnLoop
from integrations.contract.framework import ON_LOOPS, Fault, Framework
from integrations.contract.promises import Contract
from integrations.everywhere import WAYS, from_everywhere
from integrations.frameworks import required
from integrations.jobs import JOBS, OnceError
from integrations.overload import OVERLOAD, decided

required("faststream")

from faststream import BaseMiddleware, FastStream, PublishCommand  # noqa: E402 - skipped before where it is missing
from faststream.asgi import AsgiFastStream, AsgiResponse  # noqa: E402
from faststream.asgi import get as http_get  # noqa: E402
from faststream.exceptions import FastStreamException  # noqa: E402
from faststream.redis import RedisBroker, RedisRouter, StreamSub, TestRedisBroker  # noqa: E402
from faststream.redis.parser import BinaryMessageFormatV1  # noqa: E402

from backpressure.integrations.faststream import BackpressureMiddleware  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import redis

    from backpressure._engine.border import EngineModule
    from backpressure.providers.layouts import Layout
    from backpressure.testing import ManualClock
    from integrations.contract.framework import Exempt, Faults, Ways, WaysOfMany

QUEUES: dict[str, Layout] = {"mail": ListKey("mail"), "events": StreamKey("events", "workers")}
KINDS = pytest.mark.parametrize("to", [{"list": "mail"}, {"stream": "events"}], ids=["list", "stream"])


#: Where each of the jobs is published to; all of them are judged by the backlog of ``mail``.
DESTINATIONS = {"work": "mail"} | {name: name for name in ("important", "fail_once", "errand", "campaign")}


class Brokers:
    """A broker, which is replaced by one behind a middleware."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self.middleware: Any = None
        self.made: list[Any] = []

    async def make(self, *middlewares: Any) -> None:
        quiet: Any = None
        self.broker = RedisBroker(self.url, middlewares=middlewares, logger=quiet)
        self.made.append(self.broker)
        await self.broker.connect()

    def to(self, job: str) -> dict[str, Any]:
        return {self.kind: DESTINATIONS[job]}

    async def publish(self, job: str = "work", message: object = "", **headers: Any) -> None:
        await self.broker.publish(message, **self.to(job), headers=headers)

    async def admit(self, jobs: list[str]) -> None:
        admitted = self.middleware.admitted
        async with admitted(*(DESTINATIONS[job] for job in jobs)), admitted(DESTINATIONS["work"]):
            await asyncio.gather(*(self.publish(job) for job in jobs))

    def subscribe(self, job: Any) -> None:
        """Have the broker handle the messages for a job."""

        async def handle(_: str) -> None:
            try:
                await job()
            except OnceError:
                await self.publish(job.__name__)

        handle.__name__ = job.__name__
        destination = DESTINATIONS[job.__name__]
        if self.kind == "list":
            self.broker.subscriber(list=destination)(handle)
        else:
            stream = StreamSub(destination, group="shop", consumer="one", last_id="0")
            self.broker.subscriber(stream=stream)(handle)


class FastStreams(Framework):
    title = "FastStream"
    driver = OnLoop()
    kind = "list"
    keys = tuple(DESTINATIONS.values())
    ways: ClassVar[Ways] = {
        "publish": lambda app: app.publish(),
        "publisher": lambda app: app.broker.publisher(**app.to("work")).publish(""),
        "request": lambda app: app.broker.request("", **app.to("work")),
    }
    marks: ClassVar[Ways] = {
        "message": lambda app: app.publish(backpressure_priority="high"),
        "Priority": lambda app: app.publish(backpressure_priority=HIGH),
        "publisher": lambda app: app.broker.publisher(
            **app.to("work"), headers={"backpressure_priority": "high"}
        ).publish(""),
    }
    many: ClassVar[WaysOfMany] = {"admitted": lambda app, jobs: app.admit(jobs)}
    faults: ClassVar[Faults] = {
        "message": Fault(lambda app: app.publish(message=object()), (TypeError, ValueError)),
        "header": Fault(lambda app: app.publish(long="x" * 100_000), (ValueError, struct.error)),
    }
    exempt: ClassVar[Exempt] = {
        "test_jobs_of_another_time_are_not_judged_by_the_backlog_of_now": "FastStream publishes at once",
        "test_what_runs_at_once_runs_whatever_the_backlog": "its broker for tests is gated like any other",
        "test_a_job_that_is_there_already_is_no_failure": "to FastStream every message is a new one",
        "test_an_app_is_hooked_once": "a middleware is given to a broker as it is made, and to several if need be",
        "test_a_controller_that_reads_other_keys_is_refused": "destinations are lists, streams and channels alike",
        "test_on_an_event_loop_nothing_sleeps": ON_LOOPS,
    }

    def layout(self, queue_name: str) -> Layout:
        return ListKey(queue_name) if self.kind == "list" else StreamKey(queue_name, "workers")

    @contextlib.asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Any]:
        app = Brokers(self.kind, url)
        await app.make()
        for _ in range(OVERLOAD):
            await app.publish()
        try:
            yield app
        finally:
            for broker in app.made:
                await broker.stop()

    async def hook(self, app: Any, controller: Any, **options: Any) -> Any:
        options.setdefault("queue", dict.fromkeys(DESTINATIONS.values(), "mail"))
        app.middleware = BackpressureMiddleware(controller, **options)
        await app.make(app.middleware)
        return app

    def send(self, app: Any, job: str) -> Any:
        return app.publish(job)

    def name(self, job: str) -> str:
        return DESTINATIONS[job]

    def name_of(self, given: Any) -> str:
        return str(given.destination)

    @contextlib.asynccontextmanager
    async def working(self, app: Any) -> AsyncIterator[None]:
        for job in JOBS:
            app.subscribe(job)
        await app.broker.start()
        yield
        await app.broker.stop()


class Streams(FastStreams):
    kind = "stream"


class TestContract(Contract):
    framework = FastStreams()


class TestContractOfStreams(Contract):
    framework = Streams()


class Shop:
    """Brokers behind one middleware, and a controller that sees an overload in the list ``mail`` and in ``events``."""

    def __init__(self, url: str, controller: AsyncBackpressureController, server: redis.Redis) -> None:
        self.url = url
        self.controller = controller
        self.server = server
        self.brokers: list[Any] = []

    def protect(self, priority: Any = "low", **options: Any) -> BackpressureMiddleware:
        return BackpressureMiddleware(self.controller, priority=priority, **options)

    async def broker(self, *middlewares: Any) -> Any:
        quiet: Any = None
        broker = RedisBroker(self.url, middlewares=middlewares or [self.protect()], logger=quiet)
        await broker.connect()
        self.brokers.append(broker)
        return broker

    def length(self, key: str = "mail") -> int:
        return length(self.server, key)


class OpenShop:
    """Opens shops on the server under test, on the engine under test."""

    def __init__(self, engine_name: str, url: str, server: redis.Redis) -> None:
        self.engine_name = engine_name
        self.url = url
        self.server = server

    @contextlib.asynccontextmanager
    async def __call__(self, *, clock: ManualClock | None = None) -> AsyncIterator[Shop]:
        for _ in range(OVERLOAD):
            self.server.rpush("mail", "{}")
            self.server.xadd("events", {"data": "{}"})
        async with watching(self.engine_name, self.url, QUEUES, clock) as controller:
            shop = Shop(self.url, controller, self.server)
            try:
                yield shop
            finally:
                for broker in shop.brokers:
                    await broker.stop()


@pytest.fixture
def open_shop(engine_name: str, engine_module: EngineModule, redis_url: str, redis_client: redis.Redis) -> OpenShop:
    return OpenShop(engine_name, redis_url, redis_client)


@on_loop
async def test_a_priority_of_its_own_is_not_sent(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        broker = await shop.broker()
        await broker.publish("hello", list="other", headers={"backpressure_priority": HIGH, "mine": "1"})
        sent = str(shop.server.lindex("other", 0))
        assert "mine" in sent
        assert "backpressure" not in sent


@on_loop
async def test_a_function_is_given_the_command(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        seen: list[Any] = []

        def priority(command: PublishCommand) -> str:
            seen.append((command.destination, command.body))
            return "low"

        broker = await shop.broker(shop.protect(priority, queue={"post": "mail"}))
        with pytest.raises(JobShedError):
            await broker.publish("me", list="post")
        assert seen == [("post", "me")]


@on_loop
async def test_the_destination_is_with_its_routers_prefix(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        router = RedisRouter(prefix="eu-")
        publisher = router.publisher(list="mail")
        broker = await shop.broker(shop.protect({"eu-mail": "low"}, queue={"eu-mail": "mail"}))
        broker.include_router(router)
        await broker.start()
        with pytest.raises(JobShedError):
            await publisher.publish("hello")


@on_loop
async def test_channels_pass_unless_the_table_of_queues_names_them(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        for queue in ({"news": "mail"}, lambda _: "mail", None):
            broker = await shop.broker(shop.protect({"weather": "low", "*": "low"}, queue=queue))
            before = decided(shop.controller)
            await broker.publish("sunny", channel="weather")
            assert decided(shop.controller) == before
        broker = await shop.broker(shop.protect(queue={"news": "mail"}))
        with pytest.raises(JobShedError):
            await broker.publish("none", channel="news")


@on_loop
async def test_a_batch_is_gated_once_and_published_whole_or_not_at_all(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        broker = await shop.broker()
        with pytest.raises(JobShedError):
            await broker.publish_batch(*"abc", list="mail")
        assert shop.length() == OVERLOAD
        before = decided(shop.controller)
        await broker.publish_batch(*"abc", list="mail", headers={"backpressure_priority": "high"})
        assert decided(shop.controller) == before + 1
        assert shop.length() == OVERLOAD + 3


@on_loop
async def test_a_request_is_gated_and_its_reply_is_not(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        broker = await shop.broker(shop.protect(queue={"sums": "mail"}))

        @broker.subscriber(list="sums")  # type: ignore[untyped-decorator]
        async def add(numbers: list[int]) -> int:
            return sum(numbers)

        await broker.start()
        with pytest.raises(JobShedError):
            await broker.request([1, 2], list="sums", timeout=10)
        response = await broker.request([1, 2], list="sums", timeout=10, headers={"backpressure_priority": "high"})
        assert await response.decode() == 3
        with pytest.raises(JobShedError):  # to have a reply is not to handle a message
            await broker.publish([1], list="sums")


@pytest.mark.parametrize(
    "jobs", [{"list": "jobs"}, {"stream": StreamSub("jobs", group="shop", consumer="one")}], ids=["list", "stream"]
)
@on_loop
async def test_nothing_of_what_is_published_while_a_message_is_handled_is_lost_under_overload(
    open_shop: OpenShop, jobs: dict[str, Any]
) -> None:
    to = dict.fromkeys(jobs, "jobs")

    async with open_shop() as shop:

        class Retries(BaseMiddleware):
            """Publishes a failed message again: the first time here, the second time after our own scope."""

            async def consume_scope(self, call_next: Any, msg: Any) -> Any:
                try:
                    return await call_next(msg)
                except ValueError:
                    await broker.publish("second", **to)

            async def after_processed(self, exc_type: Any = None, exc_val: Any = None, exc_tb: Any = None) -> bool:
                if exc_type is KeyError:
                    await broker.publish("third", **to)
                return True

        everything_is_mail = shop.protect(queue=lambda _: "mail")
        broker = await shop.broker(everything_is_mail, Retries)
        other = await shop.broker(shop.protect(queue=lambda _: "mail"))
        ran: list[str] = []

        @broker.subscriber(**jobs)  # type: ignore[untyped-decorator]
        @broker.publisher(list="results")  # type: ignore[untyped-decorator]
        async def work(attempt: str) -> str:
            ran.append(attempt)
            if attempt == "first":
                raise ValueError
            if attempt == "second":
                raise KeyError
            async with everything_is_mail.admitted("mail"):
                await broker.publish("more", list="more")
            await broker.publish_batch("more", "more", list="more")
            await other.publish("elsewhere", stream="elsewhere")
            return "done"

        await broker.start()
        await broker.publish("first", **to, headers={"backpressure_priority": "high"})
        await eventually(lambda: shop.length("results") == 2)  # nothing of the first, all of the third
        assert ran == ["first", "second", "third"]
        assert (shop.length("more"), shop.length("elsewhere")) == (3, 1)
        for one in (broker, other):
            with pytest.raises(JobShedError):  # it was an overload all the while
                await one.publish("first", **to)


@pytest.mark.parametrize("loop", [[], ["--loop", "asyncio:new_event_loop"]], ids=["uvloop", "asyncio"])
def test_a_consumers_whole_process_passes_though_no_controller_is_started(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, loop: list[str]
) -> None:
    def sent() -> set[str]:
        messages: list[Any] = redis_client.lrange("later", 0, -1)
        return {BinaryMessageFormatV1.parse(message)[0].decode() for message in messages}

    with command(tmp_path, redis_url, "faststream", "run", *loop, "integrations.faststream_worker:app") as consumer:
        redis_client.rpush("jobs", "now")
        consumer.until(lambda: sent() == {"lifespan", "on_startup", "after_startup", *WAYS})
        consumer.end()
    assert sent() >= {"on_shutdown", "end"}


def test_an_application_that_only_publishes_is_a_producer(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    with command(tmp_path, redis_url, "faststream", "run", "integrations.faststream_worker:producer") as producer:
        assert "ControllerNotStartedError" in producer.outcome(fails=True)
    assert not redis_client.exists("later")


@on_loop
async def test_an_application_beside_a_producer_opens_nothing_of_the_producers(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        broker = await shop.broker()
        app = FastStream(broker, logger=None)
        raised: list[Any] = []
        go = asyncio.Event()

        @broker.subscriber(list="jobs")  # type: ignore[untyped-decorator]
        async def work(_: str) -> None:
            raised.append(await from_everywhere(lambda _: broker.publish("more", list="mail")))

        @app.after_startup
        async def hello() -> None:
            raised.append(await from_everywhere(lambda _: broker.publish("hello", list="mail")))
            await go.wait()

        @app.on_shutdown
        async def bye() -> None:
            await broker.publish("bye", list="mail")

        running = asyncio.create_task(app.run(sleep_time=0.001))
        await eventually(lambda: raised)
        shed = [JobShedError] * len(WAYS)
        assert await from_everywhere(lambda _: broker.publish("hello", list="mail")) == shed
        shop.server.rpush("jobs", "now")
        await eventually(lambda: len(raised) == 2)
        assert raised == [[None] * len(WAYS)] * 2
        assert await from_everywhere(lambda _: broker.publish("hello", list="mail")) == shed
        go.set()
        app.exit()
        await running
        assert shop.controller._passed.counts() == {("mail", "worker"): 2 * len(WAYS) + 1}


@on_loop
async def test_an_application_that_subscribes_as_it_starts_is_a_consumer_from_then_on(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        broker = await shop.broker()
        app = FastStream(broker, logger=None)
        router = RedisRouter()

        @router.subscriber(list="jobs")
        async def work(_: str) -> None: ...

        @app.on_startup
        async def subscribe() -> None:
            with pytest.raises(JobShedError):
                await broker.publish("hello", list="mail")
            broker.include_router(router)

        @app.after_startup
        async def hello() -> None:
            await broker.publish("hello", list="mail")

        async with app:
            assert shop.length() == OVERLOAD + 1


@on_loop
async def test_what_a_broker_without_the_middleware_receives_is_handled_by_a_consumer(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        protected, consumer = await shop.broker(), await shop.broker(BaseMiddleware)

        @consumer.subscriber(list="jobs")  # type: ignore[untyped-decorator]
        async def work(_: str) -> None:
            await protected.publish("more", list="mail")

        await consumer.start()
        shop.server.rpush("jobs", "now")
        await eventually(lambda: shop.length() == OVERLOAD + 1)


async def serve(app: Any, requests: Callable[[], Awaitable[None]]) -> None:
    """Run `requests` while an ASGI application lives, as web servers do: its lifespan is a task of its own."""
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    told.put_nowait({"type": "lifespan.startup"})
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    living = asyncio.create_task(app(scope, told.get, said.put))
    if await said.get() != {"type": "lifespan.startup.complete"}:
        await living
    await requests()
    told.put_nowait({"type": "lifespan.shutdown"})
    await living
    assert await said.get() == {"type": "lifespan.shutdown.complete"}


async def get(app: Any, path: str) -> int:
    """Return the status of a GET request."""
    answers: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(answer: dict[str, Any]) -> None:
        answers.append(answer)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    await app({**scope, "http_version": "1.1", "scheme": "http", "state": {}}, receive, send)
    return int(answers[0]["status"])


@on_loop
async def test_requests_to_an_application_are_a_producers_and_its_hooks_a_consumers(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        broker = await shop.broker()

        async def send() -> None:
            await broker.publish("hello", list="mail")

        @contextlib.asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            await send()
            yield

        @http_get
        async def enqueue(scope: Any) -> AsgiResponse:
            try:
                await send()
            except JobShedError:
                return AsgiResponse(b"", 503)
            return AsgiResponse(b"", 200)

        app = AsgiFastStream(
            broker,
            asgi_routes=[("/", enqueue)],
            lifespan=lifespan,
            logger=None,
            on_startup=[send],
            after_startup=[send],
            on_shutdown=[send],
        )

        async def requests() -> None:
            await eventually(lambda: shop.length() == before + started)
            assert await get(app, "/") == 503
            with pytest.raises(JobShedError):
                await send()

        before, started = shop.length(), 0
        with pytest.raises(JobShedError):  # it only publishes so far
            await serve(app, requests)

        @broker.subscriber(list="jobs")  # type: ignore[untyped-decorator]
        async def work(_: str) -> None:
            await send()

        started = 3
        await serve(app, requests)
        assert shop.length() == before + 4

        await broker.connect()
        async with app.start_lifespan_context():  # in the task of the one who asks
            await eventually(lambda: shop.length() == before + 7)
            with pytest.raises(JobShedError):
                await send()


@pytest.mark.filterwarnings("ignore:The integration has been moved:DeprecationWarning")
@on_loop
async def test_requests_to_fastapi_are_a_producers_and_its_routers_hooks_a_consumers(open_shop: OpenShop) -> None:
    fastapi = required("fastapi")
    from faststream.redis.fastapi import RedisRouter as FastAPIRouter

    async with open_shop() as shop:
        quiet: Any = None
        router = FastAPIRouter(shop.url, middlewares=[shop.protect()], logger=quiet)

        async def send(_: object = None) -> None:
            await router.broker.publish("hello", list="mail")

        router.after_startup(send)
        router.on_broker_shutdown(send)

        @router.subscriber(list="jobs")
        async def work(_: str) -> None:
            await send()

        @router.get("/")
        async def enqueue() -> Any:
            try:
                await send()
            except JobShedError:
                return fastapi.Response(status_code=503)
            return fastapi.Response(status_code=200)

        @router.get("/on-a-thread")
        def enqueue_on_a_thread() -> Any:
            try:
                asyncio.run_coroutine_threadsafe(send(), loop).result(20)
            except JobShedError:
                return fastapi.Response(status_code=503)
            return fastapi.Response(status_code=200)

        async def requests() -> None:
            assert shop.length() == OVERLOAD + 1
            assert (await get(app, "/"), await get(app, "/on-a-thread")) == (503, 503)
            shop.server.rpush("jobs", "now")
            await eventually(lambda: shop.length() == OVERLOAD + 2)

        loop = asyncio.get_running_loop()
        app = fastapi.FastAPI()
        app.include_router(router)
        await serve(app, requests)
        assert shop.length() == OVERLOAD + 3


@on_loop
async def test_replies_and_results_of_named_handlers_are_not_judged(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        broker = await shop.broker(shop.protect(queue=lambda _: "mail", inside_tasks={"campaign"}))

        @broker.subscriber(list="jobs")  # type: ignore[untyped-decorator]
        @broker.publisher(list="results")  # type: ignore[untyped-decorator]
        async def campaign(_: str) -> str:
            with pytest.raises(JobShedError):
                await broker.publish("more", list="mail")
            return "done"

        await broker.start()
        response = await broker.request("now", list="jobs", timeout=10, headers={"backpressure_priority": "high"})
        assert await response.decode() == "done"
        assert shop.length("results") == 1


@on_loop
async def test_who_is_admitted_may_be_given_a_priority(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        middleware = shop.protect()
        broker = await shop.broker(middleware)
        async with middleware.admitted("mail", priority="high"):
            await broker.publish("hello", list="mail")
        assert shop.length() == OVERLOAD + 1
        with pytest.raises(JobShedError):
            async with middleware.admitted("mail", "other", priority="low"):
                pytest.fail("a part was let in")


@on_loop
async def test_what_is_no_fault_of_the_queue_does_not_count(open_shop: OpenShop) -> None:
    class RejectedError(Exception):
        pass

    class Rejects(BaseMiddleware):
        async def publish_scope(self, call_next: Any, cmd: Any) -> Any:
            raise RejectedError

    async with open_shop() as shop:
        unconnected = RedisBroker(shop.url, middlewares=[shop.protect("high")])
        with pytest.raises(FastStreamException):
            await unconnected.publish("hello", list="mail")
        rejecting = await shop.broker(Rejects, shop.protect("high"))
        with pytest.raises(RejectedError):
            await rejecting.publish("hello", list="mail")
        assert shop.controller.circuit("mail").stats()["failure_count"] == 0


@on_loop
async def test_of_a_pipeline_no_outcome_is_reported_unless_it_is_run_inside_of_admitted(open_shop: OpenShop) -> None:
    async with open_shop() as shop:
        middleware = shop.protect("high")
        broker = await shop.broker(middleware)
        client = await broker.connect()
        for _ in range(4):
            shop.controller.record_failure("mail")
        async with client.pipeline() as pipe:
            await broker.publish("hello", list="mail", pipeline=pipe)
            with pytest.raises(JobShedError):
                await broker.publish("hello", list="mail", pipeline=pipe, headers={"backpressure_priority": "low"})
            async with middleware.admitted("mail"):
                await broker.publish("hello", list="mail", pipeline=pipe)
                assert shop.controller.circuit("mail").stats()["failure_count"] == 4
                await pipe.execute()
        assert shop.controller.circuit("mail").stats()["failure_count"] == 0
        assert shop.length() == OVERLOAD + 2


@on_loop
async def test_a_broker_for_tests_is_gated_like_any_other(open_shop: OpenShop) -> None:
    async with open_shop() as shop, TestRedisBroker(RedisBroker(middlewares=[shop.protect()])) as broker:
        with pytest.raises(JobShedError):
            await broker.publish("hello", list="mail")
