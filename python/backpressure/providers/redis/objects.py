"""Reads from a framework's object, or from a client, where its Redis is and how its queues are stored there.

Nothing here imports a framework, opens a connection or keeps the framework's own connections. Those have the timeouts
of workers, and a pool that is lent to a poller has one connection less for producers.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from backpressure._model.arguments import validate_queue_name
from backpressure._model.errors import ConfigurationError, InvalidQueueError
from backpressure.providers.layouts import (
    ArqLayout,
    CeleryLayout,
    DramatiqLayout,
    HueyLayout,
    RQLayout,
    SAQLayout,
    TaskiqLayout,
)
from backpressure.providers.redis.client import RedisTarget, harden, parse_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure.providers.layouts import Layout

__all__ = [
    "Source",
    "arq_source",
    "celery_source",
    "dramatiq_source",
    "huey_source",
    "rq_source",
    "saq_source",
    "taskiq_source",
]

# Settings of a client that say where the server is and how to log in. Timeouts, retries and all others suit the
# framework's own reads and writes, so they are left out.
_KEPT = frozenset(
    {
        "client_name",
        "credential_provider",
        "db",
        "host",
        "password",
        "path",
        "port",
        "socket_keepalive",
        "socket_keepalive_options",
        "username",
    }
)
_CERT_REQS = {ssl.CERT_NONE: "none", ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "required"}
# Transports of Celery -> what reads their queues.
_INSTEAD = {"amqp": "RabbitMQStatsProvider", "py-amqp": "RabbitMQStatsProvider", "sqs": "SQSStatsProvider"}


@attrs.frozen(eq=False)
class Source:
    """Where a provider is to read: a target of its own, or a client that cannot be copied."""

    target: Any
    queues: Sequence[str] | None
    layout: Layout


def rq_source(connection: Any, timeout: float) -> Source:
    """Read what an RQ connection says. The queues are those that RQ keeps a list of."""
    return Source(_target(connection, "connection", timeout), None, RQLayout())


def dramatiq_source(broker: Any, timeout: float) -> Source:
    """Read what a ``RedisBroker`` says. The queues are those declared so far."""
    layout = DramatiqLayout.from_broker(broker)
    return Source(_target(broker.client, "broker", timeout), _names(broker.get_declared_queues()), layout)


def huey_source(huey: Any, timeout: float) -> Source:
    """Read what a ``RedisHuey`` says."""
    if not hasattr(huey, "storage"):
        raise ConfigurationError(f"huey is a {type(huey).__name__}: give a RedisHuey", field="huey")
    layout = HueyLayout.from_huey(huey)
    return Source(_target(huey.storage.conn, "huey", timeout), _names([huey.name]), layout)


def saq_source(queue: Any, timeout: float) -> Source:
    """Read what a ``saq.Queue`` says."""
    client = getattr(queue, "redis", None)
    if client is None:
        raise ConfigurationError(f"queue is a {type(queue).__name__}: give a saq.Queue in Redis", field="queue")
    return Source(_target(client, "queue", timeout), _names([queue.name]), SAQLayout())


def taskiq_source(broker: Any, timeout: float) -> Source:
    """Read what a broker of taskiq-redis says."""
    layout = TaskiqLayout.from_broker(broker)
    client = getattr(broker, "connection_pool", None) or getattr(broker, "redis", None)
    if client is None:
        client = broker.sentinel.master_for(broker.master_name)
    return Source(_target(client, "broker", timeout), _names([broker.queue_name]), layout)


def arq_source(pool_or_settings: Any, timeout: float) -> Source:
    """Read what an ``ArqRedis``, or arq's ``RedisSettings``, says."""
    if hasattr(pool_or_settings, "unix_socket_path"):
        return Source(_arq_target(pool_or_settings, timeout), ["arq:queue"], ArqLayout())
    name = getattr(pool_or_settings, "default_queue_name", "arq:queue")
    return Source(_target(pool_or_settings, "pool", timeout), _names([name]), ArqLayout())


def celery_source(app: Any, timeout: float) -> Source:
    """Read what a ``celery.Celery`` says. The queues are those that its configuration names."""
    app = _configured(app)
    with app.connection_for_write() as link:  # opens nothing until it is used
        transport = link.get_transport_cls()
        if transport.driver_type != "redis":
            instead = _INSTEAD.get(transport.driver_type) or _INSTEAD.get(transport.driver_name, "")
            raise ConfigurationError(
                f"app has a broker of type {transport.driver_type}, not Redis: "
                + (f"give a {instead}" if instead else "give a provider of what it is")
                + ", or set broker_url before this is called",
                field="app",
            )
        target = _celery_target(link, "master_name" in transport.Channel.from_transport_options, timeout)
    return Source(target, _names(_celery_queues(app.conf)), CeleryLayout.from_app(app))


def _configured(app: Any) -> Any:
    """Return the app if it is configured, else one like it.

    To load its configuration here would be too early for handlers that connect to ``app.on_after_configure`` later.
    """
    app = app._get_current_object() if hasattr(app, "_get_current_object") else app  # noqa: SLF001 - of a proxy
    if not hasattr(app, "connection_for_write"):
        raise ConfigurationError(f"app is a {type(app).__name__}: give a celery.Celery", field="app")
    if app.configured:
        return app
    given: dict[str, Any] = {**app.__reduce_keys__(), "fixups": [], "set_as_current": False}
    given["changes"] = dict(given["changes"])
    try:
        like = type(app)(**given)
    except TypeError:  # a subclass with arguments of its own
        like = next(kind for kind in type(app).__mro__ if kind.__module__.startswith("celery."))(**given)
    like._preconf_set_by_auto.update(app._preconf_set_by_auto)  # noqa: SLF001 - as Celery would do if it copied them
    return like


def _celery_target(link: Any, by_sentinels: bool, timeout: float) -> RedisTarget:
    settings = link.transport_options
    options: dict[str, Any] = {
        "host": link.hostname or "127.0.0.1",
        "port": link.port or 6379,
        "db": link.virtual_host,
        "username": link.userid,
        "password": link.password,
        **{name: settings[name] for name in ("socket_keepalive", "socket_keepalive_options") if name in settings},
    }
    provider = getattr(link, "credential_provider", None)
    if provider is not None and not isinstance(provider, str):
        options["credential_provider"] = provider
    tls = isinstance(link.ssl, Mapping)  # anything else has no effect on a Redis broker
    if tls:
        options.update(link.ssl)
    if "://" in options["host"]:
        return parse_target(f"redis+{options['host']}", timeout)
    database = str(options["db"] or 0).strip("/") or "0"
    if not database.isdecimal():
        raise ConfigurationError("app has a broker_url that ends in no database number", field="app")
    options["db"] = int(database)
    if not by_sentinels:
        return _single(options, tls, timeout)
    if not settings.get("master_name"):
        raise ConfigurationError(
            "app has sentinels for a broker and no master_name: give it in broker_transport_options", field="app"
        )
    hosts = [_host_of(url) for url in link.alt if str(url).startswith("sentinel://")]
    hosts = hosts or [(options["host"], int(link.port or 26379))]
    sentinels = dict(settings.get("sentinel_kwargs") or {})
    return _sentinel(hosts, settings["master_name"], options, sentinels, tls, timeout)


def _host_of(url: str) -> tuple[str, int]:
    target = parse_target("redis" + url.removeprefix("sentinel"), 1.0)
    host, port = target.hosts[0]
    return host, 26379 if port == 6379 and ":6379" not in url else port


def _celery_queues(conf: Any) -> Iterator[Any]:
    yield conf.task_default_queue
    for queue in conf.task_queues or ():
        yield getattr(queue, "name", queue)
    routes = conf.task_routes or ()
    for table in (routes,) if isinstance(routes, Mapping) else routes:
        for route in table.values() if isinstance(table, Mapping) else ():
            queue = route.get("queue") if isinstance(route, Mapping) else route
            yield getattr(queue, "name", queue)


def _arq_target(settings: Any, timeout: float) -> RedisTarget:
    options = {"db": settings.database, "username": settings.username, "password": settings.password}
    options |= {name: value for name, value in vars(settings).items() if name.startswith("ssl_") and value is not None}
    if settings.sentinel:
        return _sentinel(settings.host, settings.sentinel_master, options, {}, settings.ssl, timeout)
    if settings.unix_socket_path:
        return _single({**options, "path": settings.unix_socket_path}, False, timeout)
    return _single({**options, "host": settings.host, "port": settings.port}, settings.ssl, timeout)


def _target(given: Any, field: str, timeout: float) -> Any:
    """Return where a client or a pool of redis-py, of either kind, points; the client itself if only it knows."""
    nodes = getattr(given, "nodes_manager", None)
    if nodes is not None:
        options = getattr(nodes, "connection_kwargs", {})
        tls = bool(options.get("ssl")) or "SSL" in getattr(options.get("connection_class"), "__name__", "")
        hosts = [(node.host, int(node.port)) for node in nodes.startup_nodes.values()]
        return _cluster(hosts, _kept(options, without={"host", "port", "db", "path"}), tls, timeout)
    pool = getattr(given, "connection_pool", given)
    kind = getattr(pool, "connection_class", None)
    if kind is None or not hasattr(pool, "connection_kwargs"):
        raise ConfigurationError(
            f"{field} leads to no client of redis-py, but to a {type(given).__module__}.{type(given).__name__}",
            field=field,
        )
    tls = "SSL" in kind.__name__
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        pools = [sentinel.connection_pool for sentinel in manager.sentinels]
        hosts = [(each.connection_kwargs["host"], int(each.connection_kwargs["port"])) for each in pools]
        sentinels = _kept(pools[0].connection_kwargs, without={"host", "port", "db"})
        sentinels["ssl"] = "SSL" in pools[0].connection_class.__name__
        return _sentinel(hosts, pool.service_name, _kept(pool.connection_kwargs), sentinels, tls, timeout)
    if kind.__module__.partition(".")[0] not in {"redis", "valkey"}:
        return given  # only its own connections know where they lead, as those of fakeredis do
    return _single(_kept(pool.connection_kwargs), tls, timeout)


def _kept(options: Mapping[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if (name in _KEPT or name.startswith("ssl_")) and name not in without
    }


def _checked(options: dict[str, Any], tls: bool, timeout: float) -> dict[str, Any]:
    options = {name: value for name, value in options.items() if _is_given(name, value, tls)}
    if "credential_provider" in options:
        options.pop("username", None)
        options.pop("password", None)
    requirement = options.get("ssl_cert_reqs")
    if requirement is not None:
        options["ssl_cert_reqs"] = _CERT_REQS.get(requirement, requirement)
        if options["ssl_cert_reqs"] == "none":
            options["ssl_check_hostname"] = False
    return harden(options, timeout)


def _is_given(name: str, value: Any, tls: bool) -> bool:
    """Tell whether a setting is one of the user's, and not a default that only one kind of client knows."""
    if name == "socket_keepalive_options":
        return isinstance(value, Mapping)
    if name.startswith("ssl_"):
        return tls and value is not None and (value is not False or name == "ssl_check_hostname")
    return value is not None


def _single(options: dict[str, Any], tls: bool, timeout: float) -> RedisTarget:
    options = _checked({"db": 0, **options}, tls, timeout)
    if "path" in options:
        for name in ("host", "port", "socket_keepalive", "socket_keepalive_options"):
            options.pop(name, None)
        options["connection_class"] = UnixDomainSocketConnection
        return RedisTarget("single", f"unix://{options['path']}?db={options['db']}", (), options=options)
    options = {"host": "localhost", "port": 6379, **options}
    options["port"] = int(options["port"])
    options["connection_class"] = SSLConnection if tls else Connection
    hosts = ((options["host"], options["port"]),)
    return RedisTarget("single", _shown("", hosts, tls, str(options["db"])), hosts, tls=tls, options=options)


def _sentinel(
    hosts: Iterable[tuple[str, int]],
    service: str,
    options: dict[str, Any],
    sentinels: dict[str, Any],
    tls: bool,
    timeout: float,
) -> RedisTarget:
    hosts = tuple(hosts)
    options = _checked({"db": 0, **options}, tls, timeout)
    options = {name: value for name, value in options.items() if name not in {"host", "port", "path"}}
    by_tls = bool(sentinels.pop("ssl", False))
    sentinels = {**_checked(sentinels, by_tls, timeout), "ssl": by_tls}
    shown = _shown("+sentinel", hosts, tls, f"{service}/{options['db']}")
    return RedisTarget("sentinel", shown, hosts, service, tls, options, sentinels)


def _cluster(hosts: Iterable[tuple[str, int]], options: dict[str, Any], tls: bool, timeout: float) -> RedisTarget:
    hosts = tuple(hosts)
    return RedisTarget(
        "cluster", _shown("+cluster", hosts, tls), hosts, tls=tls, options=_checked(options, tls, timeout)
    )


def _shown(kind: str, hosts: Iterable[tuple[str, int]], tls: bool, path: str = "") -> str:
    names = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
    return f"redis{'s' if tls else ''}{kind}://{names}" + (f"/{path}" if path else "")


def _names(given: Iterable[Any]) -> list[str]:
    """Return the names that can name a queue, each once; a framework may allow others."""
    names: dict[str, None] = {}
    for name in given:
        with contextlib.suppress(InvalidQueueError):
            names[validate_queue_name(name)] = None
    return list(names)
