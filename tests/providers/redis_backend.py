"""What the contract knows of Redis: both of its providers read the same server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

import redis
from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider
from redis.retry import Retry

from backpressure.providers.redis.provider import RedisStatsProvider
from providers.contract.backend import PASSWORD, USER, Backend, Refusal, Wrong
from support import redis_fixtures, servers

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

OPEN = "sesame-open"
PLACE = f"redis://:{OPEN}@"
TLS = {"tls": f"?ssl_ca_certs={servers.CERTIFICATE}", "unverified": "?ssl_cert_reqs=none", "untrusting": ""}


@contextlib.contextmanager
def running() -> Iterator[servers.Server]:
    """Start a server that asks for a password."""
    with redis_fixtures.start(requirepass=OPEN) as server:
        yield server


def quoting(text: bytes) -> Callable[[socket.socket], None]:
    """Refuse each command as servers without HELLO do: with its arguments, the password among them."""

    def handle(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            words = [word for word in data.split(b"\r\n") if word and word[:1] not in b"*$"]
            connection.sendall(b"-ERR %s: %s\r\n" % (text, b" ".join(b"'%s'" % word for word in words)) * 4)

    return handle


def login(credentials: str) -> Callable[[RedisBackend], Any]:
    return lambda backend: backend.make(["q"], given=f"redis://{credentials}{servers.HOST}:{backend.port}/0")


class RedisBackend(Backend):
    kind: ClassVar[type[Any]] = RedisStatsProvider
    faces: ClassVar[Sequence[str]] = ("plain", "tls", "client")
    labels: ClassVar = {"only we": "timeout"}  # it waits for the end of what it takes for a line
    tls_faces = ("tls", "unverified")
    uncut: ClassVar = {
        "client": "a given client's connections are its owner's until one reads",
        "tls": "redis-py shows a connection no sooner than it is open",
    }
    kept = 8  # one for each thread that has read at once: the client's own pool
    tls_advice: ClassVar = {"protocol": "TLS (rediss://) on both sides"}
    holders = ("_target",)
    where = "redis_url"
    malformed: ClassVar[Sequence[str]] = (
        "canary",
        "canary://h",
        "http://canary",
        "redis://:can/ary-canary@h:1/0",
        "redis://:canary#x@h",
        "redis://:canary?x@h",
        "redis://:canary@h:canary/0",
        "redis://:canary@[h:1",
        "redis://:canary@h:99999",
        "redis://:canary@h/canary",
        "redis://:canary@h/0/1",
        "redis://:canary@h,i",
        "redis://h?canary=1",
        "redis://h?socket_timeout=canary",
        "rediss://h?ssl_cert_reqs=canary",
        "rediss://h?ssl_cert_reqs=CERT_canary",
        "redis+sentinel://:canary@h",
        "sentinel://:canary@h",
        "sentinel://:canary@h;redis://:canary@g?master_name=canary",
        "redis://:canary@h;redis://:canary@g",
        "redis://h?global_keyprefix=canary",
        "redis+sentinel://h/a/b/c?password=canary",
        "redis+cluster://:canary@h/1",
        "unix://:canary@",
        "unix://canary/run/x",
    )
    refusals: ClassVar = {
        name: Refusal("auth", "check the user name and password", login(credentials))
        for name, credentials in {
            "nobody": "",
            "password": f":{PASSWORD}@",
            "user": f"{USER}:{OPEN}@",
            "both": f"{USER}:{PASSWORD}@",
        }.items()
    }

    def __init__(self, server: servers.Server, front: servers.Listener) -> None:
        super().__init__(server.port, server)
        self.server = server
        self.front = front

    def make(
        self, queues: Any, *, face: str = "plain", host: str = "", port: int = 0, given: Any = None, **options: Any
    ) -> Any:
        if face == "client":
            given = self.client(port or self.port, options.get("timeout", 1.0))
        where = f"{PLACE}{host or servers.HOST}:{port or self.port_of(face)}/0"
        if face in TLS:
            where = where.replace("redis", "rediss") + TLS[face]
        return self.kind(where if given is None else given, queues, **options)

    @staticmethod
    def client(port: int, timeout: float) -> redis.Redis:
        return redis.Redis(
            host=servers.HOST, port=port, password=OPEN, socket_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )

    def port_of(self, face: str) -> int:
        return self.front.port if face in TLS else self.port

    def fill(self, backlogs: Mapping[str, int]) -> None:
        with self.server.client() as client, client.pipeline(transaction=False) as pipeline:
            for name, backlog in backlogs.items():
                pipeline.delete(name)
                if backlog:
                    pipeline.rpush(name, *range(backlog))
            pipeline.execute()

    def spoil(self, name: str) -> str:
        with self.server.client() as client:
            client.set(name, "no list")
        return "wrongtype"

    def secretive(self) -> Iterator[Any]:
        who, dead, host = f"{USER}:{PASSWORD}@{servers.HOST}", servers.dead_port(), servers.HOST
        with (
            servers.Listener(quoting(b"unknown command 'HELLO', with args beginning with")) as old,
            servers.Listener(quoting(b"what is this")) as other,
        ):
            for url in (
                *(f"redis://{who}:{port}/0" for port in (dead, self.port, old.port, other.port)),
                f"redis://{who}:{other.port}/0?protocol=2",
                f"redis://{host}:{other.port}/0?username={USER}&password={PASSWORD}",
                f"rediss://{who}:{self.port}/0",
                f"unix://{USER}:{PASSWORD}@{self.server.unix_socket}",
                f"unix://{USER}:{PASSWORD}@/nothing/there",
                f"redis+sentinel://{who}:{other.port}/main?sentinel_username={USER}&sentinel_password={PASSWORD}",
                f"redis+cluster://{who}:{other.port}",
                f"redis+cluster://{who}:{dead}",
            ):
                yield self.make(["q"], given=url, timeout=0.3)
            yield from self.with_clients((dead, other.port), old.port)

    def with_clients(self, known: tuple[int, ...], unknown: int) -> Iterator[Any]:
        """Give providers with a client whose credentials it shows, and one that keeps them to itself."""
        plain: dict[str, Any] = {"username": USER, "password": PASSWORD}
        kept: dict[str, Any] = {"credential_provider": UsernamePasswordCredentialProvider(USER, PASSWORD)}
        for port, options in (*((port, plain) for port in known), (unknown, kept)):
            with redis.Redis(host=servers.HOST, port=port, retry=Retry(NoBackoff(), 0), **options) as client:
                yield self.make(["q"], given=client)


def wrong(kind: type[Any]) -> tuple[Wrong, ...]:
    """Return arguments that both providers refuse."""
    return (Wrong("key", lambda: kind("redis://localhost", ["q"], key="queue")),)
