"""Where the version is repeated: all these places are held equal, and `make version VERSION=0.2.0` changes all of them.

The changelog's heading is the last step of a release: what was `[Unreleased]` gets the number and the day.
``--tag v0.2.0`` sees that a tag is the version. It needs no library, because the workflow that releases asks it first.
"""

from __future__ import annotations

import re
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_OURS = r'name = "backpressure-(?:core|native|floor)"\nversion = "'
_UNRELEASED = "## [Unreleased]\n"


class Place(NamedTuple):
    """A file that repeats the version: each match's first group is what comes before it, the second the version."""

    file: str
    pattern: str
    times: int = 1

    def found(self, root: Path) -> list[str]:
        """Return the versions that stand there."""
        return [match[2] for match in re.finditer(self.pattern, self._text(root), re.MULTILINE)]

    def put(self, root: Path, version: str) -> None:
        """Write another version there."""
        text = re.sub(self.pattern, rf"\g<1>{version}", self._text(root), flags=re.MULTILINE)
        (root / self.file).write_text(text, "utf-8")

    def _text(self, root: Path) -> str:
        return (root / self.file).read_text("utf-8")


PLACES = (
    Place("pyproject.toml", r'^(version = ")([^"]+)'),
    Place("Cargo.toml", r'^(version = ")([^"]+)'),
    Place("Cargo.lock", rf'({_OURS})([^"]+)', times=3),
    Place("rust/core/fuzz/Cargo.lock", rf'({_OURS})([^"]+)'),
    Place("CITATION.cff", r"^(version: )(\S+)"),
    Place("packaging/conda/recipe.yaml", r'^(  version: ")([^"]+)'),
)
_RELEASED = Place("CITATION.cff", r"^(date-released: )(\S+)")


def current(root: Path = ROOT) -> str:
    """Return the version that pyproject.toml tells."""
    version: str = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return version


def faults(root: Path = ROOT) -> list[str]:
    """Return what does not fit: a place that tells another version than pyproject.toml, or is not where it was."""
    version, found = current(root), []
    for place in PLACES:
        told = place.found(root)
        if len(told) != place.times:
            found.append(f"{place.file} names the version {len(told)} times, expected {place.times}")
        found += [f"{place.file} has version {other}, pyproject.toml {version}" for other in told if other != version]
    return found


def bump(version: str, day: str, root: Path = ROOT) -> None:
    """Write a version into every place, and under its own heading what the changelog has collected."""
    if re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", version) is None:
        sys.exit(f"error: version {version!r} is not like 0.2.0 or 0.2.0rc1; name it: make version VERSION=0.2.0")
    changelog = root / "CHANGELOG.md"
    text = changelog.read_text("utf-8")
    if _UNRELEASED not in text or f"## [{version}]" in text:
        sys.exit(f"error: CHANGELOG.md has no heading [Unreleased], or has one of {version} already")
    for place in PLACES:
        place.put(root, version)
    _RELEASED.put(root, day)
    changelog.write_text(text.replace(_UNRELEASED, f"{_UNRELEASED}\n## [{version}] - {day}\n", 1), "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--tag"]:
        if sys.argv[2] != f"v{current()}":
            sys.exit(
                f"error: the tag {sys.argv[2]} is not v{current()}, the version in pyproject.toml; see RELEASING.md"
            )
    elif len(sys.argv) > 1:
        bump(sys.argv[1], datetime.now(UTC).date().isoformat())
        print(f"{sys.argv[1]} in {', '.join(place.file for place in PLACES)} and CHANGELOG.md: look at `git diff`")
    if wrong := faults():
        sys.exit(f"error: {'; '.join(wrong)}; make them equal: make version VERSION={current()}")
