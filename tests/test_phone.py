"""The built documentation fits a phone: no page is wider than its screen, and no table of settings either."""

from __future__ import annotations

import contextlib
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import redis_fixtures, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILT = Path(__file__).parent.parent / "target" / "docs"
WIDTH = 390
#: Shows every page in a frame that is as wide as a phone, and writes down how wide it and its tables are.
MEASURE = """<!doctype html>
<body>{frames}<pre id="measured"></pre>
<script>
addEventListener("load", () => {{
  const found = {{}};
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument;
    found[frame.title] = {{
      page: page.documentElement.scrollWidth,
      tables: [...page.querySelectorAll("table")].map((table) => table.parentElement.scrollWidth),
    }};
  }}
  document.getElementById("measured").textContent = JSON.stringify(found);
}});
</script>
"""


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
def served(measure: str) -> Iterator[str]:
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


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """How wide each page is, and each of its tables."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        redis_fixtures.no_server("no chromium: scripts/install_tools.sh installs it on Debian")
    pages = sorted(page.relative_to(BUILT).as_posix() for page in BUILT.rglob("*.html"))
    if "index.html" not in pages:
        pytest.skip("the documentation is not built: make docs")
    frame = '<iframe title="{0}" src="/{0}" width="{1}" height="800" style="border: 0"></iframe>'
    frames = "".join(frame.format(html.escape(page), WIDTH) for page in pages)
    with served(MEASURE.format(frames=frames)) as url:
        done = subprocess.run(
            [
                str(browser),
                "--headless",
                "--hide-scrollbars",  # a phone's take no room
                "--no-sandbox",  # which root must not have; the pages are our own
                "--disable-gpu",
                "--no-proxy-server",
                f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
                "--dump-dom",
                f"{url}/measure",
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    (found,) = re.findall(r'<pre id="measured">(.*?)</pre>', done.stdout) or [done.stderr]
    answer: dict[str, dict[str, Any]] = json.loads(html.unescape(found))
    assert sorted(answer) == pages
    return answer


def test_no_page_is_wider_than_a_phone(measured: dict[str, dict[str, Any]]) -> None:
    assert len(measured) > 30
    assert {page: widths["page"] for page, widths in measured.items() if widths["page"] > WIDTH} == {}


def test_tables_of_settings_and_stacks_do_not_scroll_sideways(measured: dict[str, dict[str, Any]]) -> None:
    read_often = [page for page in measured if page.startswith(("index", "guide/configuration", "stacks/"))]
    assert len(read_often) >= 4
    assert {
        page: measured[page]["tables"] for page in read_often if max(measured[page]["tables"], default=0) > WIDTH
    } == {}
