"""`backpressure fleet`: the processes of a fleet, and what operators want of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from backpressure._model.arguments import masked
from backpressure.cli._command import command, json_option
from backpressure.cli._endings import Finding, complain, ending, terminable
from backpressure.cli._format import new_console
from backpressure.cli._masking import print_json
from backpressure.cli.fleet._reach import FleetOptions, operating, reader_options, telling, when
from backpressure.cli.top.command import pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from backpressure._fleet.operator import Control, Operator
    from backpressure._fleet.presence import Presence

__all__ = ["fleet"]

_EXAMPLES = """\
backpressure fleet --fleet shop --redis-url redis://localhost:6379/0
backpressure fleet --config backpressure.toml --watch
backpressure fleet --config backpressure.toml --json | jq '[.members[] | select(.last_error != "")] | length'
"""


@command(_EXAMPLES)
@reader_options
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    metavar="S",
    help="Seconds between two looks of --watch.",
)
@json_option("Print one JSON object a line, one for each look.")
def fleet(reach: FleetOptions, watch: bool, interval: float, as_json: bool) -> None:
    """Show the processes of a fleet, and its switches.

    A process is there as long as it polls. Ctrl-C ends --watch, which is good: exit code 0; it goes on while the server
    is away. Else exits with 0, with 1 when the server cannot be reached, or something in the fleet's keys is not
    understood, 2 for wrong usage.
    """
    with ending("fleet"), contextlib.ExitStack() as stack:
        operator, target = stack.enter_context(operating(reach))
        if watch:
            stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        stack.enter_context(terminable())
        show = stack.enter_context(_screen(operator, as_json=as_json, watch=watch))
        control, members = operator.control(), operator.members()
        show(control, members)
        while watch:
            pause(interval)
            try:
                with telling(operator.name, target):
                    show(operator.control(), operator.members())
            except Finding as lost:
                complain("fleet", str(lost))
        problems = [*control.problems, *(f"{each.id}: {each.problem}" for each in members if each.problem)]
        if problems:
            raise Finding("something in the fleet's keys is not understood", *problems)


@contextlib.contextmanager
def _screen(operator: Operator, *, as_json: bool, watch: bool) -> Iterator[Callable[[Control, list[Presence]], None]]:
    """Give what shows a look: a line of JSON, the next table, or in a terminal a table in place of the last."""
    console = new_console()
    if as_json:
        yield lambda control, members: print_json(_as_dict(operator, control, members), indent=None)
    elif not watch or not console.is_terminal or console.is_dumb_terminal:
        yield lambda control, members: console.print(_view(operator, control, members))
    else:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda control, members: live.update(_view(operator, control, members), refresh=True)


def _as_dict(operator: Operator, control: Control, members: list[Presence]) -> dict[str, Any]:
    return {
        "fleet": operator.name,
        "at_ms": control.now_ms,
        "switches": [switch.to_dict() for switch in control.switches],
        "problems": list(control.problems),
        "members": [member.to_dict() for member in members],
    }


def _view(operator: Operator, control: Control, members: list[Presence]) -> RenderableType:
    count = "1 process" if len(members) == 1 else f"{len(members)} processes"
    parts: list[RenderableType] = [Text(f"fleet {operator.name!r}  {count}  {when(control.now_ms)}", style="bold")]
    for switch in control.switches:
        what = f"circuit of {switch.queue_name}" if switch.queue_name else switch.kind
        line = f"{what} {switch.action} until {when(switch.until_ms)}, by {switch.by}: {switch.reason}"
        parts.append(Text(masked(line), style="bold yellow" if switch.holds else ""))
    parts += [Text(masked(problem), style="red") for problem in control.problems]
    if not members:
        parts.append(Text(f'no process tells of itself: give producers FleetConfig(name="{operator.name}")'))
        return Group(*parts)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("process", "version", "mode", "law"):
        table.add_column(name, overflow="fold")
    for name in ("offers/s", "delays/s", "sheds/s"):
        table.add_column(name, justify="right")
    for name in ("config", "circuits", "error"):
        table.add_column(name, overflow="fold")
    for member in members:
        table.add_row(*_row(member))
    parts.append(table)
    return Group(*parts)


def _row(member: Presence) -> list[Text]:
    if member.problem:
        return [Text(masked(member.id)), *[Text()] * 8, Text(masked(member.problem), style="red")]
    config = f"{member.config_hash} r{member.config_revision}" if member.config_revision else member.config_hash
    circuits = ", ".join(f"{name} {state}" for name, state in member.circuits.items())
    more = member.circuits_open - len(member.circuits)
    error = member.config_error or member.last_error
    observes = member.mode == "enforce" and member.enforces == "no"
    mode = "enforce, not here" if observes else member.mode
    return [
        Text(masked(member.id)),
        Text(masked(f"{member.version} {member.engine}")),
        Text(masked(mode)),
        Text(masked(member.law)),
        *(Text(f"{rate:,.4g}") for rate in (member.offers, member.delays, member.sheds)),
        Text(masked(config)),
        Text(masked(circuits + (f" and {more} more" if more > 0 else ""))),
        Text(masked(error), style="red"),
    ]
