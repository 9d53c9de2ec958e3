"""Put every small fault into the Python engine's law, lease, queue and breaker, and see whether a test notices it.

`make mutants` runs it. mutmut makes the faults and runs the tests, as `tool.mutmut` in pyproject.toml says; it demands
the package at the top of the tree, so it works in a copy. It writes the result to tests/mutants/python.md. Exit status
1 if too few are killed, or one survives without a known reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from scripts.mutants.report import ROOT, Survivor, before_and_after, publish

COPY = ROOT / "target" / "mutants-python"
MUTMUT = (sys.executable, "-m", "mutmut")
ENV = os.environ | {"CI": "true", "BACKPRESSURE_ENGINE": "pure", "PYTHONDONTWRITEBYTECODE": "1"}

#: Mutants that no test can notice: the line they make, and why it does the same as the original.
EQUIVALENT = {
    "lowest, middle, highest = (ns / 1000000001.0 for ns in "
    "(self.yellow_min_ns, self.yellow_max_ns, self.red_max_ns))": "durations are told in four digits",
    "return max(elapsed_ns, 1) // MS": "0 ns and 1 ns are both 0 whole milliseconds",
}


def prepare() -> None:
    """Copy what the tests need; the native engine stays behind."""
    shutil.rmtree(COPY, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    for source in ("python/backpressure", "scripts", "tests"):
        shutil.copytree(ROOT / source, COPY / Path(source).name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", COPY)


def ask(*arguments: str) -> str:
    """Return what mutmut prints."""
    command = (*MUTMUT, *arguments)
    return subprocess.run(command, cwd=COPY, env=ENV, check=True, text=True, stdout=subprocess.PIPE).stdout


def survivor(name: str) -> Survivor:
    """Return where a surviving mutant is, its line before and after, and why it survives."""
    old, new = before_and_after(ask("show", name))
    module, _, mangled = name.removeprefix("backpressure.").rpartition(".")
    where = mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".").partition("__mutmut_")[0]
    return f"{module}.{where}", old, new, EQUIVALENT.get(new, "")


def main() -> int:
    """Run mutmut and judge its results."""
    prepare()
    subprocess.run((*MUTMUT, "run", "--max-children", "1", *sys.argv[1:]), cwd=COPY, env=ENV, check=True)
    results = re.findall(r"^\s*(backpressure\.\S+): (.+)$", ask("results", "--all", "true"), re.MULTILINE)
    by_module: dict[str, Counter[str]] = {}
    for name, status in results:
        by_module.setdefault(name.rpartition(".")[0], Counter())[status] += 1
    survivors = [survivor(name) for name, status in results if status != "killed"]
    head = [
        "# Mutants of the Python engine",
        "",
        f"`make mutants` writes this page. mutmut {version('mutmut')} puts one small fault after another into the",
        "functions of law, lease, queue and breaker and runs the tests that reach it; a mutant is killed when one of",
        "them fails. Constants outside of functions stay as they are: mutmut leaves them alone.",
    ]
    return publish("python", head, by_module, survivors)


if __name__ == "__main__":
    sys.exit(main())
