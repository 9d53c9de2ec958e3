"""`RabbitMQStatsProvider` against a real broker: what it counts, refusals, faults, and what must never be shown."""

from __future__ import annotations

import contextlib
import itertools
import struct
from typing import TYPE_CHECKING, Any, ClassVar

import amqp  # type: ignore[import-untyped]
import pytest

from backpressure._model.errors import StatsUnavailableError
from backpressure.providers.rabbitmq import link as link_module
from backpressure.providers.rabbitmq.provider import RabbitMQStatsProvider
from faults import proxy as proxies
from providers.checks import backlogs, failure
from providers.contract.backend import PASSWORD, USER, Backend, Refusal, Wrong
from providers.contract.suite import Contract
from support import rabbitmq_server, redis_fixtures, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


@pytest.fixture(scope="module")
def broker() -> Iterator[rabbitmq_server.Broker]:
    """A broker for the tests of this module; those that break it mend it."""
    if rabbitmq_server.binary() is None:
        redis_fixtures.no_server("no rabbitmq-server: apt-get install rabbitmq-server")
    with rabbitmq_server.Broker(
        users={"reader": "reader", USER: PASSWORD}, strangers={"stranger": "stranger"}, limits={"full": 0}
    ) as server:
        yield server


@pytest.fixture
def name() -> str:
    """A queue's name that no other test uses."""
    return f"queue-{next(_NUMBERS)}"


_NUMBERS = itertools.count()


@pytest.fixture
def channel(broker: rabbitmq_server.Broker) -> Iterator[Any]:
    """A channel for the test's own commands; what it publishes is in its queue when `publish` returns."""
    with broker.channel() as channel:
        yield channel


@contextlib.contextmanager
def opened(url: str, queues: Any = ("q",), **options: Any) -> Iterator[RabbitMQStatsProvider]:
    provider = RabbitMQStatsProvider(url, queues, **{"timeout": 10.0, **options})  # machines stall
    try:
        yield provider
    finally:
        provider.close()


def declare(channel: Any, name: str, kind: str = "classic", **options: Any) -> None:
    channel.queue_declare(name, durable=True, auto_delete=False, arguments={"x-queue-type": kind}, **options)


def publish(channel: Any, name: str, count: int) -> None:
    for _ in range(count):
        channel.basic_publish(amqp.Message(b"job", delivery_mode=2), routing_key=name)


def let_in(user: str, vhost: str = "/") -> Callable[[RabbitMQ], Any]:
    return lambda backend: backend.make(["q"], given=backend.broker.url(user, vhost))


def wrong_queues(value: str) -> Wrong:
    return Wrong("queues.q", lambda: RabbitMQStatsProvider("amqp://h", {"q": value}))


class RabbitMQ(Backend):
    kind = RabbitMQStatsProvider
    faces = ("plain", "tls")
    tls_faces = ("tls", "unverified")
    reads_unlisted = True
    tls_advice: ClassVar = dict.fromkeys(("protocol", "connect"), "TLS (amqps://) on both sides or on neither")
    # Seven bytes of nonsense announce a frame that does not come.
    labels: ClassVar = dict.fromkeys(("http", "ssh", "garbage", "speak_http"), "timeout")
    holders = ("_target",)
    where = "url"
    malformed = (
        "http://canary@h",
        "canary",
        b"amqp://canary@h",
        "amqp://u:12/canary@h/v",
        "amqp://u:12#canary@h/v",
        "amqp://u:12?canary@h/v",
        "amqp://u:canary/@h/v",
        "amqp://canary@h:99999",
        "amqp://canary@[::1/",
        "amqp://canary@one,two",
        f"amqp://canary@{'h' * 64}",
        f"amqp://canary@h/{'v' * 256}",
        "amqp://canary@h?heartbeat=5",
        "amqps://canary@h?heartbeat=canary",
        "amqps://canary@h?verify=canary",
        "amqps://canary@h?canary",
        "amqps://canary@h?cacertfile=/canary/ca.pem",
    )
    wrong = (
        Wrong("queues", lambda: RabbitMQStatsProvider("amqp://h", None)),  # type: ignore[arg-type]
        *map(wrong_queues, ("", "a\nb", "ä" * 128)),
    )
    refusals: ClassVar = {
        "password": Refusal("auth", "check the user name and password", let_in(f"{USER}:wrong")),
        "user": Refusal("auth", "check the user name and password", let_in(f"nobody:{PASSWORD}")),
        "permission": Refusal("acl", "grant the user a permission on the vhost", let_in("stranger:stranger")),
        "vhost": Refusal("missing", "check the vhost", let_in("guest:guest", "elsewhere")),
        "limit": Refusal("maxclients", "raise the limit", let_in("guest:guest", "full")),
    }

    def __init__(self, broker: rabbitmq_server.Broker) -> None:
        super().__init__(broker.port, broker)
        self.broker = broker

    def make(
        self, queues: Any, *, face: str = "plain", host: str = "", port: int = 0, given: Any = None, **options: Any
    ) -> Any:
        options_of = {"tls": f"?cacertfile={servers.CERTIFICATE}", "unverified": "/?verify=verify_none"}
        where = f"{host or servers.HOST}:{port or self.port_of(face)}{options_of.get(face, '')}"
        url = f"amqp://{where}" if face == "plain" else f"amqps://{where}"
        return RabbitMQStatsProvider(url if given is None else given, queues, **options)

    def port_of(self, face: str) -> int:
        return self.port if "plain" in face else self.broker.tls_port

    def fill(self, backlogs: Mapping[str, int]) -> None:
        with self.broker.channel() as channel:
            for name, backlog in backlogs.items():
                declare(channel, name)
                channel.queue_purge(name)
                publish(channel, name, backlog)

    def spoil(self, name: str) -> str:
        with self.broker.channel() as channel:
            channel.queue_delete(name)
        return "missing"

    def secretive(self) -> Iterator[Any]:
        def quoting(connection: Any) -> None:
            connection.recv(8)
            connection.sendall(closing(403, f"ACCESS_REFUSED - for '{USER}' with '{PASSWORD}'"))
            connection.recv(65536)

        broker, user = self.broker, f"{USER}:{PASSWORD}"
        with servers.Listener(quoting) as other, proxies.Proxy(broker.port) as proxy:
            proxy.verb = proxies.corrupt
            for url in (
                broker.url(user),
                *(
                    broker.url(wrong)
                    for wrong in (f"{USER}:{PASSWORD}-not", f"stranger:{PASSWORD}", f"{PASSWORD}:{USER}")
                ),
                broker.url(user, "elsewhere"),
                *(broker.url(user, port=port) for port in (servers.dead_port(), other.port, proxy.port)),
                f"amqps://{user}@{servers.HOST}:{broker.tls_port}?verify=verify_none",
                f"amqps://{user}@{servers.HOST}:{broker.tls_port}",
                f"amqps://{user}@{servers.HOST}:{broker.port}",
            ):
                yield self.make(["q"], given=url, timeout=0.3)

    def inside(self, provider: Any) -> Iterable[object]:
        yield vars(provider)
        for link in (*provider._links().idle, provider._open()):
            yield from (link, vars(link), vars(link._connection))


@pytest.fixture
def backend(broker: rabbitmq_server.Broker) -> RabbitMQ:
    return RabbitMQ(broker)


class TestContract(Contract, of=RabbitMQ):
    pass


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_ready_messages_are_the_backlog(broker: rabbitmq_server.Broker, channel: Any, name: str, kind: str) -> None:
    declare(channel, name, kind)
    with opened(broker.url(), [name]) as provider:
        assert provider.get_queue_stats(name).backlog_count == 0
        publish(channel, name, 10)
        taken = [channel.basic_get(name) for _ in range(4)]
        stats = provider.get_queue_stats(name)
        assert (stats.queue_name, stats.backlog_count) == (name, 6)
        assert (stats.processing_count, stats.delayed_count, stats.oldest_age) == (None, None, None)
        for message in taken[:3]:
            channel.basic_ack(message.delivery_tag)
        assert provider.get_queue_stats(name).backlog_count == 6, "what is done was not waiting"
        channel.basic_reject(taken[3].delivery_tag, requeue=True)
        eventually(lambda: provider.get_queue_stats(name).backlog_count == 7)


def test_a_user_without_any_permission_on_queues_can_read(
    broker: rabbitmq_server.Broker, channel: Any, name: str
) -> None:
    declare(channel, name)
    publish(channel, name, 3)
    with opened(broker.url("reader:reader"), [name]) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {name: 3}


def test_names(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    other = f"{name}-größer/ä b"
    for queue, count in ((name, 1), (other, 2)):
        declare(channel, queue)
        publish(channel, queue, count)
    with opened(broker.url(), {"mail": name, other: None}) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"mail": 1, other: 2}
        assert provider.get_queue_stats("mail").queue_name == "mail"
        assert provider.get_queue_stats(name).backlog_count == 1, "one that is not listed goes by its own name"


def test_the_default_vhost_has_three_spellings(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    declare(channel, name)
    for url in (broker.url(), broker.url(vhost=""), broker.url().removesuffix("/%2F")):
        with opened(url, [name]) as provider:
            assert backlogs(provider.get_all_queue_stats()) == {name: 0}


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queues were asked for in each round trip."""
    sizes: list[int] = []
    ask = link_module.Link._ask

    def noted(self: Any, queues: Any) -> None:
        sizes.append(len(queues))
        ask(self, queues)

    monkeypatch.setattr(link_module.Link, "_ask", noted)
    return sizes


@pytest.fixture(scope="module")
def crowd(broker: rabbitmq_server.Broker) -> dict[str, int]:
    """Three hundred queues, and the backlog of each."""
    with broker.channel() as channel:
        for number in range(300):
            declare(channel, f"crowd-{number}")
            publish(channel, f"crowd-{number}", number % 4)
    return {f"crowd-{number}": number % 4 for number in range(300)}


def test_many_queues_go_into_few_round_trips(
    broker: rabbitmq_server.Broker, crowd: dict[str, int], turns: list[int]
) -> None:
    with opened(broker.url(), crowd.fromkeys(crowd)) as provider:
        assert backlogs(provider.get_all_queue_stats()) == crowd
    assert turns == [128, 128, 44]


def test_missing_queues_spoil_no_others(
    broker: rabbitmq_server.Broker, crowd: dict[str, int], turns: list[int], channel: Any, name: str
) -> None:
    missing = {f"crowd-{number}": f"{name}-{number}" for number in (0, 50, 51, 200, 299)}
    expected = {**crowd, **dict.fromkeys(missing, "missing")}
    with opened(broker.url(), {queue: missing.get(queue, queue) for queue in crowd}) as provider:
        outcomes = provider.get_all_queue_stats()
        assert backlogs(outcomes) == expected
        error = outcomes["crowd-50"]
        assert isinstance(error, StatsUnavailableError)
        assert error.queue_name == "crowd-50"
        assert f"no queue '{name}-50' in vhost '/'" in str(error)
        assert "declare the queue first" in str(error)
        assert len(turns) < 40, "each refusal voids what was asked after it"
        declare(channel, f"{name}-50")
        assert backlogs(provider.get_all_queue_stats()) == {**expected, "crowd-50": 0}


def test_none_of_many_is_there(broker: rabbitmq_server.Broker, turns: list[int], name: str) -> None:
    queues = [f"{name}-{number}" for number in range(40)]
    with opened(broker.url(), queues) as provider:
        assert backlogs(provider.get_all_queue_stats()) == dict.fromkeys(queues, "missing")
    assert turns == [40, *[1] * 39]


def test_an_exclusive_queue_is_read_by_its_owner_alone(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    channel.queue_declare(name, exclusive=True)
    declare(channel, f"{name}-open")
    with opened(broker.url(), [name, f"{name}-open"]) as provider:
        outcomes = provider.get_all_queue_stats()
        assert backlogs(outcomes) == {name: "provider", f"{name}-open": 0}
        assert "only the connection that owns an exclusive queue can read it" in str(outcomes[name])


@pytest.mark.parametrize(
    ("code", "words", "label", "advice"),
    [
        (403, b"access to queue", "acl", "grant the user a permission on the queue"),
        (404, b"home node is down or inaccessible", "masterdown", "bring back the node"),
        (406, b"something else", "provider", "something else"),
    ],
)
def test_what_else_a_broker_may_refuse(
    broker: rabbitmq_server.Broker, channel: Any, name: str, code: int, words: bytes, label: str, advice: str
) -> None:
    def translate(_: proxies.Proxy, client: Any, data: bytes) -> None:
        close, text = b"\x00\x14\x00\x28\x01\x94", f"NOT_FOUND - no queue '{name}' in vhost '/'".encode()
        data = data.replace(close, close[:4] + code.to_bytes(2))
        client.sendall(data.replace(text, words.ljust(len(text))))

    declare(channel, f"{name}-open")
    with proxies.Proxy(broker.port) as proxy, opened(broker.url(port=proxy.port), [name, f"{name}-open"]) as provider:
        proxy.verb = translate
        outcomes = provider.get_all_queue_stats()
    assert backlogs(outcomes) == {name: label, f"{name}-open": 0}
    assert advice in str(outcomes[name])


def frame(channel: int, method: tuple[int, int], arguments: bytes = b"", end: bytes = b"\xce") -> bytes:
    payload = struct.pack(">HH", *method) + arguments
    return struct.pack(">BHI", 1, channel, len(payload)) + payload + end


def short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def long(text: bytes) -> bytes:
    return len(text).to_bytes(4) + text


def closing(code: int, text: str) -> bytes:
    return frame(0, (10, 50), code.to_bytes(2) + short(text) + bytes(4))


def start(mechanisms: bytes = b"PLAIN", table: bytes = b"") -> bytes:
    return frame(0, (10, 10), b"\x00\x09" + long(table) + long(mechanisms) + long(b"en_US"))


@pytest.mark.filterwarnings("ignore::amqp.exceptions.AMQPDeprecationWarning")  # so py-amqp calls to connect again
@pytest.mark.parametrize(
    ("said", "label"),
    [
        (closing(320, "CONNECTION_FORCED - broker forced connection closure"), "connect"),
        (frame(0, (10, 51)), "connect"),
        (closing(501, "FRAME_ERROR"), "protocol"),
        (closing(541, "INTERNAL_ERROR"), "provider"),
        (closing(530, "NOT_ALLOWED - user connection limit (1) is reached"), "maxclients"),
        (start(mechanisms=b"EXTERNAL"), "provider"),
        (start(mechanisms=b"\xff"), "protocol"),
        (start(table=b"\x01a\xff"), "protocol"),
        (frame(0, (10, 10), b"\x00"), "protocol"),
        (frame(0, (10, 10), b"\x00\x09\x00"), "protocol"),
        (frame(0, (10, 99)), "protocol"),
        (frame(7, (50, 11)), "protocol"),
        (frame(0, (10, 10), end=b"!"), "protocol"),
    ],
)
def test_what_only_odd_brokers_say(said: bytes, label: str) -> None:
    def speak(connection: Any) -> None:
        connection.recv(8)
        connection.sendall(said)
        while connection.recv(65536):
            pass

    with servers.Listener(speak) as other, opened(f"amqp://{servers.HOST}:{other.port}", timeout=5.0) as provider:
        assert failure(provider.get_all_queue_stats).error_type == label


def test_an_answer_about_another_queue_is_not_taken_for_this_ones(
    broker: rabbitmq_server.Broker, channel: Any, name: str
) -> None:
    def confuse(_: proxies.Proxy, client: Any, data: bytes) -> None:
        client.sendall(data.replace(name.encode(), name[::-1].encode()))

    declare(channel, name)
    with proxies.Proxy(broker.port) as proxy, opened(broker.url(port=proxy.port), [name]) as provider:
        proxy.verb = confuse
        assert failure(provider.get_all_queue_stats).error_type == "protocol"


def test_no_heartbeats_are_agreed_upon(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    declare(channel, name)
    with opened(broker.url(), [name]) as provider:
        provider.get_all_queue_stats()
        (link,) = provider._links().idle
        assert link._connection.heartbeat == 0, "nobody would answer it while the connection is idle"


def test_publishers_that_are_blocked_are_counted_on(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    declare(channel, name)
    publish(channel, name, 4)
    with opened(broker.url(), [name]) as provider:
        provider.get_all_queue_stats()
        broker.control("set_vm_memory_high_watermark", "0")
        try:
            assert backlogs(provider.get_all_queue_stats()) == {name: 4}, "over a connection that it tells of the alarm"
        finally:
            broker.control("set_vm_memory_high_watermark", "0.4")


@pytest.mark.parametrize(
    ("url", "shown", "user", "password"),
    [
        ("amqp://", "amqp://localhost:5672/%2F", "guest", "guest"),
        ("AMQP://Host/", "amqp://host:5672/%2F", "guest", "guest"),
        ("amqps://host//", "amqps://host:5671/%2F", "guest", "guest"),
        ("amqp://u@h:1/v", "amqp://h:1/v", "u", "guest"),
        ("amqp://u:@[::1]/a%2Fb", "amqp://[::1]:5672/a%2Fb", "u", ""),
        ("amqp://u%40x:p%2F%3f%23@h/%E2%82%AC", "amqp://h:5672/%E2%82%AC", "u@x", "p/?#"),
        ("amqp://u:p@ss@h/x%0Ay", "amqp://h:5672/x%0Ay", "u", "p@ss"),
    ],
)
def test_urls(url: str, shown: str, user: str, password: str) -> None:
    provider = RabbitMQStatsProvider(url, ["q"])
    assert repr(provider) == f"RabbitMQStatsProvider({shown!r}, 1 queues)"
    assert (provider._target.user, provider._target.password) == (user, password)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_a_connection_is_closed_as_brokers_like_it(
    broker: rabbitmq_server.Broker, channel: Any, name: str, scheme: str
) -> None:
    def closed() -> list[str]:
        return [line for line in broker.output().splitlines() if "closing" in line and "user: 'reader')" in line]

    declare(channel, name)
    before = len(closed())
    port = broker.port if scheme == "amqp" else f"{broker.tls_port}?verify=verify_none"
    provider = RabbitMQStatsProvider(f"{scheme}://reader:reader@{servers.HOST}:{port}", [name])
    provider.get_all_queue_stats()
    provider.close()
    provider.close()
    assert "is closed" in str(failure(provider.get_all_queue_stats))
    eventually(lambda: len(closed()) > before)
    assert "[info]" in closed()[-1], "not a [warning] of a connection that was lost"
