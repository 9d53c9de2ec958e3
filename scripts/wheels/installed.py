"""A wheel as its user has it: in an empty environment, away from the tree, with the tests that need no tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from scripts.wheels.building import PURE, environment, require, run
from scripts.wheels.reproducible import ROOT

_ASK = "import backpressure; print(backpressure.ENGINE, backpressure.__file__)"


def empty(place: Path, python: str) -> str:
    """Make an environment that holds nothing; return its interpreter."""
    run(python, "-m", "venv", "--clear", str(place), env=environment(cargo=False))
    return str(place / "bin" / "python")


def check_engine(place: Path, python: str, expected: str, *install: str) -> str:
    """Install into an empty environment, without cargo unless sources need it; see which engine that gives."""
    installed = empty(place, python)
    from_source = expected == "native" and install[-1].endswith(".tar.gz")
    run(installed, "-m", "pip", "--quiet", "install", *install, env=environment(cargo=from_source))
    asked = [installed, "-c", _ASK]
    answer = subprocess.run(
        asked, cwd=place, env=environment(cargo=False), check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    engine, _, file = answer.strip().partition(" ")
    require(engine == expected, f"{install[-1]} gave the engine {engine!r}, expected {expected!r}")
    require(Path(file).is_relative_to(place), f"{file} was imported, not what was installed")
    return installed


def check_refusal(place: Path, python: str, sdist: Path) -> None:
    """Without cargo and without the switch, a build must name the switch instead of guessing."""
    command = [empty(place, python), "-m", "pip", "install", str(sdist)]
    answer = subprocess.run(
        command, cwd=place, env=environment(cargo=False), check=False, capture_output=True, text=True
    )
    said = answer.stdout + answer.stderr
    require(answer.returncode != 0, f"{sdist.name} built a native engine without cargo")
    require("-C pure-python=true" in said, f"a build without cargo does not name the way out:\n{said}")


def smoke(installed: str, engine: str) -> int:
    """Run the part of the tests that needs no tree against what is installed; return how many passed."""
    locked = str(ROOT / "requirements" / "smoke.txt")
    run(installed, "-m", "pip", "--quiet", "install", "--require-hashes", "--requirement", locked, env=_quiet(engine))
    with tempfile.TemporaryDirectory(prefix="backpressure-smoke-") as folder:
        for name in ("benches", "docs", "scripts", "tests"):  # what tests read, without the package itself
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        answer = subprocess.run(
            [installed, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses", "auto", "@tests/smoke.txt"],
            cwd=folder,
            env=_quiet(engine) | {"CI": "true"},
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
    passed = re.search(r"(\d+) passed", answer.stdout)
    require(answer.returncode == 0 and passed, f"the tests do not pass with {engine} in {installed}:\n{answer.stdout}")
    return int(passed[1]) if passed else 0


def _quiet(engine: str) -> dict[str, str]:
    # The pure wheel has one engine. The native one has both, and the tests hold them against each other.
    variables = environment(cargo=False) | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return variables | ({"BACKPRESSURE_ENGINE": "pure"} if engine == "pure" else {})


def check_source(place: Path, python: str, engine: str, sdist: Path) -> None:
    """Install from the source archive."""
    check_engine(place, python, engine, *([PURE] if engine == "pure" else []), str(sdist))
