"""Every statement and name of `tests/data/seed.md` has its place in this package, and a test that shows it.

`tests/data/seed_statements.toml` says which ones. Its top tells how to read it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support.seed_document import DATA, STATEMENTS, names

ROOT = Path(__file__).parent.parent.parent
MAP: dict[str, Any] = tomllib.loads((DATA / "seed_statements.toml").read_text("utf-8"))
ENTRIES: dict[str, dict[str, Any]] = {key: entry for key, entry in MAP.items() if key.isdecimal()}
MAPPED = sorted({test for entry in ENTRIES.values() for test in entry["tests"]})

pytestmark = pytest.mark.timeout(300)  # the first of them collects all tests of the project

# A test of a decision has to run on both engines. Tests in these files do not: they are about values, files, servers
# and processes, or they compare both engines themselves.
WITHOUT_ENGINE = (
    "tests/cli/",
    "tests/faults/",  # one test, producers on every engine
    "tests/ops/",
    "tests/engine/parity/",
    "tests/providers/",
    "tests/seed/test_configuration.py",
    "tests/seed/test_interfaces.py",
    "tests/seed/test_monitoring.py::test_all_",
    "tests/model/test_config.py",
    "tests/model/test_errors.py",
    "tests/test_import.py",
    "tests/engine/test_law.py::test_engines_agree",
    "tests/model/test_loading.py",
    "tests/telemetry/test_metrics.py",
    "tests/controller/test_poller.py::TestReader",
    "tests/engine/test_settings.py",
    "tests/model/test_types.py",
)


def lines_of(key: str) -> dict[int, str]:
    """Return the lines that an entry claims, by number."""
    return dict(enumerate((line.strip() for line in ENTRIES[key]["text"].strip("\n").splitlines()), int(key)))


@pytest.fixture(scope="module")
def engines_of() -> dict[str, set[str]]:
    """Return every test by its id without parameters, with the engines that it runs on."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "tests"],
        cwd=ROOT,
        env={**os.environ, "BACKPRESSURE_ENGINE": "auto"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:  # some files cannot be read; the tests of others can still be found
        print(done.stdout, done.stderr)
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        if "::" in line:
            name, _, parameters = line.partition("[")
            found.setdefault(name, set()).update({"pure", "native"} & set(re.split(r"[-\]]", parameters)))
    return found


def test_every_statement_is_mapped_and_nothing_else() -> None:
    claimed: dict[int, str] = {}
    for key in ENTRIES:
        lines = lines_of(key)
        assert not claimed.keys() & lines.keys(), f"{key}: another entry has these lines"
        claimed.update(lines)
    silent = {number: text for number, text in claimed.items() if not re.search(r"\w", text)}
    assert {number: text for number, text in claimed.items() if number not in silent} == STATEMENTS


@pytest.mark.parametrize("key", ENTRIES)
def test_entries_are_well_formed_and_in_order(key: str) -> None:
    entry = ENTRIES[key]
    assert entry.keys() <= {"text", "reading", "tests"}
    assert any(test.startswith("tests/") for test in entry["tests"]), "name a test; a benchmark only measures"
    assert len(set(entry["tests"])) == len(entry["tests"])
    assert entry.get("reading", "x").strip()
    keys = list(ENTRIES)
    assert keys == sorted(keys, key=int)


def test_there_is_nothing_else_in_the_map() -> None:
    assert MAP.keys() == {"symbols", "foreign", *ENTRIES}


def test_every_name_of_the_code_is_mapped_once() -> None:
    symbols, foreign = MAP["symbols"].keys(), MAP["foreign"].keys()
    assert not symbols & foreign
    assert symbols | foreign == names()
    assert all(MAP["foreign"].values()), "say what stands in its place"


@pytest.mark.parametrize("test", [test for test in MAPPED if test.startswith("tests/")])
def test_every_mapped_test_exists_and_runs_on_both_engines(test: str, engines_of: dict[str, set[str]]) -> None:
    assert test in engines_of, "no such test"
    engines = engines_of[test]
    assert engines == {"pure", "native"} or (not engines and test.startswith(WITHOUT_ENGINE))


@pytest.mark.parametrize("measured", [test for test in MAPPED if not test.startswith("tests/")])
def test_every_mapped_benchmark_exists(measured: str) -> None:
    file, name = measured.split("::")
    assert file.startswith("benches/")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)
