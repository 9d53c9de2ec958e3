"""How much of its memory each server uses: one INFO beside the queues, once a second at most.

What is no Redis, as a proxy, may close a connection on which it is asked for that. So a server is first asked by
itself, after the queues were read, and never again if it will not tell.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Literal

import attrs
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from backpressure.providers.layouts import Command

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ASK", "Memories"]

ASK = Command("info", "memory")
#: Seconds between two looks at one server.
_EVERY = 1.0
_MOST_HANG_UPS = 3


@attrs.define
class _Server:
    """What is known of one server.

    Attributes:
        tells: whether it answers; ``None`` before it was asked.
        asked_at: monotonic seconds.
        hung_up: how often the connection ended in the place of an answer.
        used: part of its limit that it uses; ``None`` where it has none, or does as Redis does that is a cache.
        caution: what its user should know of its limit; `level` of the log tells how much it matters.
    """

    tells: bool | None = None
    asked_at: float = -math.inf
    hung_up: int = 0
    used: float | None = None
    caution: str = ""
    level: int = logging.WARNING


class Memories:
    """The memory of each server that a provider reads, by the name of the node; ``""`` outside of clusters.

    Thread-safe: of threads that ask at once, each may ask a server once more.

    Args:
        where: names the server, or the cluster, without credentials.
        now: the clock, in monotonic seconds.
    """

    def __init__(self, where: str, now: Callable[[], float] = time.monotonic) -> None:
        self._where = where
        self._now = now
        self._servers: dict[str, _Server] = {}

    def due(self, name: str) -> Literal["", "alone", "beside"]:
        """Tell how a server is to be asked now: not at all, by itself, or beside what else it is asked."""
        server = self._servers.setdefault(name, _Server())
        now = self._now()
        if server.tells is False or now - server.asked_at < _EVERY:
            return ""
        server.asked_at = now
        return "alone" if server.tells is None else "beside"

    def take(self, name: str, reply: Any) -> None:
        """Take a server's reply, or the error that came in its place."""
        server = self._servers.setdefault(name, _Server())
        if isinstance(reply, dict) and "used_memory" in reply:
            server.tells = True
            server.used, server.level, server.caution = _judged(reply, self._where)
            return
        # A time-out says nothing of what the server can do, and one connection that ends not much.
        server.hung_up += isinstance(reply, RedisConnectionError)
        if server.hung_up >= _MOST_HANG_UPS or isinstance(reply, ResponseError) or not isinstance(reply, Exception):
            server.tells, server.used = False, None
            server.level = logging.INFO
            server.caution = (
                f"the memory of {self._where} is not known: it does not answer INFO memory, or its user may not ask "
                "(+info): producers go on where it runs out"
            )

    def used(self, name: str) -> float | None:
        """Return the part of its limit that a server used when it was last asked."""
        server = self._servers.get(name)
        return None if server is None else server.used

    @property
    def limited(self) -> bool:
        """Whether any server has a limit."""
        return any(server.used is not None for server in self._servers.copy().values())

    def cautions(self) -> list[tuple[int, str]]:
        """Return what users should know of the servers' limits: levels of the log, and sentences, each once."""
        told = ((server.level, server.caution) for server in self._servers.copy().values() if server.caution)
        return [*dict.fromkeys(told)]


def _judged(reply: dict[str, Any], where: str) -> tuple[float | None, int, str]:
    """Return the part of its limit that a server uses, and what is to be said of the limit, and how loud."""
    limit, policy = _number(reply.get("maxmemory")), str(reply.get("maxmemory_policy", "noeviction"))
    if not limit:
        sentence = (
            f"{where} has no maxmemory, so nothing is known of when its memory ends: set maxmemory, and "
            "maxmemory-policy noeviction, if jobs are to be refused before that"
        )
        return None, logging.INFO, sentence
    if policy != "noeviction":
        sentence = (
            f"{where} has the maxmemory-policy {policy}: when its memory is full it deletes keys, and waiting jobs may "
            "be among them, without a word: set it to noeviction, or keep the queues elsewhere"
        )
        return None, logging.WARNING, sentence
    # Buffers of replicas and of the log do not count against the limit.
    return max(0.0, (_number(reply["used_memory"]) - _number(reply.get("mem_not_counted_for_evict"))) / limit), 0, ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
