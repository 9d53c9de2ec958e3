"""`backpressure audit`: who switched what of a fleet, when and why."""

from __future__ import annotations

import click
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._model.arguments import masked
from backpressure.cli._command import command, gathered, json_option
from backpressure.cli._config_options import config_file
from backpressure.cli._endings import ending
from backpressure.cli._format import new_console
from backpressure.cli._masking import print_json
from backpressure.cli.fleet._reach import FleetOptions, fleet_name, fleet_url, operating, when

__all__ = ["audit"]

_EXAMPLES = """\
backpressure audit --fleet shop --redis-url redis://localhost:6379/0
backpressure audit --config backpressure.toml --last 5
backpressure audit --config backpressure.toml --json | jq -r '.[] | select(.action == "on") | .by'
"""


@command(_EXAMPLES)
@gathered("reach", FleetOptions, fleet_name, fleet_url, config_file)
@click.option("--last", type=click.IntRange(1, 10_000), default=20, metavar="N", help="So many lines.")
@json_option("Print one JSON array, the latest first.")
def audit(reach: FleetOptions, last: int, as_json: bool) -> None:
    """Show who switched what of a fleet, the latest first.

    Exits with 0, with 1 when the server cannot be reached or refuses, 2 for wrong usage.
    """
    with ending("audit"), operating(reach) as (operator, _):
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
