"""A client of SQS that a provider makes for itself, and a way to its connections."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

__all__ = ["cut", "make_client"]


def make_client(
    *, timeout: float, region_name: str | None, endpoint_url: str | None, connections: int
) -> tuple[Any, set[Any]]:
    """Return a client that tries once, keeps that many connections, and gives up after `timeout` seconds.

    Return also the set of its open connections, for `cut`.
    """
    import boto3.session  # type: ignore[import-untyped] # noqa: PLC0415 - slow, and not everyone needs it
    import botocore.config  # type: ignore[import-untyped] # noqa: PLC0415

    from backpressure._runtime.version import version  # noqa: PLC0415 - slow, and needed here only

    config = botocore.config.Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        # The mode too, because AWS_RETRY_MODE may say "adaptive", which sleeps.
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=connections,
        user_agent_extra=f"producer-backpressure/{version()}",
    )
    # Threads may share clients but not sessions, so boto3's default session is not used.
    session = boto3.session.Session()
    client = session.client("sqs", region_name=region_name, endpoint_url=endpoint_url, config=config)
    return client, _noted_connections(client)


def cut(connections: set[Any]) -> None:
    """End what these connections are doing, from another thread; they are closed by the threads that use them."""
    for connection in connections.copy():
        connections.discard(connection)
        with contextlib.suppress(Exception):  # it may have no socket yet, or no longer
            # Below TLS, whose own shutdown would wait for an answer.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


def _noted_connections(client: Any) -> set[Any]:
    """Return a set of the connections of `client` that are open; one that is taken out of it does not open.

    botocore has no public way to them. If its inside changes, reads end between requests and by their timeouts.
    """
    connections: set[Any] = set()

    def noting(kind: Any) -> Any:
        class Noted(kind):  # type: ignore[misc]
            def connect(self) -> None:
                connections.add(self)
                super().connect()
                if self not in connections:
                    self.close()
                    raise ConnectionAbortedError("interrupted")

            def close(self) -> None:
                connections.discard(self)
                super().close()

        return Noted

    with contextlib.suppress(AttributeError):
        pools = client._endpoint.http_session._pool_classes_by_scheme  # noqa: SLF001
        for scheme, pool in pools.items():
            pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": noting(pool.ConnectionCls)})
    return connections
