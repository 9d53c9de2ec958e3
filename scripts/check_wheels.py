"""Build the sdist, the pure and the native wheel, then prove each: what it holds, and which engine it installs.

Every artefact is installed into an empty environment and imported from outside the tree. The parts that need no Rust
are built with cargo hidden from PATH. Without any cargo the native half is left out, and a line says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTENSIONS = (".so", ".pyd", ".dylib")
PURE = "--config-settings=pure-python=true"
SDIST_HOLDS = (
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
WHEELS_HOLD = (
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


def main(dist: Path) -> None:
    shutil.rmtree(dist, ignore_errors=True)
    cargo = shutil.which("cargo") is not None
    with tempfile.TemporaryDirectory(prefix="backpressure-wheels-") as scratch:
        work = Path(scratch)

        _run(sys.executable, "-m", "build", "--sdist", "--outdir", str(dist), str(ROOT), env=_environment(cargo=False))
        sdist = _only(dist, "*.tar.gz")
        _check_sdist(sdist)

        _run(*_pip_wheel(dist), PURE, str(ROOT), env=_environment(cargo=False))
        pure = _only(dist, "*-py3-none-any.whl")
        _check_wheel(pure, extensions=0)
        _check_engine(work / "pure-wheel", "pure", str(pure))
        _check_engine(work / "pure-sdist", "pure", PURE, str(sdist))
        _check_refusal(work / "no-cargo", sdist)

        if not cargo:
            print("no cargo on PATH: the native wheel is left out")
            return
        _run(*_pip_wheel(dist), str(ROOT), env=_environment(cargo=True))
        native = next(wheel for wheel in dist.glob("*.whl") if wheel != pure)
        _check_wheel(native, extensions=1)
        _check_engine(work / "native-wheel", "native", str(native))
        _check_engine(work / "native-sdist", "native", str(sdist))


def _pip_wheel(dist: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", str(dist))


def _check_sdist(sdist: Path) -> None:
    top = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        names = set(archive.getnames())
    missing = [name for name in SDIST_HOLDS if f"{top}/{name}" not in names]
    _require(not missing, f"{sdist.name} lacks {', '.join(missing)}; see tool.hatch.build.targets.sdist")
    _refuse_extensions(sdist, names)


def _check_wheel(wheel: Path, *, extensions: int) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    found = [name for name in names if name.endswith(EXTENSIONS)]
    _require(len(found) == extensions, f"{wheel.name} holds {found}, expected {extensions} extension modules")
    for needed in WHEELS_HOLD:
        _require(needed in names, f"{wheel.name} lacks {needed}")
    stray = [name for name in names if not name.startswith(("backpressure/", "producer_backpressure-"))]
    _require(not stray, f"{wheel.name} holds {stray} outside the package")


def _refuse_extensions(artefact: Path, names: set[str]) -> None:
    found = [name for name in names if name.endswith(EXTENSIONS)]
    _require(not found, f"{artefact.name} holds compiled files: {found}")


def _check_engine(environment: Path, expected: str, *install: str) -> None:
    """Install into an empty environment, without cargo where none should be needed, and ask for the engine."""
    python = _empty_environment(environment)
    _run(python, "-m", "pip", "--quiet", "install", *install, env=_environment(cargo=expected == "native"))
    asked = "import backpressure; print(backpressure.ENGINE, backpressure.__file__)"
    answer = subprocess.run(
        [python, "-c", asked],
        cwd=environment,
        env=_environment(cargo=False),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    engine, _, file = answer.strip().partition(" ")
    _require(engine == expected, f"{install[-1]} gave the engine {engine!r}, expected {expected!r}")
    _require(Path(file).is_relative_to(environment), f"{file} was imported, not what was installed")
    print(f"{expected:6} engine from {Path(install[-1]).name}")


def _check_refusal(environment: Path, sdist: Path) -> None:
    """Without cargo and without the switch, the build must name the switch instead of guessing."""
    python = _empty_environment(environment)
    answer = subprocess.run(
        [python, "-m", "pip", "install", str(sdist)],
        cwd=environment,
        env=_environment(cargo=False),
        check=False,
        capture_output=True,
        text=True,
    )
    said = answer.stdout + answer.stderr
    _require(answer.returncode != 0, f"{sdist.name} built a native engine without cargo")
    _require("-C pure-python=true" in said, f"a build without cargo does not name the way out:\n{said}")
    print("no cargo, no switch: refused, naming -C pure-python=true")


def _empty_environment(environment: Path) -> str:
    venv.create(environment, with_pip=True)
    return str(environment / "bin" / "python")


def _environment(*, cargo: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"BACKPRESSURE_ENGINE", "PYTHONPATH"}}
    if not cargo:
        places = kept["PATH"].split(os.pathsep)
        kept["PATH"] = os.pathsep.join(place for place in places if shutil.which("cargo", path=place) is None)
    return kept


def _only(directory: Path, pattern: str) -> Path:
    found = list(directory.glob(pattern))
    _require(len(found) == 1, f"{directory} holds {len(found)} files like {pattern}, expected one")
    return found[0]


def _run(*command: str, env: dict[str, str]) -> None:
    subprocess.run(command, check=True, env=env)


def _require(holds: object, message: str) -> None:
    if not holds:
        sys.exit(f"error: {message}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
