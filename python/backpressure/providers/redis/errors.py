"""What went wrong with a Redis read: exception -> `error_type` label, and a message that holds no secret."""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

from redis import exceptions as redis

from backpressure._model.errors import StatsUnavailableError
from backpressure.providers import failures
from backpressure.providers.failures import ADVICE, causes

if TYPE_CHECKING:
    from backpressure.providers.failures import Redactor

__all__ = ["error_type", "unavailable"]

# Codes with which servers begin an error; redis-py strips those it has a class for.
_PREFIXES = {
    "BUSY": "busy",
    "WRONGTYPE": "wrongtype",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "acl",
    "LOADING": "loading",
    "MASTERDOWN": "masterdown",
    "CLUSTERDOWN": "cluster",
    "MOVED": "cluster",
    "ASK": "cluster",
    "TRYAGAIN": "cluster",
}

# Most specific first: redis-py's tree has e.g. AuthenticationError below ConnectionError.
_CLASSES: tuple[tuple[type[BaseException], str], ...] = (
    (redis.AuthenticationError, "auth"),
    (redis.AuthenticationWrongNumberOfArgsError, "auth"),
    (redis.AuthorizationError, "auth"),
    (redis.NoPermissionError, "acl"),
    (redis.BusyLoadingError, "loading"),
    (redis.MasterDownError, "masterdown"),
    (redis.ClusterError, "cluster"),
    (redis.AskError, "cluster"),
    (redis.TryAgainError, "cluster"),
    (redis.TimeoutError, "timeout"),
    (redis.InvalidResponse, "protocol"),
    (TimeoutError, "timeout"),
    (ssl.SSLError, "protocol"),
    (socket.gaierror, "dns"),
)

# What redis-py's messages hold of errors that its pools lose when they connect anew; resolvers' numbers are negative.
_QUOTED = ((re.compile(r"Error -\d+ connecting to"), "dns"), (re.compile(r"\[SSL\b"), "protocol"))

# Messages of redis-py's pools that have no free connection; the server was not asked.
_POOL_FULL = {"Too many connections", "No connection available."}

# What a command inside of a script is refused with, in the words of different releases.
_NO_PERMISSION_IN_SCRIPT = re.compile(r"ACL failure in script|The user executing the script can't ")

# Servers before 6.0 and proxies do not know this command, with which version 3 of the protocol begins.
_NO_HELLO = re.compile(r"\bhello\b", re.IGNORECASE)

_ADVICE = {
    **ADVICE,
    "acl": "grant the user the command on this key",
    "cluster": "for a cluster give a redis+cluster:// URL or a RedisCluster, for a single server neither",
    "maxclients": "raise the server's maxclients or close idle clients",
    "pool": "raise max_connections of the client that was given, or give a URL",
    "hello": "give a client with protocol=2, or a URL without protocol",
    "closed": f"{ADVICE['connect']}; a proxy also ends connections at commands that it does not know: give a URL "
    "without options and database, or a client with protocol=2 and driver_info=None",
    "protocol": "check that this is a Redis port, and TLS (rediss://) on both sides or on neither",
}


def _by_class(error: BaseException) -> str | None:
    return next((label for kind, label in _CLASSES if isinstance(error, kind)), None)


def error_type(error: BaseException) -> str:
    """Return the label under which a failed read is counted; ``"provider"`` where nothing better is known."""
    if isinstance(error, StatsUnavailableError):
        return error.error_type
    text = str(error)
    if "HELLO must be called" in text:  # how RESP3 handshakes report NOAUTH
        return "auth"
    if "max number of clients" in text:
        return "maxclients"
    if isinstance(error, redis.ConnectionError) and text in _POOL_FULL:
        return "pool"
    if type(error).__name__ == "MasterNotFoundError" and " : " not in text:
        return "failover"  # the sentinels answered, but know of no usable master
    label = _by_class(error) or _PREFIXES.get(text.partition(" ")[0])
    if label is not None:
        return label
    if isinstance(error, redis.ResponseError) and _NO_PERMISSION_IN_SCRIPT.search(text):
        return "acl"
    if isinstance(error, redis.ResponseError) and _NO_HELLO.search(text):
        return "protocol"
    cluster = isinstance(error, redis.RedisClusterException)
    if cluster or isinstance(error, (redis.ConnectionError, OSError)):
        links = list(causes(error))
        for link in links:
            if (label := _by_class(link)) is not None:
                return label
        for pattern, label in _QUOTED:
            if pattern.search(text):
                return label
        if any(isinstance(link, (redis.ConnectionError, OSError)) for link in links):
            return "connect"
        return "cluster"
    return "provider"


def unavailable(
    error: BaseException,
    *,
    what: str,
    redact: Redactor,
    queue_name: str | None = None,
    label: str | None = None,
) -> StatsUnavailableError:
    """Return the error to raise for a failed read of `what`."""
    # Servers without HELLO or AUTH answer by quoting the command's arguments, the password among them.
    text = re.sub(r",? with args beginning with.*", "", str(error), flags=re.DOTALL)
    # Messages of redis-py about sentinels hold the long repr of each client.
    text = re.sub(r"(<redis\.|Redis<).*? - ", "", text)
    label = label or error_type(error)
    advice = _ADVICE
    if label == "protocol" and _NO_HELLO.search(text):
        advice = {label: _ADVICE["hello"]}
    elif label == "connect" and "closed by server" in text:
        advice = {label: _ADVICE["closed"]}
    return failures.unavailable(
        error,
        what=what,
        label=label,
        redact=redact,
        advice=advice,
        text=text,
        queue_name=queue_name,
    )
