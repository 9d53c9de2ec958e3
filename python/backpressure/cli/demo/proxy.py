"""Another person's server with a TCP proxy before it, so that it can be "taken away" and is not touched."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import redis

from backpressure._model.errors import ConfigurationError
from backpressure.cli.demo.server import DemoError, new_client
from backpressure.providers.redis.client import parse_target

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["OwnServer", "Proxy"]

HOST = "127.0.0.1"
_CHUNK = 65_536
_TIMEOUT = 1.0


class Proxy:
    """Passes bytes between a loopback port and an address; `cut` and `restore` may be called from any thread."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._pipes: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0  # chosen by the system, and kept when it is cut
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo-proxy", daemon=True)
        self._thread.start()
        self.restore()

    def cut(self) -> None:
        """Drop all connections and refuse new ones."""
        self._do(self._cut())

    def restore(self) -> None:
        """Accept connections (again)."""
        self._do(self._restore())

    def close(self) -> None:
        """Cut for good."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, action: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result()

    async def _restore(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for pipe in self._pipes:
            pipe.transport.abort()
        await asyncio.sleep(0)  # lets the copying tasks notice it

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                await self._pass_on(reader, writer)
        finally:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await asyncio.open_connection(*self._address)
        self._pipes |= {writer, their_writer}
        try:
            if self._server is not None:  # else it was cut while this was being connected
                await asyncio.gather(self._copy(reader, their_writer), self._copy(their_reader, writer))
        finally:
            self._pipes -= {writer, their_writer}
            their_writer.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()


class OwnServer:
    """The server that ``--redis-url`` names. Only the run that takes it away goes through the proxy.

    Raises:
        ConfigurationError: the URL is wrong, or is none that a proxy of bytes can stand before.
    """

    def __init__(self, url: str) -> None:
        target = parse_target(url, _TIMEOUT)
        if target.kind != "single" or target.tls or not target.hosts:
            raise ConfigurationError(
                f"the demo acts out an outage with a proxy, which {target} does not allow: "
                "give redis://[user:password@]host[:port][/db]",
                field="redis_url",
            )
        self.shown = str(target)
        self._options = target.options
        self._proxy: Proxy | None = None

    def client(self, *, removable: bool = False) -> redis.Redis:
        """See `DemoServer.client`."""
        if not removable:
            return new_client(**self._options)
        if self._proxy is None:
            self._proxy = Proxy(self._options["host"], self._options["port"])
        return new_client(**{**self._options, "host": HOST, "port": self._proxy.port})

    def check(self) -> None:
        """See that it answers.

        Raises:
            DemoError: it does not.
        """
        with self.client() as client:
            try:
                client.ping()
            except redis.RedisError as error:
                # Its text could quote credentials; the kind of the failure says enough.
                raise DemoError(f"{self.shown} does not answer ({type(error).__name__}): is the URL right?") from None

    def take_away(self) -> None:
        """Cut the proxy."""
        if self._proxy is not None:
            self._proxy.cut()

    def bring_back(self) -> None:
        """Let the proxy pass again."""
        if self._proxy is not None:
            self._proxy.restore()

    def stop(self) -> None:
        """Close the proxy; the server is left as it is."""
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
