"""The built documentation, served on loopback and looked at with a browser."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILT = Path(__file__).parents[2] / "target" / "docs"


def pages() -> list[str]:
    """Return the paths of all pages; without any, the test is skipped."""
    found = sorted(page.relative_to(BUILT).as_posix() for page in BUILT.rglob("*.html"))
    if "index.html" not in found:
        pytest.skip("the documentation is not built: make docs")
    return found


def dom(url: str, *options: str) -> str:
    """Return the page at `url` as a browser has it after its scripts have run."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        redis_fixtures.no_server("no chromium: scripts/install_tools.sh installs it on Debian")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                str(browser),
                "--headless",
                "--hide-scrollbars",  # a phone's take no room
                "--no-sandbox",  # which root must not have; the pages are our own
                "--disable-gpu",
                "--no-proxy-server",
                f"--user-data-dir={profile}",
                *options,
                "--dump-dom",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    return done.stdout or done.stderr


class _Quiet(http.server.SimpleHTTPRequestHandler):
    measure = b""

    def do_GET(self) -> None:
        if self.path != "/measure":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.measure)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
        pass


@contextlib.contextmanager
def served(measure: str = "") -> Iterator[str]:
    """Serve the built pages, and the one that measures them, on loopback."""
    handler = type("_Handler", (_Quiet,), {"measure": measure.encode()})
    server = http.server.ThreadingHTTPServer((servers.HOST, 0), functools.partial(handler, directory=str(BUILT)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{servers.HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
