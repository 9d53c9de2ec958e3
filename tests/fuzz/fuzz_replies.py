"""Fuzz target: any bytes as the words of a Redis server, through redis-py and `RedisStatsProvider`.

The first byte holds the connection's options, one bit each: RESP3, credentials, decoded replies. ``~`` ends the reply
to one request. ``{password}`` stands for the client's own password, if it has one, because some servers quote it. Each
queue has a sample without fault, or an error that can be printed and holds no secret.
"""

from __future__ import annotations

import errno
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool
from redis.retry import Retry

from backpressure import QueueStats, RedisStatsProvider, StatsUnavailableError
from backpressure.providers import ListKey, StreamKey, ZSetKey

__all__ = ["WORDS", "check"]

#: Words for inputs.
WORDS = [
    *("name", "workers", "pending", "lag", "last-delivered-id", "entries-read", "1763958000000-0", "{password}"),
    *("-ERR ", "-WRONGTYPE ", "-NOPERM ", "-MOVED 1 h:1", "-ASK 1 h:1", "-NOAUTH ", "-LOADING ", "no such key"),
    *("*1\\x0d\\x0a", "$4\\x0d\\x0a", ":1\\x0d\\x0a", "%1\\x0d\\x0a", "_\\x0d\\x0a", "*-1\\x0d\\x0a", "\\x0d\\x0a"),
]

_PASSWORD = "canary-9f3b-word"
_MAX_TEXT = 600
_QUEUES = {
    "list": ListKey("a", processing_key="b"),
    "sorted": ZSetKey("c", due="milliseconds"),
    "stream": StreamKey("d", "workers", count_limit=2),
    "deleting": StreamKey("e", "workers", acked_entries_are_deleted=True),
}
_ERROR_TYPES = {
    *("acl", "auth", "busy", "cluster", "connect", "deadline", "dns", "failover", "loading", "masterdown"),
    *("maxclients", "protocol", "provider", "timeout", "wrongtype"),
}


class _Wire:
    """A socket whose other side has its answers ready."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self._asked = False
        self._timeout: float | None = None

    def sendall(self, _: object) -> None:
        self._asked = True

    def recv(self, _: int) -> bytes:
        if self._asked and self._answers:
            self._asked = False
            return self._answers.pop(0)
        if self._timeout == 0:
            raise BlockingIOError(errno.EWOULDBLOCK, "nothing to read")
        return b""

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def shutdown(self, _: int) -> None:
        pass

    def close(self) -> None:
        pass

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 6379


class _Canned(Connection):
    def __init__(self, *, answers: list[bytes], **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]  # redis-py
        self._answers = answers

    def _connect(self) -> Any:
        return _Wire(self._answers)


def _require_printable(error: StatsUnavailableError) -> None:
    text = str(error)
    assert text.isprintable(), repr(text)
    assert len(text) <= _MAX_TEXT, f"{len(text)} characters: {text[:200]}"
    assert _PASSWORD not in text + repr(vars(error)), text
    assert error.__cause__ is None
    assert error.__context__ is None
    assert error.error_type in _ERROR_TYPES


def check(data: bytes) -> None:
    """Fail if these bytes break the promise above."""
    if not data:
        return
    options: dict[str, Any] = {"protocol": 3 if data[0] & 1 else 2, "decode_responses": bool(data[0] & 4)}
    replies = data[1:]
    if data[0] & 2:
        options |= {"username": "producer", "password": _PASSWORD}
        replies = replies.replace(b"{password}", _PASSWORD.encode())
    answers = [answer for answer in replies.split(b"~") if answer]
    pool = ConnectionPool(
        connection_class=_Canned, answers=answers, retry=Retry(NoBackoff(), 0), socket_timeout=1.0, **options
    )
    try:
        outcomes = RedisStatsProvider(redis.Redis(connection_pool=pool), _QUEUES).get_all_queue_stats()
    except StatsUnavailableError as error:
        _require_printable(error)
        return
    finally:
        pool.disconnect()
    assert outcomes.keys() == _QUEUES.keys()
    for name, outcome in outcomes.items():
        if isinstance(outcome, StatsUnavailableError):
            _require_printable(outcome)
        else:
            assert isinstance(outcome, QueueStats)
            assert (outcome.queue_name, outcome.fault()) == (name, None)
