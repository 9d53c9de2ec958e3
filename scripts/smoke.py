"""Run the tests that need no server, no tool and no tree against an installed wheel: `python scripts/smoke.py`.

It makes an environment of its own beside the tree. There it installs the locked tools of `requirements/smoke.txt`, and
the package, built from here or, with ``--from dist``, taken from there. So it needs nothing but an interpreter, of any
kind, on any system. What else is given goes to pytest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment_name() -> str:
    """Return what this interpreter's environments are called by: ``3.12``, ``3.14t``, ``pypy3.11``."""
    name = sys.implementation.name
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"{'' if name == 'cpython' else name}{sys.version_info[0]}.{sys.version_info[1]}{threads}"


def main() -> int:
    """Return the exit code of pytest."""
    parser = argparse.ArgumentParser(description="run the tests that need no server against an installed wheel")
    parser.add_argument("--from", dest="wheels", type=Path, help="a folder of wheels; else one is built from here")
    parser.add_argument("--pure", action="store_true", help="build the wheel that needs no Rust")
    known, others = parser.parse_known_args()

    place = ROOT / f".venv-smoke-{environment_name()}"
    venv.create(place, clear=True, with_pip=True)
    python = str(place / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--require-hashes", "--requirement", str(ROOT / "requirements" / "smoke.txt")], check=True)
    if known.wheels is not None:
        source = ["--no-index", "--find-links", str(known.wheels), "producer-backpressure"]
    else:
        source = [*(["--config-settings=pure-python=true"] if known.pure else []), str(ROOT)]
    subprocess.run([*pip, "--no-deps", *source], check=True)
    engine = "import backpressure; print('engine', backpressure.ENGINE, 'from', backpressure.__file__)"
    subprocess.run([python, "-c", engine], check=True, cwd=place)
    tests = [python, "-m", "pytest", "--numprocesses", "auto", *others, "@tests/smoke.txt"]
    return subprocess.run(tests, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
