"""A real Prometheus on loopback, as a child that dies with this process, and the exporter that it scrapes."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Self

from support import servers

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_CONFIG = """
global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}
scrape_configs: [{{job_name: queues, static_configs: [{{targets: ["{host}:{port}"]}}]}}]
"""
_WEB = """
tls_server_config: {{cert_file: {pem}, key_file: {pem}}}
basic_auth_users: {{{user}: {password_hash}}}
"""


def binary() -> str | None:
    """Return the machine's own Prometheus, if it has one."""
    return shutil.which("prometheus")


class Exporter(servers.Listener):
    """Shows `metrics`, in the text format, to all who ask; hangs up while it is not `alive`."""

    def __init__(self) -> None:
        self.metrics: Callable[[], str] = str
        self.alive = True
        super().__init__(self._show)

    def _show(self, connection: socket.socket) -> None:
        connection.recv(65536)
        if self.alive:
            body = self.metrics().encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
            connection.sendall(f"{head}\r\n\r\n".encode() + body)


class Prometheus(servers.Child):
    """One server process and the exporter that it scrapes, ten times a second. It begins five seconds after its start.

    With a `user` it speaks TLS, and checks the user by the bcrypt hash of the password.
    """

    def __init__(self, *, user: str = "", password_hash: str = "") -> None:
        program = binary()
        if program is None:
            raise RuntimeError("no server: install prometheus")
        super().__init__()
        self._program = program
        self.port = servers.free_port()
        self.exporter = Exporter()
        self._web = ""
        if user:
            self._web = _WEB.format(pem=servers.CERTIFICATE, user=user, password_hash=password_hash)

    @property
    def url(self) -> str:
        return f"http{'s' if self._web else ''}://{servers.HOST}:{self.port}"

    def backfill(self, metrics: str) -> None:
        """Have it know numbers of the past, in OpenMetrics with times, before it starts."""
        told = self.folder / "past.txt"
        told.write_text(metrics)
        promtool = shutil.which("promtool")
        if promtool is None:
            raise RuntimeError("no promtool: install prometheus")
        make = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(told), str(self.folder / "data")]
        subprocess.run(make, check=True, capture_output=True)

    def start(self) -> Self:
        config = self.folder / "prometheus.yml"
        config.write_text(_CONFIG.format(host=servers.HOST, port=self.exporter.port))
        web = self.folder / "web.yml"
        web.write_text(self._web)
        self._spawn(
            self._program,
            f"--config.file={config}",
            f"--web.config.file={web}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={servers.HOST}:{self.port}",
        )
        self._wait(self._answers, f"{self._program} on port {self.port}")
        return self

    def _answers(self) -> bool:
        return "Server is ready to receive web requests" in self.output()

    def stop(self) -> None:
        super().stop()
        self.exporter.__exit__()
