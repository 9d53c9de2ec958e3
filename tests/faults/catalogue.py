"""The faults of servers and networks that producers must survive: how each happens, and how it is counted.

A fault is a generator: it makes the fault before its ``yield``, and takes it back after it, unless the server does
that.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Literal

import attrs
import redis

from faults import proxy
from faults.producers import BACKLOG, QUEUES
from faults.resolver import NAME, Resolver
from support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Provoke = Callable[["Scene"], Iterator[None]]
    Way = Literal["direct", "by proxy", "by name"]

# The rights that the guide grants for lists, and nothing more.
USER, PASSWORD = "producer", "sesame-open"
RIGHTS = f"{USER} on >{PASSWORD} ~jobs ~others +llen"


@attrs.frozen
class Scene:
    """A server, two ways to it that a fault can spoil, and the test's own connection."""

    server: servers.Server
    proxy: proxy.Proxy
    resolver: Resolver
    admin: Any  # a redis.Redis, where some commands have no types

    def fill(self) -> None:
        """Put every queue into the red zone."""
        for queue in QUEUES:
            self.admin.delete(queue)
            self.admin.rpush(queue, *range(BACKLOG))

    def url(self, way: Way) -> str:
        """The URL that producers use."""
        host = NAME if way == "by name" else servers.HOST
        port = self.proxy.port if way == "by proxy" else self.server.port
        return f"redis://{USER}:{PASSWORD}@{host}:{port}/0"

    def disconnect(self) -> None:
        """Let the server close every connection but the test's own."""
        self.admin.client_kill_filter(_type="normal", skipme=True)


@attrs.frozen
class Fault:
    """One entry of the catalogue."""

    provoke: Callable[[Scene], contextlib.AbstractContextManager[None]]
    name: str
    error_types: frozenset[str]
    way: Way  # by which producers reach the server
    spared: frozenset[str]  # queues that it leaves alone
    options: dict[str, str]  # of the server


FAULTS: list[Fault] = []


def fault(
    *error_types: str, way: Way = "direct", spares: tuple[str, ...] = (), **options: str
) -> Callable[[Provoke], Provoke]:
    """Add a fault that is counted as one of `error_types`."""

    def enter(provoke: Provoke) -> Provoke:
        name = provoke.__name__.replace("_", " ")
        FAULTS.append(
            Fault(contextlib.contextmanager(provoke), name, frozenset(error_types), way, frozenset(spares), options)
        )
        return provoke

    return enter


@contextlib.contextmanager
def spoilt(scene: Scene, verb: Any) -> Iterator[None]:
    """Spoil replies for a while."""
    scene.proxy.verb = verb
    yield
    scene.proxy.verb = proxy.forward
    scene.proxy.disconnect()


@fault("timeout", way="by proxy")
def late_replies(scene: Scene) -> Iterator[None]:
    with spoilt(scene, proxy.delay):
        yield


@fault("timeout", "deadline", way="by proxy")
def dripping_replies(scene: Scene) -> Iterator[None]:
    """No read of the socket is ever late: with the blocking client only the poll's own deadline ends this."""
    with spoilt(scene, proxy.drip):
        yield


@fault("timeout", way="by proxy")
def lost_replies(scene: Scene) -> Iterator[None]:
    with spoilt(scene, proxy.drop):
        yield


@fault("connect", way="by proxy")
def reset_connections(scene: Scene) -> Iterator[None]:
    with spoilt(scene, proxy.reset):
        yield


@fault("connect", way="by proxy")
def replies_cut_in_half(scene: Scene) -> Iterator[None]:
    with spoilt(scene, proxy.cut):
        yield


@fault("protocol", way="by proxy")
def corrupted_replies(scene: Scene) -> Iterator[None]:
    with spoilt(scene, proxy.corrupt):
        yield


@fault("timeout", way="by proxy")
def a_reply_that_never_ends(scene: Scene) -> Iterator[None]:
    with spoilt(scene, proxy.exaggerate):
        yield


@fault("protocol", way="by proxy")
def a_web_server_on_the_port(scene: Scene) -> Iterator[None]:
    with spoilt(scene, proxy.speak_http):
        yield


@fault("connect", "protocol", way="by proxy")
def tls_where_there_was_none(scene: Scene) -> Iterator[None]:
    with servers.tls_front(scene.server) as front:
        scene.proxy.target = front.port
        scene.proxy.disconnect()
        yield
        scene.proxy.target = scene.server.port
        scene.proxy.disconnect()


@fault("connect", way="by proxy")
def connections_accepted_and_closed(scene: Scene) -> Iterator[None]:
    with spoilt(scene, proxy.hang_up):
        scene.proxy.disconnect()
        yield


@fault("timeout", tcp_backlog="1")
def connections_never_accepted(scene: Scene) -> Iterator[None]:
    """The server is stopped and its backlog is full, so the kernel drops requests for a connection."""
    scene.disconnect()
    scene.server.freeze()
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((servers.HOST, scene.server.port))
        yield
    scene.server.resume()


@fault("dns", way="by name")
def a_name_that_is_unknown(scene: Scene) -> Iterator[None]:
    with scene.resolver.forgetting():
        scene.disconnect()
        yield


@fault("deadline", "timeout", way="by name")
def a_resolver_that_hangs(scene: Scene) -> Iterator[None]:
    """No timeout of the blocking client covers it: the poll's own deadline does."""
    with scene.resolver.hanging():
        scene.disconnect()
        yield


@fault("connect")
def a_killed_server(scene: Scene) -> Iterator[None]:
    scene.server.kill()
    yield
    scene.server.start()
    scene.fill()


@fault("timeout")
def a_frozen_server(scene: Scene) -> Iterator[None]:
    scene.server.freeze()
    yield
    scene.server.resume()


@fault("timeout")
def a_paused_server(scene: Scene) -> Iterator[None]:
    """It ends by itself, because a paused client cannot ask for the end."""
    scene.admin.client_pause(1_500)
    yield


@fault("loading", "connect", key_load_delay="20000", loading_process_events_interval_bytes="1024", rdbcompression="no")
def a_server_that_loads_its_data(scene: Scene) -> Iterator[None]:
    scene.admin.mset({f"key{number}": "x" * 1024 for number in range(500)})
    scene.admin.save()
    scene.server.kill()
    scene.server.start()
    yield
    scene.admin.config_set("key-load-delay", 0)


@fault("busy", busy_reply_threshold="20")
def a_script_that_does_not_end(scene: Scene) -> Iterator[None]:
    def run() -> None:
        with contextlib.suppress(redis.RedisError), scene.server.client(socket_timeout=30.0) as client:
            client.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    scene.admin.script_kill()
    thread.join()


@fault("masterdown", replica_serve_stale_data="no")
def a_replica_without_its_master(scene: Scene) -> Iterator[None]:
    scene.admin.replicaof(servers.HOST, servers.dead_port())
    yield
    scene.admin.replicaof("NO", "ONE")


@fault("maxclients")
def too_many_clients(scene: Scene) -> Iterator[None]:
    scene.admin.config_set("maxclients", 1)
    scene.disconnect()
    yield
    scene.admin.config_set("maxclients", 1_000)


@fault("auth")
def a_changed_password(scene: Scene) -> Iterator[None]:
    scene.admin.execute_command("ACL", "SETUSER", USER, "resetpass", ">another")
    scene.disconnect()
    yield
    scene.admin.execute_command("ACL", "SETUSER", USER, "resetpass", f">{PASSWORD}")


@fault("auth")
def a_deleted_user(scene: Scene) -> Iterator[None]:
    scene.admin.acl_deluser(USER)
    yield
    scene.admin.execute_command("ACL", "SETUSER", *RIGHTS.split())


@fault("acl")
def a_revoked_command(scene: Scene) -> Iterator[None]:
    scene.admin.execute_command("ACL", "SETUSER", USER, "-llen")
    yield
    scene.admin.execute_command("ACL", "SETUSER", USER, "+llen")


@fault("acl", spares=("others",))
def a_revoked_key(scene: Scene) -> Iterator[None]:
    scene.admin.execute_command("ACL", "SETUSER", USER, "resetkeys", "~others")
    yield
    scene.admin.execute_command("ACL", "SETUSER", USER, "~jobs")


@fault("wrongtype", spares=("others",))
def a_key_of_another_type(scene: Scene) -> Iterator[None]:
    scene.admin.rename("jobs", "kept")
    scene.admin.set("jobs", "no queue")
    yield
    scene.admin.rename("kept", "jobs")
