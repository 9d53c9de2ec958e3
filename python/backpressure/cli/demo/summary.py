"""The demo's summary: a table of the runs, and what was checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from backpressure.cli.demo.result import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from backpressure.cli.demo.result import Check, RunResult

__all__ = ["checks_table", "summary_table"]


def summary_table(results: Iterable[RunResult]) -> Table:
    """Return a table with a row for each run and priority."""
    table = Table(box=box.SIMPLE_HEAD, title="jobs", title_justify="left", title_style="bold")
    table.add_column("run")
    for heading in ("peak", "at the end", "drained"):
        table.add_column(heading, justify="right")
    table.add_column("priority")
    for heading in ("offered", "enqueued", "shed", "blocked", "failed"):
        table.add_column(heading, justify="right")
    for run in results:
        shown = [run.name, *(f"{number:,}" for number in (run.peak_backlog, run.final_backlog, run.drained))]
        for priority in PRIORITIES:
            counts = run.counts[priority]
            numbers = (counts.offered, counts.enqueued, counts.shed, counts.blocked, counts.failed)
            table.add_row(*shown, str(priority), *(f"{number:,}" for number in numbers))
            shown = [""] * len(shown)
        table.add_section()
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    """Return what was checked, with its figures."""
    table = Table(box=None, title="checks", title_justify="left", title_style="bold", show_header=False)
    for check in checks:
        verdict = Text("ok", style="green") if check.passed else Text("FAILED", style="bold red")
        table.add_row(verdict, check.name, Text(check.detail, style="dim"))
    return table
