"""The workflows: what holds them finds faults, and they name the same interpreters and systems as everything else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts.wheels import expected

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent
ZIZMOR = (str(BIN / "zizmor"), "--offline", "--quiet", "--persona", "pedantic", "--collect=all", ".github")
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1  # v7.0.1"


def workflow(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / ".git").mkdir()  # actionlint looks for it
    return tmp_path


def plant(tree: Path, file: str, there: str, fault: str) -> None:
    path = tree / ".github" / file
    text = path.read_text("utf-8")
    assert there in text
    path.write_text(text.replace(there, fault), "utf-8")


def said(tree: Path, *command: str) -> tuple[bool, str]:
    done = subprocess.run(command, cwd=tree, check=False, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "there", "fault", "named"),
    [
        ("workflows/ci.yml", CHECKOUT, "actions/checkout@v7", "unpinned-uses"),
        ("workflows/release.yml", "permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("workflows/release.yml", '"$GITHUB_REF_NAME"', "${{ github.ref_name }}", "template-injection"),
        ("workflows/ci.yml", "        with:\n          persist-credentials: false\n", "", "artipacked"),
        ("workflows/docs.yml", "pages: write  # to put the pages there", "pages: write", "undocumented-permissions"),
        ("dependabot.yml", "    cooldown: {default-days: 7}\n", "", "dependabot-cooldown"),
    ],
)
def test_zizmor_finds_a_planted_fault(tree: Path, file: str, there: str, fault: str, named: str) -> None:
    plant(tree, file, there, fault)
    clean, words = said(tree, *ZIZMOR)
    assert not clean
    assert f"[{named}]" in words


def test_zizmor_finds_no_fault(tree: Path) -> None:
    clean, words = said(tree, *ZIZMOR)
    assert clean, words


@pytest.mark.parametrize(
    ("there", "fault", "named"),
    [
        ("needs: [pure, native]", "needs: [pure, natve]", "job-needs"),
        ("${{ matrix.libc }}", "${{ matrix.lib }}", "expression"),
        ("system: macos-15-intel", "system: macos-15-intle", "runner-label"),
        ("timeout-minutes: 60", "timeout-minute: 60", "syntax-check"),
    ],
)
def test_actionlint_finds_a_planted_fault(tree: Path, there: str, fault: str, named: str) -> None:
    actionlint = BIN / "actionlint"
    if not actionlint.exists():
        pytest.skip("no actionlint: install Go, then make lint")
    assert said(tree, str(actionlint)) == (True, "")
    plant(tree, "workflows/wheels.yml", there, fault)
    clean, words = said(tree, str(actionlint))
    assert not clean
    assert f"[{named}]" in words


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_say_their_version(path: Path) -> None:
    used = re.findall(r"uses: (?!\./)(.*)", path.read_text("utf-8"))
    assert used
    assert [use for use in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", use)] == []


def test_an_action_has_one_version() -> None:
    used = {use for path in WORKFLOWS for use in re.findall(r"uses: (?!\./)(.*)", path.read_text("utf-8"))}
    assert len({use.partition("@")[0] for use in used}) == len(used)


def test_what_is_built_is_what_is_expected() -> None:
    native = workflow("wheels.yml")["jobs"]["native"]
    (args,) = [step["with"]["args"] for step in native["steps"] if "maturin" in step.get("uses", "")]
    built = args.partition("--interpreter ")[2].split()
    tags = {f"cp{version.rstrip('t')}-cp{version}".replace(".", "") for version in built}
    assert tags == set(expected.INTERPRETERS)
    assert len(native["strategy"]["matrix"]["include"]) == len(expected.PLATFORMS)
    (installed,) = [
        step["with"]["python-version"] for step in native["steps"] if "setup-python" in step.get("uses", "")
    ]
    assert set(installed.split()) == set(built)


def test_every_python_that_is_promised_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == promised
    page = (ROOT / "docs" / "guide" / "versions.md").read_text("utf-8")
    assert f"| CPython | {promised[0]} to {promised[-1]} |" in page
    assert project["requires-python"] == f">={promised[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_there(path: Path) -> None:
    text, makefile = path.read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"run: make ([a-z-]+)", text)
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
    scripts = re.findall(r"run: python3? (\S+)", text)
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
    assert targets or scripts
