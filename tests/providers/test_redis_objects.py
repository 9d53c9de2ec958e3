"""Providers made of what users have already: frameworks' objects and clients."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.sentinel import Sentinel as _Sentinel

from backpressure import AsyncRedisStatsProvider, ConfigurationError, RedisStatsProvider
from backpressure.providers.layouts import CeleryLayout, DramatiqLayout, HueyLayout, TaskiqLayout

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "hush-hush"
Sentinel: Any = _Sentinel  # untyped in redis-py
KINDS = [RedisStatsProvider, AsyncRedisStatsProvider]


def celery_app(*urls: str, **conf: Any) -> Any:
    celery = pytest.importorskip("celery")
    app = celery.Celery("shop", broker=";".join(urls) or None, set_as_current=False)
    app.conf.update(conf)
    return app


def settings(provider: Any) -> dict[str, Any]:
    options: dict[str, Any] = provider._target.options
    return {name: value for name, value in options.items() if name not in {"retry", "connection_class"}}


#: As whom a client introduces itself, in any release of redis-py; we leave it out.
INTRODUCTION = ("driver_info", "lib_name", "lib_version")


async def _read(provider: Any, *names: str) -> dict[str, int]:
    found = provider.get_many(names)
    answers = found if isinstance(provider, RedisStatsProvider) else await found
    polled = provider.get_all_queue_stats()
    await polled if not isinstance(provider, RedisStatsProvider) else polled
    if isinstance(provider, AsyncRedisStatsProvider):
        await provider.aclose()
    else:
        provider.close()
    return {name: answer.backlog_count for name, answer in answers.items()}


def read(provider: Any, *names: str) -> dict[str, int]:
    return asyncio.run(_read(provider, *names))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("urls", "conf", "shown", "options"),
    [
        (["redis://h"], {}, "redis://h:6379/0", {"host": "h", "port": 6379, "db": 0}),
        (
            [f"redis://me:{SECRET}@h:1/3"],
            {},
            "redis://h:1/3",
            {"host": "h", "port": 1, "db": 3, "username": "me", "password": SECRET},
        ),
        (["redis+socket:///run/s?virtual_host=1"], {}, "unix:///run/s?db=1", {"path": "/run/s", "db": 1}),
        # Celery's own choice where nothing is said of certificates.
        (["rediss://h/1"], {}, "rediss://h:6379/1", {"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        (["rediss://h/1?ssl_cert_reqs=CERT_NONE"], {}, "rediss://h:6379/1", {"ssl_cert_reqs": "none"}),
        (
            ["rediss://h/1?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/ca.pem"],
            {},
            "rediss://h:6379/1",
            {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"},
        ),
        (
            ["redis://h/1"],
            {"broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_OPTIONAL}},
            "rediss://h:6379/1",
            {"ssl_cert_reqs": "optional"},
        ),
        (
            [f"sentinel://:{SECRET}@h:26379/2", f"sentinel://:{SECRET}@g"],
            {"broker_transport_options": {"master_name": "shop", "sentinel_kwargs": {"password": SECRET}}},
            "redis+sentinel://h:26379,g:26379/shop/2",
            {"db": 2, "password": SECRET},
        ),
        (
            [f"sentinel://:{SECRET}@h:26380"],
            {"broker_transport_options": {"master_name": "shop"}},
            "redis+sentinel://h:26380/shop/0",
            {"db": 0, "password": SECRET},
        ),
    ],
)
def test_celerys_broker(kind: Any, urls: list[str], conf: dict[str, Any], shown: str, options: dict[str, Any]) -> None:
    app = celery_app(*urls, **conf)
    provider = kind.from_celery(app)
    assert not app.configured
    assert repr(provider) == f"{kind.__name__}({shown!r}, 1 queues)"
    found = settings(provider)
    assert found.items() >= {**options, "protocol": 2, "socket_timeout": 1.0, "socket_connect_timeout": 1.0}.items()
    assert all(
        name.startswith("ssl_") or name in {*options, "db", "protocol", *INTRODUCTION}
        for name in found.keys() - {"host", "port"}
        if not name.startswith("socket_")
    )


def test_sentinels_have_settings_of_their_own() -> None:
    options = {"master_name": "shop", "sentinel_kwargs": {"password": SECRET}}
    target: Any = RedisStatsProvider.from_celery(
        celery_app("sentinel://h", broker_transport_options=options, broker_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE})
    )._target
    assert target.tls
    assert target.sentinel_options["ssl"] is False
    assert target.sentinel_options["password"] == SECRET
    assert "password" not in target.options


@pytest.mark.parametrize(
    ("url", "conf", "match"),
    [
        ("amqp://me:hush-hush@h", {}, "give a RabbitMQStatsProvider"),
        ("", {}, "give a RabbitMQStatsProvider, or set broker_url before"),
        ("sqs://me:hush-hush@", {}, "give a SQSStatsProvider"),
        ("memory://", {}, "of type memory"),
        ("sentinel://:hush-hush@h", {}, "no master_name: give it in broker_transport_options"),
        ("redis://:hush-hush@h/shop", {}, "no database number"),
    ],
)
def test_a_broker_that_cannot_be_read_is_refused(url: str, conf: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        RedisStatsProvider.from_celery(celery_app(url, **conf))
    assert SECRET not in str(caught.value)


def test_an_app_of_ones_own_class_and_the_current_one() -> None:
    celery = pytest.importorskip("celery")

    class Shop(celery.Celery):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__("shop", broker="redis://h/2", set_as_current=False)

    app = Shop()
    assert repr(RedisStatsProvider.from_celery(app)) == "RedisStatsProvider('redis://h:6379/2', 1 queues)"
    assert repr(RedisStatsProvider.from_celery(celery.local.Proxy(lambda: app))).endswith("h:6379/2', 1 queues)")
    assert not app.configured


def test_what_is_no_app_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give a celery"):
        RedisStatsProvider.from_celery("redis://localhost")


def test_celerys_queues_and_steps_are_found_and_nothing_is_configured_before_its_time() -> None:
    kombu = pytest.importorskip("kombu")

    class conf:  # noqa: N801 - as a module
        broker_url = "redis://h/1"
        broker_transport_options = {"sep": ":", "priority_steps": [0, 5], "global_keyprefix": "shop:"}  # noqa: RUF012
        task_default_queue = "other"
        task_queues = (kombu.Queue("mail"), kombu.Queue("a\nb"))
        task_routes = ({"x.*": {"queue": "slow"}, "y": "fast"}, ("z", {"queue": "tuples are no tables"}))

    app = celery_app()
    app.config_from_object(conf)
    heard: list[object] = []
    app.on_after_configure.connect(lambda **_: heard.append(1), weak=False)
    provider = RedisStatsProvider.from_celery(app)
    assert not app.configured
    assert not heard
    assert provider._names() == ["other", "mail", "slow", "fast"]
    assert provider._layout == CeleryLayout(prefix="shop:", priority_steps=[0, 5], sep=":")
    assert app.conf.task_default_queue == "other"
    assert heard == [1]
    assert RedisStatsProvider.from_celery(app, ["mail"])._names() == ["mail"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("client", "shown", "options"),
    [
        (
            lambda: redis.Redis(host="h", port=1, db=2, password=SECRET, socket_timeout=400, decode_responses=True),
            "redis://h:1/2",
            {"host": "h", "port": 1, "db": 2, "password": SECRET, "socket_timeout": 0.5},
        ),
        (
            lambda: redis.Redis(host="h", ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False),
            "rediss://h:6379/0",
            {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
        ),
        (lambda: redis.Redis(unix_socket_path="/run/s", db=1), "unix:///run/s?db=1", {"path": "/run/s", "db": 1}),
        (lambda: redis.Redis.from_url("unix:///run/s?db=1"), "unix:///run/s?db=1", {"path": "/run/s", "db": 1}),
        (
            lambda: Sentinel([("a", 1), ("b", 2)], sentinel_kwargs={"password": SECRET}).master_for("shop", db=3),
            "redis+sentinel://a:1,b:2/shop/3",
            {"db": 3},
        ),
    ],
)
def test_a_clients_settings(kind: Any, client: Callable[[], Any], shown: str, options: dict[str, Any]) -> None:
    provider = kind.from_rq(client(), ["mail"], timeout=0.5)
    assert repr(provider) == f"{kind.__name__}({shown!r}, 1 queues)"
    assert settings(provider).items() >= options.items()
    assert "decode_responses" not in settings(provider)


def test_what_leads_to_no_client_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="connection leads to no client of redis-py, but to a builtins"):
        RedisStatsProvider.from_rq("redis://localhost")
    dramatiq = pytest.importorskip("dramatiq.brokers.stub")
    with pytest.raises(ConfigurationError, match="broker is a StubBroker: give a RedisBroker"):
        RedisStatsProvider.from_dramatiq(dramatiq.StubBroker(middleware=[]))
    huey = pytest.importorskip("huey")
    with pytest.raises(ConfigurationError, match="huey keeps its tasks in a MemoryStorage"):
        RedisStatsProvider.from_huey(huey.MemoryHuey())


def test_a_client_whose_connections_know_alone_where_they_lead_is_used_itself() -> None:
    fakeredis = pytest.importorskip("fakeredis")
    client = fakeredis.FakeStrictRedis()
    client.rpush("rq:queue:mail", "1")
    provider = RedisStatsProvider.from_rq(client)
    assert provider.get_queue_stats("mail").backlog_count == 1
    provider.close()
    assert client.ping()


@pytest.mark.parametrize("kind", KINDS)
def test_celery(kind: Any, redis_client: redis.Redis, redis_url: str) -> None:
    app = celery_app(redis_url, broker_transport_options={"global_keyprefix": "shop:"})
    for priority, queue in ((0, "celery"), (9, "celery"), (0, "mail")):
        app.send_task("shop.newsletter", queue=queue, priority=priority)
    app.close()
    assert read(kind.from_celery(app), "celery", "mail", "empty") == {"celery": 2, "mail": 1, "empty": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_rq(kind: Any, redis_client: redis.Redis) -> None:
    rq = pytest.importorskip("rq")
    rq.Queue("mail", connection=redis_client).enqueue(print)
    provider = kind.from_rq(redis_client)
    assert "queues of RQLayout" in repr(provider)
    assert read(provider, "mail", "empty") == {"mail": 1, "empty": 0}
    assert redis_client.ping()


@pytest.mark.parametrize("kind", KINDS)
def test_dramatiq(kind: Any, redis_client: redis.Redis, redis_url: str) -> None:
    dramatiq = pytest.importorskip("dramatiq")
    pytest.importorskip("dramatiq.brokers.redis")
    broker: Any = dramatiq.brokers.redis.RedisBroker(url=redis_url, namespace="shop", middleware=[])
    dramatiq.actor(broker=broker, queue_name="mail")(print).send()
    provider = kind.from_dramatiq(broker)
    assert (provider._names(), provider._layout) == (["mail"], DramatiqLayout("shop"))
    assert read(provider, "mail") == {"mail": 1}
    broker.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("made", "options", "layout"),
    [
        ("RedisHuey", {}, HueyLayout()),
        ("RedisHuey", {"clean_name": False}, HueyLayout(clean_name=False)),
        ("PriorityRedisHuey", {}, HueyLayout(priority=True)),
        ("RedisExpireHuey", {}, HueyLayout()),
    ],
)
def test_huey(
    kind: Any, made: str, options: dict[str, Any], layout: HueyLayout, redis_client: redis.Redis, redis_url: str
) -> None:
    module = pytest.importorskip("huey")
    huey = getattr(module, made)("my-mail", url=redis_url, **options)
    huey.task()(print)()
    provider = kind.from_huey(huey)
    assert provider._layout == layout
    assert read(provider, "my-mail") == {"my-mail": 1}
    huey.storage.conn.close()


def test_saq(redis_client: redis.Redis, redis_url: str) -> None:
    saq = pytest.importorskip("saq")

    async def main() -> None:
        queue = saq.Queue.from_url(redis_url, name="mail")
        await queue.enqueue("newsletter")
        provider = AsyncRedisStatsProvider.from_saq(queue)
        assert await _read(provider, "mail") == {"mail": 1}
        assert await queue.count("queued") == 1
        await queue.disconnect()

    asyncio.run(main())


def test_taskiq(redis_client: redis.Redis, redis_url: str) -> None:
    taskiq_redis = pytest.importorskip("taskiq_redis")

    async def main() -> None:
        for broker, layout in (
            (taskiq_redis.ListQueueBroker(redis_url, queue_name="tasks"), TaskiqLayout()),
            (taskiq_redis.RedisStreamBroker(redis_url, "clicks", consumer_group_name="a"), TaskiqLayout(group="a")),
        ):
            task = broker.task(task_name="newsletter")(lambda: None)
            await task.kiq()
            provider = AsyncRedisStatsProvider.from_taskiq(broker)
            assert provider._layout == layout
            assert await _read(provider, broker.queue_name) == {broker.queue_name: 1}
            await broker.shutdown()

    asyncio.run(main())
    sentinels = taskiq_redis.ListQueueSentinelBroker([("a", 1)], "shop", queue_name="tasks")
    assert repr(AsyncRedisStatsProvider.from_taskiq(sentinels)) == (
        "AsyncRedisStatsProvider('redis+sentinel://a:1/shop/0', 1 queues)"
    )
    with pytest.raises(ConfigurationError, match="broker is a PubSubBroker"):
        AsyncRedisStatsProvider.from_taskiq(taskiq_redis.PubSubBroker(redis_url))


class ArqSettings:
    """As ``arq.connections.RedisSettings``."""

    def __init__(self, **given: Any) -> None:
        self.host: Any = "h"
        self.port = 6379
        self.unix_socket_path = None
        self.database = 1
        self.username = None
        self.password = SECRET
        self.ssl = False
        self.ssl_cert_reqs = "required"
        self.ssl_ca_certs = None
        self.ssl_check_hostname = False
        self.sentinel = False
        self.sentinel_master = "mymaster"
        vars(self).update(given)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, "redis://h:6379/1"),
        ({"ssl": True}, "rediss://h:6379/1"),
        ({"unix_socket_path": "/run/s"}, "unix:///run/s?db=1"),
        ({"sentinel": True, "host": [("a", 1), ("b", 2)]}, "redis+sentinel://a:1,b:2/mymaster/1"),
    ],
)
def test_arqs_settings(given: dict[str, Any], shown: str) -> None:
    provider = AsyncRedisStatsProvider.from_arq(ArqSettings(**given))
    assert repr(provider) == f"AsyncRedisStatsProvider({shown!r}, 1 queues)"
    assert provider._names() == ["arq:queue"]
    assert settings(provider)["password"] == SECRET


def test_arqs_pool(redis_client: redis.Redis, redis_url: str) -> None:
    pool: Any = redis.asyncio.Redis.from_url(redis_url)
    pool.default_queue_name = "shop:queue"
    redis_client.zadd("shop:queue", {"job": 1})
    assert read(AsyncRedisStatsProvider.from_arq(pool), "shop:queue") == {"shop:queue": 1}


def test_a_clusters_nodes_are_taken(redis_cluster: Any) -> None:
    client = redis.RedisCluster.from_url(redis_cluster.url.replace("redis+cluster://", "redis://").split(",")[0])
    client.rpush("rq:queue:mail", "1")
    for kind in KINDS:
        provider = kind.from_rq(client, ["mail"])
        assert "redis+cluster://" in repr(provider)
        assert read(provider, "mail") == {"mail": 1}
    client.close()
