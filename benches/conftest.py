"""Benchmarks measure release builds of both engines, one after the other; one report has all results.

`--publish` writes it to RESULTS.md, with its picture, once everything has passed on one and the same build.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benches import picture
from benches.report import Report

from backpressure._engine.choice import load

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

HERE = Path(__file__).parent
REPORT = pytest.StashKey[Report]()
BUILT = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--publish", action="store_true", help="write benches/RESULTS.md and results.svg")


def pytest_configure(config: pytest.Config) -> None:
    if getattr(load("native"), "DEBUG", False):
        pytest.exit("the native engine is a debug build: run make, which builds it for release", returncode=2)
    config.stash[REPORT] = Report()
    config.stash[BUILT] = built()


def built() -> float:
    """Return when the native engine was built; programs that benchmarks start load it again."""
    spec = importlib.util.find_spec("backpressure._native")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).stat().st_mtime


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    """Return the report for the benchmarks' results."""
    return request.config.stash[REPORT]


def pytest_terminal_summary(terminalreporter: TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    report = config.stash[REPORT]
    terminalreporter.write_line("")
    terminalreporter.write_line(report.page())
    if not config.getoption("publish") or exitstatus != pytest.ExitCode.OK:
        return
    if built() != config.stash[BUILT]:
        terminalreporter.write_line("not published: the native engine was rebuilt meanwhile, so run make bench again")
    else:
        (HERE / "RESULTS.md").write_text(report.page())
        picture.draw(report, HERE / "results.svg")
