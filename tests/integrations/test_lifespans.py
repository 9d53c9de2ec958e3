"""Controllers that start with an application, again and again as in tests, and what is said where none was started."""

from __future__ import annotations

import asyncio
import gc
import warnings
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

import pytest
from prometheus_client import CollectorRegistry

from backpressure import (
    LOW,
    AsyncBackpressureController,
    BackpressureController,
    ConfigurationError,
    ControllerNotStartedError,
    ControllerStoppedError,
    InMemoryStatsProvider,
)
from backpressure.integrations import Restartable
from backpressure.integrations._shared.hook import AsyncHook, Hook
from backpressure.integrations.web import BackpressureASGI, BackpressureDjango, BackpressureWSGI
from integrations.frameworks import required
from support.controller_fixtures import own_threads

for framework in ("django", "fastapi", "httpx"):
    required(framework)

import fastapi  # noqa: E402

with warnings.catch_warnings(action="ignore"):  # newer releases want another httpx
    from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from backpressure.integrations.web import AnyController

BACKLOG = {"mail": 0, "full": 5_000}


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    before = own_threads("poller")
    yield
    gc.collect()
    assert own_threads("poller") <= before


def make() -> AsyncBackpressureController:
    return AsyncBackpressureController(None, InMemoryStatsProvider(BACKLOG), registry=CollectorRegistry())


def make_blocking() -> BackpressureController:
    return BackpressureController(None, InMemoryStatsProvider(BACKLOG), registry=CollectorRegistry())


def shop(controller: AnyController, **options: Any) -> fastapi.FastAPI:
    app = fastapi.FastAPI(**options)
    app.add_middleware(BackpressureASGI, controller=controller)

    @app.post("/{queue}", status_code=202)
    async def order(queue: str, request: fastapi.Request) -> None:
        await request.state.backpressure.run("low", queue, asyncio.sleep, 0, max_wait=0.2)

    return app


def visit(app: Any) -> list[int]:
    with TestClient(app) as client:
        return [client.post(path).status_code for path in ("/mail", "/full")]


@pytest.mark.parametrize("given", ["controller", "function", "restartable"])
def test_one_app_in_two_test_clients(given: str) -> None:
    of: dict[str, AnyController] = {"controller": make(), "function": make, "restartable": Restartable(make)}
    app = shop(of[given])
    assert [visit(app) for _ in range(3)] == [[202, 503]] * 3


def test_a_sync_controller_too() -> None:
    app = fastapi.FastAPI()
    controllers = Restartable(make_blocking)
    app.add_middleware(BackpressureASGI, controller=controllers)

    @app.post("/{queue}", status_code=202)
    def order(queue: str) -> None:
        controllers().run("low", queue, int, max_wait=0.2)

    with pytest.warns(RuntimeWarning, match="on a running event loop"):
        assert visit(app) == [202, 503]


def test_the_applications_own_lifespan_may_start_it() -> None:
    made: list[AsyncBackpressureController] = []

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        async with make() as app.state.controller:
            made.append(app.state.controller)
            yield

    app = shop(lambda: app.state.controller, lifespan=lifespan)
    assert [visit(app) for _ in range(2)] == [[202, 503]] * 2
    assert made[0] is not made[1]


def test_one_that_is_given_serves_the_applications_own_start() -> None:
    controllers = Restartable(make)
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        seen.append(await controllers().run("high", "mail", asyncio.to_thread, str, "warm"))
        yield
        seen.append(await controllers().run("high", "mail", asyncio.to_thread, str, "cold"))

    assert visit(shop(controllers, lifespan=lifespan)) == [202, 503]
    assert seen == ["warm", "cold"]


def test_a_controller_that_ran_before_runs_on() -> None:
    async def main() -> None:
        async with make() as controller:
            app = shop(controller)
            async with lifespan_of(app):
                assert controller.health()["poller_alive"]
            assert controller.health()["poller_alive"]

    asyncio.run(main())


def test_between_two_lifespans_it_rests() -> None:
    controller = make()
    app = shop(controller)
    visit(app)
    assert not controller.health()["poller_alive"]
    with TestClient(app):
        assert controller.health()["poller_alive"]


@asynccontextmanager
async def lifespan_of(app: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """Run the lifespan as a server does; give what the application told."""
    told: list[dict[str, Any]] = []
    asked: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    answered = asyncio.Event()

    async def send(message: Any) -> None:
        told.append(message)
        answered.set()

    task = asyncio.create_task(app({"type": "lifespan", "state": {}}, asked.get, send))
    await asked.put({"type": "lifespan.startup"})
    await answered.wait()
    yield told
    await asked.put({"type": "lifespan.shutdown"})
    await asyncio.gather(task, return_exceptions=True)


def fails() -> AsyncBackpressureController:
    raise OSError("no network")


async def _hears_no_lifespan(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError(f"only HTTP is handled, not {scope['type']}")


@pytest.mark.parametrize("early", [True, False])
def test_a_start_that_fails_ends_the_server(early: bool) -> None:
    async def main() -> list[dict[str, Any]]:
        async with lifespan_of(shop(Restartable(fails) if early else fails)) as told:
            return told

    assert asyncio.run(main()) == [{"type": "lifespan.startup.failed", "message": "OSError: no network"}]


@pytest.mark.parametrize("given", [Restartable(make), make])
def test_an_application_without_lifespan_gets_one(given: Any) -> None:
    async def main() -> list[dict[str, Any]]:
        app = BackpressureASGI(_hears_no_lifespan, controller=given)
        async with lifespan_of(app) as told:
            assert app._running is not None
            assert app._running.current.health()["poller_alive"]
        assert app._running.current.health()["stopped"]
        return told

    assert [message["type"] for message in asyncio.run(main())] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_wsgi_starts_it_with_the_first_request_and_again_after_a_stop() -> None:
    controllers = Restartable(make_blocking)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        assert environ["backpressure"] is controllers()
        environ["backpressure"].run("low", environ["PATH_INFO"][1:], int, max_wait=0.2)
        start_response("202 Accepted", [])
        return [b""]

    served = BackpressureWSGI(app, controller=controllers)

    def post(path: str) -> str:
        environ: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        told: list[str] = []
        list(served(environ, lambda status, *_: told.append(status)))  # type: ignore[arg-type]
        return told[0][:3]

    for _ in range(2):
        assert [post("/mail"), post("/full"), post("/mail")] == ["202", "503", "202"]
        controllers.stop()


def test_wsgi_refuses_an_asynchronous_one() -> None:
    served = BackpressureWSGI(lambda *_: [], controller=make())
    with pytest.raises(ConfigurationError, match="give WSGI and Django a BackpressureController"):
        served({"REQUEST_METHOD": "GET"}, print)  # type: ignore[arg-type]


def test_django_starts_it_with_the_first_request() -> None:
    class Middleware(BackpressureDjango):
        controller = Restartable(make_blocking)

    served = Middleware(lambda _: Middleware.controller().run("high", "mail", str, "sold"))
    assert served(None) == "sold"
    assert served(None) == "sold"
    Middleware.controller.stop()


def test_hooks_take_a_function_and_call_it_for_each_job() -> None:
    controllers = Restartable(make_blocking)
    hook = Hook(controllers, "low")
    for _ in range(2):
        with (
            pytest.raises((ControllerNotStartedError, ControllerStoppedError)),
            hook.admitted([hook.place(0, name="", queue_name="mail")]),
        ):
            pass
        with controllers, hook.admitted([hook.place(0, name="", queue_name="mail")]):
            pass


async def _admit(hook: AsyncHook) -> None:
    async with hook.admitted([hook.place(0, name="", queue_name="mail")]):
        pass


def test_asynchronous_hooks_too() -> None:
    state = SimpleNamespace()
    hook = AsyncHook(lambda: state.controller, "low")

    async def main() -> None:
        with pytest.raises(ControllerNotStartedError, match=r"low job for queue 'mail' was not enqueued: .*lifespan"):
            await _admit(hook)
        for _ in range(2):
            async with make() as state.controller:
                await _admit(hook)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, "the controller is not started"),
        (lambda: vars(asyncio)["no controller"], "the controller is not started"),
        (make, "that returned a AsyncBackpressureController: let it return a BackpressureController"),
        (int, "controller is class int: give a BackpressureController, or a function that returns one"),
        (make(), "controller is of type AsyncBackpressureController: give a BackpressureController"),
        (None, "controller is of type NoneType: give a BackpressureController, or a function"),
    ],
)
def test_hooks_refuse_what_is_none(function: Any, message: str) -> None:
    with pytest.raises((ControllerNotStartedError, ConfigurationError), match=message):  # noqa: SIM117
        with Hook(function, "low").admitted([(LOW, "mail")]):
            pass


def test_passing_jobs_need_no_controller() -> None:
    hook = Hook(fails, "low")  # type: ignore[arg-type]
    assert hook.passes("mail", because="retry")


def test_a_restartable_in_itself() -> None:
    controllers = Restartable(make_blocking)
    with pytest.raises(ControllerNotStartedError):
        controllers()
    with controllers:
        first = controllers()
        with controllers:
            assert controllers() is first
        assert controllers().health()["poller_alive"], "the outer body goes on"
    with pytest.raises(ControllerStoppedError, match="use backpressure\\.integrations\\.Restartable"):
        controllers().run("low", "mail", int)
    controllers.start()
    controllers.start()
    assert controllers() is not first
    controllers.stop()
    with pytest.raises(ConfigurationError, match="make is a int: give a function"):
        Restartable(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="make is a function that returned a NoneType"):
        Restartable(lambda: None).start()  # type: ignore[type-var]


LIFESPAN = r"the lifespan that starts it has not run: write `with TestClient\(app\) as client:`"


def test_without_a_lifespan_the_error_says_so() -> None:
    app = fastapi.FastAPI()
    controller = make()

    @app.get("/")
    async def order() -> None:
        await controller.run("low", "mail", asyncio.sleep, 0)

    with pytest.raises(ControllerNotStartedError, match=LIFESPAN):
        TestClient(app).get("/")
