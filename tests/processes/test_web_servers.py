"""Web servers that fork their workers: each has fresh statistics, no matter where the controller was started."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from processes.conftest import end
from support import servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    from processes.conftest import Launch, Waiting

# Ways to run Python that differ in whether threads live between requests, and in what Python is told about forks.
# uWSGI's master may fork in the middle of another thread's work, and the worker hangs in uWSGI's own code. There a
# controller is started after the fork, or Python is told before it.
UWSGI = {
    "threads": ("request", "--master", "--processes=2", "--enable-threads"),
    "one process": ("import",),
    "fork hooks": ("import", "--master", "--processes=2", "--enable-threads", "--py-call-uwsgi-fork-hooks"),
    "child hook": ("request", "--master", "--processes=2", "--enable-threads", "--py-call-osafterfork"),
    "lazy apps": ("import", "--master", "--processes=2", "--enable-threads", "--lazy-apps"),
}
if sys.version_info >= (3, 13):
    del UWSGI["child hook"]  # with it uWSGI's workers always die at once


def ask(port: int) -> tuple[int, int | None] | None:
    """Return a worker's process id and how many jobs wait in its view; ``None`` before the server serves."""
    connection = http.client.HTTPConnection(servers.HOST, port, timeout=10)
    try:
        connection.request("GET", "/0.02")  # seconds that this worker is busy, so that another gets the next request
        pid, backlog, _ = json.loads(connection.getresponse().read())
    except (ConnectionError, http.client.RemoteDisconnected):
        return None
    finally:
        connection.close()
    return pid, backlog


def every_worker_sees(workers: int, port: int, waiting: int) -> None:
    """Ask until `workers` workers have told that `waiting` jobs wait."""
    seen: set[int] = set()

    def look() -> bool:
        seen.update(pid for pid, backlog in filter(None, pool.map(ask, [port] * 2 * workers)) if backlog == waiting)
        return len(seen) == workers

    with ThreadPoolExecutor(2 * workers) as pool:
        eventually(look, 30)


@pytest.mark.parametrize("start", ["import", "request"])
def test_gunicorn_with_preload(launch: Launch, waiting: Waiting, start: str) -> None:
    waiting.add(3)
    port = servers.free_port()
    flags = ("--preload", "--workers=2", f"--bind={servers.HOST}:{port}")
    gunicorn = launch("gunicorn", *flags, "processes.web", TEST_START=start)
    every_worker_sees(2, port, waiting.count)
    every_worker_sees(2, port, waiting.add(4))
    assert end(gunicorn, signal.SIGTERM) == 0


@pytest.mark.parametrize("mode", UWSGI)
def test_uwsgi(launch: Launch, waiting: Waiting, mode: str) -> None:
    waiting.add(3)
    port = servers.free_port()
    start, *flags = UWSGI[mode]
    flags += [f"--http-socket={servers.HOST}:{port}", "--module=processes.web", "--die-on-term"]
    uwsgi = launch("uwsgi", *flags, TEST_START=start)
    workers = 2 if "--master" in flags else 1
    every_worker_sees(workers, port, waiting.count)
    every_worker_sees(workers, port, waiting.add(4))
    assert end(uwsgi, signal.SIGTERM) == (0 if "--master" in flags else 30)  # its own code after a signal to end
