"""`backpressure audit`: who switched what of a fleet, when and why."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._model.arguments import masked
from backpressure.cli._config_options import ConfigFile  # noqa: TC001 - typer looks it up
from backpressure.cli._endings import ending
from backpressure.cli._format import new_console
from backpressure.cli._masking import print_json
from backpressure.cli.fleet._reach import FleetName, FleetUrl, operating, when

__all__ = ["EXAMPLES", "audit"]

EXAMPLES = """\
backpressure audit --fleet shop --redis-url redis://localhost:6379/0
backpressure audit --config backpressure.toml --last 5
backpressure audit --config backpressure.toml --json | jq -r '.[] | select(.action == "on") | .by'
"""


def audit(
    *,
    fleet: FleetName = None,
    redis_url: FleetUrl = None,
    file: ConfigFile = None,
    last: Annotated[int, typer.Option("--last", min=1, max=10_000, metavar="N", help="So many lines.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, the latest first.")] = False,
) -> None:
    """Show who switched what of a fleet, the latest first.

    Exits with 0, with 1 when the server cannot be reached or refuses, 2 for wrong usage.
    """
    with ending("audit"), operating(file, fleet, redis_url, None) as (operator, _):
        lines = operator.audit(last)
        if as_json:
            print_json([line.to_dict() for line in lines])
            return
        if not lines:
            print(f"nobody has switched anything of fleet {operator.name!r} yet")
            return
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("at", "what", "until", "by", "reason"):
            table.add_column(name, overflow="fold")
        for line in lines:
            until = when(line.until_ms) if line.until_ms else ""
            what = f"{line.field} {line.action} {line.detail}".strip()
            table.add_row(*(Text(masked(text)) for text in (when(line.at_ms), what, until, line.by, line.reason)))
        new_console().print(table)
