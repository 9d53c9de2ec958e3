"""Which CPythons there are on this machine that a native wheel is built for: one of each kind, the newest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs

# PyO3 builds for no free-threaded interpreter before 3.14.
_ASK = """
import json, sys, sysconfig
import ensurepip, venv
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
fits = sys.implementation.name == "cpython" and sys.version_info >= ((3, 14) if free else (3, 11))
print(json.dumps([fits, sys.executable, list(sys.version_info[:3]), free, sys.version_info.releaselevel == "final"]))
"""
_NAMES = [f"python3.{minor}{threads}" for minor in range(11, 20) for threads in ("", "t")]


@attrs.frozen
class Interpreter:
    """A CPython, and what its wheels are called by."""

    path: str
    version: tuple[int, int, int]
    free_threaded: bool

    @property
    def tag(self) -> str:
        """The interpreter and its binary interface, as in a wheel's name."""
        python = f"cp{self.version[0]}{self.version[1]}"
        return f"{python}-{python}{'t' if self.free_threaded else ''}"

    def __str__(self) -> str:
        """Return its version in words."""
        return f"{'.'.join(map(str, self.version))}{'t' if self.free_threaded else ''}"


def found() -> list[Interpreter]:
    """Return those on `PATH`, of pyenv, and the one that runs this: of each kind the newest that is no preview."""
    kinds: dict[str, Interpreter] = {}
    for path in _candidates():
        interpreter = _ask(path)
        if interpreter is None:
            continue
        known = kinds.get(interpreter.tag)
        if known is None or known.version < interpreter.version:
            kinds[interpreter.tag] = interpreter
    return sorted(kinds.values(), key=lambda one: (one.version, one.free_threaded))


def _candidates() -> list[str]:
    folders = [Path(place) for place in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders += sorted(folder / "bin" for folder in pyenv.glob("*"))
    files = [folder / name for folder in folders for name in _NAMES]
    return [sys.executable, *(str(file) for file in files if os.access(file, os.X_OK))]


def _ask(path: str) -> Interpreter | None:
    """Return what lies there, unless it fits nobody: a stand-in that starts nothing, another Python, a preview."""
    answer = subprocess.run([path, "-c", _ASK], check=False, capture_output=True, text=True)
    if answer.returncode != 0:
        return None
    fits, executable, (major, minor, micro), free_threaded, final = json.loads(answer.stdout)
    return Interpreter(executable, (major, minor, micro), free_threaded) if fits and final else None
