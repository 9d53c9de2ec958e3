"""How sdist and wheels are built: the same bytes wherever and whenever it is done."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.wheels.reproducible import ROOT, cargo_home, date, variables
from scripts.wheels.tidy import tidy

if TYPE_CHECKING:
    from collections.abc import Iterable

PURE = "--config-settings=pure-python=true"
# The oldest glibc that Rust supports is that of manylinux2014. zig links against it on a Linux of any age.
_PORTABLE = ("--zig", "--compatibility", "manylinux2014") if sys.platform == "linux" else ("--compatibility", "pypi")
_OURS = {
    "BACKPRESSURE_ENGINE",
    "PYTHONPATH",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "PYO3_PYTHON",
    "CARGO_TARGET_DIR",
}


def environment(*, cargo: bool) -> dict[str, str]:
    """Return this process's variables without those that change a build; without cargo if it is not to be found."""
    kept = {name: value for name, value in os.environ.items() if name not in _OURS}
    kept["SOURCE_DATE_EPOCH"] = date()
    places = kept["PATH"].split(os.pathsep)
    if not cargo:
        places = [place for place in places if shutil.which("cargo", path=place) is None]
    # maturin asks the first Python that it finds for zig.
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), *places])
    return kept


def sdist(into: Path, root: Path = ROOT) -> Path:
    """Build the source archive."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", str(into), str(root), env=environment(cargo=False))
    return only(into, "*.tar.gz")


def pure(into: Path, root: Path = ROOT) -> Path:
    """Build the wheel that needs no Rust."""
    wheel = (sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", str(into))
    run(*wheel, PURE, str(root), env=environment(cargo=False))
    return only(into, "*-py3-none-any.whl")


def native(into: Path, interpreters: Iterable[str], root: Path = ROOT, target: str = "target/portable") -> list[Path]:
    """Build the wheel of each interpreter, for every Linux of the last ten years."""
    before = set(into.glob("*.whl"))
    run(
        str(Path(sys.executable).with_name("maturin")),
        "build",
        "--quiet",
        *_PORTABLE,
        *("--target-dir", target, "--out", str(into), "--interpreter", *interpreters),
        env=environment(cargo=True) | variables(root, cargo_home()),
        cwd=root,
    )
    wheels = sorted(set(into.glob("*.whl")) - before)
    for wheel in wheels:
        tidy(wheel)
    return wheels


def platform_tag() -> str:
    """Return what `auditwheel show` must say of a native wheel; empty where there is no auditwheel."""
    return f"manylinux_2_17_{platform.machine()}" if sys.platform == "linux" else ""


def only(directory: Path, pattern: str) -> Path:
    """Return the one file like that."""
    found = list(directory.glob(pattern))
    require(len(found) == 1, f"{directory} holds {len(found)} files like {pattern}, expected one")
    return found[0]


def run(*command: str, env: dict[str, str], cwd: Path | None = None) -> None:
    """Run a command; its failure ends all."""
    subprocess.run(command, check=True, env=env, cwd=cwd)


def require(holds: object, message: str) -> None:
    """End all with a message unless it holds."""
    if not holds:
        sys.exit(f"error: {message}")
