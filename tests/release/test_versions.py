"""One version everywhere: what a release changes, and what it must not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from scripts import versions

import backpressure

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files that tell the version, in a tree that may be changed."""
    for name in {"CHANGELOG.md", *(place.file for place in versions.PLACES)}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_all_places_agree() -> None:
    assert versions.faults() == []
    assert versions.current() == backpressure.__version__


@pytest.mark.parametrize("version", ["7.2.0", "8.0.0rc1"])
def test_a_bump_reaches_every_place(tree: Path, version: str) -> None:
    versions.bump(version, "2031-02-03", tree)
    assert versions.faults(tree) == []
    assert versions.current(tree) == version
    lock = tomllib.loads((tree / "Cargo.lock").read_text("utf-8"))["package"]
    ours = [package["version"] for package in lock if package["name"].startswith("backpressure-")]
    assert ours == [version] * 3
    citation = yaml.safe_load((tree / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], str(citation["date-released"])) == (version, "2031-02-03")
    changelog = (tree / "CHANGELOG.md").read_text("utf-8")
    before = (ROOT / "CHANGELOG.md").read_text("utf-8")
    heading = f"## [{version}] - 2031-02-03\n\n"
    assert f"## [Unreleased]\n\n{heading}" in changelog
    assert changelog.replace(heading, "") == before


def test_a_bump_changes_nothing_else(tree: Path) -> None:
    def others(root: Path) -> list[str]:
        lines = [line for place in versions.PLACES for line in (root / place.file).read_text("utf-8").splitlines()]
        return [line for line in lines if "version" not in line and "date-released" not in line]

    before = others(tree)
    versions.bump("7.8.9", "2031-02-03", tree)
    assert others(tree) == before
    assert (tree / "Cargo.lock").read_text("utf-8").count("7.8.9") == 3


@pytest.mark.parametrize("place", versions.PLACES, ids=lambda place: place.file)
def test_a_place_that_is_left_behind_is_named(tree: Path, place: versions.Place) -> None:
    place.put(tree, "9.9.9")
    named = "Cargo.toml" if place.file == "pyproject.toml" else place.file
    assert any(fault.startswith(named) and "9.9.9" in fault for fault in versions.faults(tree))


def test_a_place_that_lost_its_version_is_named(tree: Path) -> None:
    (tree / "CITATION.cff").write_text("title: nothing\n", "utf-8")
    assert versions.faults(tree) == ["CITATION.cff names the version 0 times, expected 1"]


@pytest.mark.parametrize("version", ["", "1", "v1.2.3", "1.2.3-rc1", "1.2.3; rm"])
def test_a_wrong_version_is_refused(tree: Path, version: str) -> None:
    with pytest.raises(SystemExit, match=r"is not like 0\.2\.0"):
        versions.bump(version, "2031-02-03", tree)
    assert versions.faults(tree) == []


def test_a_version_is_released_once(tree: Path) -> None:
    versions.bump("7.2.0", "2031-02-03", tree)
    with pytest.raises(SystemExit, match=r"or has one of 7\.2\.0 already"):
        versions.bump("7.2.0", "2031-02-03", tree)


@pytest.mark.parametrize(("tag", "code"), [(f"v{backpressure.__version__}", 0), ("v9.9.9", 1)])
def test_a_tag_is_the_version(tag: str, code: int) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "versions.py", "--tag", tag], check=False)
    assert done.returncode == code
