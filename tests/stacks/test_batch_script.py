"""The page about batch scripts: its files and commands, as printed, on a real server."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backpressure._telemetry.families import FAMILIES
from support import servers
from support.pages import Page

if TYPE_CHECKING:
    import redis

    from support.user_environment import UserEnvironment

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs" / "stacks" / "batch-script.md"
#: Nothing but the pace differs from what the page says.
HURRY = {
    "BACKPRESSURE_POLLING__INTERVAL": "50ms",
    "BACKPRESSURE_CURVE__YELLOW_MIN_DELAY": "1ms",
    "BACKPRESSURE_CURVE__YELLOW_MAX_DELAY": "20ms",
    "BACKPRESSURE_CURVE__RED_MAX_DELAY": "100ms",
}


@pytest.fixture
def page(redis_url: str, redis_client: redis.Redis, tmp_path: Path) -> Page:
    replaced = {
        "redis://localhost:6379/0": redis_url,
        "localhost:9101": f"{servers.HOST}:{(port := servers.free_port())}",
        "(9101, ": f"({port}, ",
        "time.sleep(0.005)": "time.sleep(0.0002)",
    }
    page = Page(PATH, replaced)
    page.write_files(tmp_path)
    return page


@pytest.fixture
def installed(page: Page, user: UserEnvironment, tmp_path: Path) -> UserEnvironment:
    user.install(page.command("pip install"), tmp_path)
    name, _, value = page.command("export REDIS_URL").removeprefix("export ").partition("=")
    user.variables = {name: value}
    return user


def test_every_command_is_run() -> None:
    assert Page(PATH, {}).not_run_by(Path(__file__)) == []


def test_it_goes_on_where_it_was_stopped(
    page: Page, installed: UserEnvironment, redis_client: redis.Redis, tmp_path: Path
) -> None:
    check = installed.run(page.command("backpressure check"), tmp_path).stdout
    assert "invoices" in check

    observed = installed.run(page.command("BACKPRESSURE_MODE=observe python backfill.py"), tmp_path).stdout
    assert "finished: 1000 orders" in observed
    assert redis_client.llen("invoices") == 1_000

    def done() -> int:
        return int(redis_client.get("backfill:done") or 0)

    backfill = page.command("python backfill.py")
    stopped = installed.start(backfill, tmp_path, HURRY)
    servers.wait_until(lambda: done() > 1_000, what="its first jobs")
    assert stopped.ended(signal.SIGINT) == 1
    assert "begins after order 1000\n" in stopped.output()
    assert stopped.output().endswith("stopped: start it again to go on\n")
    assert 1_000 < done() < 5_000

    worker = installed.start(page.command("python worker.py"), tmp_path)
    killed = installed.start(backfill, tmp_path, HURRY)
    before = done()
    servers.wait_until(lambda: done() > before, what="a job of the second run")
    look_around(page, installed, tmp_path)
    assert killed.ended(signal.SIGKILL) == -signal.SIGKILL

    last = installed.start(backfill, tmp_path, HURRY)
    assert last.ended() == 0, last.output()
    assert re.search(r"^order 5000 of 5000; \d+ jobs wait: (green|yellow|red)$", last.output(), re.MULTILINE)
    servers.wait_until(lambda: redis_client.llen("invoices:printed") == 5_000, what="the worker to print all")
    assert worker.ended(signal.SIGTERM) == -signal.SIGTERM
    printed = list(map(int, redis_client.lrange("invoices:printed", 0, -1)))
    assert printed == list(range(1, 5_001)), "one job for each order, in order"


def look_around(page: Page, user: UserEnvironment, folder: Path) -> None:
    """See it as the page says."""
    url = page.command("curl -s").split()[-1]
    with urllib.request.urlopen(url) as answer:
        metrics = answer.read().decode()
    assert re.search(r'^backpressure_queue_backlog_size\{queue="invoices"\} \d+', metrics, re.MULTILINE)
    shown = (ROOT / "ops" / "dashboard.json").read_text("utf-8")
    drawn = {name for name in FAMILIES if name in shown}
    assert len(drawn) > 8
    assert {name for name in drawn if f"# TYPE {name} " not in metrics} == set()
    assert f'["{url.split("/")[2]}"]' in page.files["prometheus.yml"]

    top = user.start(page.command("backpressure top"), folder)
    servers.wait_until(lambda: re.search(r"^invoices +\d+", top.output(), re.MULTILINE) is not None, what="a look")
    assert top.ended(signal.SIGINT) == 0


def test_the_log_looks_as_printed(page: Page, installed: UserEnvironment, tmp_path: Path) -> None:
    program = installed.start(page.command("python backfill.py"), tmp_path, HURRY)
    logged = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} queue 'invoices' is (yellow|red) for low jobs, was green$"
    servers.wait_until(lambda: re.search(logged, program.output(), re.MULTILINE) is not None, what="a line of the log")
    assert program.ended(signal.SIGTERM) == 143
    assert re.search(logged, PATH.read_text("utf-8"), re.MULTILINE)


def test_prometheus_takes_the_file(page: Page, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: scripts/install_tools.sh")
    done = subprocess.run([promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_redis_that_goes_away_ends_it_and_keeps_the_mark(
    page: Page, installed: UserEnvironment, tmp_path: Path
) -> None:
    with servers.Server(binary=None, port=None, sentinel="") as server:
        program = installed.start(page.command("python backfill.py"), tmp_path, {"REDIS_URL": server.url})
        servers.wait_until(lambda: "for low jobs" in program.output(), what="its first jobs")
        server.kill()
        assert program.ended() == 1
    assert "redis.exceptions.ConnectionError" in program.output()
