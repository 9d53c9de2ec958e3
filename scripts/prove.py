"""Show at length what the tests show in short: every property in many cases, one table, exit status 1 on any failure.

`make prove` runs it. Arguments choose rows: `scripts/prove.py engines loom` runs rows whose name holds one of the
words. Programs that ask services for known vulnerabilities, pip-audit and cargo-deny's advisories, are not here: see
`SECURITY.md`.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "target" / "prove.log"
DEBUG = ("cargo", "test", "--locked", "--quiet", "--package", "backpressure-core")
CORE = (*DEBUG, "--release")
HOST = f"{platform.machine()}-unknown-linux-gnu"
PYTEST = (sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider")
# Numbers of cases in the output of a property's programs, and of tests in that of pytest and cargo.
CASES = r"(\d+) cases"
PASSED = r"(\d+) passed"
RUNS = r"Done (\d+) runs"  # libFuzzer's words
# Options that cargo-fuzz gives the compiler: libFuzzer then sees every branch and every comparison.
SANCOV = "sanitizer-coverage"
COVERAGE = " ".join(
    [
        "-Cpasses=sancov-module -Ccodegen-units=1 --cfg fuzzing",
        f"-Cllvm-args=-{SANCOV}-level=4 -Cllvm-args=-{SANCOV}-inline-8bit-counters",
        f"-Cllvm-args=-{SANCOV}-pc-table -Cllvm-args=-{SANCOV}-trace-compares",
    ]
)
SEEDS = ("--hypothesis-seed=1", "--hypothesis-seed=2")  # one a core


@attrs.frozen
class Property:
    """Something that must hold: commands that run side by side, and how their output tells the number of cases."""

    name: str
    commands: list[tuple[str, ...]]
    pattern: str = CASES
    each: int = 1  # cases for each counted thing
    at_least: int = 1
    env: dict[str, str] = attrs.Factory(dict)

    def run(self) -> tuple[int, str, str]:
        """Return the number of cases, the result and the output."""
        env = os.environ | {"CI": "true", "HYPOTHESIS_PROFILE": "prove"} | self.env
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        running = [
            subprocess.Popen(command, cwd=ROOT, env=env, text=True, errors="replace", stdout=pipe, stderr=both)
            for command in self.commands
        ]
        output = "".join(process.communicate()[0] for process in running)
        cases = self.each * sum(map(int, re.findall(self.pattern, output)))
        if any(process.returncode for process in running):
            return cases, "FAILED", output
        return cases, "holds" if cases >= self.at_least else f"TOO FEW, want {self.at_least:_}", output


PROPERTIES = [
    Property(
        "engines and model decide alike",
        [(*PYTEST, "tests/engine/parity/test_engines_agree.py", seed) for seed in SEEDS],
        at_least=1_000_000,
    ),
    Property(
        "breakers and model agree",
        [(*PYTEST, "tests/engine/parity/test_breakers_agree.py", seed) for seed in SEEDS],
        at_least=1_000_000,
    ),
    Property(
        "golden vectors, Python",
        [
            (
                *PYTEST,
                "tests/engine/parity/test_vectors.py",
                "tests/engine/test_law.py",
                "-k",
                "vectors or breaker or whole_decision",
            )
        ],
        PASSED,
    ),
    Property(
        "budget's script and its twin are equal",
        [(*PYTEST, "tests/age/test_twin.py", "-k", server) for server in ("valkey", "redis")],
        at_least=200_000,  # as much again where there is a redis-server
    ),
    Property("golden vectors, Rust", [(*CORE, "--test", "vectors")], PASSED),
    Property(
        "law and its formula, Rust",
        [(*CORE, "--lib", "agrees_with_the_formula")],
        PASSED,
        each=2_000_000,
        env={"PROPTEST_CASES": "2000000"},
    ),
    Property(
        "breaker's word, Rust",
        [(*CORE, "--lib", "survives_")],
        PASSED,
        each=2_000_000,
        env={"PROPTEST_CASES": "2000000"},
    ),
    Property(
        "law and its promises, Python",
        [(*PYTEST, "tests/engine/test_law.py", "-k", some) for some in ("oracle or engines", "never or only_low")],
        PASSED,
        each=10_000,  # tests/conftest.py says so
    ),
    Property(
        "threads interleaved, loom",
        [(*CORE, "--target-dir", "target/loom", "--test", "loom", "--", "--nocapture")],
        r"Completed in (\d+) iterations",
        env={"RUSTFLAGS": "--cfg loom", "LOOM_LOG": "loom::model=info"},
    ),
    Property(
        "threads under drawn schedules, shuttle",
        [(*CORE, "--target-dir", "target/shuttle", "--test", "shuttle")],
        PASSED,
        each=200_000,
        env={"RUSTFLAGS": "--cfg shuttle", "SHUTTLE_SCHEDULES": "200000"},
    ),
    Property(
        "threads watched by ThreadSanitizer",
        [(*DEBUG, "--target", HOST, "--target-dir", "target/tsan", "--test", "stress")],
        PASSED,
        each=64_000,  # decisions of the test; its list of false alarms needs function names
        env={
            "RUSTC_BOOTSTRAP": "1",  # a stable compiler does not allow the sanitizer
            "RUSTFLAGS": "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
            "TSAN_OPTIONS": f"suppressions={ROOT / 'rust/core/tests/tsan.supp'}",
        },
    ),
    Property(
        "fuzzing: a queue's life, Rust",
        [
            (
                *("cargo", "run", "--locked", "--quiet", "--release", "--target", HOST, "--bin", "life"),
                *("--manifest-path", "rust/core/fuzz/Cargo.toml", "--target-dir", "target/fuzz-core", "--"),
                *("-max_total_time=60", "-max_len=512", "-create_missing_dirs=1", "-artifact_prefix=target/fuzz/life-"),
                *("target/fuzz/life", "rust/core/fuzz/corpus/life"),
            )
        ],
        RUNS,
        at_least=100_000,
        env={"RUSTFLAGS": COVERAGE},
    ),
    Property(
        "a million names, flat memory",
        [(sys.executable, "tests/security/many_names.py", engine, "1000000") for engine in ("pure", "native")],
        at_least=2_000_000,
    ),
    Property("a replay, against the real thing", [(sys.executable, "-m", "benches.real_replay")], at_least=3),
    # The next two need Atheris, which has no wheel for some platforms: pip install atheris
    Property(
        "fuzzing: configuration",
        [(sys.executable, "tests/fuzz/run.py", "configuration")],
        RUNS,
        at_least=1_000,
    ),
    Property(
        "fuzzing: replies of servers",
        [(sys.executable, "tests/fuzz/run.py", "replies")],
        RUNS,
        at_least=1_000,
    ),
]


def main() -> int:
    """Run the chosen properties and print the table; the output of failed ones goes to the log."""
    chosen = [row for row in PROPERTIES if not sys.argv[1:] or any(word in row.name for word in sys.argv[1:])]
    width = max(len(row.name) for row in PROPERTIES)
    print(f"{'property':{width}}  {'cases':>12}  {'seconds':>7}  result", flush=True)
    LOG.parent.mkdir(exist_ok=True)
    failed = 0
    with LOG.open("w", encoding="utf-8") as log:
        for row in chosen:
            start = time.monotonic()
            cases, result, output = row.run()
            seconds = time.monotonic() - start
            print(f"{row.name:{width}}  {cases:12_}  {seconds:7.0f}  {result}", flush=True)
            log.write(f"==== {row.name}: {result}\n{output}\n")
            failed += result != "holds"
    if failed:
        print(f"{failed} of {len(chosen)} properties failed: see {LOG.relative_to(ROOT)}", file=sys.stderr)
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
