"""FastAPI, Flask and Django answer requests whose jobs a real controller refuses, in sync and async views."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import urllib3

from backpressure import AsyncBackpressureController, BackpressureError
from backpressure.integrations.web import BackpressureASGI, BackpressureDjango, BackpressureWSGI, HTTPRefusal, refusal
from integrations.frameworks import required
from support import servers

for framework in ("django", "fastapi", "flask", "httpx"):
    required(framework)

# Skipped before where one is missing.
import django.test  # type: ignore[import-untyped]  # noqa: E402
import django.urls  # type: ignore[import-untyped]  # noqa: E402
import fastapi  # noqa: E402
import flask  # noqa: E402
import httpx  # noqa: E402
from django.conf import settings  # type: ignore[import-untyped]  # noqa: E402
from django.http import HttpResponse  # type: ignore[import-untyped]  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.middleware.cors import CORSMiddleware  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from backpressure import BackpressureController
    from backpressure.testing import ManualClock

#: What becomes of a job with at most 0.2 s to wait: its priority, its queue, the status and ``Retry-After``.
FATES = [
    ("high", "empty", 202, None),
    ("medium", "yellow", 429, "1"),
    ("medium", "red", 429, "3"),
    ("low", "full", 503, "8"),
    ("high", "green", 503, None),  # whose circuit is forced open
]


@pytest.fixture(autouse=True)
def _open_circuit(controller: BackpressureController) -> None:
    controller.circuit("green").force_open()


def is_problem(status: int, headers: Any, body: bytes) -> bool:
    """Tell whether an answer is one of ours."""
    return status in {429, 503} and headers["Content-Type"] == "application/problem+json" and b'"title"' in body


@pytest.fixture
def fastapi_app(
    controller: BackpressureController, clock: ManualClock, engine_name: str, provider: Any
) -> fastapi.FastAPI:
    """A shop whose lifespan is that of its asynchronous controller; the other one serves sync views."""

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        async with AsyncBackpressureController(None, provider, clock=clock, _engine=engine_name) as its_own:
            its_own.circuit("green").force_open()
            app.state.controller = its_own
            yield

    async def pass_on(request: Any, call_next: Callable[[Any], Any]) -> Any:
        return await call_next(request)

    app = fastapi.FastAPI(lifespan=lifespan)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)  # has a task group, which groups errors
    app.add_middleware(BackpressureASGI)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])

    @app.post("/async/{priority}/{queue}", status_code=202)
    async def with_its_own(priority: str, queue: str, request: fastapi.Request) -> None:
        await request.app.state.controller.run(priority, queue, asyncio.sleep, 0, max_wait=0.2)

    @app.post("/sync/{priority}/{queue}", status_code=202)
    def on_a_thread(priority: str, queue: str) -> None:
        controller.run(priority, queue, print, max_wait=0.2)

    @app.post("/mixed/{priority}/{queue}", status_code=202)
    async def with_the_other(priority: str, queue: str) -> None:
        with controller.slot(priority, queue, max_wait=0):
            await asyncio.sleep(0)

    @app.post("/decorated/{priority}/{queue}", status_code=202)
    async def decorated(priority: str, queue: str) -> None:
        await controller.throttled(priority, queue, max_wait=0.2)(asyncio.sleep)(0)

    @app.post("/blocking", status_code=202)
    async def blocking() -> None:
        controller.run("medium", "yellow", print)

    async def depends() -> None:
        controller.run("low", "full", print)

    @app.post("/dependency", status_code=202, dependencies=[fastapi.Depends(depends)])
    async def dependent() -> None: ...

    @app.post("/later", status_code=202)
    async def later(tasks: fastapi.BackgroundTasks) -> None:
        tasks.add_task(controller.run, "low", "full", print)

    @app.post("/handled", status_code=202)
    async def handled() -> None:
        try:
            controller.run("low", "full", print)
        except BackpressureError as error:
            raise fastapi.HTTPException(409) from error

    return app


def asked(app: fastapi.FastAPI, path: str, **options: Any) -> httpx.Response:
    """Return the answer to one request, in the app's lifespan."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://s") as web:
            return await web.post(path, **options)

    return asyncio.run(ask())


@pytest.mark.parametrize("view", ["async", "sync", "mixed", "decorated"])
@pytest.mark.parametrize(("priority", "queue", "status", "after"), FATES)
def test_fastapi(
    fastapi_app: fastapi.FastAPI, view: str, priority: str, queue: str, status: int, after: str | None
) -> None:
    answer = asked(fastapi_app, f"/{view}/{priority}/{queue}")
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, after)
    assert is_problem(status, answer.headers, answer.content) == (status != 202)


# Asynchronous views that may wait by a blocking controller.
WARNED = pytest.mark.filterwarnings("ignore:a BackpressureController is used on a running event loop:RuntimeWarning")


@WARNED
def test_fastapi_answers_for_dependencies(fastapi_app: fastapi.FastAPI) -> None:
    assert asked(fastapi_app, "/dependency").status_code == 503


def test_browsers_may_read_answers(fastapi_app: fastapi.FastAPI) -> None:
    answer = asked(fastapi_app, "/sync/low/full", headers={"Origin": "https://shop.example"})
    assert (answer.headers["Access-Control-Allow-Origin"], answer.json()["retry_after"]) == ("*", 8)


@WARNED
def test_a_blocking_wait_in_an_async_view_is_a_fault(fastapi_app: fastapi.FastAPI, clock: ManualClock) -> None:
    before = clock.monotonic_ns()
    with pytest.raises(BackpressureError, match="would block the running event loop: use wait_async"):
        asked(fastapi_app, "/blocking")
    assert clock.monotonic_ns() == before


def test_what_is_shed_after_the_response_is_raised(fastapi_app: fastapi.FastAPI) -> None:
    with pytest.raises(BackpressureError, match="was shed"):
        asked(fastapi_app, "/later")


@WARNED
def test_fastapi_answers_of_your_own_come_first(fastapi_app: fastapi.FastAPI) -> None:
    assert asked(fastapi_app, "/handled").status_code == 409


def create_app(controller: BackpressureController) -> flask.Flask:
    """Return a shop."""
    app = flask.Flask("shop")

    def refused(error: Exception) -> tuple[bytes, int, dict[str, str]]:
        answer = refusal(error)
        if answer is None:
            raise error
        return answer.body, answer.status, answer.headers

    app.register_error_handler(BackpressureError, refused)

    @app.post("/sync/<priority>/<queue>")
    def on_a_thread(priority: str, queue: str) -> tuple[str, int]:
        controller.run(priority, queue, print, max_wait=0.2)
        return "", 202

    @app.post("/async/<priority>/<queue>")
    async def on_a_loop(priority: str, queue: str) -> tuple[str, int]:
        with controller.slot(priority, queue, max_wait=0):
            await asyncio.sleep(0)
        return "", 202

    @app.post("/decorated/<priority>/<queue>")
    async def decorated(priority: str, queue: str) -> tuple[str, int]:
        await controller.throttled(priority, queue, max_wait=0.2)(asyncio.sleep)(0)
        return "", 202

    @app.post("/stream/<priority>/<queue>")
    def stream(priority: str, queue: str) -> flask.Response:
        def parts() -> Iterator[str]:
            controller.run(priority, queue, print, max_wait=0.2)
            yield "sold"

        return flask.Response(parts(), 202)

    @app.post("/wrapped")
    def wrapped() -> str:
        try:
            controller.run("low", "full", print)
        except BackpressureError as error:
            raise RuntimeError from error
        return "sold"

    @app.post("/fault")
    def fault() -> str:
        controller.run("low", "", print)
        return "sold"

    return app


@pytest.mark.parametrize("view", ["sync", "async", "decorated", "stream"])
@pytest.mark.parametrize(("priority", "queue", "status", "after"), FATES)
def test_flask(
    controller: BackpressureController, view: str, priority: str, queue: str, status: int, after: str | None
) -> None:
    app = create_app(controller)
    if view == "stream":
        app.wsgi_app = BackpressureWSGI(app.wsgi_app)  # type: ignore[method-assign]
    answer = app.test_client().post(f"/{view}/{priority}/{queue}")
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, after)
    assert is_problem(status, answer.headers, answer.data) == (status != 202)
    assert answer.content_length in {len(answer.data), None}


def test_flask_faults_stay_faults(controller: BackpressureController) -> None:
    client = create_app(controller).test_client()
    assert client.post("/fault").status_code == 500
    assert client.post("/nowhere").status_code == 404


def test_flask_handlers_see_no_cause(controller: BackpressureController) -> None:
    app = create_app(controller)
    assert app.test_client().post("/wrapped").status_code == 500
    app = create_app(controller)
    app.register_error_handler(RuntimeError, app.error_handler_spec[None][None][BackpressureError])
    assert app.test_client().post("/wrapped").status_code == 503


def test_flask_needs_more_than_middleware(controller: BackpressureController) -> None:
    app = create_app(controller)
    app.error_handler_spec.clear()
    app.wsgi_app = BackpressureWSGI(app.wsgi_app)  # type: ignore[method-assign]
    assert app.test_client().post("/sync/low/full").status_code == 500


class TeaMiddleware(BackpressureDjango):
    """Answers of its own."""

    answer = staticmethod(lambda error: HTTPRefusal(418, {}, b"tea"))


@pytest.fixture
def django_shop(controller: BackpressureController) -> Iterator[None]:
    """A shop, in place of whatever site other tests have set up."""

    def on_a_thread(request: Any, priority: str, queue: str) -> Any:
        controller.run(priority, queue, print, max_wait=0.2)
        return HttpResponse(status=202)

    async def on_a_loop(request: Any, priority: str, queue: str) -> Any:
        with controller.slot(priority, queue, max_wait=0):
            await asyncio.sleep(0)
        return HttpResponse(status=202)

    async def decorated(request: Any, priority: str, queue: str) -> Any:
        await controller.throttled(priority, queue, max_wait=0.2)(asyncio.sleep)(0)
        return HttpResponse(status=202)

    def wrapped(request: Any) -> Any:
        try:
            controller.run("low", "full", print)
        except BackpressureError as error:
            raise RuntimeError from error

    def fault(request: Any) -> Any:
        controller.run("low", "", print)

    views = {"sync": on_a_thread, "async": on_a_loop, "decorated": decorated}
    urls = [django.urls.path(f"{name}/<priority>/<queue>", view) for name, view in views.items()]
    urls += [django.urls.path("wrapped", wrapped), django.urls.path("fault", fault)]
    if not settings.configured:
        settings.configure()
    with django.test.override_settings(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=tuple(urls),
        MIDDLEWARE=[
            "django.middleware.common.CommonMiddleware",
            "backpressure.integrations.web.BackpressureDjango",
        ],
    ):
        yield


def posted(server: str, path: str) -> Any:
    """Return Django's answer under a sync or an async server."""
    if server == "asgi":

        async def post() -> Any:
            return await django.test.AsyncClient(raise_request_exception=False).post(path)

        return asyncio.run(post())
    return django.test.Client(raise_request_exception=False).post(path)


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
@pytest.mark.parametrize("view", ["sync", "async", "decorated"])
@pytest.mark.parametrize(("priority", "queue", "status", "after"), FATES)
@pytest.mark.usefixtures("django_shop")
def test_django(server: str, view: str, priority: str, queue: str, status: int, after: str | None) -> None:
    answer = posted(server, f"/{view}/{priority}/{queue}")
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, after)
    assert is_problem(status, answer.headers, answer.content) == (status != 202)


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
@pytest.mark.usefixtures("django_shop")
def test_django_looks_through_causes_and_faults_stay_faults(server: str) -> None:
    assert posted(server, "/wrapped").status_code == 503
    assert posted(server, "/fault").status_code == 500


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
@pytest.mark.usefixtures("django_shop")
def test_admins_get_no_mail_for_each_shed(server: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):  # an embedded worker of Celery may have raised it
        posted(server, "/sync/low/full")
        posted(server, "/fault")
    records = [record for record in caplog.records if record.name == "django.request"]
    assert [record.getMessage() for record in records] == ["Internal Server Error: /fault"], "a line for each refusal"


@pytest.mark.usefixtures("django_shop")
def test_django_answers_are_yours() -> None:
    with django.test.override_settings(MIDDLEWARE=[f"{TeaMiddleware.__module__}.{TeaMiddleware.__name__}"]):
        answer = posted("wsgi", "/fault")
    assert (answer.status_code, answer.content) == (418, b"tea")


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None: ...


def test_a_client_that_honours_retry_after_gets_in(
    controller: BackpressureController, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            controller.run("high", "empty", lambda: 1 / 0)
    monkeypatch.setattr("urllib3.util.retry.time", SimpleNamespace(sleep=sleep))
    with make_server(servers.HOST, 0, create_app(controller), handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://{servers.HOST}:{server.server_port}/sync/high/empty"
            with urllib3.PoolManager() as pool:
                impatient = pool.request("POST", url, retries=urllib3.Retry(total=1))
                # A POST is repeated only for who says so. Here none was accepted.
                patient = pool.request("POST", url, retries=urllib3.Retry(total=1, allowed_methods=None))
        finally:
            server.shutdown()
            thread.join()
    assert (impatient.status, impatient.headers["Retry-After"]) == (503, "60")
    assert (patient.status, slept) == (202, [60])
