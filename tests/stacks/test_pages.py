"""The pages of stacks: all in one order, with files of the repository where they say so, and commands that are run."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from integrations.frameworks import required
from support.stacks import SECTIONS, Page, is_installed

EXAMPLE = Path(__file__).parents[2] / "examples" / "django_celery"
WEB = ("django-celery", "fastapi", "flask-rq")


@pytest.mark.parametrize("name", WEB)
def test_all_have_the_same_order(name: str) -> None:
    assert Page(name).sections[: len(SECTIONS)] == list(SECTIONS)


@pytest.mark.parametrize("name", WEB)
def test_what_can_go_wrong_is_linked(name: str) -> None:
    _, _, last = Page(name).text.partition(f"## {SECTIONS[-1]}\n")
    items = last.partition("\n## ")[0].strip().split("\n- ")
    assert len(items) == 3
    assert all("](" in item for item in items)


def test_the_files_of_django_are_those_of_the_example() -> None:
    files = Page("django-celery").files
    assert len(files) >= 8
    assert [file.name for file in files if file.text not in (EXAMPLE / file.name).read_text("utf-8")] == []


def test_the_commands_of_django_are_those_that_the_example_runs() -> None:
    run = runpy.run_path(str(EXAMPLE / "run.py"))
    lines = [command.line for command in Page("django-celery").commands]
    started = [run[name] for name in ("GUNICORN", "WORKER", "BEAT", "PROMETHEUS")]
    assert {*started, *run["LOOKS"]} <= set(lines)
    directory = "$PROMETHEUS_MULTIPROC_DIR"
    assert [line for line in lines if line not in (*started, *run["LOOKS"])] == [
        "pip install 'producer-backpressure[cli]'",
        "pip install django 'celery[redis]' gunicorn",
        "export REDIS_URL=redis://localhost:6379/0",
        f"export {directory[1:]}=/tmp/shop-metrics",
        f"rm -rf {directory}",
        f"mkdir {directory}",
    ]


def test_a_variable_makes_the_shop_of_django_observe() -> None:
    for name in ("django", "celery"):
        required(name)
    told = subprocess.run(
        [sys.executable, "-m", "shop.config"],
        cwd=EXAMPLE,
        env={**os.environ, "SHOP_BACKPRESSURE": "observe", "REDIS_URL": "redis://localhost:6379/0"},
        check=True,
        capture_output=True,
    ).stdout
    assert json.loads(told)["mode"] == "observe"


def test_what_django_installs_is_there() -> None:
    assert [requirement for requirement in Page("django-celery").installs() if not is_installed(requirement)] == []
