"""The console inside of other people's applications: under a prefix, beside their own pages, without a lifespan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django.test  # type: ignore[import-untyped]
import fastapi
import httpx
import pytest
from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.http import HttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from console.conftest import served
from console.test_application import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from console.conftest import Make

urlpatterns = [path("", lambda _request: HttpResponse("their own page"))]


def in_starlette(console: Any) -> Any:
    async def own(_request: Any) -> PlainTextResponse:
        return PlainTextResponse("their own page")

    return Starlette(routes=[Route("/", own), Mount("/ops/console", console)])


def in_fastapi(console: Any) -> Any:
    web = fastapi.FastAPI()

    @web.get("/", response_class=fastapi.responses.PlainTextResponse)
    async def own() -> str:
        return "their own page"

    web.mount("/ops/console", console)
    return web


def in_django(console: Any) -> Any:
    theirs = get_asgi_application()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if (scope["path"] + "/").startswith("/ops/console/"):
            await console({**scope, "root_path": scope.get("root_path", "") + "/ops/console"}, receive, send)
        else:
            await theirs(scope, receive, send)

    return application


@pytest.fixture(params=[in_starlette, in_fastapi, in_django])
def mounted(request: pytest.FixtureRequest, make: Make) -> Iterator[str]:
    if not settings.configured:
        settings.configure(SECRET_KEY="none")
    options = {"ROOT_URLCONF": __name__, "ALLOWED_HOSTS": ["*"], "MIDDLEWARE": []}
    with django.test.override_settings(**options), served(request.param(make())) as url:
        yield url


def test_it_works_under_a_prefix(mounted: str) -> None:
    page = httpx.get(f"{mounted}ops/console", follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/ops/console/")
    assert page.text.startswith("<!doctype html>")
    assert httpx.get(f"{mounted}ops/console/uplot/uPlot.min.css").status_code == 200
    assert len(frames(f"{mounted}ops/console/", 2)) == 2
    assert httpx.get(f"{mounted}ops/console/about", headers={"host": "evil.example"}).status_code == 421
    assert httpx.get(f"{mounted}ops/console/nothing").status_code == 404
    assert httpx.get(mounted).text == "their own page"
