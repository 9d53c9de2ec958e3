"""`RabbitMQStatsProvider` against a real broker: what it counts, refusals, faults, and what must never be shown."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import logging
import os
import pickle
import struct
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import amqp  # type: ignore[import-untyped]
import pytest

from backpressure import AsyncBackpressureController, BackpressureConfig, JobShedError, PollingConfig, StatsProvider
from backpressure._model.errors import ConfigurationError, InvalidQueueError, StatsUnavailableError
from backpressure.providers.rabbitmq import link as link_module
from backpressure.providers.rabbitmq.provider import RabbitMQStatsProvider
from faults import proxy as proxies
from faults.resolver import NAME as ANOTHER_NAME
from faults.resolver import Resolver
from providers.checks import backlogs, failure
from support import rabbitmq_server, redis_fixtures, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController

CANARY = "canary-9f3b-word"
NAME = "canary-user"
HANGS = 30.0


@pytest.fixture(scope="module")
def broker() -> Iterator[rabbitmq_server.Broker]:
    """A broker for the tests of this module; those that break it mend it."""
    if rabbitmq_server.binary() is None:
        redis_fixtures.no_server("no rabbitmq-server: apt-get install rabbitmq-server")
    with rabbitmq_server.Broker(
        users={"reader": "reader", NAME: CANARY}, strangers={"stranger": "stranger"}, limits={"full": 0}
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


# -------------------------------------------------------------------------------------------------------------- counts


def test_is_a_stats_provider_and_connects_to_nothing_when_made() -> None:
    with opened(f"amqp://{servers.HOST}:{servers.dead_port()}", timeout=HANGS) as provider:
        assert isinstance(provider, StatsProvider)


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
        assert provider.get_many([]) == {}
        with pytest.raises(InvalidQueueError):
            provider.get_queue_stats("")


def test_the_default_vhost_has_three_spellings(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    declare(channel, name)
    for url in (broker.url(), broker.url(vhost=""), broker.url().removesuffix("/%2F")):
        with opened(url, [name]) as provider:
            assert backlogs(provider.get_all_queue_stats()) == {name: 0}


# ----------------------------------------------------------------------------------------------------------- many of it


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


# ------------------------------------------------------------------------------------------------------------ refusals


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


@pytest.mark.parametrize(
    ("user", "vhost", "label", "advice"),
    [
        ("guest:wrong", "/", "auth", "check the user name and password"),
        ("nobody:nothing", "/", "auth", "check the user name and password"),
        ("stranger:stranger", "/", "acl", "grant the user a permission on the vhost"),
        ("guest:guest", "elsewhere", "missing", "check the vhost"),
        ("guest:guest", "full", "maxclients", "raise the limit"),
    ],
)
def test_a_broker_that_lets_nobody_in(
    broker: rabbitmq_server.Broker, user: str, vhost: str, label: str, advice: str
) -> None:
    with opened(broker.url(user, vhost)) as provider:
        for read in (provider.get_all_queue_stats, lambda: provider.get_queue_stats("q")):
            error = failure(read)
            assert (error.error_type, advice in str(error)) == (label, True)
            assert str(provider._target) in str(error)


def test_nobody_there() -> None:
    with opened(f"amqp://{servers.HOST}:{servers.dead_port()}") as provider:
        error = failure(provider.get_all_queue_stats)
        assert (error.error_type, "check that the server runs" in str(error)) == ("connect", True)
    with opened("amqp://nobody.invalid") as provider:
        error = failure(provider.get_all_queue_stats)
        assert (error.error_type, "check the host name" in str(error)) == ("dns", True)


# ----------------------------------------------------------------------------------------------------------------- TLS


def test_tls(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    declare(channel, name)
    publish(channel, name, 2)
    url = f"amqps://{servers.HOST}:{broker.tls_port}"
    for options in (f"?cacertfile={servers.CERTIFICATE}", "/?verify=verify_none"):
        with opened(url + options, [name]) as provider:
            for _ in range(2):
                assert backlogs(provider.get_all_queue_stats()) == {name: 2}
    with opened(url, [name]) as provider:
        error = failure(provider.get_all_queue_stats)
        assert (error.error_type, "certificate verify failed" in str(error)) == ("protocol", True)
    for wrong in (f"amqps://{servers.HOST}:{broker.port}", f"amqp://{servers.HOST}:{broker.tls_port}"):
        with opened(wrong, [name]) as provider:
            error = failure(provider.get_all_queue_stats)
            assert error.error_type in {"protocol", "connect"}
            assert "TLS (amqps://) on both sides or on neither" in str(error)


def test_tls_checks_the_host_name(broker: rabbitmq_server.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch)
    with opened(f"amqps://{ANOTHER_NAME}:{broker.tls_port}?cacertfile={servers.CERTIFICATE}") as provider:
        error = failure(provider.get_all_queue_stats)
        assert (error.error_type, "Hostname mismatch" in str(error)) == ("protocol", True)


# -------------------------------------------------------------------------------------------------------------- faults


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


@pytest.mark.parametrize("warm", [False, True], ids=["connecting", "reading"])
@pytest.mark.parametrize(
    ("verb", "labels"),
    [
        (proxies.reset, {"connect"}),
        (proxies.cut, {"connect"}),
        (proxies.hang_up, {"connect"}),
        (proxies.drop, {"timeout"}),
        (proxies.corrupt, {"protocol", "timeout"}),
        (proxies.exaggerate, {"timeout"}),
        (proxies.speak_http, {"timeout"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_network_may_do(
    broker: rabbitmq_server.Broker, channel: Any, name: str, verb: Any, labels: set[str], warm: bool
) -> None:
    declare(channel, name)
    with (
        proxies.Proxy(broker.port) as proxy,
        opened(broker.url(port=proxy.port), [name], timeout=1) as provider,
    ):
        if warm:
            provider.get_all_queue_stats()
        proxy.verb = verb
        begun = time.monotonic()
        error = failure(provider.get_all_queue_stats)
        assert error.error_type in labels, error
        assert time.monotonic() - begun < 5
        proxy.verb = proxies.forward
        assert backlogs(provider.get_all_queue_stats()) == {name: 0}


def test_an_answer_about_another_queue_is_not_taken_for_this_ones(
    broker: rabbitmq_server.Broker, channel: Any, name: str
) -> None:
    def confuse(_: proxies.Proxy, client: Any, data: bytes) -> None:
        client.sendall(data.replace(name.encode(), name[::-1].encode()))

    declare(channel, name)
    with proxies.Proxy(broker.port) as proxy, opened(broker.url(port=proxy.port), [name]) as provider:
        proxy.verb = confuse
        assert failure(provider.get_all_queue_stats).error_type == "protocol"


def test_an_idle_connection_that_was_closed_is_replaced(
    broker: rabbitmq_server.Broker, channel: Any, name: str
) -> None:
    declare(channel, name)
    with proxies.Proxy(broker.port) as proxy, opened(broker.url(port=proxy.port), [name]) as provider:
        for _ in range(3):
            assert backlogs(provider.get_all_queue_stats()) == {name: 0}
            (link,) = provider._links().idle
            assert link._connection.heartbeat == 0, "nobody would answer it while the connection is idle"
            proxy.disconnect()


def interrupted(provider: RabbitMQStatsProvider) -> tuple[StatsUnavailableError, float]:
    """Interrupt a read that hangs; return what it raised, and how long after the interrupt."""
    caught: list[StatsUnavailableError] = []
    reader = threading.Thread(target=lambda: caught.append(failure(provider.get_all_queue_stats)))
    reader.start()
    eventually(lambda: any(read.link for read in provider._links().reads))
    reader.join(0.3)
    assert reader.is_alive()
    begun = time.monotonic()
    provider.interrupt()
    reader.join(HANGS)
    return caught[0], time.monotonic() - begun


@pytest.mark.parametrize("warm", [False, True], ids=["connecting", "reading"])
@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_a_frozen_broker(broker: rabbitmq_server.Broker, channel: Any, name: str, scheme: str, warm: bool) -> None:
    declare(channel, name)
    url = broker.url() if scheme == "amqp" else f"amqps://{servers.HOST}:{broker.tls_port}?verify=verify_none"
    with (
        opened(url, [name], timeout=HANGS) as provider,
        opened(url, [name], timeout=1) as impatient,
        opened(url, [name], timeout=HANGS) as idle,
    ):
        idle.get_all_queue_stats()
        if warm:
            provider.get_all_queue_stats()
            impatient.get_all_queue_stats()
        broker.freeze()
        try:
            error, seconds = interrupted(provider)
            assert (error.error_type, seconds < 10) == ("deadline", True), seconds
            begun = time.monotonic()
            assert failure(impatient.get_all_queue_stats).error_type == "timeout"
            impatient.close()
            idle.close()
            assert time.monotonic() - begun < 10
        finally:
            broker.resume()
        assert backlogs(provider.get_all_queue_stats()) == {name: 0}


@pytest.mark.parametrize("warm", [False, True], ids=["connecting", "reading"])
def test_a_dripping_broker(broker: rabbitmq_server.Broker, crowd: dict[str, int], warm: bool) -> None:
    with (
        proxies.Proxy(broker.port) as proxy,
        opened(broker.url(port=proxy.port), list(crowd), timeout=2) as provider,
    ):
        if warm:
            provider.get_all_queue_stats()
        proxy.verb = proxies.drip
        error, seconds = interrupted(provider)
        assert (error.error_type, seconds < 10) == ("deadline", True), seconds
        proxy.verb = proxies.forward
        assert backlogs(provider.get_all_queue_stats()) == crowd


def test_an_interrupt_of_nothing(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    declare(channel, name)
    with opened(broker.url(), [name]) as provider:
        provider.interrupt()
        provider.get_all_queue_stats()
        provider.interrupt()
        assert backlogs(provider.get_all_queue_stats()) == {name: 0}


def test_a_restarted_broker(broker: rabbitmq_server.Broker, name: str) -> None:
    with broker.channel() as channel:
        declare(channel, name)
        publish(channel, name, 5)
    with opened(broker.url(), [name]) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {name: 5}
        broker.kill()
        assert failure(provider.get_all_queue_stats).error_type == "connect"
        broker.start()
        with broker.channel() as channel:
            declare(channel, name)  # what a killed broker had not written yet is gone
            channel.queue_purge(name)
            publish(channel, name, 3)
        assert backlogs(provider.get_all_queue_stats()) == {name: 3}


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


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: RabbitMQStatsProvider("http://secret@h", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("secret", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider(b"amqp://secret@h", ["q"]), "url"),  # type: ignore[arg-type]
        (lambda: RabbitMQStatsProvider("amqp://u:12/secret@h/v", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqp://u:12#secret@h/v", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqp://u:12?secret@h/v", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqp://u:secret/@h/v", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqp://secret@h:99999", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqp://secret@[::1/", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqp://secret@one,two", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider(f"amqp://secret@{'h' * 64}", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider(f"amqp://secret@h/{'v' * 256}", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqp://secret@h?heartbeat=5", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqps://secret@h?heartbeat=secret", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqps://secret@h?verify=secret", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqps://secret@h?secret", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqps://secret@h?cacertfile=/secret/ca.pem", ["q"]), "url"),
        (lambda: RabbitMQStatsProvider("amqp://h", "q"), "queues"),
        (lambda: RabbitMQStatsProvider("amqp://h", None), "queues"),  # type: ignore[arg-type]
        (lambda: RabbitMQStatsProvider("amqp://h", {"q": 1}), "queues.q"),
        (lambda: RabbitMQStatsProvider("amqp://h", {"q": ""}), "queues.q"),
        (lambda: RabbitMQStatsProvider("amqp://h", {"q": "a\nb"}), "queues.q"),
        (lambda: RabbitMQStatsProvider("amqp://h", {"q": "ä" * 128}), "queues.q"),
        (lambda: RabbitMQStatsProvider("amqp://h", ["q"], timeout=0), "timeout"),
    ],
)
def test_impossible_settings(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.field == field
    assert "secret" not in str(caught.value) + repr(vars(caught.value))
    assert caught.value.__context__ is None or field != "url"
    with pytest.raises(InvalidQueueError):
        RabbitMQStatsProvider("amqp://h", [""])


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


# ------------------------------------------------------------------------------------------------------------- secrets


def test_credentials_are_shown_nowhere(
    broker: rabbitmq_server.Broker, channel: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []

    def watch(provider: RabbitMQStatsProvider) -> None:
        outcomes: list[Any] = []
        for read in (provider.get_all_queue_stats, lambda: provider.get_queue_stats("q")):
            try:
                outcomes.append(read())
            except StatsUnavailableError as error:
                shown.extend(traceback.format_exception(error))
                shown.extend([repr(vars(error)), repr(pickle.dumps(error))])
        shown.extend([repr(provider), str(provider), repr(vars(provider)), repr(outcomes), repr(provider._target)])
        for link in (*provider._links().idle, provider._open()):
            shown.extend([repr(link), repr(vars(link)), repr(vars(link._connection))])
        for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
            for what in (provider, provider._target):
                with pytest.raises(TypeError, match="does not pickle") as caught:
                    refuse(what)
                shown.append(str(caught.value))

    def quoting(connection: Any) -> None:
        connection.recv(8)
        connection.sendall(closing(403, f"ACCESS_REFUSED - for '{NAME}' with '{CANARY}'"))
        connection.recv(65536)

    declare(channel, name)
    user = f"{NAME}:{CANARY}"
    with servers.Listener(quoting) as other, proxies.Proxy(broker.port) as proxy:
        proxy.verb = proxies.corrupt
        for url in (
            broker.url(user),
            *(broker.url(wrong) for wrong in (f"{NAME}:{CANARY}-not", f"stranger:{CANARY}", f"{CANARY}:{NAME}")),
            broker.url(user, "elsewhere"),
            *(broker.url(user, port=port) for port in (servers.dead_port(), other.port, proxy.port)),
            f"amqps://{user}@{servers.HOST}:{broker.tls_port}?verify=verify_none",
            f"amqps://{user}@{servers.HOST}:{broker.tls_port}",
            f"amqps://{user}@{servers.HOST}:{broker.port}",
        ):
            with opened(url, [name], timeout=0.3) as provider:
                watch(provider)
    shown.extend(str(vars(record)) for record in caplog.records if not record.name.startswith("asyncio"))
    assert any(record.name == "amqp" for record in caplog.records)
    assert len(shown) > 100
    assert any("***" in text for text in shown)
    assert [text for text in shown if CANARY in text] == []
    assert [text for text in shown if NAME in text] == []


# ----------------------------------------------------------------------------------------------- threads and processes


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


def test_many_threads_read_at_once(broker: rabbitmq_server.Broker, crowd: dict[str, int]) -> None:
    names = list(crowd)
    wrong: list[object] = []

    def read(provider: RabbitMQStatsProvider, offset: int) -> None:
        for turn in range(5):
            try:
                name = names[(turn * 7 + offset) % len(names)]
                if provider.get_queue_stats(name).backlog_count != crowd[name]:
                    wrong.append(name)
                some = dict.fromkeys(names[offset : offset + 100])
                some[f"missing-{offset}"] = None
                found = backlogs(provider.get_many(some))
                if found != {name: crowd.get(name, "missing") for name in some}:
                    wrong.append(found)
            except BaseException as error:  # noqa: BLE001
                wrong.append(error)

    with opened(broker.url(), names, timeout=HANGS) as provider:
        threads = [threading.Thread(target=read, args=(provider, offset)) for offset in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert 1 <= len(provider._links().idle) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_its_own_connection(broker: rabbitmq_server.Broker, channel: Any, name: str) -> None:
    declare(channel, name)
    publish(channel, name, 2)
    with opened(broker.url(), [name], timeout=5.0) as provider:
        provider.get_queue_stats(name)
        (link,) = provider._links().idle
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                provider.interrupt()
                backlog = provider.get_queue_stats(name).backlog_count
                own = provider._links().idle != [link]
                provider.close()
                status = 0 if backlog == 2 and own else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert provider.get_queue_stats(name).backlog_count == 2
        assert provider._links().idle == [link], "the child closed its parent's connection"


# ---------------------------------------------------------------------------------------------------------- controller


TIGHT = {"thresholds": {"low_priority": {"green_max": 1, "yellow_max": 2, "red_max": 10}}}


def test_a_controller_sheds_low_and_lets_high_pass(
    broker: rabbitmq_server.Broker, channel: Any, name: str, make_controller: MakeController
) -> None:
    declare(channel, name)
    with opened(broker.url(), {"mail": name}) as provider:
        controller = make_controller(provider, BackpressureConfig.from_mapping(TIGHT))
        controller.run("low", "mail", publish, channel, name, 1)
        publish(channel, name, 19)
        controller.refresh("mail")
        with pytest.raises(JobShedError, match="backlog of 20"):
            controller.run("low", "mail", publish, channel, name, 1)
        controller.run("high", "mail", publish, channel, name, 1)
        for _ in range(20):
            channel.basic_get(name)
        controller.refresh("mail")
        decision = controller.suggest_throttle("low", "mail")
        assert (decision.should_shed, decision.backlog_size) == (False, 1), "what workers have taken is not waiting"


def test_an_async_controller_reads_it_on_a_thread(
    broker: rabbitmq_server.Broker, channel: Any, name: str, engine_name: str, engine_module: EngineModule
) -> None:
    async def main(provider: RabbitMQStatsProvider) -> None:
        polling = PollingConfig(interval=0.2, jitter=0, timeout=0.2, max_backoff=0.4)
        config = BackpressureConfig.from_mapping(TIGHT).evolve({"polling": polling})
        async with AsyncBackpressureController(config, provider, _engine=engine_name) as controller:

            async def until(backlog: int) -> None:
                async with asyncio.timeout(10):
                    while (await controller.suggest_throttle("low", name)).backlog_size != backlog:
                        await asyncio.sleep(0.01)

            await until(20)
            assert (await controller.suggest_throttle("low", name)).should_shed
            assert (await controller.suggest_throttle("high", name)).delay == 0
            broker.freeze()
            try:
                await asyncio.sleep(0.5)  # polls are interrupted meanwhile
            finally:
                broker.resume()
            channel.queue_purge(name)
            await until(0)

    declare(channel, name)
    publish(channel, name, 20)
    with opened(broker.url(), [name], timeout=HANGS) as provider:
        asyncio.run(main(provider))
