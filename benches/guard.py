"""The regression guard, `make bench-guard`: compares the core's instruction counts with those checked in.

Callgrind counts instructions, which do not depend on the machine's load. Each hot function runs in two processes, a few
times and many times. The difference, divided by that of the runs, leaves out everything that is done once. More than
`tolerance` above the recorded count fails; ``ARGS=--update`` records today's counts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("instructions.json")
BUILD = ["cargo", "bench", "--locked", "--quiet", "--target-dir", "target/benches", "--package", "backpressure-core"]
FEW, MANY = 1_000, 3_000


def program() -> str:
    """Build the program that runs the hot functions; return its path."""
    command = [*BUILD, "--bench", "instructions", "--no-run", "--message-format", "json"]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    messages = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    executables: list[str | None] = [message.get("executable") for message in messages]
    return next(path for path in executables if path and "instructions" in path)


def total(binary: str, name: str, times: int) -> int:
    """Return how many instructions a whole process takes."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, name, str(times)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        sys.exit(f"error: valgrind told no count, read what it said:\n{done.stderr}")
    return int(found[1])


def measure(binary: str) -> dict[str, float]:
    """Return instructions a call of each hot function."""
    names = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    runs = [(name, times) for name in names for times in (FEW, MANY)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        totals = dict(zip(runs, pool.map(lambda run: total(binary, *run), runs), strict=True))
    return {name: round((totals[name, MANY] - totals[name, FEW]) / (MANY - FEW), 1) for name in names}


def compare(record: dict[str, Any], counts: dict[str, float]) -> int:
    """Print both, and return how many functions fail."""
    failed = 0
    print(f"{'instructions a call':<28}{'recorded':>10}{'now':>10}{'change':>10}")
    for name in sorted(record["counts"].keys() | counts):
        before, now = record["counts"].get(name), counts.get(name)
        if before is None or now is None:
            failed += 1
            print(f"{name:<28}{before or '-':>10}{now or '-':>10}  not in both: make bench-guard ARGS=--update")
            continue
        change = now / before - 1
        # Half an instruction is nobody's change.
        worse = now > before * (1 + record["tolerance"]) + 0.5
        failed += worse
        verdict = "  too many" if worse else ""
        print(f"{name:<28}{before:>10,.1f}{now:>10,.1f}{change:>+10.1%}{verdict}")
    return failed


def main() -> None:
    """Compare, or record with --update."""
    parser = argparse.ArgumentParser(description="Hold the core's instruction counts against those checked in.")
    parser.add_argument("--update", action="store_true", help="record today's counts instead")
    update = parser.parse_args().update
    if shutil.which("valgrind") is None:
        sys.exit("error: valgrind is missing: install it, on Debian as root: apt-get install valgrind")
    counts = measure(program())
    record = json.loads(RECORD.read_text())
    if update:
        rustc = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()
        RECORD.write_text(json.dumps({**record, "rustc": rustc, "counts": counts}, indent=2) + "\n")
    elif failed := compare(record, counts):
        sys.exit(
            f"error: {failed} of {len(counts)} hot functions take more than {record['tolerance']:.0%} above what "
            f"{RECORD.name} records ({record['rustc']}): make them cheaper, or record them with ARGS=--update"
        )


if __name__ == "__main__":
    main()
