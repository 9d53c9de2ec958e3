"""Refusals as HTTP answers, in front of bare ASGI and WSGI applications."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import functools
import io
import itertools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpressure import (
    BackpressureError,
    BatchError,
    BatchJob,
    CircuitOpenError,
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    InvalidQueueError,
    JobShedError,
    StatsUnavailableError,
    ThrottledError,
)
from backpressure.integrations import web
from backpressure.integrations.web import BackpressureASGI, BackpressureWSGI, HTTPRefusal, refusal
from support import doc_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from backpressure import BackpressureController
    from backpressure.testing import ManualClock
    from support.controller_fixtures import MakeController

SHED = JobShedError("…", queue_name="clicks", retry_after=7.5)
NOTHING_ELSE = [
    ControllerNotStartedError("call start()"),
    BackpressureError("waiting would block the running event loop", retry_after=1.0),
    ConfigurationError("…"),
    InvalidQueueError("…"),
    StatsUnavailableError("…"),
    ValueError("a fault"),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
]


def answered(error: BaseException, **options: Any) -> HTTPRefusal:
    answer = refusal(error, **options)
    assert answer is not None
    return answer


def told(error: BaseException) -> tuple[int, str | None]:
    answer = answered(error)
    return answer.status, answer.headers.get("Retry-After")


def raised_from(cause: BaseException | None, *, context: BaseException | None = None) -> RuntimeError:
    error = RuntimeError("could not sell")
    error.__cause__, error.__context__ = cause, context
    return error


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (ThrottledError(retry_after=0.255), 429, "1"),
        (ThrottledError(retry_after=0.0), 429, "1"),
        (ThrottledError(retry_after=3.0), 429, "3"),
        (ThrottledError(retry_after=3.000_001), 429, "4"),
        (ThrottledError(), 429, None),
        (JobShedError(retry_after=7.5), 503, "8"),
        (JobShedError(retry_after=float("inf")), 503, None),
        (CircuitOpenError(retry_after=59.2), 503, "60"),
        (CircuitOpenError(), 503, None),
        (ControllerStoppedError("make a new one"), 503, None),
    ],
)
def test_a_refusal_has_its_status_and_time(error: BackpressureError, status: int, retry_after: str | None) -> None:
    assert told(error) == (status, retry_after)
    problem = json.loads(answered(error).body)
    assert problem.get("retry_after") == (None if retry_after is None else int(retry_after))
    assert problem["status"] == status


@pytest.mark.parametrize("error", NOTHING_ELSE, ids=lambda error: type(error).__name__)
def test_nothing_else_is_a_refusal(error: BaseException) -> None:
    assert refusal(error) is None
    assert refusal(raised_from(error)) is None
    assert refusal(BaseExceptionGroup("…", [SHED, error])) is None, "a 503 would hide the other"


@given(st.floats(0, 1e6), st.floats(0, 1))
def test_who_keeps_to_it_never_comes_too_early(seconds: float, jitter: float) -> None:
    after = int(answered(JobShedError(retry_after=seconds), jitter=jitter).headers["Retry-After"])
    assert max(1, seconds) <= after <= max(1, seconds * (1 + jitter) + 1)


def test_jitter_spreads_a_herd() -> None:
    open_circuit = CircuitOpenError(retry_after=60.0)
    assert {told(open_circuit) for _ in range(100)} == {(503, "60")}
    herd = {int(answered(open_circuit, jitter=0.5).headers["Retry-After"]) for _ in range(100)}
    assert len(herd) > 5
    assert min(herd) >= 60
    assert max(herd) <= 90


@pytest.mark.parametrize("jitter", [-0.1, 1.5, float("nan")])
def test_jitter_is_a_share(jitter: float) -> None:
    with pytest.raises(ConfigurationError, match=r"jitter is .*: give a share from 0 to 1"):
        refusal(SHED, jitter=jitter)


def test_strangers_learn_nothing_of_queues() -> None:
    about: dict[str, Any] = {"queue_name": "canary-queue", "retry_after": 2.0}
    error = JobShedError("low job for queue 'canary-queue' was shed at a backlog of 31337: drop it", **about)
    answer = answered(error)
    assert answer.headers == {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        "Retry-After": "2",
    }
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "the job was not accepted: try again in 2 s",
        "retry_after": 2,
    }
    both = ExceptionGroup("…", [error, ThrottledError(queue_name="mail"), ControllerStoppedError()])
    assert json.loads(answered(both, show_queue=True).body)["queues"] == ["canary-queue", "mail"]


def test_causes_are_looked_through_and_contexts_are_not() -> None:
    assert told(raised_from(raised_from(SHED))) == (503, "8")
    assert refusal(raised_from(None, context=SHED)) is None


def test_a_group_of_refusals_is_worth_the_longest() -> None:
    soon, late = ThrottledError(retry_after=0.5), ThrottledError(retry_after=9.0)
    assert told(ExceptionGroup("…", [soon, late])) == (429, "9")
    assert told(ExceptionGroup("…", [SHED, late])) == (503, "9")
    assert told(ExceptionGroup("…", [late, raised_from(ExceptionGroup("…", [SHED]))])) == (503, "9")
    assert told(ExceptionGroup("…", [late, CircuitOpenError()])) == (503, None)
    assert told(ExceptionGroup("…", [late, late])) == (429, "9")


def test_a_group_may_itself_have_a_cause() -> None:
    group = ExceptionGroup("…", [ValueError()])
    group.__cause__ = SHED
    assert told(group) == (503, "8")


def test_cycles_end() -> None:
    error = RuntimeError()
    group = ExceptionGroup("…", [error])
    error.__cause__ = group
    assert refusal(error) is None
    assert refusal(group) is None


def test_chains_may_be_long() -> None:
    assert told(functools.reduce(lambda cause, _: raised_from(cause), range(2_000), SHED)) == (503, "8")  # type: ignore[arg-type,return-value]


def test_a_batch_whose_jobs_were_refused_elsewhere(controller: BackpressureController) -> None:
    def refused() -> None:
        controller.run("low", "full", print)

    with pytest.raises(BatchError) as caught:
        controller.process_batch([BatchJob("high", "empty", refused)])
    assert told(caught.value) == (503, "8")
    with pytest.raises(BatchError) as caught:
        controller.process_batch([BatchJob("high", "empty", refused), BatchJob("high", "empty", lambda: 1 / 0)])
    assert refusal(caught.value) is None


def test_real_refusals(controller: BackpressureController) -> None:
    def refused(*arguments: Any, **options: Any) -> tuple[int, str | None]:
        with pytest.raises(BackpressureError) as caught:
            controller.run(*arguments, print, **options)
        return told(caught.value)

    assert refused("medium", "red", max_wait=0.2) == (429, "3")
    assert refused("low", "full") == (503, "8")
    controller.circuit("empty").force_open()
    assert refused("high", "empty") == (503, None)
    controller.stop()
    assert refused("high", "green") == (503, None)


def test_who_comes_back_at_the_told_second_is_the_probe(controller: BackpressureController, clock: ManualClock) -> None:
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            controller.run("high", "empty", lambda: 1 / 0)
    clock.advance(0.3)
    with pytest.raises(CircuitOpenError) as caught:
        controller.run("high", "empty", print)
    status, after = told(caught.value)
    assert (status, after) == (503, "60")
    clock.advance(float(after or 0) - 1)
    with pytest.raises(CircuitOpenError):
        controller.run("high", "empty", print)
    clock.advance(1)
    assert controller.run("high", "empty", lambda: "sent") == "sent"


def test_a_controller_that_was_never_started_is_a_fault(make_controller: MakeController) -> None:
    with pytest.raises(ControllerNotStartedError) as caught:
        make_controller(start=False).run("high", "empty", print)
    assert refusal(caught.value) is None


def test_no_framework_is_loaded() -> None:
    code = (
        "import sys, backpressure.integrations.web\n"
        "print({name.split('.')[0] for name in sys.modules} & {'asgiref', 'asyncio', 'django', 'flask', 'starlette'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("name", web.__all__)
def test_the_example_runs(name: str, engine_name: str) -> None:
    documented = getattr(web, name).__doc__
    names = {**doc_examples.namespace(engine_name), **vars(web)}
    example = doctest.DocTestParser().get_doctest(documented, names, name, None, None)
    assert example.examples or name == "HTTPRefusal"
    report: list[str] = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


class Asgi:
    """Calls an ASGI application as a server does."""

    def __init__(self, kind: str = "http", method: str = "POST") -> None:
        self.scope: dict[str, Any] = {"type": kind, "method": method}
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def call(self, app: Any, **options: Any) -> list[Any]:
        asyncio.run(BackpressureASGI(app, **options)(self.scope, self.receive, self.send))
        return self.sent


def failing(error: BaseException, *before: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in before:
            await send(message)
        raise error

    return app


START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_asgi_is_answered(method: str) -> None:
    body = answered(SHED).body
    start, rest = Asgi(method=method).call(failing(raised_from(SHED)))
    assert (start["type"], start["status"]) == ("http.response.start", 503)
    assert sorted(start["headers"]) == [
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/problem+json"),
        (b"retry-after", b"8"),
    ]
    assert rest == {"type": "http.response.body", "body": b"" if method == "HEAD" else body}


def test_asgi_is_not_answered_twice() -> None:
    server = Asgi()
    with pytest.raises(JobShedError):
        server.call(failing(SHED, START))
    assert server.sent == [START]


@pytest.mark.parametrize("error", NOTHING_ELSE, ids=lambda error: type(error).__name__)
def test_asgi_errors_go_their_way(error: BaseException) -> None:
    server = Asgi()
    with pytest.raises(type(error)):
        server.call(failing(error))
    assert server.sent == []


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_asgi_other_than_http_is_untouched(kind: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send))
        raise SHED

    server = Asgi(kind)
    with pytest.raises(JobShedError):
        server.call(app)
    assert seen == [server.scope, server.receive, server.send]
    assert server.sent == []


def test_asgi_answers_are_yours() -> None:
    start, rest = Asgi().call(failing(ValueError()), answer=lambda error: HTTPRefusal(418, {"X-Tea": "yes"}, b"tea"))
    assert (start["status"], start["headers"]) == (418, [(b"x-tea", b"yes"), (b"content-length", b"3")])
    assert rest["body"] == b"tea"


class Wsgi:
    """Calls a WSGI application as a strict server does, and notes what reached the wire."""

    def __init__(self, method: str = "POST") -> None:
        self.environ: dict[str, Any] = {}
        setup_testing_defaults(self.environ)
        self.environ |= {"REQUEST_METHOD": method, "QUERY_STRING": "", "wsgi.file_wrapper": FileWrapper}
        self.start: tuple[str, dict[str, str]] | None = None
        self.starts: list[Any] = []
        self.wire: list[Any] = []

    def start_response(self, status: str, headers: Any, exc_info: Any = None, /) -> Callable[[bytes], None]:
        self.starts.append(exc_info)
        if exc_info is None:
            assert self.start is None, "started twice"
        elif self.wire:
            raise exc_info[1].with_traceback(exc_info[2])
        self.start = status, dict(headers)
        assert len(headers) == len(self.start[1]), "a header twice"
        return self.write

    def write(self, data: bytes) -> None:
        assert self.start is not None, "a body without a start"
        if not self.wire:
            self.wire.extend(self.start)
        self.wire.append(data)

    def call(self, app: WSGIApplication, **options: Any) -> list[Any]:
        body = BackpressureWSGI(app, **options)(self.environ, self.start_response)
        try:
            for part in body:
                assert self.start is not None, "a body without a start"
                if part:
                    self.write(part)
            if not self.wire:
                self.write(b"")
        finally:
            getattr(body, "close", int)()
        return self.wire


def raise_shed() -> None:
    raise raised_from(SHED) from SHED


def in_the_call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise_shed()
    return []


def in_the_call_after_the_start(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7"), ("X-Kept", "no")])
    raise_shed()
    return []


def in_the_generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    raise_shed()
    yield b"never"


def in_the_generator_after_the_start(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7"), ("X-Kept", "no")])
    raise_shed()
    yield b"never"


def after_an_empty_part(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7"), ("X-Kept", "no")])
    yield b""
    raise_shed()


def after_a_part(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"part"
    raise_shed()


def after_a_write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])(b"part")
    raise_shed()
    return []


EARLY = [
    in_the_call,
    in_the_call_after_the_start,
    in_the_generator,
    in_the_generator_after_the_start,
    after_an_empty_part,
]


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("app", EARLY)
def test_wsgi_is_answered(app: WSGIApplication, method: str) -> None:
    answer = answered(SHED)
    server = Wsgi(method)
    status, headers, *body = server.call(app)
    assert status == "503 Service Unavailable"
    assert headers == {**answer.headers, "Content-Length": str(len(answer.body))}
    assert b"".join(body) == (b"" if method == "HEAD" else answer.body)
    exc_infos = [exc_info[1] for exc_info in server.starts if exc_info is not None]
    assert [type(error) for error in exc_infos] == [RuntimeError] * (app is after_an_empty_part)


@pytest.mark.parametrize("app", [after_a_part, after_a_write])
def test_wsgi_is_not_answered_twice(app: WSGIApplication) -> None:
    server = Wsgi()
    with pytest.raises(RuntimeError, match="could not sell"):
        server.call(app)
    assert server.wire == ["200 OK", {}, b"part"]


@pytest.mark.parametrize("error", NOTHING_ELSE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("lazy", [False, True])
def test_wsgi_errors_go_their_way(error: BaseException, lazy: bool) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if lazy:
            return itertools.starmap(fail, [()])
        return [fail()]

    def fail() -> bytes:
        raise error

    server = Wsgi()
    with pytest.raises(type(error)):
        server.call(app)
    assert server.starts == []


class Body:
    """A response that counts how often it is closed."""

    def __init__(self, *parts: bytes, error: Exception | None = None) -> None:
        self._parts = iter(parts)
        self._error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            if self._error is None:
                raise
            raise self._error from None

    def close(self) -> None:
        self.closed += 1


KEPT = {"Content-Type": "text/plain", "X-Kept": "yes"}


def returning(body: Iterable[bytes]) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Kept", "yes")])
        return body

    return app


@pytest.mark.parametrize("body", [Body(b"a", b"b"), Body(error=SHED), Body(b"a", error=SHED), Body(error=ValueError())])
def test_wsgi_bodies_are_closed_once(body: Body) -> None:
    with contextlib.suppress(JobShedError, ValueError):
        Wsgi().call(returning(body))
    assert body.closed == 1


def test_wsgi_bodies_are_closed_where_the_client_is_gone_at_once() -> None:
    body, server = Body(b"never sent"), Wsgi()
    BackpressureWSGI(returning(body))(server.environ, server.start_response).close()  # type: ignore[attr-defined]
    assert (body.closed, server.starts) == (1, [])


def test_wsgi_responses_pass_unchanged() -> None:
    body = Body(b"", b"a", b"b")
    assert Wsgi().call(returning(body)) == ["200 OK", KEPT, b"a", b"b"]
    assert Wsgi().call(returning(iter(()))) == ["200 OK", KEPT, b""]


def test_wsgi_bodies_that_are_there_already_reach_the_server_as_they_are() -> None:
    for body in ([b"a"], (b"a",), FileWrapper(io.BytesIO(b"a"))):
        server = Wsgi()
        assert BackpressureWSGI(returning(body))(server.environ, server.start_response) is body
        assert server.start == ("200 OK", KEPT)


def test_wsgi_file_wrappers_may_be_functions() -> None:
    server = Wsgi()
    server.environ["wsgi.file_wrapper"] = lambda file: file
    assert server.call(returning(Body(b"a"))) == ["200 OK", KEPT, b"a"]


def test_wsgi_applications_may_write_and_replace_their_start() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            raise ValueError  # noqa: TRY301
        except ValueError:
            write = start_response("400 Bad Request", [], sys.exc_info())
        write(b"a")
        write(b"b")
        with pytest.raises(KeyError):
            start_response("500 Internal Server Error", [], (KeyError, KeyError(), None))  # type: ignore[arg-type]
        yield b"c"

    assert Wsgi().call(app) == ["400 Bad Request", {}, b"a", b"b", b"c"]


def test_wsgi_answers_are_yours() -> None:
    answer = functools.partial(refusal, show_queue=True)
    assert b'"queues": ["clicks"]' in Wsgi().call(in_the_generator, answer=answer)[2]


# wsgiref sends the headers before an empty part, too.
@pytest.mark.parametrize("app", [*EARLY[:-1], returning(Body(b"sold"))])
def test_wsgi_as_wsgiref_sees_it(app: WSGIApplication) -> None:
    output, errors = io.BytesIO(), io.StringIO()
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    handler = SimpleHandler(io.BytesIO(), output, errors, environ)
    handler.run(validator(BackpressureWSGI(validator(app))))
    head, _, body = output.getvalue().partition(b"\r\n\r\n")
    assert errors.getvalue() == ""
    if body == b"sold":
        assert head.startswith(b"HTTP/1.0 200 OK")
    else:
        assert head.startswith(b"HTTP/1.0 503 Service Unavailable")
        assert json.loads(body)["retry_after"] == 8
        assert b"X-Kept" not in head


def test_wsgi_answers_a_body_that_cannot_be_iterated_and_closes_it() -> None:
    closed: list[bool] = []
    started: list[str] = []

    class Body:
        def __iter__(self) -> Any:
            raise JobShedError("too many", retry_after=2)

        def close(self) -> None:
            closed.append(True)

    def app(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Body()

    def start_response(status: str, *_: Any) -> Any:
        started.append(status)

    body: Any = BackpressureWSGI(app)({"REQUEST_METHOD": "GET"}, start_response)
    assert b"try again in 2 s" in b"".join(body)
    body.close()
    assert (started, closed) == (["503 Service Unavailable"], [True])
