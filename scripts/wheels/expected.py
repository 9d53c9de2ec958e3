"""See that a folder holds every file of a release, and no other: `python scripts/wheels/expected.py dist`.

A wheel that is missing would have its users build from source without a word. It needs no library, because it runs
right before the upload.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INTERPRETERS = (
    "cp311-cp311",
    "cp312-cp312",
    "cp313-cp313",
    "cp314-cp314",
    "cp314-cp314t",
    "cp315-cp315",
    "cp315-cp315t",
)
# How the tag of a platform begins, and how it ends: between them stands the oldest system that it runs on.
PLATFORMS = (
    ("manylinux", "_x86_64"),
    ("manylinux", "_aarch64"),
    ("musllinux", "_x86_64"),
    ("musllinux", "_aarch64"),
    ("macosx", "_x86_64"),
    ("macosx", "_arm64"),
    ("win_amd64", ""),
    ("win_arm64", ""),
)


def faults(names: list[str], version: str) -> list[str]:
    """Return what is missing, twice there, or not of this release."""
    start = f"producer_backpressure-{version}"
    left, found = sorted(names), []
    wanted = [(f"{start}.tar.gz", ""), (f"{start}-py3-none-any.whl", "")]
    wanted += [(f"{start}-{python}-{begins}", f"{ends}.whl") for python in INTERPRETERS for begins, ends in PLATFORMS]
    for begins, ends in wanted:
        fits = [name for name in left if name.startswith(begins) and name.endswith(ends)]
        if len(fits) != 1:
            found.append(f"{begins}…{ends}: {' and '.join(fits) or 'missing'}")
        left = [name for name in left if name not in fits]
    return found + [f"{name}: not expected" for name in left]


def main(folder: Path) -> None:
    """End with what is wrong, or tell the number."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    names = [file.name for file in folder.iterdir()]
    for name in sorted(names):
        print(name)
    if wrong := faults(names, version):
        sys.exit("error: these are not the files of a release:\n  " + "\n  ".join(wrong))
    print(f"{len(names)} files, as many as there must be")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
