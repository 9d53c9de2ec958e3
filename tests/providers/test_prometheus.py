"""`PrometheusStatsProvider` against a real Prometheus, and against servers that fail in every way of HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    Reason,
)
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.stats import MAX_BACKLOG, QueueStats, StatsProvider
from backpressure.providers.prometheus import api
from backpressure.providers.prometheus.provider import PrometheusStatsProvider
from providers.checks import backlogs, failure
from providers.contract.backend import HANGS, PASSWORD, USER, Refusal, Scripted, Wrong
from providers.contract.faults import says
from providers.contract.suite import Contract
from support import prometheus_server, redis_fixtures, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from backpressure._engine.border import EngineModule
    from support.controller_fixtures import MakeController

CANARY = "hunter2canary"
HASH = "$2b$04$abcdefghijklmnopqrstuuoD8yw7MmybLKVooaTGGZAt3HXugv2.a"  # of "test"
SOON = BackpressureConfig().evolve(
    {"polling.interval": 0.1, "polling.jitter": 0, "polling.timeout": 0.1, "polling.cache_ttl": 0.4}
)


@contextlib.contextmanager
def opened(url: str, query: str | None = "depth", **options: Any) -> Iterator[PrometheusStatsProvider]:
    provider = PrometheusStatsProvider(url, query, **{"timeout": 20, **options})
    try:
        yield provider
    finally:
        provider.close()


def age(outcome: Any) -> float:
    assert isinstance(outcome, QueueStats), outcome
    return (datetime.now(UTC) - outcome.last_updated).total_seconds()


@pytest.fixture(scope="module")
def server() -> Iterator[prometheus_server.Prometheus]:
    """One Prometheus for all tests here, and no longer: it scrapes this process ten times a second."""
    if prometheus_server.binary() is None:
        redis_fixtures.no_server("no prometheus: apt-get install prometheus")
    with prometheus_server.Prometheus() as server:
        yield server


def test_a_real_server_with_tls_and_users() -> None:
    if prometheus_server.binary() is None:
        redis_fixtures.no_server("no prometheus: apt-get install prometheus")
    with prometheus_server.Prometheus(user="eve", password_hash=HASH) as server:
        url = server.url.replace("//", "//eve:test@")
        with opened(url, None, queues={"q": "1"}, ssl_context=trusting()) as provider:
            assert backlogs(provider.get_all_queue_stats()) == {"q": 1}
        with opened(url.replace("test", CANARY), ssl_context=trusting()) as provider:
            error = failure(provider.get_all_queue_stats)
    assert error.error_type == "auth"
    assert CANARY not in str(error)


class Shown(NamedTuple):
    """The server, and a way to give it metrics: each of their names is new in this test."""

    server: prometheus_server.Prometheus

    @property
    def url(self) -> str:
        return self.server.url

    def show(self, metrics: Callable[[], str] | str) -> None:
        """Return when they have been scraped, all of them at once."""
        seen = f"seen_{time.monotonic_ns()}"
        text = metrics if callable(metrics) else metrics.__str__
        self.server.exporter.metrics = lambda: f"{text()}\n{seen} 1\n"
        with opened(self.url, None, queues={"q": seen}, timeout=5) as provider:
            eventually(lambda: backlogs(provider.get_all_queue_stats()) == {"q": 1}, 20)


@pytest.fixture
def prometheus(server: prometheus_server.Prometheus) -> Iterator[Shown]:
    """A server with nothing in it."""
    shown = Shown(server)
    shown.show("")
    yield shown
    server.exporter.alive = True


def test_finds_every_queue_and_its_number(prometheus: Shown) -> None:
    prometheus.show('depth{queue="mail"} 12\ndepth{queue="empty"} 0\ndepth{queue="full"} 1.2e+06\nother{queue="x"} 9')
    with opened(prometheus.url) as provider:
        assert isinstance(provider, StatsProvider)
        assert backlogs(provider.get_all_queue_stats()) == {"mail": 12, "empty": 0, "full": 1_200_000}
        stats = provider.get_queue_stats("mail")
    assert (stats.queue_name, stats.processing_count, stats.delayed_count, stats.oldest_age) == ("mail", *3 * (None,))


def test_reads_the_queues_it_is_given_and_others_when_asked(prometheus: Shown) -> None:
    prometheus.show('depth{name="a"} 1\ndepth{name="b"} 2\n')
    with opened(prometheus.url, label="name", queues=["a", "gone"]) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": 1, "gone": "missing"}
        assert backlogs(provider.get_many(["b", "nowhere"])) == {"b": 2, "nowhere": "missing"}
        error = failure(lambda: provider.get_queue_stats("gone"))
    assert str(error).startswith(f"queue 'gone' has no series at {prometheus.url}: check the query")
    assert error.queue_name == "gone"
    with opened(prometheus.url, queues=[]) as provider:
        assert provider.get_all_queue_stats() == {}


def test_all_the_numbers_of_a_queue(prometheus: Shown) -> None:
    prometheus.show(
        'depth{queue="a"} 3\nrunning{queue="a"} 2\nlater{queue="a"} 7\nsince{queue="a"} 4.5\n'
        'depth{queue="b"} 1\nrunning{queue="b"} NaN\nlater{queue="b"} -1\nsince{queue="b"} +Inf\n'
        'depth{queue="c"} 1\nrunning{queue="other"} 5'
    )
    with opened(prometheus.url, processing="running", delayed="later", oldest_age="since") as provider:
        outcomes = provider.get_all_queue_stats()
    told = {
        name: (stats.backlog_count, stats.processing_count, stats.delayed_count, stats.oldest_age)
        for name, stats in outcomes.items()
        if isinstance(stats, QueueStats)
    }
    assert told == {"a": (3, 2, 7, 4.5), "b": (1, None, None, None), "c": (1, None, None, None)}


def test_fractions_are_rounded_up_and_what_counts_nothing_is_refused(prometheus: Shown) -> None:
    values = {"whole": "12.0", "part": "2.0001", "nan": "NaN", "inf": "+Inf", "less": "-1", "bit": "-0.5", "zero": "-0"}
    values |= {"most": str(MAX_BACKLOG), "more": str(MAX_BACKLOG + 1)}
    prometheus.show("\n".join(f'depth{{queue="{name}"}} {value}' for name, value in values.items()))
    with opened(prometheus.url) as provider:
        outcomes = provider.get_all_queue_stats()
    bad = dict.fromkeys(("nan", "inf", "less", "bit", "more"), "invalid_sample")
    assert backlogs(outcomes) == {"whole": 12, "part": 3, "zero": 0, "most": MAX_BACKLOG, **bad}
    assert f"queue 'nan' at {prometheus.url}: its backlog is nan: give a query that counts jobs" == str(outcomes["nan"])
    assert "its backlog is -1:" in str(outcomes["less"])


def test_queries_of_their_own(prometheus: Shown) -> None:
    prometheus.show('keys{key="a"} 3\nkeys{key="b"} 4\ndepth{queue="mail"} 5')
    queues = {
        "plain": 'keys{key="a"}',
        "sum": "sum(keys)  # both",
        "scalar": "scalar(sum(keys)) * 2",
        "common": None,
        "none": "nothing",
        "two": "keys",
        "wrong": "sum(",
        "range": "keys[1m]",
        "text": '"x"',
        "ambiguous": "keys + on() group_left keys",
    }
    with opened(prometheus.url, "label_replace(depth, 'queue', 'common', '', '')", queues=queues) as provider:
        outcomes = provider.get_all_queue_stats()
    told = {"plain": 3, "sum": 7, "scalar": 14, "common": 5, "none": "missing", "two": "invalid_sample"}
    assert backlogs(outcomes) == told | dict.fromkeys(("wrong", "range", "text", "ambiguous"), "provider")
    messages = {name: str(outcome) for name, outcome in outcomes.items() if isinstance(outcome, Exception)}
    assert "2 series give its backlog: aggregate them, e.g. by max" in messages["two"]
    start = f"cannot read queue 'wrong' at {prometheus.url}: QueryError: the query for backlog: "
    assert messages["wrong"].startswith(f"{start}bad_data: ")
    assert "parse error: unclosed left parenthesis" in messages["wrong"]
    assert "it gives a matrix: give one that gives a number a series, without [a range]" in messages["range"]
    assert "it gives a string" in messages["text"]
    assert "execution: " in messages["ambiguous"]


def test_two_series_for_a_queue_are_nobodys_choice(prometheus: Shown) -> None:
    prometheus.show('depth{queue="a",pod="1"} 3\ndepth{queue="a",pod="2"} 4\ndepth{queue="b",pod="1"} 5')
    with opened(prometheus.url) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": "invalid_sample", "b": 5}
    with opened(prometheus.url, "sum by (queue) (depth)") as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": 7, "b": 5}
    with opened(prometheus.url, "max by (queue) (depth)", delayed="depth") as provider:
        outcomes = provider.get_all_queue_stats()
    assert backlogs(outcomes) == {"a": "invalid_sample", "b": 5}
    assert "2 series give its delayed" in str(outcomes["a"])


def test_a_label_that_no_series_has_is_told(prometheus: Shown) -> None:
    prometheus.show('depth{name="a"} 3\nrunning{queue="a"} 3')
    with opened(prometheus.url) as provider:
        error = failure(provider.get_all_queue_stats)
    assert error.error_type == "provider"
    assert "none of its series has the label 'queue', the first has __name__, instance, job, name: give label=" in str(
        error
    )
    with opened(prometheus.url, "sum(depth)") as provider:
        assert "the first has none: give label=" in str(failure(provider.get_all_queue_stats))
    with opened(prometheus.url, label="name", processing="running") as provider:
        assert "the query for processing: none of its series" in str(failure(provider.get_all_queue_stats))


def test_what_cannot_name_a_queue_is_not_found(prometheus: Shown) -> None:
    prometheus.show(
        f'depth{{queue="a"}} 3\ndepth{{pod="1"}} 3\ndepth{{queue="{256 * "x"}"}} 3\ndepth{{queue="a\\nb"}} 3'
    )
    with opened(prometheus.url) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": 3}


def test_a_query_that_the_server_cannot_evaluate_concerns_all(prometheus: Shown) -> None:
    prometheus.show('depth{queue="a"} 3')
    with opened(prometheus.url, "sum by (") as provider:
        error = failure(provider.get_all_queue_stats)
        assert error.error_type == "provider"
        assert "parse error" in str(error)
        assert failure(lambda: provider.get_queue_stats("a")).error_type == "provider"
    slow = "count_over_time((sum by (queue) (rate(depth[1m])))[10d:1s])"
    with opened(prometheus.url, None, queues={"slow": slow}) as provider:
        provider._limits["timeout"] = "1ms"  # the server's own limit; the client would wait

        def told() -> tuple[dict[str, int | str], bool]:
            outcomes = provider.get_all_queue_stats()
            return backlogs(outcomes), "timeout: query timed out" in str(outcomes["slow"])

        # Time may also run out where it says so otherwise.
        eventually(lambda: told() == ({"slow": "timeout"}, True))


def test_a_sample_is_as_old_as_its_scrape(prometheus: Shown) -> None:
    # An exporter that gives times of its own; Prometheus shows such samples for five minutes, and
    # takes none that are older than what it has: the name must be new.
    prometheus.show(lambda: f'aged{{queue="a"}} 3 {int(time.time() * 1000) - 20_000}\nfresh{{queue="a"}} 3')
    selectors = ("aged", '{__name__="aged"}', 'aged{queue=~"a|}"}', " aged {queue!='\\''} ")
    for query in selectors:
        with opened(prometheus.url, query) as provider:
            assert 19.9 <= age(provider.get_queue_stats("a")) < 25, query
    with opened(prometheus.url, None, queues={"q": "aged"}) as provider:
        assert 19.9 <= age(provider.get_queue_stats("q")) < 25
    with opened(prometheus.url, "fresh") as provider:
        assert 0 <= age(provider.get_queue_stats("a")) < 5
    # What is computed does not tell, unless it is asked.
    with opened(prometheus.url, "sum by (queue) (aged)") as provider:
        assert 0 <= age(provider.get_queue_stats("a")) < 5
    when = "min by (queue) (timestamp(aged))"
    with opened(prometheus.url, "sum by (queue) (aged)", last_updated=when) as provider:
        assert 19.9 <= age(provider.get_queue_stats("a")) < 25


def test_times_that_are_none_are_refused(prometheus: Shown) -> None:
    now = time.time()
    pushed = {"seconds": now - 50, "ms": now * 1000, "ahead": now + 20, "nan": "NaN", "before": -1}
    lines = [f'pushed{{queue="{name}"}} {value}' for name, value in pushed.items()]
    prometheus.show("\n".join([*lines, *(f'depth{{queue="{name}"}} 1' for name in (*pushed, "none"))]))
    with opened(prometheus.url, last_updated="pushed") as provider:
        outcomes = provider.get_all_queue_stats()
    refused = dict.fromkeys(("ms", "none", "nan", "before"), "invalid_sample")
    assert backlogs(outcomes) == {"seconds": 1, "ahead": 1, **refused}
    assert 50 <= age(outcomes["seconds"]) < 55
    assert 0 <= age(outcomes["ahead"]) < 5  # a clock that is a little ahead
    assert "its last_updated is nan: give Unix seconds for each queue" in str(outcomes["none"])


def test_a_dead_exporter_takes_its_queues_along(prometheus: Shown) -> None:
    prometheus.show('depth{queue="a"} 3')
    with opened(prometheus.url) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": 3}
        prometheus.server.exporter.alive = False
        eventually(lambda: provider.get_all_queue_stats() == {})
        assert failure(lambda: provider.get_queue_stats("a")).error_type == "missing"


def test_a_controller_degrades_when_the_exporter_dies(
    prometheus: Shown, engine_name: str, engine_module: EngineModule
) -> None:
    prometheus.show('depth{queue="full"} 5000')
    config = SOON.evolve({"recovery.graceful_degrade": 0.2})
    with (
        opened(prometheus.url) as provider,
        BackpressureController(config, provider, _engine=engine_name) as controller,
    ):
        eventually(lambda: controller.suggest_throttle("low", "full").should_shed)
        prometheus.server.exporter.alive = False
        eventually(lambda: controller.suggest_throttle("low", "full").reason is Reason.STATS_STALE)
        eventually(lambda: controller.suggest_throttle("low", "full").reason is Reason.FALLBACK_CONSERVATIVE)
        prometheus.server.exporter.alive = True
        eventually(lambda: controller.suggest_throttle("low", "full").should_shed)


def test_an_old_sample_is_old_for_a_controller_too(
    prometheus: Shown, engine_name: str, engine_module: EngineModule
) -> None:
    prometheus.show(lambda: f'late{{queue="full"}} 5000 {int(time.time() * 1000) - 40_000}')
    with (
        opened(prometheus.url, "late") as provider,
        BackpressureController(None, provider, _engine=engine_name) as controller,
    ):
        assert controller.suggest_throttle("low", "full").reason is Reason.STATS_STALE  # 40 s are more than cache_ttl


def test_a_frozen_server_holds_a_poll_no_longer_than_its_deadline(
    prometheus: Shown, make_controller: MakeController
) -> None:
    prometheus.show('depth{queue="a"} 3')
    with opened(prometheus.url) as provider:
        controller = make_controller(provider, SOON, clock=None)
        eventually(lambda: controller.suggest_throttle("low", "a").backlog_size == 3)
        prometheus.server.freeze()
        try:
            eventually(lambda: controller.health()["provider"] == "deadline")
        finally:
            prometheus.server.resume()
        eventually(lambda: controller.health()["provider"] == "ok")


class Request(NamedTuple):
    head: str
    form: dict[str, str]

    def header(self, name: str) -> str | None:
        lines = [line.partition(": ") for line in self.head.split("\r\n")[1:]]
        return next((value for found, _, value in lines if found.lower() == name), None)


def http(body: str | bytes, status: str = "200 OK", *headers: str, kind: str = "application/json") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(data)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def vector(series: dict[str, float | str], at: float = 1_000.0) -> str:
    result = [{"metric": {"queue": name}, "value": [at, str(value)]} for name, value in series.items()]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def refusal(kind: str, message: str) -> str:
    return json.dumps({"status": "error", "errorType": kind, "error": message})


class Fake(servers.Listener):
    """Answers each request with what `answer` makes of it, over connections that are kept."""

    def __init__(self, answer: Callable[[Request], bytes] | bytes) -> None:
        self.answer = answer if callable(answer) else lambda _: answer
        self.requests: list[Request] = []
        self.connections = 0
        super().__init__(self._serve_http)

    @property
    def url(self) -> str:
        return f"http://{servers.HOST}:{self.port}"

    def _serve_http(self, connection: socket.socket) -> None:
        self.connections += 1
        with connection.makefile("rb") as stream:
            while line := stream.readline():
                head = line
                while (line := stream.readline()) not in {b"\r\n", b""}:
                    head += line
                request = Request(head.decode("latin-1"), {})
                body = stream.read(int(request.header("content-length") or 0)).decode()
                request = Request(request.head, {name: values[-1] for name, values in parse_qs(body).items()})
                self.requests.append(request)
                answer = self.answer(request)
                connection.sendall(answer)
                if b"\r\nConnection: close\r\n" in answer:
                    return


def wrong(field: str, words: str = "", **options: Any) -> Wrong:
    given = {"url": "http://localhost", "query": "depth", **options}
    return Wrong(field, lambda: PrometheusStatsProvider(**given), words)


def answers(answer: bytes) -> Callable[[PrometheusBackend], Any]:
    def meet(backend: PrometheusBackend) -> Any:
        backend.fake.answer = lambda _: answer
        return backend.make({"q": None})

    return meet


class PrometheusBackend(Scripted):
    """A script in the place of Prometheus, which can be told to stand still."""

    kind = PrometheusStatsProvider
    shares_server = False
    reads_unlisted = True
    secrets = (USER, PASSWORD, base64.b64encode(USER.encode()).decode()[:12])
    holders = ("_server",)
    where = "url"
    malformed = (
        *(f"http://user:{PASSWORD}{end}" for end in ("/x@h", "#x@h", "?x@h", "@h:99999", "@h:port", "@")),
        *(f"{scheme}user:{PASSWORD}@host" for scheme in ("", "ftp://", "prometheus://", "http:/")),
        f"http://user:{PASSWORD}@[::1",
        f"http://user:12/{PASSWORD}@host",  # a password with a slash that could be a port and a path
        f"http://user:12?{PASSWORD}@host",
        f"http://h/#{PASSWORD}",
        "",
        9090,
        b"http://localhost",
    )
    wrong = (
        wrong("query", "query and queues are both missing", query=None),
        wrong("queues.a", "give its query, or query= for all", query=None, queues=["a"]),
        wrong("delayed", "delayed is given without query", query=None, queues={"a": "x"}, delayed="y"),
        wrong("query", "give PromQL, as a str", query=" "),
        wrong("query", "give PromQL", query=3),
        wrong("processing", "give PromQL", processing=""),
        wrong("label", "label is ''", label=""),
        wrong("label", "label is None", label=None),
        wrong("queues", "give a list of names, or a mapping from names to queries", queues="abc"),
        wrong("queues.a", "give PromQL", queues={"a": 3}),
        wrong("lookback", "lookback is nan: give seconds above 0", lookback=float("nan")),
        wrong("headers", "an impossible value for 'X'", headers={"X": f"{PASSWORD}\r\n"}),
        wrong("headers", "headers is a str: give a mapping", headers=PASSWORD),
        wrong("ssl_context", "give https://", ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)),
        wrong("url", "value withheld", url=None),
    )
    refusals: ClassVar = {
        "password": Refusal("auth", "check the user name and password", answers(http("", "401 Unauthorized"))),
        "permission": Refusal("acl", "HTTP 403 Forbidden", answers(http("", "403 Forbidden"))),
        "limit": Refusal("busy", "the server refuses work", answers(http("", "429 Too Many Requests"))),
    }
    labels: ClassVar = {"exaggerate": "protocol"}

    def __init__(self, fake: Fake, front: int, deaf: int) -> None:
        super().__init__(fake.port, front, deaf)
        self.fake = fake
        self.depths: dict[str, float | str] = {}
        fake.answer = self.answer

    def answer(self, request: Request) -> bytes:
        self.runs.wait(HANGS)
        asked_when = request.form.get("query", "").startswith("timestamp")  # one that is cut has none
        return http(vector(dict.fromkeys(self.depths, 1_000.0) if asked_when else self.depths))

    def make(
        self, queues: Any, *, face: str = "plain", host: str = "", port: int = 0, given: Any = None, **options: Any
    ) -> Any:
        url = f"{'http' if face == 'plain' else 'https'}://{host or servers.HOST}:{port or self.port_of(face)}"
        if face == "tls":
            options["ssl_context"] = trusting()
        return PrometheusStatsProvider(url if given is None else given, "depth", queues=queues, **options)

    def place(self, name: str) -> Any:
        return None  # the query for all

    def fill(self, backlogs: Mapping[str, int]) -> None:
        self.depths.update(backlogs)

    def spoil(self, name: str) -> str:
        self.depths[name] = "NaN"
        return "invalid_sample"

    def secretive(self) -> Iterator[Any]:
        def quote(request: Request) -> bytes:
            # Short, for a message has an end: each of them alone, and what the header says.
            quoted = " ".join((USER, *(f"{PASSWORD}{end}" for end in ("", "-query", "-qu%65ry", "-key", "-bearer"))))
            return http(refusal("bad_data", f"{quoted} {request.header('authorization')}"), "400 Bad Request")

        self.fake.answer = quote
        with servers.Listener(lambda connection: connection.close()) as dead:
            for port, name in (
                (port, name) for port in (self.port, dead.port) for name in ("Authorization", "X-Bearer")
            ):
                url = f"http://{USER}:{PASSWORD}@{servers.HOST}:{port}/p?token={PASSWORD}-qu%65ry"
                headers = {"X-Key": f"{PASSWORD}-key", name: f"Bearer {PASSWORD}-bearer"}
                for queues in ({"q": None}, {"q": "x"}):  # the error of all, and of one
                    yield self.make(queues, given=url, headers=headers)

    def inside(self, provider: Any) -> Iterable[object]:
        yield provider._server  # beside it lie the headers, as they are sent


@pytest.fixture
def backend() -> Iterator[PrometheusBackend]:
    with (
        Fake(b"") as fake,
        servers.tls_front(cast("servers.Server", fake)) as front,
        servers.Listener(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as deaf,
    ):
        backend = PrometheusBackend(fake, front.port, deaf.port)
        yield backend
        backend.runs.set()


class TestContract(Contract, of=PrometheusBackend):
    pass


def test_asks_for_one_instant_within_limits() -> None:
    def answer(request: Request) -> bytes:
        return http(vector({"a": 999.5 if request.form["query"].startswith("timestamp") else 3}, at=1_000.123))

    with Fake(answer) as fake, opened(fake.url, "depth", delayed="later", lookback=20, timeout=2.5) as provider:
        stats = provider.get_queue_stats("a")
    assert 0.6 <= age(stats) < 5  # by the server's clock, whatever ours says
    first, second, third = fake.requests
    assert first.head.startswith("POST /api/v1/query HTTP/1.1\r\n")
    common = {"timeout": "2500ms", "lookback_delta": "20000ms", "max_lookback": "20000ms", "nocache": "1"}
    assert first.form == {"query": "depth", **common}
    assert second.form == {"query": "later", "time": "1000.123", **common}
    assert third.form == {"query": "timestamp(depth)", "time": "1000.123", **common}


@pytest.mark.parametrize(
    "query", ["sum(depth)", "depth offset 1m", "depth + 1", "depth{a='b'} or c", "depth # x", "1", "depth{", "a b"]
)
def test_only_a_metric_alone_is_asked_for_its_time(query: str) -> None:
    with Fake(http(vector({"a": 3}))) as fake, opened(fake.url, query) as provider:
        provider.get_all_queue_stats()
    assert len(fake.requests) == 1


def test_asks_no_more_where_nothing_is_found() -> None:
    with Fake(http(vector({}))) as fake, opened(fake.url, processing="running") as provider:
        assert provider.get_all_queue_stats() == {}
    assert len(fake.requests) == 1


def test_what_the_url_says() -> None:
    with Fake(http(vector({"a": 3}))) as fake:
        for rest, path in {
            "": "/api/v1/query",
            "/": "/api/v1/query",
            "/select/0/prometheus/": "/select/0/prometheus/api/v1/query",
            "/p?partial_response=false&x=%20": "/p/api/v1/query?partial_response=false&x=%20",
        }.items():
            with opened(fake.url + rest) as provider:
                provider.get_all_queue_stats()
                assert "partial" not in repr(provider)
            assert fake.requests[-1].head.split(" ")[1] == path


@pytest.mark.parametrize(
    ("answer", "label", "text"),
    [
        (http(refusal("bad_data", "no"), "400 Bad Request"), "provider", "bad_data: no"),
        (http(refusal("execution", "no"), "422 Unprocessable"), "provider", "execution: no"),
        (http(refusal("422", "no"), "422 Unprocessable"), "provider", "422: no"),  # VictoriaMetrics
        (http(refusal("internal", "no"), "500 Internal"), "provider", "internal: no"),
        (http(refusal("internal", "no")), "provider", "internal: no"),
        (http(refusal("timeout", "late"), "503 Service Unavailable"), "timeout", "timeout: late"),
        (
            http(refusal("execution", "expanding series: context deadline exceeded"), "422 Unprocessable Entity"),
            "timeout",
            "expanding series",
        ),
        (http(refusal("unavailable", "soon"), "503 Service Unavailable"), "busy", "unavailable: soon"),
        (http(refusal("too_many_requests", "slower"), "429 Too Many"), "busy", "too_many_requests: slower"),
        (http("no org id", "401 Unauthorized", kind="text/plain"), "auth", "HTTP 401 Unauthorized: no org id"),
        (http("<html>", "401 Unauthorized", kind="text/html"), "auth", "HTTP 401 Unauthorized; check the user"),
        (http(refusal("x", "who"), "401 Unauthorized"), "auth", "x: who"),
        (http("", "403 Forbidden"), "acl", "HTTP 403 Forbidden"),
        (http("", "429 Too Many Requests"), "busy", "HTTP 429"),
        (http("<html>", "502 Bad Gateway", kind="text/html"), "connect", "HTTP 502"),
        (http("", "503 Service Unavailable"), "busy", "HTTP 503"),
        (http("", "504 Gateway Timeout"), "timeout", "HTTP 504"),
        (http("404 page not found", "404 Not Found", kind="text/plain"), "protocol", "404 page not found"),
        (http("<html>sign in</html>", kind="text/html"), "protocol", "HTTP 200 OK; check that this is the URL"),
        (http("", "204 No Content"), "protocol", "HTTP 204"),
        (http("", "302 Found", "Location: http://localhost/"), "protocol", "HTTP 302 Found"),
        (http(b"\xff\xfe\x00", kind="text/plain; charset=x"), "protocol", "HTTP 200"),
        (http("[" * 100_000), "protocol", "HTTP 200"),
        (http("1" * 10_000), "protocol", "HTTP 200"),
        (http('"x"'), "protocol", "HTTP 200"),
        (http('{"status": "success"}'), "protocol", "not one of Prometheus"),
        (http('{"status": "success", "data": {"resultType": "vector", "result": [{}]}}'), "protocol", "not one of"),
        (b"-ERR unknown command 'POST'\r\n", "protocol", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "protocol", "more than 100 headers"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", "protocol", "LineTooLong"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{", "connect", "1 bytes read"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", "connect", "IncompleteRead"),
        (b"\r\nConnection: close\r\n", "protocol", "BadStatusLine"),
    ],
)
def test_what_servers_answer_instead(answer: bytes, label: str, text: str) -> None:
    with Fake(answer) as fake, opened(fake.url) as provider:
        error = failure(provider.get_all_queue_stats)
        assert (error.error_type, len(fake.requests)) == (label, 1)
        assert str(error).startswith(f"cannot read {fake.url}: ")
        assert text in str(error)


def test_an_answer_is_asked_for_once() -> None:
    answers = [http(vector({"a": 3})), http(vector({"a": 900})), http("", "429 Too Many Requests")]
    with Fake(lambda _: answers.pop(0)) as fake, opened(fake.url) as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": 3}
        assert failure(provider.get_all_queue_stats).error_type == "busy"
    assert (fake.connections, len(fake.requests)) == (1, 3)


def test_a_refusal_of_the_client_is_not_that_of_a_query() -> None:
    def answer(request: Request) -> bytes:
        return http("", "401 Unauthorized") if request.form["query"] == "b" else http(vector({"": 900}))

    with Fake(answer) as fake, opened(fake.url, None, queues={"a": "a", "b": "b", "c": "c"}) as provider:
        assert failure(provider.get_all_queue_stats).error_type == "auth"
    assert [request.form["query"] for request in fake.requests] == ["a", "timestamp(a)", "b"]


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    sent: list[int] = []

    def flood(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
            sent.append(1)

    with servers.Listener(flood) as listener, opened(f"http://{servers.HOST}:{listener.port}") as provider:
        error = failure(provider.get_all_queue_stats)
    assert error.error_type == "protocol"
    assert "the answer has more than 16 MiB: narrow or aggregate the query" in str(error)
    assert 16 <= len(sent) < 32  # and what lay in buffers


def test_an_answer_that_is_announced_is_not_allocated() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 500000000000\r\nConnection: close\r\n\r\n"
    with Fake(head) as fake, opened(fake.url) as provider:
        assert failure(provider.get_all_queue_stats).error_type == "connect"


def test_native_histograms_are_no_numbers() -> None:
    result = [{"metric": {"queue": "a"}, "histogram": [1000, {"count": "3", "sum": "4"}]}]
    body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, "warnings": ["x"]})
    with Fake(http(body)) as fake, opened(fake.url, "sum by (queue) (h)") as provider:
        assert backlogs(provider.get_all_queue_stats()) == {"a": "invalid_sample"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
pairs = st.tuples(st.floats() | json_values, st.sampled_from(["1", "NaN", "-1", "1e999", "x"]) | json_values)
items = st.fixed_dictionaries({"metric": st.dictionaries(st.just("queue"), json_values) | json_values, "value": pairs})
documents = st.fixed_dictionaries(
    {"resultType": st.sampled_from(["vector", "scalar", "matrix"]), "result": st.lists(items | json_values) | pairs}
)


@given(documents | json_values)
def test_any_answer_ends_in_samples_or_one_known_error(data: Any) -> None:
    def query(_: api.Link, __: str, ___: Any, *, at: float | None = None) -> list[api.Series]:
        return api._series(json.loads(json.dumps(data)))

    with pytest.MonkeyPatch.context() as patch, opened("http://localhost", processing="running") as provider:
        patch.setattr(api.Link, "query", query)
        try:
            outcomes = provider.get_all_queue_stats()
        except StatsUnavailableError as error:
            assert error.error_type in {"protocol", "provider"}  # noqa: PT017
        else:
            for outcome in outcomes.values():
                assert outcome.error_type == "invalid_sample" if isinstance(outcome, Exception) else not outcome.fault()


def test_servers_that_close_after_each_answer() -> None:
    with Fake(http(vector({"a": 3}), "200 OK", "Connection: close")) as fake, opened(fake.url) as provider:
        for _ in range(2):
            assert backlogs(provider.get_all_queue_stats()) == {"a": 3}
    assert fake.connections == 4


def drip(prelude: bytes) -> Callable[[socket.socket], None]:
    """Return what sends a byte now and then, so that none of them is late, but the answer is."""

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(prelude)
        while True:
            connection.sendall(b"x")
            time.sleep(0.01)

    return handle


@pytest.mark.parametrize(
    "prelude",
    [
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",  # http.client has let go of its socket
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ],
    ids=["status", "header", "body", "until-closed", "chunk"],
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_an_answer_that_drips_is_cut(prelude: bytes, *, tls: bool) -> None:
    with servers.Listener(drip(prelude)) as listener, servers.tls_front(listener) as front:  # type: ignore[arg-type]
        url = f"https://{servers.HOST}:{front.port}" if tls else f"http://{servers.HOST}:{listener.port}"
        with opened(url, ssl_context=trusting() if tls else None) as provider:
            assert cut(provider).error_type == "deadline"


def test_an_interrupt_while_it_connects_begins_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.create_connection

    def interrupted(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        connected = connect(address)
        provider.interrupt()
        return connected

    with Fake(http(vector({"a": 3}))) as fake, opened(fake.url) as provider:
        monkeypatch.setattr("urllib3.util.connection.create_connection", interrupted)
        assert failure(provider.get_all_queue_stats).error_type == "deadline"
        monkeypatch.undo()
        assert fake.requests == []
        assert backlogs(provider.get_all_queue_stats()) == {"a": 3}


def cut(provider: PrometheusStatsProvider) -> StatsUnavailableError:
    """Interrupt a read once it reads, and return how it ends."""
    failures: list[StatsUnavailableError] = []

    def read() -> None:
        try:
            provider.get_all_queue_stats()
        except StatsUnavailableError as error:
            failures.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    links = provider._links()
    eventually(lambda: any(read.link is not None and read.link._connection.wire for read in links.reads))
    time.sleep(0.03)  # into the drip; earlier would be as good
    provider.interrupt()
    thread.join(5)
    assert not thread.is_alive()
    return failures[0]


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(servers.CERTIFICATE))


def test_authorities_of_the_environment_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(servers.CERTIFICATE))
    with (
        Fake(http(vector({"a": 3}))) as fake,
        servers.tls_front(cast("servers.Server", fake)) as front,
        opened(f"https://{servers.HOST}:{front.port}") as provider,
    ):
        assert backlogs(provider.get_all_queue_stats()) == {"a": 3}


def test_no_redirect_is_followed_and_no_proxy_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with Fake(http(vector({"a": 3}))) as target:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, target.url)
        for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
            with Fake(http("", status, f"Location: {target.url}/?{CANARY}")) as fake, opened(fake.url) as provider:
                error = failure(provider.get_all_queue_stats)
                assert error.error_type == "protocol"
                assert CANARY not in str(error)
        assert target.requests == []


def test_credentials_are_sent() -> None:
    with Fake(http(vector({"a": 3}))) as fake:
        with opened(f"http://us%40er:p%3Aw@{servers.HOST}:{fake.port}") as provider:
            provider.get_all_queue_stats()
        assert fake.requests[-1].header("authorization") == "Basic dXNAZXI6cDp3"  # us@er:p:w
        headers = {"Authorization": "Bearer abc", "X-Scope-OrgID": "tenant"}
        with opened(f"http://u:p@{servers.HOST}:{fake.port}", headers=headers) as provider:
            provider.get_all_queue_stats()
        assert fake.requests[-1].header("authorization") == "Bearer abc"
        assert fake.requests[-1].header("x-scope-orgid") == "tenant"
        assert fake.requests[-1].head.lower().count("authorization") == 1


def test_tokens_that_change() -> None:
    tokens = iter(range(10))

    def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {CANARY}{next(tokens)}"}

    def answer(request: Request) -> bytes:
        token = request.header("authorization") or ""
        if token.endswith("0"):
            return http(vector({"a": 900}))
        return http(refusal("x", f"expired: {token.split()[1]} and {CANARY}0"), "401 Unauthorized")

    with Fake(answer) as fake, opened(fake.url, headers=headers) as provider:
        provider.get_all_queue_stats()
        error = failure(provider.get_all_queue_stats)
    assert error.error_type == "auth"
    assert "expired: *** and ***; check the user name and password, or the token in headers=" in str(error)
    assert [request.header("authorization") for request in fake.requests] == [
        *2 * [f"Bearer {CANARY}0"],
        f"Bearer {CANARY}1",
    ]


def raising() -> dict[str, str]:
    raise OSError(f"cannot open {CANARY}")


@pytest.mark.parametrize(
    ("headers", "label", "text"),
    [
        (raising, "auth", "the function given as headers raised OSError: look there"),
        (lambda: {"Authorization": f"Bearer {CANARY}\n"}, "provider", "strip a file's"),
        (lambda: {"Authorization": None}, "provider", "an impossible value for 'Authorization'"),
        (lambda: {f"{CANARY}:": "x"}, "provider", "an impossible name"),
        (lambda: CANARY, "provider", "a str: give a mapping"),
    ],
)
def test_a_function_that_gives_no_headers(headers: Any, label: str, text: str) -> None:
    with Fake(http(vector({"a": 3}))) as fake, opened(fake.url, headers=headers) as provider:
        error = failure(provider.get_all_queue_stats)
    assert error.error_type == label
    assert text in str(error)
    assert CANARY not in str(error)
    assert fake.requests == []


def test_reprs() -> None:
    provider = PrometheusStatsProvider("http://:secret@h:1/p/", "depth", queues=["a"])
    assert repr(provider) == "PrometheusStatsProvider('http://h:1/p', 1 queues)"
    assert (
        repr(PrometheusStatsProvider("https://[::1]/x", "depth"))
        == "PrometheusStatsProvider('https://[::1]/x', all queues)"
    )
