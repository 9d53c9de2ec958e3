"""FastStream behind a controller, with FastStream's own subscribers on a real server: lists, streams and channels."""

from __future__ import annotations

import asyncio
import contextlib
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
from integrations.async_watch import OVERLOAD, decided, eventually, length, watching
from integrations.frameworks import required

required("faststream")

from faststream import BaseMiddleware, PublishCommand  # noqa: E402 - skipped before where it is missing
from faststream.redis import RedisBroker, RedisRouter, StreamSub, TestRedisBroker  # noqa: E402

from backpressure.integrations.faststream import BackpressureMiddleware  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import redis

    from backpressure._engine import EngineModule
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
            broker = await shop.broker(shop.protect("medium"))
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
