"""Build sdist and wheels, then prove each: what it holds, where it runs, which engine it gives, that its tests pass.

`make wheels` runs it. There is a native wheel for each CPython that lies here. One is built a second time, from the
sdist, in another place: it must come out the same, byte for byte. Without cargo, or with `NATIVE=no`, the native half
is left out, and a line says so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import attrs
from scripts.wheels import building, contents, installed, interpreters
from scripts.wheels.building import require


@attrs.define
class Row:
    """What was seen of one artefact."""

    file: Path
    python: str
    engine: str
    passed: int
    runs_on: str = "anything"
    twice: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return what the table shows."""
        size = f"{self.file.stat().st_size / 1024:.0f} KiB"
        return (
            self.file.name,
            size,
            self.python,
            self.engine,
            str(self.passed or "–"),
            self.runs_on,
            self.twice or "–",
        )


HEAD = ("file", "size", "Python", "engine", "tests passed", "runs on", "built twice")


def main(dist: Path, *, native: bool) -> None:
    """Build into an emptied folder, and print a table."""
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="backpressure-wheels-") as scratch:
        rows = _without_rust(dist, Path(scratch))
        if native:
            rows += _native(dist, Path(scratch))
        else:
            print("the native wheels are left out: there is no cargo, or they are not wanted")
    building.run(sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(dist.iterdir())), env=_nobody())
    _print(rows)


def _without_rust(dist: Path, work: Path) -> list[Row]:
    sdist = building.sdist(dist)
    contents.check_sdist(sdist)
    pure = building.pure(dist)
    contents.check_wheel(pure, extensions=0)
    _require_same(sdist, building.sdist(work / "again"))
    _require_same(pure, building.pure(work / "again", _unpacked(sdist, work)))
    python = installed.check_engine(work / "pure", sys.executable, "pure", str(pure))
    passed = installed.smoke(python, "pure")
    installed.check_source(work / "pure-sdist", sys.executable, "pure", sdist)
    installed.check_refusal(work / "refused", sys.executable, sdist)
    here = ".".join(map(str, sys.version_info[:3]))
    return [
        Row(sdist, here, "pure, native", 0, twice="same"),
        Row(pure, here, "pure", passed, twice="same"),
    ]


def _native(dist: Path, work: Path) -> list[Row]:
    pythons = interpreters.found()
    wheels = building.native(dist, [python.path for python in pythons])
    require(len(wheels) == len(pythons), f"{len(pythons)} interpreters gave {[wheel.name for wheel in wheels]}")
    rows = []
    for python in pythons:
        wheel = next(wheel for wheel in wheels if f"-{python.tag}-" in wheel.name)
        contents.check_wheel(wheel, extensions=1)
        runs_on = _audited(wheel)
        place = installed.check_engine(work / python.tag, python.path, "native", str(wheel))
        rows.append(Row(wheel, str(python), "native", installed.smoke(place, "native"), runs_on))
    sdist = building.only(dist, "*.tar.gz")
    (again,) = building.native(work / "again", [pythons[0].path], _unpacked(sdist, work), "target")
    _require_same(rows[0].file, again)
    rows[0].twice = "same"
    installed.check_source(work / "native-sdist", sys.executable, "native", sdist)
    return rows


def _audited(wheel: Path) -> str:
    """Return what a wheel runs on, as auditwheel sees it by its symbols, where there is auditwheel."""
    wanted = building.platform_tag()
    if not wanted:
        return wheel.stem.rpartition("-")[2]
    show = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    said = subprocess.run(show, check=True, capture_output=True, text=True, env=_nobody()).stdout
    require(f'consistent with the following platform tag:\n"{wanted}"' in said.replace("\n\n", "\n"), said)
    require(wanted in wheel.name, f"{wheel.name} does not say that it is {wanted}")
    return wanted


def _unpacked(sdist: Path, work: Path) -> Path:
    """Return the tree that lies in the source archive."""
    place = work / "unpacked"
    if not place.exists():
        with tarfile.open(sdist) as archive:
            archive.extractall(place, filter="data")
    return place / sdist.name.removesuffix(".tar.gz")


def _require_same(first: Path, second: Path) -> None:
    require(first.name == second.name, f"{first.name} became {second.name} when built again")
    require(first.read_bytes() == second.read_bytes(), f"{first.name} came out different when built again: {second}")
    second.unlink()


def _nobody() -> dict[str, str]:
    return building.environment(cargo=False)


def _print(rows: list[Row]) -> None:
    table = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), native="--pure" not in sys.argv and shutil.which("cargo") is not None)
