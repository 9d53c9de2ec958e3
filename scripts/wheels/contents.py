"""What sdist and wheels must hold, and must not."""

from __future__ import annotations

import re
import tarfile
import zipfile
from typing import TYPE_CHECKING

from scripts.wheels.building import require

if TYPE_CHECKING:
    from pathlib import Path

_EXTENSIONS = (".so", ".pyd", ".dylib")
_SDIST_HOLDS = (
    "CITATION.cff",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
    "python/_build/backend.py",
    "python/backpressure/__init__.py",
    "python/backpressure/_age/script.lua",
    "python/backpressure/_native.pyi",
    "python/backpressure/console/page/index.html",
    "python/backpressure/console/page/uplot/LICENSE",
    "python/backpressure/py.typed",
    "rust/binding/src/lib.rs",
    "rust/core/src/lib.rs",
    "tests/conftest.py",
)
_WHEELS_HOLD = (
    "backpressure/_age/script.lua",
    "backpressure/_native.pyi",
    "backpressure/console/page/console.css",
    "backpressure/console/page/console.js",
    "backpressure/console/page/icon.svg",
    "backpressure/console/page/index.html",
    "backpressure/console/page/uplot/LICENSE",
    "backpressure/console/page/uplot/uPlot.iife.min.js",
    "backpressure/console/page/uplot/uPlot.min.css",
    "backpressure/py.typed",
)
# A folder of whoever built it, a number drawn at random.
_OF_A_MACHINE = re.compile(rb"file:///(?!rust/)|/(?:home|root|Users|tmp)/|\"serialNumber\"")


def check_sdist(sdist: Path) -> None:
    """See that it holds what a build and its tests need, and nothing compiled."""
    top = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        names = set(archive.getnames())
    missing = [name for name in _SDIST_HOLDS if f"{top}/{name}" not in names]
    require(not missing, f"{sdist.name} lacks {', '.join(missing)}; see tool.hatch.build.targets.sdist")
    compiled = [name for name in names if name.endswith(_EXTENSIONS)]
    require(not compiled, f"{sdist.name} holds compiled files: {compiled}")


def check_wheel(wheel: Path, *, extensions: int) -> None:
    """See that it holds the package, `extensions` compiled modules, and nothing of the machine that built it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        texts = {name: archive.read(name) for name in names if "/sboms/" in name or name.endswith(_EXTENSIONS)}
    found = [name for name in names if name.endswith(_EXTENSIONS)]
    require(len(found) == extensions, f"{wheel.name} holds {found}, expected {extensions} extension modules")
    for needed in _WHEELS_HOLD:
        require(needed in names, f"{wheel.name} lacks {needed}")
    stray = [name for name in names if not name.startswith(("backpressure/", "producer_backpressure-"))]
    require(not stray, f"{wheel.name} holds {stray} outside the package")
    for name, data in texts.items():
        told = _OF_A_MACHINE.search(data)
        require(told is None, f"{name} in {wheel.name} tells of the machine: {told and _around(data, told)}")
    require(extensions == 0 or any("/sboms/" in name for name in names), f"{wheel.name} names no crates (sboms/)")


def _around(data: bytes, told: re.Match[bytes]) -> str:
    return data[max(told.start() - 20, 0) : told.end() + 60].decode("latin-1").replace("\n", " ")
