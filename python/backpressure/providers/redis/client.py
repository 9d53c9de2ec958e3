"""Turns a Redis URL into a redis-py client that fails fast, and never shows a credential."""

from __future__ import annotations

import contextlib
import inspect
import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias
from urllib.parse import unquote, urlsplit

import attrs
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from backpressure._model.errors import ConfigurationError
from backpressure.providers.failures import Redactor
from backpressure.providers.redis.words import in_our_words

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Client",
    "RedisTarget",
    "describe",
    "disconnect",
    "harden",
    "is_sentinel_master",
    "parse_target",
    "redactor_for",
]

Client: TypeAlias = Redis | RedisCluster

# Partly untyped in redis-py, and differently in each release.
_new_cluster: Any = RedisCluster
_new_node: Any = ClusterNode
_new_sentinel: Any = Sentinel
_parse_url: Any = parse_url

# How a connection introduces its library to the server. Later releases of redis-py have one word for both.
_KNOWN = inspect.signature(AbstractConnection).parameters
_INTRODUCTION = ("driver_info",) if "driver_info" in _KNOWN else ("lib_name", "lib_version")

_SCHEME = re.compile(
    r"(?:(?:redis|valkey)(?P<tls>s)?(?:\+(?P<kind>unix|sentinel|cluster))?|(?P<unix>unix))://", re.IGNORECASE
)
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_FORMS = (
    "redis://[user:password@]host:port/db, rediss:// (TLS), unix:///path/to/socket, "
    "redis+sentinel://host:port,host:port/service/db or redis+cluster://host:port,host:port"
)


def _refuse(reason: str) -> NoReturn:
    # The value may hold a password, so it is in no message.
    raise ConfigurationError(f"redis_url {reason} (value withheld)", field="redis_url")


@attrs.frozen(eq=False)
class RedisTarget:
    """Where a URL points. It can be printed: the options, which hold the credentials, are not shown."""

    kind: str
    shown: str
    hosts: tuple[tuple[str, int], ...]
    service: str = ""
    tls: bool = False
    options: dict[str, Any] = attrs.field(factory=dict, repr=False)
    sentinel_options: dict[str, Any] = attrs.field(factory=dict, repr=False)

    def __str__(self) -> str:
        return self.shown

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Redis target holds credentials and does not pickle: give the URL to each process")

    def is_same(self, other: RedisTarget) -> bool:
        """Tell whether `other` is the same server, seen as the same user."""
        mine, others = (
            (target.shown, target.options.get("username"), target.options.get("password")) for target in (self, other)
        )
        return mine == others

    def redactor(self) -> Redactor:
        """Return a redactor that takes this target's credentials out of messages."""
        return _redactor(self.options, self.sentinel_options)

    def connect(self) -> Client:
        """Return a new client. For a cluster this already talks to its nodes, so it raises what redis-py raises."""
        ssl = {"ssl": True} if self.tls else {}
        if self.kind == "cluster":
            nodes = [_new_node(host, port) for host, port in self.hosts]
            cluster: RedisCluster = _new_cluster(
                startup_nodes=nodes, require_full_coverage=False, **ssl, **self.options
            )
            return cluster
        if self.kind == "sentinel":
            sentinel = _new_sentinel(self.hosts, sentinel_kwargs={**ssl, **self.sentinel_options})
            master: Redis = sentinel.master_for(self.service, **ssl, **self.options)
            return master
        return Redis(connection_pool=ConnectionPool(**self.options))


def parse_target(url: str, timeout: float) -> RedisTarget:
    """Read a URL; `timeout` (seconds) bounds each connect and each reply, unless the URL says otherwise.

    Raises:
        ConfigurationError: the URL or one of its options is wrong; the message withholds it, and there is no cause.
    """
    try:
        return _parse(url, timeout)
    except ConfigurationError as error:
        refusal = error
    except Exception:  # noqa: BLE001 - any parser's error may quote the URL
        refusal = ConfigurationError(
            "redis_url cannot be read (value withheld): percent-encode user name and password, and check the port "
            "and the options after '?'",
            field="redis_url",
        )
    # Outside of the handler, so that the parser's error is not its context.
    raise refusal.with_traceback(None)


def _parse(url: str, timeout: float) -> RedisTarget:
    url = in_our_words(url, _refuse)
    scheme = _SCHEME.match(url)
    if scheme is None:
        _refuse(f"has no known scheme: give {_FORMS}")
    parts = urlsplit("redis://" + url[scheme.end() :])
    if parts.fragment or "#" in url or "@" in parts.path or "@" in parts.query:
        _refuse("has one of '#', '/', '?', '@' in its user name or password: percent-encode them")
    credentials, at, authority = parts.netloc.rpartition("@")
    kind = "unix" if scheme["unix"] else (scheme["kind"] or "single").lower()
    tls = scheme["tls"] is not None
    if kind == "unix":
        return _parse_unix(credentials + at, authority, parts.path, parts.query, timeout)

    hosts = tuple(_host(host, _PORTS[kind]) for host in authority.split(","))
    options = _parse_url(f"redis://{credentials}{at}localhost?{parts.query}")
    del options["host"]
    harden(options, timeout)
    if tls:
        options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs") != "none")
    names = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
    prefix = "rediss" if tls else "redis"
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]

    if kind == "sentinel":
        if not 1 <= len(segments) <= 2:
            _refuse("names no service: give redis+sentinel://host:port,host:port/service/db")
        options["db"] = _database(segments[1:], options)
        sentinel_options = _sentinel_options(options)
        _probe(options, tls=tls)
        return RedisTarget(
            kind=kind,
            shown=f"{prefix}+sentinel://{names}/{segments[0]}/{options['db']}",
            hosts=hosts,
            service=segments[0],
            tls=tls,
            options=options,
            sentinel_options=sentinel_options,
        )
    database = _database(segments, options)
    if kind == "cluster":
        if database:
            _refuse("gives a database: a cluster has only database 0")
        options.pop("db", None)
        _probe(options, tls=tls)
        return RedisTarget(kind=kind, shown=f"{prefix}+cluster://{names}", hosts=hosts, tls=tls, options=options)
    if len(hosts) > 1:
        _refuse("names several hosts: give redis+sentinel:// or redis+cluster:// for these")
    options.update(
        host=hosts[0][0], port=hosts[0][1], db=database, connection_class=SSLConnection if tls else Connection
    )
    _probe(options, tls=tls)
    return RedisTarget(kind=kind, shown=f"{prefix}://{names}/{database}", hosts=hosts, tls=tls, options=options)


def _parse_unix(credentials: str, authority: str, path: str, query: str, timeout: float) -> RedisTarget:
    if authority or not path.strip("/"):
        _refuse("names no socket: give unix:///path/to/socket?db=0")
    options = _parse_url(f"unix://{credentials}{path}?{query}")
    options["db"] = _database([], options)
    harden(options, timeout)
    _probe(options, tls=False)
    return RedisTarget(kind="single", shown=f"unix://{options['path']}?db={options['db']}", hosts=(), options=options)


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return unquote(parts.hostname or "localhost"), parts.port or default_port


def _database(segments: list[str], options: dict[str, Any]) -> int:
    if "db" in options:
        segments = [str(options["db"])]
    if not segments:
        return 0
    if len(segments) > 1 or not (segments[0].isascii() and segments[0].isdigit()):
        _refuse("ends in no database number: give e.g. /0")
    return int(segments[0])


def harden(options: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Have a client of these options fail fast; return them."""
    options.setdefault("socket_timeout", timeout)
    options.setdefault("socket_connect_timeout", timeout)
    # redis-py's own default tries ten times, for seconds; the poller has its own back-off.
    options["retry"] = Retry(NoBackoff(), 0)
    # What is read is the same in both protocols. Version 3 begins with HELLO, and an introduction is a CLIENT: servers
    # before 6.0 do not know the former, and proxies such as twemproxy end the connection at either.
    options.setdefault("protocol", 2)
    if not options.keys() & {"driver_info", "lib_name", "lib_version"}:
        options.update(dict.fromkeys(_INTRODUCTION))
    return options


def _sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the sentinels' own options out of the servers'; return them with the options that both share."""
    both = ("socket_", "ssl_", "retry", "protocol", "driver_info", "lib_")
    shared = {name: value for name, value in options.items() if name.startswith(both)}
    for name in ("username", "password"):
        if (value := options.pop(f"sentinel_{name}", None)) is not None:
            shared[name] = value
    return shared


def _probe(options: dict[str, Any], *, tls: bool) -> None:
    """Build a connection and never open it: so an option that redis-py doesn't know fails now, not at each poll."""
    ConnectionPool(**{"connection_class": SSLConnection if tls else Connection, **options}).make_connection()


def _redactor(*options: dict[str, Any]) -> Redactor:
    found = {option[name] for option in options for name in ("username", "password") if option.get(name)}
    texts = {value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in found}
    return Redactor(texts - {"default"})


# The next four look at a client's attributes, not its class, so they work for clients of redis.asyncio too.


def _connection_options(client: Any) -> dict[str, Any]:
    source: Any = getattr(client, "nodes_manager", None) or client.connection_pool
    options: dict[str, Any] = getattr(source, "connection_kwargs", {})
    return options


def redactor_for(client: Any) -> Redactor:
    """Return a redactor for the credentials that a given client was made with."""
    return _redactor(_connection_options(client))


def describe(client: Any) -> str:
    """Say where a given client points."""
    if hasattr(client, "nodes_manager"):
        return "redis cluster"
    options = _connection_options(client)
    if hasattr(client.connection_pool, "sentinel_manager"):
        return f"redis service {client.connection_pool.service_name}"
    if "path" in options:
        return f"redis at {options['path']}"
    return f"redis at {options.get('host', 'localhost')}:{options.get('port', 6379)}"


def is_sentinel_master(client: Any) -> bool:
    """Tell whether sentinels choose the server, and choose the master."""
    pool: Any = getattr(client, "connection_pool", None)
    return hasattr(pool, "sentinel_manager") and bool(pool.is_master)


def _pools(client: Client) -> Iterable[ConnectionPool]:
    if isinstance(client, RedisCluster):
        cluster: Any = client
        nodes = [node.redis_connection for node in cluster.get_nodes()]
    else:
        nodes = [client]
        if isinstance(client.connection_pool, SentinelConnectionPool):
            nodes += client.connection_pool.sentinel_manager.sentinels
    return [node.connection_pool for node in nodes if node is not None]


def disconnect(client: Client) -> None:
    """Close all of a client's connections, also those in use by other threads. Raises nothing."""
    for pool in _pools(client):
        with contextlib.suppress(Exception):
            pool.disconnect()
