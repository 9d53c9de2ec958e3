"""The README's examples run as printed, and so do its commands, in an environment that its first one makes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integrations.frameworks import required
from support import doc_examples, servers
from support.pages import Page

if TYPE_CHECKING:
    import redis

    from support.user_environment import UserEnvironment

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCKS = [block.text for block in doc_examples.blocks(README) if block.language == "python"]
SERVER = "redis://localhost:6379/0"


@pytest.fixture
def page(redis_url: str) -> Page:
    """The README, for the test's own server."""
    return Page(README, {SERVER: redis_url})


def test_every_command_is_run() -> None:
    assert Page(README, {}).not_run_by(Path(__file__)) == []


def test_it_begins_with_the_installation() -> None:
    first = next(doc_examples.blocks(README))
    assert first.language == "sh"
    assert first.text.startswith("pip install 'producer-backpressure")
    assert first.line <= 5


def test_the_whole_case_runs_as_printed(
    page: Page, user: UserEnvironment, redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    required("celery")
    page.write_files(tmp_path)
    assert set(page.files) == {"shop.py"}
    user.install(page.command("pip install"), tmp_path)

    printed = user.run(page.command("python shop.py"), tmp_path).stdout
    sent, postponed = map(int, re.findall(r"\d+", printed)[:2])
    (shown,) = (block.text for block in doc_examples.blocks(README) if block.language == "text")
    assert re.sub(r"\d+", "N", printed) == re.sub(r"\d+", "N", shown)
    assert sent + postponed == 1_000
    assert 100 < sent < 500, "the text says that it begins to wait at a hundred, and that most is refused"
    assert redis_client.llen("celery") == sent + 1

    top = user.run(page.command("backpressure top"), tmp_path).stdout
    assert re.search(rf"^celery +{sent + 1} ", top, re.MULTILINE)

    worker = user.start(page.command("celery -A shop worker"), tmp_path)
    # Celery may hang when it is told to end while it still takes tasks.
    servers.wait_until(
        lambda: len(re.findall("(?:newsletter|receipt) for", worker.output())) > sent, seconds=30, what="all tasks"
    )
    assert redis_client.llen("celery") == 0
    assert worker.ended(signal.SIGTERM) == 0
    seen = worker.output()
    assert seen.count("newsletter for customer") == sent
    assert seen.count("receipt for customer 7") == 1


def test_the_commands_of_the_command_line_run(page: Page, user: UserEnvironment, tmp_path: Path) -> None:
    user.install(page.command("pip install"), tmp_path)
    (tmp_path / "backpressure.toml").write_text("[polling]\nintervall = 5\n", "utf-8")
    check = page.command("backpressure check")
    assert "did you mean interval?" in user.run(check, tmp_path, code=1).stderr
    (tmp_path / "backpressure.toml").write_text("[polling]\ninterval = 5\n", "utf-8")
    assert "valid: backpressure.toml" in user.run(check, tmp_path).stdout
    assert "3,000 jobs waiting" in user.run(page.command("backpressure explain"), tmp_path).stdout


@pytest.mark.parametrize(
    ("command", "does"),
    [
        ("make demo", "$(BIN)/backpressure demo"),  # tests/cli/test_demo.py
        ("make test", "$(BIN)/python -m pytest"),
        ("make docs", "$(BIN)/python -m sphinx"),  # what `make test` does first
    ],
)
def test_the_targets_of_make_do_what_they_say(page: Page, command: str, does: str) -> None:
    (target,) = page.command(command).split()[1:]
    (recipe,) = re.findall(
        rf"^{target}:.*\n((?:\t.*\n|\S+ .*\n|endif\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert does in recipe


def test_ten_lines_run_as_printed() -> None:
    example = BLOCKS[1]
    assert len(example.splitlines()) == 10
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "low job for queue 'analytics-queue' was shed at a backlog of 5000: drop it, or retry in 7.500 s; "
        "sent ['receipt']\n"
    )


def test_ways_to_use_it_run(engine_name: str, engine_module: object) -> None:
    names = doc_examples.namespace(engine_name)
    setting = (
        "letter, jobs, event = 1, [bool], 'click'\n"
        "controller = BackpressureController(None, InMemoryStatsProvider({'email-queue': 0}))\n"
    )
    exec(setting, names)
    with names["controller"]:
        exec(BLOCKS[2], names)


def test_what_the_readme_names_exists() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", README.read_text("utf-8"))
    assert [target for target in targets if not (README.parent / target).exists()] == []
