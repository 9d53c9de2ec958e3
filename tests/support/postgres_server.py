"""A real PostgreSQL server on loopback and a unix socket, as a child that dies with this process, and its fixtures.

Its programs refuse to run as root: if the tests run as root, they run as `postgres` or `nobody`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest

from support.redis_fixtures import no_server
from support.servers import HOST, Child, dying_with_parent, free_port, freeze

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The password of every role that `Postgres.role` makes.
PASSWORD = "canary-5f3a"

_SETTINGS = {
    "listen_addresses": HOST,
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "lc_messages": "C",
}
# Roles that tests make log in with passwords; the superuser connects through the socket.
_HBA = f"""
local all postgres trust
local all all scram-sha-256
host refused all {HOST}/32 reject
host all all {HOST}/32 scram-sha-256
"""


def binaries() -> Path | None:
    """Return the folder of the newest server that is installed, or None."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _account() -> tuple[int, int] | None:
    if os.getuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return entry.pw_uid, entry.pw_gid


class Postgres(Child):
    """One server process with its data."""

    def __init__(self, **settings: str) -> None:
        folder = binaries()
        if folder is None:
            raise RuntimeError("no server: install postgresql")
        super().__init__()
        self._bin = folder
        self._settings = {**_SETTINGS, **settings}
        self.port = free_port()
        self.account = _account()
        if self.account is not None:
            os.chown(self.folder, *self.account)
        self._make()

    def _make(self) -> None:
        arguments = ["-D", "data", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--auth=trust"]
        command = dying_with_parent(str(self._bin / "initdb"), *arguments, account=self.account)
        made = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        (self.folder / "data" / "pg_hba.conf").write_text(_HBA)

    def start(self) -> Self:
        settings = {**self._settings, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        self._spawn(str(self._bin / "postgres"), "-D", "data", *arguments)
        self._wait(self._answers, f"postgres on port {self.port}")
        return self

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        # A signal that it can handle, because it has to end its children and free shared memory.
        if self._processes:
            with contextlib.suppress(ProcessLookupError):
                self.resume()
            process = self._processes.pop()
            process.send_signal(signal.SIGQUIT)
            process.wait()

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection:
        """Return a superuser's connection for the test's own commands."""
        options = {"autocommit": True, "connect_timeout": 5, **options}
        return psycopg.connect(host=str(self.folder), port=self.port, user="postgres", dbname=database, **options)

    def run(self, *commands: str, database: str = "postgres") -> None:
        with self.connect(database) as connection:
            for command in commands:
                connection.execute(command.encode())

    def url(self, database: str = "postgres", role: str = "reader") -> str:
        return f"postgresql://{role}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def superuser(self, database: str) -> str:
        """Return the connection string for job packages."""
        return f"host={self.folder} port={self.port} user=postgres dbname={database}"

    def role(self, name: str, *grants: str, database: str = "postgres", options: str = "LOGIN") -> None:
        """Make a role that may log in, and do what `grants` allow."""
        self.run(f"CREATE ROLE {name} PASSWORD '{PASSWORD}' {options}")
        self.run(*(f"GRANT {grant} TO {name}" for grant in grants), database=database)

    def _family(self) -> list[int]:
        # Backends are not one process group: each makes its own.
        return [self.pid, *map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]

    def freeze(self) -> None:
        """Stop the server and all its backends; their sockets stay open."""
        for pid in self._family():
            with contextlib.suppress(ProcessLookupError):
                freeze(pid)

    def resume(self) -> None:
        for pid in self._family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _start(**settings: str) -> Postgres:
    if binaries() is None:
        no_server("no server: apt-get install postgresql")
    return Postgres(**settings)


# Their names differ from the fixtures' names, so that a module that imports them may still use these as arguments.


@pytest.fixture(scope="session", name="postgres")
def session_postgres() -> Iterator[Postgres]:
    """The session's own server."""
    with _start() as server:
        yield server


@pytest.fixture(scope="session")
def _fragile() -> Iterator[Postgres]:
    with _start(max_connections="6", superuser_reserved_connections="2", max_wal_senders="0") as server:
        server.role("reader")
        yield server


@pytest.fixture(name="fragile_postgres")
def running_postgres(_fragile: Postgres) -> Postgres:
    """A server to stop, freeze and fill. The role ``reader`` may connect to it; it runs when a test begins."""
    _fragile.kill()
    return _fragile.start()
