"""A real Prometheus on loopback, as a child that dies with this process, and the exporter that it scrapes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import servers

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
    """Shows `metrics`, in the text format, to whoever asks; hangs up while it is not `alive`."""

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


class Prometheus:
    """One server process and what it scrapes, ten times a second. It begins five seconds after its start.

    With a `user` it speaks TLS, and knows him by the bcrypt hash of his password.
    """

    def __init__(self, *, user: str = "", password_hash: str = "") -> None:
        program = binary()
        if program is None:
            raise RuntimeError("no server: install prometheus")
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="bp"))
        self.port = servers.free_port()
        self.exporter = Exporter()
        self._web = ""
        if user:
            self._web = _WEB.format(pem=servers.CERTIFICATE, user=user, password_hash=password_hash)

    @property
    def url(self) -> str:
        return f"http{'s' if self._web else ''}://{servers.HOST}:{self.port}"

    def start(self) -> Self:
        config = self.folder / "prometheus.yml"
        config.write_text(_CONFIG.format(host=servers.HOST, port=self.exporter.port))
        web = self.folder / "web.yml"
        web.write_text(self._web)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-ISc", servers._DIE_WITH_PARENT, str(os.getpid()), self._program),
                    f"--config.file={config}",
                    f"--web.config.file={web}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    f"--web.listen-address={servers.HOST}:{self.port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        servers.wait_until(self._answers, what=f"{self._program} on port {self.port}")
        return self

    def _answers(self) -> bool:
        log = (self.folder / "log").read_text(errors="replace")
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"the server ended at once:\n{log[-2000:]}")
        return "Server is ready to receive web requests" in log

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.exporter.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)
