"""FastStream behind a controller, with FastStream's own subscribers on a real server: lists, streams and channels."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    HIGH,
    AsyncBackpressureController,
    BackpressureController,
    CircuitOpenError,
    ConfigurationError,
    InMemoryStatsProvider,
    InvalidPriorityError,
    JobShedError,
    ThrottledError,
)
from backpressure.providers.layouts import ListKey, StreamKey
from backpressure.testing import ManualClock
from integrations.async_watch import CONFIG, HIGH_IS_RED, OVERLOAD, decided, eventually, length, watching
from integrations.commands import command
from integrations.everywhere import WAYS, from_everywhere
from integrations.frameworks import required

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

QUEUES: dict[str, Layout] = {"mail": ListKey("mail"), "events": StreamKey("events", "workers")}
KINDS = pytest.mark.parametrize("to", [{"list": "mail"}, {"stream": "events"}], ids=["list", "stream"])


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


@KINDS
def test_under_overload_low_is_shed_and_high_passes(open_shop: OpenShop, to: dict[str, str]) -> None:
    (name,) = to.values()

    async def main() -> None:
        async with open_shop() as shop:
            broker = await shop.broker(shop.protect({"other": "high", "*": "low"}))
            keys = set(shop.server.keys())
            with pytest.raises(JobShedError) as shed:
                await broker.publish("hello", **to)
            assert shed.value.queue_name == name
            assert (shop.length(name), set(shop.server.keys())) == (OVERLOAD, keys)
            headers = {"backpressure_priority": HIGH}
            await broker.publish("hello", **to, headers=headers)
            await broker.publisher(**to, headers={"backpressure_priority": "high"}).publish("hello")
            await broker.publish("hello", list="other")
            assert (shop.length(name), shop.length("other")) == (OVERLOAD + 2, 1)
            assert headers["backpressure_priority"] is HIGH

    asyncio.run(main())


def test_a_priority_of_its_own_is_not_sent(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            broker = await shop.broker()
            await broker.publish("hello", list="other", headers={"backpressure_priority": HIGH, "mine": "1"})
            sent = str(shop.server.lindex("other", 0))
            assert "mine" in sent
            assert "backpressure" not in sent

    asyncio.run(main())


def test_rules_may_be_tables_and_functions(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            seen: list[Any] = []

            def priority(command: PublishCommand) -> str:
                seen.append((command.destination, command.body))
                return "low"

            broker = await shop.broker(shop.protect(priority, queue={"post": "mail"}))
            with pytest.raises(JobShedError):
                await broker.publish("me", list="post")
            assert seen == [("post", "me")]
            broker = await shop.broker(shop.protect({"other": "low"}, queue=lambda command: "mail"))
            with pytest.raises(JobShedError):
                await broker.publish("me", list="other")
            with pytest.raises(InvalidPriorityError, match="job 'post' has no priority"):
                await broker.publish("me", list="post")

    asyncio.run(main())


def test_the_destination_is_with_its_routers_prefix(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            router = RedisRouter(prefix="eu-")
            publisher = router.publisher(list="mail")
            broker = await shop.broker(shop.protect({"eu-mail": "low"}, queue={"eu-mail": "mail"}))
            broker.include_router(router)
            await broker.start()
            with pytest.raises(JobShedError):
                await publisher.publish("hello")

    asyncio.run(main())


def test_channels_pass_unless_the_table_of_queues_names_them(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            for queue in ({"news": "mail"}, lambda _: "mail", None):
                broker = await shop.broker(shop.protect({"weather": "low", "*": "low"}, queue=queue))
                before = decided(shop.controller)
                await broker.publish("sunny", channel="weather")
                assert decided(shop.controller) == before
            broker = await shop.broker(shop.protect(queue={"news": "mail"}))
            with pytest.raises(JobShedError):
                await broker.publish("none", channel="news")

    asyncio.run(main())


def test_a_batch_is_gated_once_and_published_whole_or_not_at_all(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            broker = await shop.broker()
            with pytest.raises(JobShedError):
                await broker.publish_batch(*"abc", list="mail")
            assert shop.length() == OVERLOAD
            before = decided(shop.controller)
            await broker.publish_batch(*"abc", list="mail", headers={"backpressure_priority": "high"})
            assert decided(shop.controller) == before + 1
            assert shop.length() == OVERLOAD + 3

    asyncio.run(main())


def test_a_request_is_gated_and_its_reply_is_not(open_shop: OpenShop) -> None:
    async def main() -> None:
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

    asyncio.run(main())


@pytest.mark.parametrize(
    "jobs", [{"list": "jobs"}, {"stream": StreamSub("jobs", group="shop", consumer="one")}], ids=["list", "stream"]
)
def test_nothing_of_what_is_published_while_a_message_is_handled_is_lost_under_overload(
    open_shop: OpenShop, jobs: dict[str, Any]
) -> None:
    to = dict.fromkeys(jobs, "jobs")

    async def main() -> None:
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

    asyncio.run(main())


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
        assert "ControllerNotStartedError" in producer.outcome()
    assert not redis_client.exists("later")


def test_an_application_beside_a_producer_opens_nothing_of_the_producers(open_shop: OpenShop) -> None:
    async def main() -> None:
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

    asyncio.run(main())


def test_an_application_that_subscribes_as_it_starts_is_a_consumer_from_then_on(open_shop: OpenShop) -> None:
    async def main() -> None:
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

    asyncio.run(main())


def test_what_a_broker_without_the_middleware_receives_is_handled_by_a_consumer(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            protected, consumer = await shop.broker(), await shop.broker(BaseMiddleware)

            @consumer.subscriber(list="jobs")  # type: ignore[untyped-decorator]
            async def work(_: str) -> None:
                await protected.publish("more", list="mail")

            await consumer.start()
            shop.server.rpush("jobs", "now")
            await eventually(lambda: shop.length() == OVERLOAD + 1)

    asyncio.run(main())


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


def test_requests_to_an_application_are_a_producers_and_its_hooks_a_consumers(open_shop: OpenShop) -> None:
    async def main() -> None:
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

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:The integration has been moved:DeprecationWarning")
def test_requests_to_fastapi_are_a_producers_and_its_routers_hooks_a_consumers(open_shop: OpenShop) -> None:
    fastapi = required("fastapi")
    from faststream.redis.fastapi import RedisRouter as FastAPIRouter

    async def main() -> None:
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

    asyncio.run(main())


def test_what_named_handlers_publish_is_judged_but_not_their_replies(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            broker = await shop.broker(shop.protect(queue=lambda _: "mail", inside_tasks={"campaign"}))
            raised: list[Any] = []

            @broker.subscriber(list="jobs")  # type: ignore[untyped-decorator]
            @broker.publisher(list="results")  # type: ignore[untyped-decorator]
            async def campaign(_: str) -> str:
                raised.append(await from_everywhere(lambda _: broker.publish("more", list="mail")))
                return "done"

            await broker.start()
            shop.server.rpush("jobs", "now")
            await eventually(lambda: shop.length("results") == 1)
            (told,) = raised
            shed = dict(zip(WAYS, told, strict=True))
            assert {shed["task"], shed["callback"], shed["to_thread"]} == {JobShedError}

    asyncio.run(main())


def test_high_goes_after_the_longest_wait(open_shop: OpenShop) -> None:
    async def main() -> None:
        clock = ManualClock(sleep_advances=True)
        async with open_shop(clock=clock) as shop:
            shop.controller.reconfigure(CONFIG.evolve(HIGH_IS_RED))
            broker = await shop.broker(shop.protect("high", max_wait={"high": 0.05}))
            began = clock.monotonic_ns()
            await broker.publish("hello", list="mail")
            assert clock.monotonic_ns() - began == 50_000_000
            assert shop.length() == OVERLOAD + 1

    asyncio.run(main())


def test_what_is_no_fault_of_the_queue_does_not_count(open_shop: OpenShop) -> None:
    class RejectedError(Exception):
        pass

    class Rejects(BaseMiddleware):
        async def publish_scope(self, call_next: Any, cmd: Any) -> Any:
            raise RejectedError

    async def main() -> None:
        async with open_shop() as shop:
            broker = await shop.broker(shop.protect("high"))
            for wrong in ({"message": object()}, {"message": "hello", "headers": {"long": "x" * 100_000}}):
                with pytest.raises((TypeError, ValueError, struct.error)):
                    await broker.publish(**wrong, list="mail")
            unconnected = RedisBroker(shop.url, middlewares=[shop.protect("high")])
            with pytest.raises(FastStreamException):
                await unconnected.publish("hello", list="mail")
            rejecting = await shop.broker(Rejects, shop.protect("high"))
            with pytest.raises(RejectedError):
                await rejecting.publish("hello", list="mail")
            assert shop.controller.circuit("mail").stats()["failure_count"] == 0

    asyncio.run(main())


def test_many_are_gated_once_and_published_all_or_none(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            middleware = shop.protect({"other": "high", "*": "low"})
            broker = await shop.broker(middleware)
            with pytest.raises(JobShedError):
                async with middleware.admitted("other", "mail"):
                    pytest.fail("a part was let in")
            before = decided(shop.controller)
            async with middleware.admitted("mail", "mail", priority="high"):
                await asyncio.gather(*[broker.publish("hello", list="mail") for _ in range(10)])
                async with middleware.admitted("mail"):
                    await broker.publish("hello", list="mail")
            assert decided(shop.controller) == before + 1
            assert shop.length() == OVERLOAD + 11
            with pytest.raises(JobShedError):
                await broker.publish("hello", list="mail")

    asyncio.run(main())


def test_max_wait_bounds_the_sleep(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            broker = await shop.broker(shop.protect("medium", max_wait=0.2))
            with pytest.raises(ThrottledError) as throttled:
                await broker.publish("hello", list="mail")
            assert throttled.value.retry_after == 5.0
            assert shop.length() == OVERLOAD

    asyncio.run(main())


def test_cancelled_at_the_gate_a_message_leaves_nothing(open_shop: OpenShop) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with open_shop(clock=clock) as shop:
            broker = await shop.broker(shop.protect("medium", max_wait=None))
            await eventually(lambda: clock.sleeping() == 1)  # the poller, until its next read
            tasks = asyncio.all_tasks()
            waiting = asyncio.create_task(broker.publish("hello", list="mail"))
            await eventually(lambda: clock.sleeping() == 2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (clock.sleeping(), asyncio.all_tasks()) == (1, tasks)
            assert shop.length() == OVERLOAD
            assert shop.controller.circuit("mail").stats()["failure_count"] == 0

    asyncio.run(main())


@KINDS
def test_a_server_that_refuses_opens_the_circuit(
    open_shop: OpenShop, to: dict[str, str], request: pytest.FixtureRequest
) -> None:
    async def main() -> None:
        async with open_shop() as shop:
            broker = await shop.broker(shop.protect("high"))
            request.getfixturevalue("full_server")
            for _ in range(5):
                with pytest.raises(Exception, match="maxmemory"):
                    await broker.publish("hello", **to)
            with pytest.raises(CircuitOpenError):
                await broker.publish("hello", **to)

    asyncio.run(main())


def test_of_a_pipeline_no_outcome_is_reported_unless_it_is_run_inside_of_admitted(open_shop: OpenShop) -> None:
    async def main() -> None:
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

    asyncio.run(main())


def test_a_broker_for_tests_is_gated_like_any_other(open_shop: OpenShop) -> None:
    async def main() -> None:
        async with open_shop() as shop, TestRedisBroker(RedisBroker(middlewares=[shop.protect()])) as broker:
            with pytest.raises(JobShedError):
                await broker.publish("hello", list="mail")

    asyncio.run(main())


def test_a_synchronous_controller_is_refused() -> None:
    wrong: Any = BackpressureController(None, InMemoryStatsProvider({}))
    with pytest.raises(ConfigurationError, match="give an AsyncBackpressureController"):
        BackpressureMiddleware(wrong, priority="low")
