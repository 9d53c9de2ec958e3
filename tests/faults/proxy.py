"""A TCP proxy on loopback that spoils replies. A verb says how; it may change while connections stay open."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

from support import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    # What happens to a reply on its way to the client.
    Verb = Callable[["Proxy", socket.socket, bytes], None]

_CONNECT_SECONDS = 5.0


class Proxy(servers.Listener):
    """Passes bytes on to `port`, and replies through `verb`."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.verb: Verb = forward
        self.closed = threading.Event()  # ends a verb that waits
        super().__init__(self._pass_on)

    def _pass_on(self, client: socket.socket) -> None:
        if self.verb is hang_up:
            return
        with socket.create_connection((servers.HOST, self.target), _CONNECT_SECONDS) as server:
            server.settimeout(None)
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()
            servers.copy(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                self.verb(self, client, data)
        servers.end(client)

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        super().__exit__()


def forward(_: Proxy, client: socket.socket, data: bytes) -> None:
    """Pass the reply on unchanged."""
    client.sendall(data)


def delay(proxy: Proxy, client: socket.socket, data: bytes) -> None:
    """Answer a second late."""
    proxy.closed.wait(1)
    client.sendall(data)


def drip(proxy: Proxy, client: socket.socket, data: bytes) -> None:
    """Send a byte every 50 ms, so that none of them is late, but the reply is."""
    for byte in data:
        client.sendall(bytes([byte]))
        proxy.closed.wait(0.05)


def drop(_proxy: Proxy, _client: socket.socket, _data: bytes) -> None:
    """Answer nothing, and keep the connection."""


def reset(_proxy: Proxy, client: socket.socket, _data: bytes) -> None:
    """Close with a RST, as a firewall does, or a machine that has restarted."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it, which then closes it


def cut(_: Proxy, client: socket.socket, data: bytes) -> None:
    """Send half of the reply, then close."""
    client.sendall(data[: len(data) // 2])
    client.shutdown(socket.SHUT_RDWR)


def corrupt(_: Proxy, client: socket.socket, data: bytes) -> None:
    """Invert the bits of every byte except line ends."""
    client.sendall(bytes(byte if byte in b"\r\n" else byte ^ 0xFF for byte in data))


def exaggerate(_proxy: Proxy, client: socket.socket, _data: bytes) -> None:
    """Announce a reply of half a terabyte, and send none of it."""
    client.sendall(b"$500000000000\r\n")


def speak_http(_proxy: Proxy, client: socket.socket, _data: bytes) -> None:
    """Answer as a web server that has got the port."""
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def hang_up(_proxy: Proxy, client: socket.socket, _data: bytes) -> None:
    """Accept, then close at once."""
    client.shutdown(socket.SHUT_RDWR)
