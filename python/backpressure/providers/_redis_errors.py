"""What went wrong with a Redis read: exception -> `error_type` label, and a message that holds no secret."""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

from redis import exceptions as redis

from backpressure.errors import StatsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["NOTHING_SECRET", "Redactor", "error_type", "unavailable"]

_MAX_TEXT = 200
_SHORT_SECRET = 4

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

_ADVICE = {
    "acl": "grant the user the command on this key",
    "auth": "check the user name and password",
    "cluster": "for a cluster give a redis+cluster:// URL or a RedisCluster, for a single server neither",
    "deadline": "the read was ended because it took too long: check the server and the network",
    "connect": "check that the server runs and that host and port are right",
    "dns": "check the host name",
    "maxclients": "raise the server's maxclients or close idle clients",
    "protocol": "check that this is a Redis port, and TLS (rediss://) on both sides or on neither",
}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _by_class(error: BaseException) -> str | None:
    return next((label for kind, label in _CLASSES if isinstance(error, kind)), None)


def error_type(error: BaseException) -> str:
    """Return the label under which a failed read is counted; ``"provider"`` where nothing better is known."""
    if isinstance(error, StatsUnavailableError):
        return error.error_type
    text = str(error)
    if "HELLO must be called" in text:  # how RESP3 handshakes report NOAUTH
        return "auth"
    if "max number of clients" in text or type(error).__name__ == "MaxConnectionsError":
        return "maxclients"
    if type(error).__name__ == "MasterNotFoundError" and " : " not in text:
        return "failover"  # the sentinels answered, but know of no usable master
    label = _by_class(error) or _PREFIXES.get(text.partition(" ")[0])
    if label is not None:
        return label
    cluster = isinstance(error, redis.RedisClusterException)
    if cluster or isinstance(error, (redis.ConnectionError, OSError)):
        links = list(_causes(error))
        for link in links:
            if (label := _by_class(link)) is not None:
                return label
        if any(isinstance(link, (redis.ConnectionError, OSError)) for link in links):
            return "connect"
        return "cluster"
    return "provider"


class Redactor:
    """Takes credentials out of texts; shows none itself."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in (secret, repr(secret)[1:-1]) if form}
        # Longest first, so that one that contains another goes as a whole. A short one only where it stands alone:
        # a user called "u" must not garble every word with a u in it.
        patterns = [
            re.escape(form) if len(form) >= _SHORT_SECRET else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in sorted(forms, key=len, reverse=True)
        ]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __call__(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub("***", text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


NOTHING_SECRET = Redactor()


def _safe_text(error: BaseException, redact: Redactor) -> str:
    # Servers without HELLO or AUTH answer by quoting the command's arguments, the password among them.
    text = re.sub(r",? with args beginning with.*", "", str(error), flags=re.DOTALL)
    # What redis-py says of sentinels holds the long repr of each client.
    text = re.sub(r"(<redis\.|Redis<).*? - ", "", text)
    # Control characters in a log would be orders to the terminal that shows it.
    text = "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(redact(text).split())
    )
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def unavailable(
    error: BaseException,
    *,
    what: str,
    redact: Redactor,
    queue_name: str | None = None,
    label: str | None = None,
) -> StatsUnavailableError:
    """Return the error to raise for a failed read of `what`.

    It carries neither cause nor context: redis-py's exceptions quote servers, and those may quote credentials.
    """
    if isinstance(error, StatsUnavailableError):  # one failure of a connection is that of every queue read by it
        return StatsUnavailableError(str(error), error_type=error.error_type, queue_name=queue_name)
    label = label or error_type(error)
    message = f"cannot read {what}: {type(error).__name__}"
    if text := _safe_text(error, redact):
        message += f": {text}"
    if advice := _ADVICE.get(label):
        message += f"; {advice}"
    return StatsUnavailableError(message, error_type=label, queue_name=queue_name)
