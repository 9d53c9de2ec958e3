"""Put every small fault into the Rust engine's law, lease, queue, counters and breaker: does a test notice each?

`make mutants` runs it after the Python part. cargo-mutants (`cargo install cargo-mutants`) makes the faults and runs
the core's quick tests, in a copy of the tree. The result is written to tests/mutants/rust.md. Exit status 1 if too few
are killed, or one survives without a known reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.mutants.report import ROOT, Survivor, before_and_after, publish

OUTPUT = ROOT / "target" / "mutants-rust"
NAMES = ("breaker", "counters", "laws/three_zone", "lease/mod", "lease/terms", "lease/words", "queue", "word", "zone")
FILES = [f"rust/core/src/{name}.rs" for name in NAMES]
TESTS = ("--lib", "--test=vectors", "--test=life")  # the quick ones
KILLED = {"CaughtMutant": "killed", "Timeout": "killed", "MissedMutant": "survived"}  # others do not compile
JUDGED = (0, 2, 3)  # its exit status: all mutants killed, some missed, some never ended

#: Mutants that no test can notice: what cargo-mutants calls them, and why they do the same as the original.
EQUIVALENT = {
    f"replace | with ^ in {word}::pack": "no two fields share a bit, so that either joins them"
    for word in ("Word", "ShareWord", "ShareTerms", "LineWord")
}


def survivor(mutant: dict[str, Any], diff: str) -> Survivor:
    """Return where a surviving mutant is, its line before and after, and why it survives."""
    old, new = before_and_after(diff)
    where = mutant["function"]["function_name"] if mutant["function"] else "constant"
    what = mutant["name"].split(": ", 1)[1]
    new = new.replace(" /* ~ changed by cargo-mutants ~ */", "")
    return f"{module_of(mutant)}::{where}", old, new, EQUIVALENT.get(what, "")


def module_of(mutant: dict[str, Any]) -> str:
    """Return the module that a mutant is in: a folder has the name of its `mod.rs`."""
    path = Path(mutant["file"])
    return path.parent.name if path.stem == "mod" else path.stem


def main() -> int:
    """Run cargo-mutants and judge its results."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    options = [*(f"--file={file}" for file in FILES), *(f"--cargo-test-arg={test}" for test in TESTS)]
    command = ["cargo", "mutants", "--package=backpressure-core", f"--output={OUTPUT}", *options, *sys.argv[1:]]
    ended = subprocess.run(command, cwd=ROOT, check=False).returncode
    if ended not in JUDGED:
        return ended
    made = OUTPUT / "mutants.out"
    results = json.loads((made / "outcomes.json").read_text(encoding="utf-8"))
    by_module: dict[str, Counter[str]] = {}
    survivors: list[Survivor] = []
    for outcome in results["outcomes"]:
        if outcome["summary"] not in KILLED or outcome["scenario"] == "Baseline":
            continue
        mutant, result = outcome["scenario"]["Mutant"], KILLED[outcome["summary"]]
        by_module.setdefault(module_of(mutant), Counter())[result] += 1
        if result == "survived":
            survivors.append(survivor(mutant, (made / outcome["diff_path"]).read_text(encoding="utf-8")))
    head = [
        "# Mutants of the Rust engine",
        "",
        f"`make mutants` writes this page. cargo-mutants {results['cargo_mutants_version']} puts one small fault after",
        "another into law, lease, queue, counters and breaker and runs the core's quick tests; a mutant is killed when",
        "one of them fails. Those that do not compile are left out.",
    ]
    return publish("rust", head, by_module, survivors)


if __name__ == "__main__":
    sys.exit(main())
