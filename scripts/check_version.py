"""Check that the version in Cargo.toml equals the one in pyproject.toml."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text("utf-8"))["workspace"]["package"]["version"]
    if project != workspace:
        sys.exit(f"error: pyproject.toml has version {project}, Cargo.toml {workspace}; make them equal")


if __name__ == "__main__":
    main()
