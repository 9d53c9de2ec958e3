"""A real RabbitMQ on loopback with its own folders, as a child that dies with this process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import amqp  # type: ignore[import-untyped]

from support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not the program that Debian puts on the path: that one uses the package's user and directories.
_BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def binary() -> str | None:
    """Return the machine's own rabbitmq-server, if it has one."""
    return str(_BINARY) if _BINARY.exists() else shutil.which("rabbitmq-server")


class Broker(servers.Child):
    """A RabbitMQ node with its own epmd. A restart keeps durable queues and persistent messages.

    It has ``guest``, and the given users, with their passwords, and vhosts. ``guest`` may do everything; the others may
    only enter ``/``. ``limits`` maps vhosts to the connections that they admit.
    """

    start_seconds = 45.0

    def __init__(
        self,
        *,
        users: dict[str, str] | None = None,
        strangers: dict[str, str] | None = None,
        vhosts: tuple[str, ...] = (),
        limits: dict[str, int] | None = None,
    ) -> None:
        program = binary()
        if program is None:
            raise RuntimeError("no broker: apt-get install rabbitmq-server")
        super().__init__()
        self.binary: str = program
        self.port, self.tls_port, self._dist_port, self._epmd_port = (servers.free_port() for _ in range(4))
        self._write_configuration(users or {}, strangers or {}, ("/", *vhosts), limits or {})

    def _write_configuration(
        self, users: dict[str, str], strangers: dict[str, str], vhosts: tuple[str, ...], limits: dict[str, int]
    ) -> None:
        everything = dict.fromkeys(("configure", "write", "read"), ".*")
        nothing = dict.fromkeys(everything, "")
        definitions = {
            "users": [
                {"name": name, "password": password, "tags": ""}
                for name, password in {"guest": "guest", **users, **strangers}.items()
            ],
            "vhosts": [{"name": name} for name in (*vhosts, *limits)],
            "permissions": [
                *({"user": "guest", "vhost": name, **everything} for name in (*vhosts, *limits)),
                *({"user": name, "vhost": "/", **nothing} for name in users),
            ],
            "parameters": [
                {"component": "vhost-limits", "vhost": name, "name": "limits", "value": {"max-connections": limit}}
                for name, limit in limits.items()
            ],
        }
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = {servers.HOST}:{self.port}\n"
            f"listeners.ssl.default = {servers.HOST}:{self.tls_port}\n"
            f"ssl_options.certfile = {servers.CERTIFICATE}\n"
            f"ssl_options.keyfile = {servers.CERTIFICATE}\n"
            f"load_definitions = {self.folder / 'definitions.json'}\n"
        )

    def url(self, user: str = "guest:guest", vhost: str = "/", *, port: int | None = None) -> str:
        return f"amqp://{user}@{servers.HOST}:{port or self.port}/{quote(vhost, safe='')}"

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        """Return a channel for the test's own commands."""
        with amqp.Connection(f"{servers.HOST}:{self.port}", connect_timeout=5.0, confirm_publish=True) as connection:
            yield connection.channel()

    @property
    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        return {
            **inherited,
            "HOME": str(self.folder),  # Erlang keeps the cookie here
            "ERL_CRASH_DUMP": os.devnull,
            "ERL_EPMD_ADDRESS": servers.HOST,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_NODENAME": f"bp{self.port}@localhost",
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            "RUNNING_UNDER_SYSTEMD": "true",  # so that the script becomes the server, and gets the kernel's signal
        }

    def start(self) -> Self:
        environment = self._environment
        self._spawn(shutil.which("epmd") or "epmd", "-port", str(self._epmd_port), env=environment)
        self._spawn(self.binary, env=environment)
        self._wait(self._answers, f"{self.binary} on port {self.port}")
        return self

    def _answers(self) -> bool:
        try:
            with self.channel():
                return True
        except (OSError, amqp.AMQPError):
            return False

    def control(self, *command: str) -> None:
        """Run rabbitmqctl, which takes a second or two."""
        program = Path(self.binary).with_name("rabbitmqctl")
        subprocess.run([program, "--quiet", *command], check=True, env=self._environment, cwd=self.folder)
