"""Put every small fault into the Python engine's law, cache and breaker, and see whether a test notices it.

`make mutants` runs it. mutmut makes the faults and runs the tests, as `tool.mutmut` in pyproject.toml says; it demands
the package at the top of the tree, so it works in a copy. The result is written to tests/mutants/python.md. Exit status
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

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants-python"
REPORT = ROOT / "tests" / "mutants" / "python.md"
MUTMUT = (sys.executable, "-m", "mutmut")
ENV = os.environ | {"CI": "true", "BACKPRESSURE_ENGINE": "pure", "PYTHONDONTWRITEBYTECODE": "1"}
AT_LEAST = 95.0  # percent

#: Mutants that no test can notice: the line they make, and why it does the same as the original.
EQUIVALENT = {
    "return min(max(elapsed_ns, 1) // _MS, _MAX_MS)": "0 ns and 1 ns are both 0 whole milliseconds",
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


def survivor(name: str) -> tuple[str, str, str, str]:
    """Return where a surviving mutant is, its line before and after, and why it survives."""
    diff = ask("show", name)
    before, after = (re.findall(rf"^\{sign}(?!{re.escape(2 * sign)})(.*)", diff, re.MULTILINE) for sign in "-+")
    old, new = (" ".join(line.strip() for line in lines) for lines in (before, after))
    module, _, mangled = name.removeprefix("backpressure.").rpartition(".")
    where = mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".").partition("__mutmut_")[0]
    return f"{module}.{where}", old, new, EQUIVALENT.get(new, "")


def write_report(by_module: dict[str, Counter[str]], survivors: list[tuple[str, str, str, str]]) -> None:
    """Write the tables."""
    lines = [
        "# Mutants of the Python engine",
        "",
        f"`make mutants` writes this page. mutmut {version('mutmut')} puts one small fault after another into the",
        "functions of law, cache and breaker and runs the tests that reach it; a mutant is killed when one of them",
        "fails. Constants outside of functions stay as they are: mutmut leaves them alone.",
        "",
        "| module | mutants | killed | survived |",
        "|---|---|---|---|",
    ]
    for module, counts in sorted(by_module.items()):
        total, killed = counts.total(), counts["killed"]
        lines.append(f"| `{module}` | {total} | {killed} ({killed / total:.1%}) | {total - killed} |")
    lines += ["", "## Survivors", "", "| where | before | after | why no test can tell |", "|---|---|---|---|"]
    lines += [f"| `{where}` | `{old}` | `{new}` | {why or '**unknown**'} |" for where, old, new, why in survivors]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Run mutmut and judge its results."""
    prepare()
    subprocess.run((*MUTMUT, "run", "--max-children", "1", *sys.argv[1:]), cwd=COPY, env=ENV, check=True)
    results = re.findall(r"^\s*(backpressure\.\S+): (.+)$", ask("results", "--all", "true"), re.MULTILINE)
    by_module: dict[str, Counter[str]] = {}
    for name, status in results:
        by_module.setdefault(name.rpartition(".")[0], Counter())[status] += 1
    survivors = [survivor(name) for name, status in results if status != "killed"]
    write_report(by_module, survivors)
    killed = 100 * sum(status == "killed" for _, status in results) / max(1, len(results))
    unknown = sum(not why for *_, why in survivors)
    report = REPORT.relative_to(ROOT)
    print(f"{len(results)} mutants, {killed:.1f} % killed, {unknown} survive without a reason: see {report}")
    return 1 if killed < AT_LEAST or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
