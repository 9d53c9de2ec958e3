"""Consoles over statistics from memory or a real server, asked in this process, over HTTP, and by a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import httpx
import pytest
import uvicorn

from backpressure import BackpressureConfig, FleetConfig, InMemoryStatsProvider
from backpressure.console import app
from console.fleets import FLEET
from support import redis_fixtures, servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page

    from backpressure.console.application import Console

URL = "http://127.0.0.1:8765"


class Make(Protocol):
    """Makes a console that is closed at the end: `backpressure.console.app` with quick reads, and a fleet at a URL."""

    def __call__(self, provider: Any = None, config: Any = None, fleet: str | None = None, **more: Any) -> Console: ...


@pytest.fixture
def make() -> Iterator[Make]:
    consoles: list[Console] = []

    def make(provider: Any = None, config: Any = None, fleet: str | None = None, **more: Any) -> Console:
        if provider is None and "queues" not in more:
            more["queues"] = ["mail", "push"]
        provider = InMemoryStatsProvider({"mail": 1_250, "push": 3}) if provider is None else provider
        config = config or BackpressureConfig()
        if fleet is not None:
            config = attrs.evolve(config, fleet=FleetConfig(name=FLEET, url=fleet))
        console = app(config, provider, **{"interval": 0.1, **more})
        consoles.append(console)
        return console

    yield make
    for console in consoles:
        console.close()


def asked(console: Callable[..., Awaitable[None]], method: str, path: str, **options: Any) -> httpx.Response:
    """Return the answer of an application that is asked by its own name, in this process."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(console), base_url=URL) as web:
            return await web.request(method, path, **options)

    return asyncio.run(ask())


@contextlib.contextmanager
def served(application: Any, port: int = 0) -> Iterator[str]:
    """Serve an application on loopback; give its URL."""
    listener = socket.create_server((servers.HOST, port))
    settings = uvicorn.Config(
        application, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://{servers.HOST}:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        getattr(application, "end", bool)()
        thread.join(20)
        listener.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium. Its driver's loop runs on this thread meanwhile: no test beside it can run one of its own there."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        redis_fixtures.no_server("no chromium: scripts/install_tools.sh installs it on Debian")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in which nothing goes wrong unseen: no script fails, and nothing offends the policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    context.set_default_timeout(15_000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def said(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "Trusted" in message.text:
            wrong.append(message.text)

    def asked(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    page.on("console", said)
    page.on("dialog", asked)
    yield page
    context.close()
    assert wrong == []
