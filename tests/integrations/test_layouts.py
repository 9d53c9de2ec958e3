"""Hooks whose provider reads other keys than their framework writes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from backpressure import (
    AsyncBackpressureController,
    AsyncRedisStatsProvider,
    BackpressureController,
    ConfigurationError,
    InMemoryStatsProvider,
    Priority,
    RedisStatsProvider,
)
from backpressure._model.stats import QueueStats
from backpressure.integrations._shared.hook import Hook
from backpressure.integrations._shared.layouts import check_layout
from backpressure.providers.layouts import (
    CeleryLayout,
    Command,
    DramatiqLayout,
    HueyLayout,
    ListKey,
    RQLayout,
    SAQLayout,
    StreamKey,
    TaskiqLayout,
    ZSetKey,
    ask,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

URL = "redis://localhost:6379/0"
CELERY = CeleryLayout()


class Own:
    """A layout of a user's."""

    def read(self, queue_name: str, now: Any) -> Any:
        (waiting,) = yield from ask(Command("llen", f"own:{queue_name}"))
        return QueueStats(queue_name, waiting, last_updated=now)


def made(
    provider: Any,
    *,
    framework: str = "celery",
    written: Callable[[], Any] = CeleryLayout,
    queues: Iterable[str] = (),
    queue: Any = None,
) -> Hook:
    hook = Hook(BackpressureController(None, provider), "low", queue)
    check_layout(hook, framework, written, queues)
    return hook


def refused(provider: Any, match: str, **options: Any) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        made(provider, **options)
    assert caught.value.field == "stats_provider"


@pytest.mark.parametrize(
    "queues",
    [
        {"mail": ListKey("mail")},
        {"mail": "mail"},
        {"mail": b"mail"},
        {"mail": ListKey("mail", processing_key="mail:running")},
        {"mail": CELERY},
        {"mail": Own()},
        {"mail": RQLayout(), "reports": CELERY},  # one fits, the other is read for other producers
        {},
    ],
)
def test_where_keys_meet_nothing_is_refused(queues: dict[str, Any]) -> None:
    made(RedisStatsProvider(URL, queues))


@pytest.mark.parametrize(
    "layout",
    [
        RQLayout(),
        DramatiqLayout(),
        HueyLayout(),
        SAQLayout(),
        ListKey("jobs:{queue}"),
        ZSetKey("{queue}"),
        StreamKey("{queue}", group="workers"),
        CeleryLayout(sep=":"),
        CeleryLayout(priority_steps=range(10)),
        CeleryLayout(priority_steps=[0]),
        CeleryLayout(prefix="shop:"),
    ],
)
def test_another_layout_is_refused(layout: Any) -> None:
    refused(RedisStatsProvider(URL, ["mail", "reports"], layout=layout), "Celery keeps it in list 'mail', list")


def test_a_refusal_says_which_keys_and_what_to_give() -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(RedisStatsProvider("redis://:hush-hush@localhost/0", ["mail"], layout="rq"))
    message = str(caught.value)
    assert "queue 'mail' in list 'rq:queue:mail'" in message
    assert "give it layout=CeleryLayout(" in message
    assert "RedisStatsProvider.from_celery(app)" in message
    assert "hush" not in message


def test_a_provider_that_finds_its_queues_is_looked_at_too() -> None:
    refused(RedisStatsProvider(URL, layout="rq"), "Celery keeps it in")
    made(RedisStatsProvider(URL, layout="rq"), framework="rq", written=RQLayout, queues=["mail"])


def test_of_one_queue_that_one_is_looked_at() -> None:
    provider = RedisStatsProvider(URL, {"mail": RQLayout(), "reports": CELERY})
    made(provider, framework="rq", written=RQLayout, queues=["mail"])
    refused(provider, "queue 'reports'", framework="rq", written=RQLayout, queues=["reports"])
    made(provider, framework="rq", written=RQLayout, queues=["another"])  # is not read at all


def test_a_table_of_queues_is_followed() -> None:
    table = {"mail": "letters"}
    made(RedisStatsProvider(URL, {"letters": "mail"}), queue=table)
    made(RedisStatsProvider(URL, ["letters"], layout="celery"), queue=table)  # judged by another one's backlog
    refused(RedisStatsProvider(URL, {"letters": "news"}), "or correct the hook's queue=", queue=table)


def test_of_a_function_only_layouts_of_frameworks_tell() -> None:
    made(RedisStatsProvider(URL, {"letters": "mail"}), queue=lambda _: "letters")
    made(RedisStatsProvider(URL, ["letters"], layout="celery"), queue=lambda _: "letters")
    refused(RedisStatsProvider(URL, ["letters"], layout="rq"), "Celery keeps it in", queue=lambda _: "letters")


def test_while_the_framework_is_not_configured_only_another_one_is_refused() -> None:
    made(RedisStatsProvider(URL, ["mail"], layout=CeleryLayout(sep=":")), written=lambda: None)
    made(RedisStatsProvider(URL, {"mail": "shop:mail"}), written=lambda: None)
    refused(RedisStatsProvider(URL, ["mail"], layout="rq"), 'give it layout="celery"', written=lambda: None)


def test_a_provider_of_redis_reads_no_other_server() -> None:
    for queues in ({"mail": "statistics:mail"}, {"mail": ListKey("mail")}):  # which something else may keep up to date
        made(RedisStatsProvider(URL, queues), written=lambda: "amqp")
    provider = RedisStatsProvider(URL, ["mail"], layout="celery")
    refused(provider, "but the broker of Celery is amqp: give a provider that reads it", written=lambda: "amqp")


def test_providers_of_others_are_not_looked_at() -> None:
    made(InMemoryStatsProvider({"mail": 0}))


def test_queues_that_are_met_later_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    hook = made(RedisStatsProvider(URL, {"mail": CELERY, "reports": RQLayout()}))
    with caplog.at_level(logging.WARNING, "backpressure"):
        for name in ("mail", "reports", "reports", "mail"):
            assert hook.place(None, name="job", queue_name=name) == (Priority.LOW, name)
    (record,) = caplog.records
    assert "queue 'reports'" in record.getMessage()
    assert vars(record)["queue_name"] == "reports"


def sync(**options: Any) -> BackpressureController:
    return BackpressureController(None, RedisStatsProvider(URL, ["mail"], **options))


def asynchronous(**options: Any) -> AsyncBackpressureController:
    return AsyncBackpressureController(None, AsyncRedisStatsProvider(URL, ["mail"], **options))


def test_celery() -> None:
    celery = pytest.importorskip("celery")
    from backpressure.integrations.celery import protect

    def app(**conf: Any) -> Any:
        app = celery.Celery("shop", broker=URL, set_as_current=False)
        app.conf.update(conf)
        return app

    for wrong in ("rq", "saq", CeleryLayout(sep=":"), CeleryLayout(priority_steps=range(10))):
        own = app()
        with pytest.raises(ConfigurationError, match="Celery keeps it in"):
            protect(own, sync(layout=wrong), priority="low")
        protect(own, sync(layout="celery"), priority="low")  # a refusal leaves it as it was
    for options in ({"sep": ":"}, {"priority_steps": [0, 5]}, {"global_keyprefix": "shop:"}):
        with pytest.raises(ConfigurationError, match="Celery keeps it in"):
            protect(app(broker_transport_options=options), sync(layout="celery"), priority="low")
        own = app(broker_transport_options=options)
        protect(own, sync(layout=CeleryLayout.from_options(options)), priority="low")
        assert not own.configured


def test_celery_is_not_configured_before_its_time(caplog: pytest.LogCaptureFixture) -> None:
    celery = pytest.importorskip("celery")
    from backpressure.integrations.celery import protect

    class settings:  # noqa: N801 - as a module
        broker_url = URL
        broker_transport_options = {"sep": ":"}  # noqa: RUF012 - as a module
        task_always_eager = False

    def app() -> Any:
        app = celery.Celery("shop", set_as_current=False)
        app.config_from_object(settings)
        return app

    with pytest.raises(ConfigurationError, match='give it layout="celery"'):
        protect(app(), sync(layout="rq"), priority="low")
    own = protect(app(), sync(layout="celery"), priority="low")
    assert not own.configured
    heard: list[object] = []
    own.on_after_configure.connect(lambda **_: heard.append(1), weak=False)
    with caplog.at_level(logging.WARNING, "backpressure"), pytest.raises(Exception, match="not started"):
        own.send_task("shop.newsletter", queue="mail")
    assert heard == [1]
    assert "Celery keeps it in" in caplog.text
    configured = app()
    assert configured.conf.broker_url == URL
    with pytest.raises(ConfigurationError, match="Celery keeps it in"):
        protect(configured, sync(layout="celery"), priority="low")


def test_celery_with_another_broker() -> None:
    celery = pytest.importorskip("celery")
    from backpressure.integrations.celery import protect

    def app(url: str | list[str]) -> Any:
        return celery.Celery("shop", broker=url, set_as_current=False)

    for layout in ("rq", "celery"):
        for url in ("amqp://localhost", "pyamqp://localhost//", ["sqs://", "redis://localhost"]):
            with pytest.raises(ConfigurationError, match=r"the broker of Celery is (amqp|pyamqp|sqs): give"):
                protect(app(url), sync(layout=layout), priority="low")
    for url in ("memory://", "redis://a", "redis+socket:///run/redis", "rediss://a", "sentinel://a;sentinel://b"):
        protect(app(url), sync(layout="celery"), priority="low")


def test_rq() -> None:
    rq = pytest.importorskip("rq")
    import redis

    from backpressure.integrations.rq import Queue

    class Elsewhere(Queue):
        redis_queue_namespace_prefix = "shop:queue:"

    connection = redis.Redis.from_url(URL)
    Queue("mail", connection=connection, controller=sync(layout="rq"), priority="low")
    Queue(
        "mail",
        connection=connection,
        controller=sync(key=rq.Queue("{queue}", connection=connection).key),
        priority="low",
    )
    Elsewhere("mail", connection=connection, controller=sync(layout=RQLayout(prefix="shop")), priority="low")
    for queue, layout in ((Queue, "celery"), (Elsewhere, "rq"), (Queue, RQLayout(prefix="{rq}"))):
        with pytest.raises(ConfigurationError, match="RQ keeps it in"):
            queue("mail", connection=connection, controller=sync(layout=layout), priority="low")


def test_dramatiq() -> None:
    dramatiq = pytest.importorskip("dramatiq")
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.brokers.stub import StubBroker

    from backpressure.integrations.dramatiq import BackpressureMiddleware

    with pytest.raises(ConfigurationError, match="Dramatiq"):
        BackpressureMiddleware(sync(layout="rq"), priority="low")
    middleware = BackpressureMiddleware(sync(layout="dramatiq"), priority="low")

    def receipt() -> None: ...

    def broker(made: Any = RedisBroker, **options: Any) -> Any:
        return made(middleware=[], **options)

    own = broker(url=URL, namespace="shop")
    own.add_middleware(middleware)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="Dramatiq keeps it in list 'shop:mail'"):
            dramatiq.actor(broker=own, queue_name="mail")(receipt)
    late = broker(url=URL, namespace="shop")
    dramatiq.actor(broker=late, queue_name="mail")(receipt)
    with pytest.raises(ConfigurationError, match="Dramatiq keeps it in list 'shop:mail'"):
        late.add_middleware(middleware)
    for own in (broker(url=URL), broker(StubBroker)):
        own.add_middleware(BackpressureMiddleware(sync(layout="dramatiq"), priority="low"))
        dramatiq.actor(broker=own, queue_name="mail")(receipt)


def test_huey() -> None:
    huey = pytest.importorskip("huey")
    from backpressure.integrations.huey import protect

    protect(huey.RedisHuey("mail", url=URL), sync(layout="huey"), priority="low")
    protect(huey.PriorityRedisHuey("mail", url=URL), sync(layout="huey-priority"), priority="low")
    protect(huey.MemoryHuey("mail"), sync(layout="huey"), priority="low")
    protect(huey.RedisHuey("mail", url=URL), sync(key="huey.redis.{queue}"), priority="low")
    with pytest.raises(ConfigurationError, match="Huey keeps it in list"):
        protect(huey.RedisHuey("mail", url=URL), sync(layout="huey-priority"), priority="low")
    with pytest.raises(ConfigurationError, match="Huey keeps it in zset"):
        protect(huey.PriorityRedisHuey("mail", url=URL), sync(layout="huey"), priority="low")


def test_saq() -> None:
    saq = pytest.importorskip("saq")
    from backpressure.integrations.saq import protect

    async def main() -> None:
        protect(saq.Queue.from_url(URL, name="mail"), asynchronous(layout="saq"), priority="low")
        with pytest.raises(ConfigurationError, match="SAQ keeps it in list 'saq:mail:queued'"):
            protect(saq.Queue.from_url(URL, name="mail"), asynchronous(layout="rq"), priority="low")

    asyncio.run(main())


def test_arq() -> None:
    connections = pytest.importorskip("arq.connections")
    from backpressure.integrations.arq import protect

    protect(connections.ArqRedis(), asynchronous(layout="arq"), priority="low")
    with pytest.raises(ConfigurationError, match="arq keeps it in zset 'mail'"):
        protect(connections.ArqRedis(), asynchronous(), priority="low")


def test_taskiq() -> None:
    taskiq_redis = pytest.importorskip("taskiq_redis")
    from backpressure.integrations.taskiq import BackpressureMiddleware

    def refuse(broker: Any, layout: Any) -> None:
        with pytest.raises(ConfigurationError, match="taskiq keeps it in"):
            broker.add_middlewares(BackpressureMiddleware(asynchronous(layout=layout), priority="low"))

    async def main() -> None:
        refuse(taskiq_redis.ListQueueBroker(URL), "saq")
        refuse(taskiq_redis.ListQueueBroker(URL), TaskiqLayout(group="taskiq"))
        refuse(taskiq_redis.RedisStreamBroker(URL), "taskiq")
        for broker, layout in (
            (taskiq_redis.ListQueueBroker(URL), "taskiq"),
            (taskiq_redis.RedisStreamBroker(URL), "taskiq-stream"),
            (taskiq_redis.PubSubBroker(URL), "taskiq"),
        ):
            broker.add_middlewares(BackpressureMiddleware(asynchronous(layout=layout), priority="low"))

    asyncio.run(main())
