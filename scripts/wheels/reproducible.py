"""What a build must be told so that it gives the same bytes anywhere and at any time: the variables of its environment.

`python scripts/wheels/reproducible.py` prints them for the workflow that builds where maturin is started by others.
``CONTAINER=yes`` says that this is done in a container. It needs no library.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FIRST_DAY_OF_ZIP = "315532800"


def variables(root: Path, cargo_home: str) -> dict[str, str]:
    """Return when it was built, which is when it was committed, and how panics name files: by no machine's folders."""
    names = {str(root): ".", cargo_home: "cargo"}
    flags = " ".join(f"--remap-path-prefix={place}={name}" for place, name in names.items())
    return {"SOURCE_DATE_EPOCH": date(), "RUSTFLAGS": flags}


def date() -> str:
    """Return when the last commit was made; an archive without history is of the first day that a zip knows."""
    asked = ("git", "-C", str(ROOT), "log", "-1", "--format=%ct")
    try:
        answer = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        answer = ""
    return os.environ.get("SOURCE_DATE_EPOCH") or answer or _FIRST_DAY_OF_ZIP


def cargo_home() -> str:
    """Return where cargo keeps the sources of crates."""
    if os.environ.get("CONTAINER") == "yes":
        return "/root/.cargo"
    return os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))


if __name__ == "__main__":
    for name, value in variables(ROOT, cargo_home()).items():
        print(f"{name}={value}")
