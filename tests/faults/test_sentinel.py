"""Three sentinels make a replica the master: producers follow by themselves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import redis

from backpressure import Reason
from faults.catalogue import PASSWORD, USER
from faults.producers import BACKLOG, QUEUES
from support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.conftest import Hire

RIGHTS = f"{USER} on >{PASSWORD} ~jobs ~others +llen +role"


class Watched:
    """A master, its replica, and the sentinels that watch them."""

    def __init__(self, binary: str, stack: contextlib.ExitStack) -> None:
        def start(port: int | None = None, *, sentinel: str = "", **options: str) -> servers.Server:
            return stack.enter_context(servers.Server(binary=binary, port=port, sentinel=sentinel, **options))

        self.master = start(user=RIGHTS, repl_diskless_sync_delay="0")
        self.replica = start(user=RIGHTS, replicaof=f"{servers.HOST} {self.master.port}")
        ports = [servers.free_port() for _ in range(3)]
        self.sentinels = [start(port, sentinel=self._rules(port, ports)) for port in ports]

    def _rules(self, own_port: int, ports: list[int]) -> str:
        others = [port for port in ports if port != own_port]
        # They are told about each other and the replica, because finding out would take seconds.
        return "\n".join(
            [
                f"sentinel myid {own_port:040}",
                f"sentinel monitor main {servers.HOST} {self.master.port} 2",
                "sentinel down-after-milliseconds main 1500",
                "sentinel failover-timeout main 3000",
                f"sentinel known-replica main {servers.HOST} {self.replica.port}",
                *(f"sentinel known-sentinel main {servers.HOST} {port} {port:040}" for port in others),
            ]
        )

    @property
    def url(self) -> str:
        hosts = ",".join(f"{servers.HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{USER}:{PASSWORD}@{hosts}/main/0"

    def is_complete(self) -> bool:
        """Tell whether the replica has the data, and a sentinel trusts it."""
        with self.replica.client() as client, self.sentinels[0].client(decode_responses=True) as sentinel:
            (state,) = sentinel.sentinel_slaves("main")
            return bool(client.llen(QUEUES[-1]) == BACKLOG and state["master-link-status"] == "ok")

    def follows(self) -> bool:
        """Tell whether the replica is the master."""
        # Sentinels close every connection of a server that they promote, more than once.
        with contextlib.suppress(redis.ConnectionError), self.replica.client() as client:
            return str(client.info("replication")["role"]) == "master"
        return False

    def empties(self) -> bool:
        """Let the replica forget all jobs; tell whether it does."""
        with contextlib.suppress(redis.ConnectionError), self.replica.client() as client:
            client.delete(*QUEUES)
            return True
        return False


@pytest.fixture
def watched(binary: str) -> Iterator[Watched]:
    with contextlib.ExitStack() as stack:
        watched = Watched(binary, stack)
        with watched.master.client() as client:
            for queue in QUEUES:
                client.rpush(queue, *range(BACKLOG))
        servers.wait_until(watched.is_complete, what="the sentinels to know each other")
        yield watched


def test_the_master_dies(watched: Watched, hire: Hire) -> None:
    crew = hire(watched.url)
    crew.until_told(Reason.BACKLOG_RED)
    watched.master.kill()
    crew.until_told(Reason.FALLBACK_CONSERVATIVE)
    for producer in crew.producers:
        assert {"connect", "failover"} & producer.errors().keys()
    crew.until_told(Reason.BACKLOG_RED)
    assert watched.follows()


def test_the_master_is_demoted(watched: Watched, hire: Hire) -> None:
    """It still answers, as a replica: nobody may believe it any more."""
    crew = hire(watched.url)
    crew.until_told(Reason.BACKLOG_RED)
    with watched.sentinels[0].client() as client:
        client.execute_command("SENTINEL", "FAILOVER", "main")
    servers.wait_until(watched.follows, what="the fail-over")
    servers.wait_until(watched.empties, what="the new master to answer")
    watched.master.freeze()
    crew.until_told(Reason.BACKLOG_GREEN)
