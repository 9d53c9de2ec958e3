"""`SQSStatsProvider` against moto's server and a scripted one: counts, errors, cost, threads, forks, and secrets."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import boto3.session  # type: ignore[import-untyped]
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from moto.server import ThreadedMotoServer

from backpressure import (
    BacklogThresholds,
    BacklogWindow,
    BackpressureConfig,
    BatchError,
    BatchJob,
    CircuitConfig,
    CircuitOpenError,
    CircuitState,
    ConfigurationError,
    JobShedError,
    StatsProvider,
    StatsUnavailableError,
)
from backpressure.providers.sqs.provider import SQSStatsProvider
from providers import checks
from providers.checks import failure
from providers.contract.backend import HANGS, Refusal, Scripted, Wrong
from providers.contract.faults import says
from providers.contract.suite import Contract
from support import servers
from support.controller_fixtures import eventually, own_threads

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from support.controller_fixtures import MakeController

REGION = "eu-west-1"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY7EXAMPLE23",
    "AWS_SECRET_ACCESS_KEY": "canary-4d1f-secret",
    "AWS_SESSION_TOKEN": "canary-77ab-token",
}
LOW_IS_SHED = BackpressureConfig(
    thresholds=BacklogThresholds(low_priority=BacklogWindow(green_max=1, yellow_max=2, red_max=4))
)


@pytest.fixture(autouse=True, scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Credentials of the tests' own, and nothing of the machine's."""
    folder = tmp_path_factory.mktemp("aws")
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
            environment.delenv(name)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        environment.setenv("AWS_CONFIG_FILE", str(folder / "config"))
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        for name, value in SECRETS.items():
            environment.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = own_threads("sqs")
    yield
    eventually(lambda: own_threads("sqs") <= before)


@contextlib.contextmanager
def opened(url: str, queues: Any = ("mail",), **options: Any) -> Iterator[SQSStatsProvider]:
    options = {"region_name": REGION, "endpoint_url": url, "timeout": 10.0, **options}  # machines stall
    with contextlib.closing(SQSStatsProvider(queues, **options)) as provider:
        yield provider


def given_client(url: str, **options: Any) -> Any:
    options = {"retries": {"total_max_attempts": 1}, "read_timeout": 5, **options}
    return boto3.session.Session().client("sqs", region_name=REGION, endpoint_url=url, config=Config(**options))


def counts(outcomes: Any, name: str = "mail") -> tuple[int, int | None, int | None]:
    return checks.counts(checks.sample(outcomes, name))


def types(outcomes: Any) -> dict[str, str]:
    return {name: getattr(outcome, "error_type", "ok") for name, outcome in outcomes.items()}


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(servers.HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    assert server._server is not None
    server._server.server_close()


class Queue:
    """A queue in moto, seen by its producers and workers."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name
        attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if name.endswith(".fifo") else {}
        self.url: str = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def send(self, number: int, **options: Any) -> None:
        for index in range(number):
            self.client.send_message(QueueUrl=self.url, MessageBody=f"job {index} {options}", **options)

    def take(self, number: int) -> list[Any]:
        reply = self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=number, VisibilityTimeout=600)
        messages: list[Any] = reply["Messages"]
        assert len(messages) == number
        return messages

    def delete(self) -> None:
        self.client.delete_queue(QueueUrl=self.url)


@pytest.fixture(scope="module")
def moto_client(aws: None, moto_url: str) -> Iterator[Any]:
    """A client of the tests' own. moto asks nobody for credentials."""
    session = boto3.session.Session("key", "secret")
    with contextlib.closing(session.client("sqs", region_name=REGION, endpoint_url=moto_url)) as client:
        yield client


@pytest.fixture
def queue(moto_client: Any) -> Iterator[Callable[[str], Queue]]:
    """A maker of queues, which are deleted afterwards."""
    made: list[Queue] = []

    def make(name: str = "mail") -> Queue:
        made.append(Queue(moto_client, name))
        return made[-1]

    yield make
    for each in made:
        with contextlib.suppress(moto_client.exceptions.QueueDoesNotExist):
            each.delete()


def test_waiting_running_and_delayed_are_told_apart(moto_url: str, queue: Callable[..., Queue]) -> None:
    mail = queue()
    mail.send(8)
    taken = mail.take(3)
    mail.send(2, DelaySeconds=600)
    mail.client.delete_message(QueueUrl=mail.url, ReceiptHandle=taken[0]["ReceiptHandle"])
    before = datetime.now(UTC)
    with opened(moto_url) as provider:
        assert isinstance(provider, StatsProvider)
        stats = provider.get_queue_stats("mail")
    assert (stats.queue_name, *counts({"mail": stats})) == ("mail", 5, 2, 2)
    assert stats.oldest_age is None
    assert before <= stats.last_updated <= datetime.now(UTC)


def test_fifo(moto_url: str, queue: Callable[..., Queue]) -> None:
    orders = queue("orders.fifo")
    orders.send(3, MessageGroupId="a")
    orders.send(2, MessageGroupId="b")
    orders.take(1)
    with opened(moto_url, ["orders.fifo"]) as provider:
        assert counts(provider.get_all_queue_stats(), "orders.fifo") == (4, 1, 0)


def test_names_urls_and_arns(moto_url: str, queue: Callable[..., Queue]) -> None:
    mail = queue("prod-mail")
    mail.send(3)
    arn = mail.client.get_queue_attributes(QueueUrl=mail.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    queues = {"by name": "prod-mail", "by url": mail.url, "by arn": arn}
    with opened(moto_url, queues) as provider:
        outcomes = provider.get_all_queue_stats()
        assert {name: counts(outcomes, name) for name in outcomes} == dict.fromkeys(queues, (3, 0, 0))
        assert list(outcomes) == list(queues)
        assert counts(provider.get_many(["by arn"]), "by arn") == (3, 0, 0)


def test_a_queue_that_is_not_there_spoils_no_other(moto_url: str, queue: Callable[..., Queue]) -> None:
    mail = queue()
    mail.send(1)
    with opened(moto_url, ["gone", "mail"]) as provider:
        outcomes = provider.get_all_queue_stats()
        assert counts(outcomes) == (1, 0, 0)
        error = outcomes["gone"]
        assert isinstance(error, StatsUnavailableError)
        assert (error.error_type, error.queue_name) == ("missing", "gone")
        assert str(error).startswith(f"cannot read queue 'gone' at SQS ({moto_url[7:]}): QueueDoesNotExist: ")
        assert str(error).endswith("; create it, or check its name, account and region")
        assert failure(lambda: provider.get_queue_stats("gone")).error_type == "missing"


def test_a_queue_deleted_and_made_again_is_found(moto_url: str, queue: Callable[..., Queue]) -> None:
    mail = queue()
    with opened(moto_url) as provider:
        assert counts(provider.get_all_queue_stats()) == (0, 0, 0)
        mail.delete()
        assert types(provider.get_all_queue_stats()) == {"mail": "missing"}
        queue().send(2)
        assert counts(provider.get_all_queue_stats()) == (2, 0, 0)


class Request(NamedTuple):
    connection: int
    operation: str
    asked: dict[str, Any]
    headers: dict[str, str]

    @property
    def name(self) -> str:
        """The queue's."""
        return str(self.asked.get("QueueName") or self.asked["QueueUrl"].rpartition("/")[2])


class Fake:
    """Speaks SQS: `answer` gives the bytes of each reply, or writes them itself and returns ``None``."""

    def __init__(self, answer: Callable[[Request, socket.socket], bytes | None] | None = None) -> None:
        self.answer = answer or (lambda request, _: good(request))
        self.requests: list[Request] = []
        self.ended: list[int] = []
        self._listener = servers.Listener(self._handle)
        self.port = self._listener.port
        self.url = f"http://{servers.HOST}:{self.port}"

    def _handle(self, connection: socket.socket) -> None:
        number = connection.getpeername()[1]
        with contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while request := self._read(number, stream):
                self.requests.append(request)
                reply = self.answer(request, connection)
                if reply is None:
                    break
                connection.sendall(reply)
        self.ended.append(number)

    @staticmethod
    def _read(number: int, stream: io.BufferedIOBase) -> Request | None:
        if not stream.readline():
            return None
        headers = {}
        while line := stream.readline().strip():
            key, _, value = line.decode().partition(":")
            headers[key.lower()] = value.strip()
        length = int(headers["content-length"])
        if len(body := stream.read(length)) < length:
            return None  # cut by an interrupt in the middle of a request
        return Request(number, headers["x-amz-target"].partition(".")[2], json.loads(body), headers)

    def operations(self) -> list[tuple[str, str]]:
        return [(request.operation, request.name) for request in self.requests]

    def connections(self) -> set[int]:
        return {request.connection for request in self.requests}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.__exit__()


def http(status: int, body: str, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} OK", f"content-length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def good(request: Request, *values: Any) -> bytes:
    if request.operation == "GetQueueUrl":
        return http(200, json.dumps({"QueueUrl": f"http://sqs/{request.asked['QueueName']}"}))
    return attributes(*(values or ("5", "3", "2")))


def attributes(*values: Any) -> bytes:
    names = ("", "NotVisible", "Delayed")
    numbers = {f"ApproximateNumberOfMessages{name}": value for name, value in zip(names, values, strict=False)}
    return http(200, json.dumps({"Attributes": numbers}))


def refusal(code: str, status: int = 400, message: str = "no") -> bytes:
    body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message})
    return http(status, body, x_amzn_query_error=f"{code};Sender")


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as server:
        yield server


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set when a test ends, for answers that wait."""
    event = threading.Event()
    yield event
    event.set()


def wrong(field: str, words: str, **options: Any) -> Wrong:
    given = {"queues": ["mail"], **options}
    return Wrong(field, lambda: SQSStatsProvider(**given), words)


def refuses(code: str, status: int) -> Callable[[SQS], Any]:
    def meet(backend: SQS) -> Any:
        backend.fake.answer = lambda *_: refusal(code, status)
        return backend.make({"q": "q"})

    return meet


class SQS(Scripted):
    """A script in the place of SQS, which can be told to stand still; moto's answers are shown above."""

    kind = SQSStatsProvider
    kept = 16  # the client's own pool
    secrets = tuple(SECRETS.values())
    quotes = False  # nothing but codes
    listened_to = "backpressure"  # botocore's own loggers show much
    dns_advice = "; check the region and endpoint_url"
    connect_advice = "check the network, the proxy and endpoint_url"
    where = "endpoint_url"
    malformed = ("https://user:canary-4d1f-secret@sqs.example.org/", "canary:4566", "ftp://canary", 4566)
    wrong = (
        wrong("queues", "give a list of names, or a mapping from names to names, URLs or ARNs", queues="mail"),
        wrong("queues.a", "queues['a'] is 3: give the name, URL or ARN of a queue in SQS", queues={"a": 3}),
        wrong("queues.e mail", "queues['e mail'] is None: give a name in SQS (up to 80 letters, di", queues=["e mail"]),
        wrong("queues.a", "give a name in SQS", queues={"a": "x" * 81}),
        wrong("queues.a", "give a name in SQS", queues={"a": "ftp://host/1/a"}),
        wrong("queues.a", "give a name in SQS", queues={"a": "arn:aws:sns:eu-west-1:123456789012:a"}),
        wrong(
            "queues.a",
            "queues['a'] is 'arn:aws:sqs:us-east-1:123456789012:a': it is not in eu-west-1: make a provider for each",
            queues={"a": "arn:aws:sqs:us-east-1:123456789012:a"},
            region_name=REGION,
        ),
        wrong("queues.a", "leave it out, requests are signed", queues={"a": "https://me:canary@sqs.example.org/1/a"}),
        wrong("endpoint_url", "leave it out, requests are signed", endpoint_url="https://me:canary@sqs.example.org"),
        wrong("endpoint_url", "is no URL of a server: give one like https://sqs.eu", endpoint_url="localhost:4566"),
        wrong("client", 'client is a builtins.module: give a boto3.client("sqs")', client=boto3),
    )
    refusals: ClassVar = {
        "token": Refusal("auth", "check that boto3 finds credentials", refuses("InvalidClientTokenId", 403)),
        "throttled": Refusal("busy", "raise polling.interval", refuses("RequestThrottled", 403)),
    }
    uncut: ClassVar = {"tls": "botocore shows a socket once hands are shaken; what was interrupted then ends there"}
    labels: ClassVar = {
        **dict.fromkeys(("http", "speak_http"), "provider"),  # some refusal, of the one queue
        "cut": "protocol|connect",
        "exaggerate": "protocol",
    }
    tls_words: ClassVar = dict.fromkeys(("certificate", "host name"), "sslerror; check that endpoint_url")

    def __init__(self, fake: Fake, front: int, deaf: int, environment: pytest.MonkeyPatch) -> None:
        super().__init__(fake.port, front, deaf)
        self.fake = fake
        self.environment = environment
        self.places: dict[str, str] = {}
        self.backlogs: dict[str, int] = {}
        fake.answer = self.answer

    def answer(self, request: Request, _: object) -> bytes:
        self.runs.wait(HANGS)
        backlog = self.backlogs.get(request.name)
        return refusal("QueueDoesNotExist") if backlog is None else good(request, str(backlog), "0", "0")

    def make(
        self, queues: Any, *, face: str = "plain", host: str = "", port: int = 0, given: Any = None, **options: Any
    ) -> Any:
        self.environment.setenv("AWS_CA_BUNDLE", str(servers.CERTIFICATE))
        if face == "untrusting":
            self.environment.delenv("AWS_CA_BUNDLE")
        url = f"{'http' if face == 'plain' else 'https'}://{host or servers.HOST}:{port or self.port_of(face)}"
        url = url if given is None else given
        return SQSStatsProvider(queues, **{"region_name": REGION, "endpoint_url": url, **options})

    def place(self, name: str) -> str:
        return self.places.setdefault(name, f"place-{len(self.places)}")

    def fill(self, backlogs: Mapping[str, int]) -> None:
        self.backlogs.update({self.place(name): backlog for name, backlog in backlogs.items()})

    def spoil(self, name: str) -> str:
        del self.backlogs[self.place(name)]
        return "missing"

    def secretive(self) -> Iterator[Any]:
        for how in ("message", "code", "key as code", "page", "broken page"):
            self.fake.answer = lambda request, _, how=how: quote(request, how)  # type: ignore[misc]
            yield self.make(["q", "sms"], timeout=10.0)
        assert self.fake.requests[0].headers["x-amz-security-token"] == SECRETS["AWS_SESSION_TOKEN"]
        yield self.make(["q"], port=servers.dead_port())


@pytest.fixture
def backend(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQS]:
    with (
        servers.tls_front(cast("servers.Server", fake)) as front,
        servers.Listener(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as deaf,
    ):
        backend = SQS(fake, front.port, deaf.port, monkeypatch)
        yield backend
        backend.runs.set()


class TestContract(Contract, of=SQS):
    pass


def test_a_read_is_one_request_a_queue(fake: Fake) -> None:
    queues = {
        "mail": "mail",
        "url": f"{fake.url}/123456789012/by-url",
        "arn": f"arn:aws:sqs:{REGION}:210987654321:other",
    }
    with opened(fake.url, queues) as provider:
        assert fake.requests == [], "the constructor connects"
        for _ in range(3):
            assert types(provider.get_all_queue_stats()) == dict.fromkeys(queues, "ok")
    attributes = [("GetQueueAttributes", name) for name in ("mail", "by-url", "other")]
    assert fake.operations() == [
        ("GetQueueUrl", "mail"), attributes[0], attributes[1], ("GetQueueUrl", "other"), attributes[2],
        *attributes, *attributes,
    ]  # fmt: skip
    assert len(fake.connections()) == 1, "connections are not kept"
    asked = [request.asked for request in fake.requests]
    assert asked[0] == {"QueueName": "mail"}
    assert asked[2]["QueueUrl"] == queues["url"]
    assert asked[3] == {"QueueName": "other", "QueueOwnerAWSAccountId": "210987654321"}
    assert len(asked[1]["AttributeNames"]) == 3
    assert "producer-backpressure/" in fake.requests[0].headers["user-agent"]
    assert f"/{REGION}/sqs/" in fake.requests[0].headers["authorization"]


def test_strangers_cost_nothing(fake: Fake) -> None:
    with opened(fake.url) as provider:
        assert list(provider.get_many(["made-up", "mail"])) == ["made-up", "mail"]
    assert {request.name for request in fake.requests} == {"mail"}


def test_a_queue_made_again_may_have_another_url(fake: Fake) -> None:
    urls = iter(["http://sqs/old", "http://sqs/new"])

    def answer(request: Request, _: object) -> bytes:
        if request.operation == "GetQueueUrl":
            return http(200, json.dumps({"QueueUrl": next(urls)}))
        moved = len(fake.requests) > 2 and request.name == "old"
        return refusal("AWS.SimpleQueueService.NonExistentQueue") if moved else good(request)

    fake.answer = answer
    with opened(fake.url) as provider:
        assert [types(provider.get_all_queue_stats())["mail"] for _ in range(3)] == ["ok", "missing", "ok"]
    assert fake.requests[-1].name == "new"


OF_ALL = {
    ("InvalidClientTokenId", 403): "auth",
    ("SignatureDoesNotMatch", 403): "auth",
    ("InvalidSignatureException", 403): "auth",
    ("UnrecognizedClientException", 400): "auth",
    ("MissingAuthenticationToken", 403): "auth",
    ("ExpiredToken", 403): "auth",
    ("ExpiredTokenException", 400): "auth",
    ("RequestThrottled", 403): "busy",
    ("AWS.SimpleQueueService.RequestThrottled", 400): "busy",
    ("ThrottlingException", 400): "busy",
    ("Throttling", 400): "busy",
    ("OverLimit", 403): "busy",
    ("SlowDown", 429): "busy",
    ("ServiceUnavailable", 503): "busy",
    ("InternalFailure", 500): "busy",
    ("BadGateway", 502): "connect",
    ("GatewayTimeout", 504): "timeout",
}
OF_ONE = {
    ("AccessDenied", 403): "acl",
    ("AccessDeniedException", 400): "acl",
    ("SomethingForbidden", 403): "acl",
    ("QueueDoesNotExist", 400): "missing",
    ("AWS.SimpleQueueService.NonExistentQueue", 400): "missing",
    ("InvalidAddress", 400): "missing",
    ("UnsupportedOperation", 400): "provider",
}


def test_what_concerns_all_ends_the_read(fake: Fake) -> None:
    found: dict[tuple[str, int], object] = {}
    with opened(fake.url, {name: f"{fake.url}/1/{name}" for name in "abc"}) as provider:
        for code, status in OF_ALL:
            fake.answer = lambda request, _, code=code, status=status: (  # type: ignore[misc]
                refusal(code, status) if request.name == "b" else good(request)
            )
            fake.requests.clear()
            outcomes = provider.get_all_queue_stats()
            assert [request.name for request in fake.requests] == ["a", "b"], "it went on, or tried again"
            error = outcomes["c"]
            assert isinstance(error, StatsUnavailableError)
            assert error.queue_name == "c"
            assert str(error).startswith(f"cannot read SQS ({fake.url[7:]}): ")
            assert f"({code}) when calling the GetQueueAttributes operation" in str(error)
            alone = failure(lambda: provider.get_queue_stats("b"))
            assert (types(outcomes), alone.error_type, alone.queue_name) == (
                {"a": "ok", "b": error.error_type, "c": error.error_type},
                error.error_type,
                None,
            )
            found[code, status] = error.error_type
    assert found == OF_ALL


def test_what_concerns_one_queue_is_its_value(fake: Fake) -> None:
    found: dict[tuple[str, int], object] = {}
    with opened(fake.url, ["a", "b", "c"]) as provider:
        for code, status in OF_ONE:
            fake.answer = lambda request, _, code=code, status=status: (  # type: ignore[misc]
                refusal(code, status) if request.name == "b" else good(request)
            )
            fake.requests.clear()
            outcomes = types(provider.get_all_queue_stats())
            assert (outcomes["a"], outcomes["c"]) == ("ok", "ok")
            assert types(provider.get_many(["b"])) == {"b": outcomes["b"]}
            assert fake.operations().count(("GetQueueUrl", "b")) == 2
            found[code, status] = outcomes["b"]
    assert found == OF_ONE


def test_advice_names_the_permissions(fake: Fake) -> None:
    fake.answer = lambda *_: refusal("AccessDenied", 403, "User: arn:aws:iam::123456789012:user/x is not authorized")
    with opened(fake.url) as provider:
        error = failure(lambda: provider.get_queue_stats("mail"))
    assert str(error) == (
        f"cannot read queue 'mail' at SQS ({fake.url[7:]}): ClientError: An error occurred (AccessDenied) when calling "
        "the GetQueueUrl operation; allow sqs:GetQueueAttributes and sqs:GetQueueUrl on it"
    )


@pytest.mark.parametrize(
    "variables", [{}, {"AWS_RETRY_MODE": "adaptive", "AWS_MAX_ATTEMPTS": "9"}], ids=["defaults", "environment"]
)
def test_nothing_is_tried_twice(fake: Fake, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fake.answer = lambda *_: refusal("ThrottlingException", 400)
    with opened(fake.url) as provider:
        for _ in range(2):
            assert failure(provider.get_all_queue_stats).error_type == "busy"
        [(client, _)] = provider._clients.values()
        assert client.meta.config.retries == {"total_max_attempts": 1, "mode": "standard"}
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [
        http(200, "<html>Please log in</html>", content_type="text/html"),
        http(200, "{}"),
        http(200, '{"Attributes": null}'),
        attributes("5", "3"),
        attributes("5", "3", "many"),
        attributes("5", None, "2"),
        attributes("5" * 5_000, "3", "2"),
        attributes("5", "3", "2")[:-20],
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["page", "empty", "null", "two", "word", "none", "huge", "cut", "ssh"],
)
def test_what_is_not_sqs(fake: Fake, reply: bytes) -> None:
    fake.answer = lambda request, connection: connection.sendall(reply)
    with opened(fake.url, {"mail": f"{fake.url}/1/mail"}) as provider:
        error = failure(provider.get_all_queue_stats)
    assert error.error_type in {"protocol", "connect"}, error
    assert "check " in str(error)


def test_a_number_that_is_no_count_is_left_to_the_controller(make_controller: MakeController, fake: Fake) -> None:
    fake.answer = lambda request, _: good(request, "-1", "3", "2")
    with opened(fake.url) as provider:
        assert make_controller(provider).health()["polling_errors"] == {"invalid_sample": 1}


def test_a_silent_server(fake: Fake, over: threading.Event) -> None:
    def answer(*_: object) -> None:
        over.wait(30)

    fake.answer = answer
    with opened(fake.url, ["a", "b"], timeout=0.2) as provider:
        began = time.monotonic()
        assert failure(provider.get_all_queue_stats).error_type == "timeout"
        assert time.monotonic() - began < 5
        assert len(fake.requests) == 1


def test_a_connection_that_the_server_closed_is_opened_again(fake: Fake) -> None:
    def answer(request: Request, _: object) -> bytes | None:
        # Closed just when the next request is on its way, which nobody can see beforehand.
        return None if len(fake.requests) == 3 else good(request)

    fake.answer = answer
    with opened(fake.url) as provider:
        assert [types(provider.get_all_queue_stats()) for _ in range(2)] == [{"mail": "ok"}] * 2
        assert (len(fake.requests), len(fake.connections())) == (4, 2)
        fake.answer = lambda *_: None
        assert failure(provider.get_all_queue_stats).error_type == "connect"
        assert len(fake.requests) == 6


def test_credentials_are_looked_for_anew(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name)
    with opened(fake.url) as provider:
        error = failure(provider.get_all_queue_stats)
        assert error.error_type == "auth"
        assert "NoCredentialsError; check that boto3 finds credentials" in str(error)
        assert fake.requests == []
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        assert types(provider.get_all_queue_stats()) == {"mail": "ok"}
        fake.answer = lambda *_: refusal("ExpiredToken", 403)
        assert failure(provider.get_all_queue_stats).error_type == "auth"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIARENEWED")
        fake.answer = lambda request, _: good(request)
        assert types(provider.get_all_queue_stats()) == {"mail": "ok"}
        assert "Credential=AKIARENEWED/" in fake.requests[-1].headers["authorization"]


def test_no_region(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(fake.url, region_name=None) as provider:
        error = failure(provider.get_all_queue_stats)
        assert (error.error_type, "NoRegionError; set AWS_REGION or region_name" in str(error)) == ("provider", True)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        assert types(provider.get_all_queue_stats()) == {"mail": "ok"}


def test_no_such_profile(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with opened(fake.url) as provider:
        assert failure(provider.get_all_queue_stats).error_type == "provider"


def drip(reply: bytes, over: threading.Event) -> Callable[[Request, socket.socket], None]:
    """Return an answer that comes byte by byte, none of them late."""

    def answer(_: Request, connection: socket.socket) -> None:
        for position in range(len(reply)):
            if over.wait(0.05):
                return
            connection.sendall(reply[position : position + 1])

    return answer


@pytest.mark.parametrize("padding", [{"x_padding": "x" * 2_000}, {}], ids=["headers", "body"])
def test_a_dripping_server_is_cut_off(fake: Fake, over: threading.Event, padding: dict[str, str]) -> None:
    fake.answer = drip(http(200, " " * 2_000, **padding), over)
    with opened(fake.url, [f"q{number}" for number in range(20)], timeout=2) as provider:
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(provider.get_all_queue_stats)
            eventually(lambda: len(fake.requests) == 3)
            provider.interrupt()
            error = reading.exception(5)
        assert isinstance(error, StatsUnavailableError)
        assert error.error_type == "deadline"
        fake.answer = lambda request, _: good(request)
        assert set(types(provider.get_all_queue_stats()).values()) == {"ok"}, "an interrupt lasts"


def test_an_interrupt_while_connecting(fake: Fake, monkeypatch: pytest.MonkeyPatch, over: threading.Event) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(servers.CERTIFICATE))
    shaking_hands, go_on = threading.Event(), threading.Event()
    fake.answer = drip(http(200, " " * 2_000), over)

    def handle(connection: socket.socket) -> None:
        shaking_hands.set()
        go_on.wait(10)
        with socket.create_connection((servers.HOST, front.port)) as plain:
            threading.Thread(target=servers.copy, args=(plain, connection), daemon=True).start()
            servers.copy(connection, plain)

    with (
        servers.tls_front(cast("servers.Server", fake)) as front,
        servers.Listener(handle) as slow,
        opened(f"https://localhost:{slow.port}", timeout=10) as provider,
        ThreadPoolExecutor(1) as pool,
    ):
        reading = pool.submit(provider.get_all_queue_stats)
        assert shaking_hands.wait(10)
        provider.interrupt()
        go_on.set()
        error = reading.exception(5)
        assert isinstance(error, StatsUnavailableError)
        assert error.error_type == "deadline"
        assert fake.requests == []


def test_an_interrupt_ends_a_given_client_between_requests(fake: Fake) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def answer(request: Request, _: object) -> bytes:
        asked.set()
        go_on.wait(30)
        return good(request)

    fake.answer = answer
    client = given_client(fake.url)
    with contextlib.closing(SQSStatsProvider(["a", "b"], client=client)) as provider, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(provider.get_all_queue_stats)
        assert asked.wait(10)
        provider.interrupt()
        go_on.set()
        error = reading.exception(10)
        assert isinstance(error, StatsUnavailableError)
        assert error.error_type == "deadline"
        assert len(fake.requests) == 1
        assert types(provider.get_all_queue_stats()) == {"a": "ok", "b": "ok"}
    client.close()


@pytest.mark.parametrize(("queues", "threads"), [(8, 1), (9, 2), (40, 5), (64, 8), (200, 8)])
def test_many_queues_are_read_on_few_threads(fake: Fake, queues: int, threads: int) -> None:
    together = threading.Barrier(threads)
    asking: set[int] = set()
    most = 0

    def answer(request: Request, _: object) -> bytes:
        nonlocal most
        asking.add(request.connection)
        most = max(most, len(asking))
        if len(fake.requests) <= threads:
            together.wait(10)  # broken unless all of them come at once
        asking.discard(request.connection)
        return good(request, str(len(request.name)), "0", "0")

    fake.answer = answer
    names = [f"q{number}" for number in range(queues)]
    before = own_threads("sqs")
    with opened(fake.url, {name: f"{fake.url}/1/{name}" for name in names}, timeout=20) as provider:
        outcomes = provider.get_all_queue_stats()
        assert own_threads("sqs") <= before
    assert {name: counts(outcomes, name)[0] for name in names} == {name: len(name) for name in names}
    assert list(outcomes) == names
    assert most == len(fake.connections()) == threads
    assert len(fake.requests) == queues


def test_without_more_threads_one_does_it_all(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def spawn_none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    names = [f"q{number}" for number in range(20)]
    with opened(fake.url, names) as provider:
        provider.get_many(names[:1])
        monkeypatch.setattr("backpressure.providers.sqs.provider.spawn", spawn_none)
        outcomes = provider.get_all_queue_stats()
        monkeypatch.undo()
    assert set(types(outcomes).values()) == {"ok"}
    assert len(fake.connections()) == 1


def test_a_failure_stops_the_other_threads(fake: Fake) -> None:
    fake.answer = lambda *_: refusal("RequestThrottled")
    with opened(fake.url, [f"q{number}" for number in range(200)]) as provider:
        assert failure(provider.get_all_queue_stats).error_type == "busy"
    assert len(fake.requests) <= 8


def test_ctrl_c_ends_the_other_threads() -> None:
    asked: list[str] = []
    ended = threading.Event()

    class Client:
        def get_queue_attributes(self, QueueUrl: str, AttributeNames: list[str]) -> Any:  # noqa: N803 - SQS's names
            asked.append(QueueUrl)
            if threading.current_thread() is threading.main_thread():
                ended.set()
                raise KeyboardInterrupt
            ended.wait(10)
            time.sleep(0.002)  # lets the other thread go on
            return {"Attributes": dict.fromkeys(AttributeNames, "1")}

    before = own_threads("sqs")
    provider = SQSStatsProvider({f"q{number}": f"http://sqs/1/q{number}" for number in range(1_000)}, client=Client())
    with pytest.raises(KeyboardInterrupt):
        provider.get_all_queue_stats()
    assert len(asked) < 500
    assert own_threads("sqs") <= before


def test_first_readers_at_once_share_a_client(fake: Fake) -> None:
    with opened(fake.url) as provider, ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(provider.get_queue_stats, "mail") for _ in range(32)]
        assert {counts({"mail": read.result(30)}) for read in reads} == {(5, 3, 2)}
        assert len(provider._clients) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("read_before", [True, False])
def test_a_given_client_does_not_survive_a_fork(fake: Fake, read_before: bool) -> None:
    client = given_client(fake.url)
    provider = SQSStatsProvider(["mail"], client=client)
    if read_before:
        provider.get_queue_stats("mail")
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            try:
                provider.get_queue_stats("mail")
                status = 10
            except StatsUnavailableError as error:
                status = 11 if "used before the fork: make both in each process" in str(error) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (11 if read_before else 10)
    client.close()


def test_close_ends_the_connections_and_is_final(fake: Fake) -> None:
    with opened(fake.url) as provider:
        provider.get_queue_stats("mail")
        [(_, connections)] = provider._clients.values()
        assert len(connections) == 1, "botocore's inside has changed: see _sqs_client.py"
        for _ in range(2):
            provider.close()
        assert (connections, provider._clients) == (set(), {})
        eventually(lambda: fake.ended)
        assert str(failure(provider.get_all_queue_stats)) == "this provider is closed: make a new one"


def test_close_during_a_read_ends_its_connection_afterwards(fake: Fake) -> None:
    with opened(fake.url, ["a", "b"]) as provider:
        provider.get_all_queue_stats()
        [(_client, connections)] = provider._clients.values()  # kept, so that it is not collected

        def answer(request: Request, _: object) -> bytes:
            if request.name == "a":
                provider.close()
            return good(request)

        fake.answer = answer
        assert types(provider.get_all_queue_stats()) == {"a": "ok", "b": "ok"}
        assert connections == set()
        eventually(lambda: len(fake.ended) == len(fake.connections()))


def test_a_given_client_is_used_as_it_is_and_never_closed(fake: Fake) -> None:
    client = given_client(fake.url, user_agent_extra="my-own")
    with contextlib.closing(SQSStatsProvider(["mail"], client=client)) as provider:
        assert repr(provider) == f"SQSStatsProvider('SQS ({fake.url[7:]})', 1 queues)"
        assert types(provider.get_all_queue_stats()) == {"mail": "ok"}
    assert "producer-backpressure" not in fake.requests[0].headers["user-agent"]
    client.get_queue_url(QueueName="mail")
    assert len(fake.connections()) == 1, "its connection was closed"
    client.close()


def test_boto3_is_loaded_for_a_client_of_ones_own_alone() -> None:
    code = """
import sys
from backpressure.providers.sqs.provider import SQSStatsProvider

class Client:
    def get_queue_attributes(self, QueueUrl, AttributeNames):
        return {"Attributes": dict.fromkeys(AttributeNames, "7")}

provider = SQSStatsProvider({"mail": "https://sqs/1/mail"}, client=Client())
print(provider.get_queue_stats("mail").backlog_count, {"boto3", "botocore"} & set(sys.modules))
SQSStatsProvider(["mail"])
print({"boto3", "botocore"} <= set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "7 set()\nTrue\n", done.stderr


def test_a_client_has_its_region_already(fake: Fake) -> None:
    client = given_client(fake.url)
    more: Any
    for more in ({"region_name": REGION}, {"endpoint_url": fake.url}):
        with pytest.raises(ConfigurationError, match="client has its region and endpoint already: give either"):
            SQSStatsProvider(["mail"], client=client, **more)
    with pytest.raises(ConfigurationError, match="it is not in eu-west-1"):
        SQSStatsProvider({"a": "arn:aws:sqs:us-east-1:123456789012:a"}, client=client)
    client.close()


def test_names_in_sqs() -> None:
    for name in ("A-b_9", "x" * 80, "orders.fifo"):
        assert repr(SQSStatsProvider([name])) == "SQSStatsProvider('SQS', 1 queues)"


def quote(request: Request, how: str) -> bytes:
    """Repeat everything that was sent, as a message, as an error code, or as a page."""
    told = " ".join(f"{key}: {value}" for key, value in request.headers.items())
    if how == "message":
        return refusal("SignatureDoesNotMatch", 403, f"The Canonical String should have been {told}")
    if how == "code":
        return refusal(request.headers["x-amz-security-token"], 403, told)
    if how == "key as code":
        return refusal(SECRETS["AWS_ACCESS_KEY_ID"], 400, told)
    return http(200 if how == "page" else 500, told)


def test_a_program_that_gives_credentials_is_not_quoted(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name)
    program = f"{sys.executable} -c 'import sys; sys.exit(\"canary-4d1f-secret\")'"
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with opened(fake.url) as provider:
        error = failure(provider.get_all_queue_stats)
    assert (error.error_type, "canary" in str(error)) == ("auth", False)
    assert "CredentialRetrievalError" in str(error)


class UnsentError(Exception):
    """As in the guide."""

    def __init__(self, failed: list[dict[str, Any]]) -> None:
        super().__init__(f"SQS did not take {len(failed)} entries: {sorted({entry['Code'] for entry in failed})}")
        self.failed = failed


class RefusedError(UnsentError):
    """As in the guide."""


def send_batch(client: Any, url: str, entries: list[dict[str, Any]]) -> None:
    """As in the guide."""
    if failed := client.send_message_batch(QueueUrl=url, Entries=entries).get("Failed"):
        raise (RefusedError if all(entry["SenderFault"] for entry in failed) else UnsentError)(failed)


def entries(*bodies: str) -> list[dict[str, Any]]:
    return [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]


def test_a_batch_is_asked_for_once_and_sent_whole(
    make_controller: MakeController, moto_url: str, queue: Callable[..., Queue]
) -> None:
    mail = queue()
    with opened(moto_url) as provider:
        controller = make_controller(provider, LOW_IS_SHED)
        controller.run("low", "mail", send_batch, mail.client, mail.url, entries("a", "b", "c", "d"))
        controller.refresh("mail")
        with pytest.raises(JobShedError):
            controller.run("low", "mail", send_batch, mail.client, mail.url, entries("e", "f"))
        assert counts(provider.get_all_queue_stats()) == (4, 0, 0)


def test_partial_failures_open_the_circuit_and_name_every_entry(make_controller: MakeController, fake: Fake) -> None:
    fault = {"Id": "1", "Code": "InternalError", "SenderFault": False}

    def answer(request: Request, _: object) -> bytes:
        if request.operation != "SendMessageBatch":
            return good(request, "0", "0", "0")
        return http(
            200, json.dumps({"Successful": [{"Id": "0", "MessageId": "m", "MD5OfMessageBody": ""}], "Failed": [fault]})
        )

    fake.answer = answer
    config = BackpressureConfig(circuit=CircuitConfig(failure_threshold=3, excluded_exceptions=(RefusedError,)))
    client = given_client(fake.url)
    with opened(fake.url) as provider:
        controller = make_controller(provider, config)
        work = functools.partial(send_batch, client, f"{fake.url}/1/mail", entries("a", "b"))

        fault["SenderFault"] = True
        for _ in range(4):
            with pytest.raises(RefusedError):
                controller.run("high", "mail", work)
        assert controller.get_circuit_state("mail") is CircuitState.CLOSED, "bad messages say nothing about the queue"

        fault["SenderFault"] = False
        with pytest.raises(BatchError) as caught:
            controller.process_batch([BatchJob("high", "mail", work) for _ in range(5)])
        assert caught.value.result is not None
        errors = [outcome.error for outcome in caught.value.result.outcomes]
        assert [type(error) for error in errors] == [UnsentError] * 3 + [CircuitOpenError] * 2
        assert [entry["Id"] for error in errors[:3] for entry in error.failed] == ["1"] * 3  # type: ignore[union-attr]
        assert controller.get_circuit_state("mail") is CircuitState.OPEN
    client.close()
