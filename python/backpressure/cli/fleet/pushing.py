"""Give all processes of a fleet other settings, while they run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backpressure._model.arguments import masked
from backpressure._model.config.loading import read_tables
from backpressure._model.errors import ConfigurationError
from backpressure.cli._command import argument, command, json_option
from backpressure.cli._config_options import Faults
from backpressure.cli._endings import Finding, Refusal, ending
from backpressure.cli._masking import print_json
from backpressure.cli.fleet._reach import FleetOptions, operating, operator_options, reader_options, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._fleet.presence import Presence
    from backpressure._fleet.pushed import Pushed

__all__ = ["diff", "push", "rollback"]

_PUSH_EXAMPLES = """\
backpressure config push narrow.toml --fleet shop --redis-url redis://localhost:6379/0 --reason 'smaller disks'
backpressure config push narrow.toml --config backpressure.toml --share 10% --reason 'try it on some'
backpressure config push narrow.toml --config backpressure.toml --reason 'on all'
"""
_DIFF_EXAMPLES = """\
backpressure config diff narrow.toml --fleet shop --redis-url redis://localhost:6379/0
backpressure config diff narrow.toml --config backpressure.toml
backpressure config diff narrow.toml --config backpressure.toml --json
"""
_ROLLBACK_EXAMPLES = """\
backpressure config rollback --fleet shop --redis-url redis://localhost:6379/0 --reason 'too narrow'
backpressure config rollback --config backpressure.toml --reason 'too narrow'
backpressure config rollback --config backpressure.toml --reason 'too narrow' --by on-call
"""

_settings_file = argument(
    "settings", metavar="FILE", type=click.Path(path_type=Path), explained="TOML or JSON file of settings."
)
# Members whose errors are shown.
_MOST_SHOWN = 20


@command(_PUSH_EXAMPLES)
@_settings_file
@reason
@click.option(
    "--share", default="100%", metavar="PART", help="For so many of the processes: 10%, 0.1; the others stay."
)
@operator_options
@json_option("Print one JSON object.")
def push(settings: Path, reason: str, share: str, reach: FleetOptions, as_json: bool) -> None:
    """Lay a file over the configuration of each process.

    Each process takes it whole with its next poll, or keeps what it has and says why: see it in the table of the fleet.
    With --config it is tried on that configuration first. What only a new process can change is refused here:
    circuits, max_queues, where queues lie. Exits with 0 when it is
    pushed, 1 when it is faulty, or the server cannot be reached or refuses, 2 for wrong usage.
    """
    with ending("config push"):
        tables, part = _tables(settings), _part(share)
        with operating(reach) as (operator, _):
            try:
                pushed = operator.push(tables, reason=reason, share=part, over=reach.load())
            except ConfigurationError as error:
                if error.field in {"reason", "by", "share"}:
                    raise Refusal(str(error)) from None
                raise Faults(error, str(settings)) from None
            _say(operator.name, pushed, "is pushed", as_json=as_json)


@command(_ROLLBACK_EXAMPLES)
@reason
@operator_options
@json_option("Print one JSON object.")
def rollback(reason: str, reach: FleetOptions, as_json: bool) -> None:
    """Push again what held before the last push.

    A second rollback takes the first one back. Exits with 0 when it is pushed, 1 when nothing was ever pushed, or the
    server cannot be reached or refuses, 2 for wrong usage.
    """
    with ending("config rollback"), operating(reach) as (operator, _):
        try:
            pushed = operator.rollback(reason=reason)
        except ConfigurationError as error:
            raise (Refusal if error.field in {"reason", "by"} else Finding)(str(error)) from None
        _say(operator.name, pushed, "is what held before", as_json=as_json)


@command(_DIFF_EXAMPLES)
@_settings_file
@reader_options
@json_option("Print one JSON object.")
def diff(settings: Path, reach: FleetOptions, as_json: bool) -> None:
    """Compare a file with what is pushed, and tell who has taken that.

    Exits with 0 when they say the same, and each process has taken it, with 1 when not, or when the server cannot be
    reached or refuses, 2 for wrong usage.
    """
    with ending("config diff"):
        wanted = dict(_flat(_tables(settings)))
        with operating(reach) as (operator, _):
            control, members = operator.control(), operator.members()
        pushed = control.pushed
        held = {} if pushed is None else dict(_flat(pushed.settings))
        changes = [
            *((f"- {path} = {value}") for path, value in held.items() if wanted.get(path) != value),
            *((f"+ {path} = {value}") for path, value in wanted.items() if held.get(path) != value),
        ]
        revisions = Counter(member.config_revision for member in members)
        refused = [member for member in members if member.config_error]
        if as_json:
            print_json(
                {
                    "fleet": operator.name,
                    "pushed": None if pushed is None else pushed.to_dict(),
                    "changes": sorted(changes, key=lambda line: line[2:]),
                    "revisions": {str(revision): count for revision, count in sorted(revisions.items())},
                    "refused": {member.id: member.config_error for member in refused},
                }
            )
        else:
            _print(sorted(changes, key=lambda line: line[2:]), pushed, revisions, refused)
        if changes or refused or control.problems:
            raise Finding(
                "the file is not what all processes decide by",
                *control.problems,
                *(f"{member.id}: {member.config_error}" for member in refused[:_MOST_SHOWN]),
            )


def _print(changes: list[str], pushed: Pushed | None, revisions: Counter[int], refused: list[Presence]) -> None:
    for line in changes:
        print(masked(line))
    if pushed is None:
        print("nothing is pushed: all processes decide by their own configuration")
    else:
        part = f" to {pushed.share_permille / 10:g} % of the processes"
        print(masked(f"configuration {pushed.n} is pushed{part}, by {pushed.by}: {pushed.reason}"))
    for revision, count in sorted(revisions.items()):
        what = f"configuration {revision}" if revision else "their own configuration"
        print(f"{count} of {revisions.total()} processes decide by {what}")
    if refused:
        print(f"{len(refused)} of {revisions.total()} processes do not take it")


def _say(fleet: str, pushed: Pushed, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"fleet": fleet, "pushed": pushed.to_dict()}, indent=None)
        return
    part = "" if pushed.share_permille == 1_000 else f", for {pushed.share_permille / 10:g} % of the processes"
    print(f"configuration {pushed.n} of fleet {fleet!r} {what}{part}")


def _tables(path: Path) -> dict[str, Any]:
    try:
        tables, faults = read_tables(path)
    except ConfigurationError as error:
        raise Refusal(str(error)) from None
    if faults:
        raise Faults(ConfigurationError("\n".join(map(str, faults)), faults=tuple(faults)), str(path))
    return tables


def _part(text: str) -> float:
    number, percent, rest = text.strip().partition("%")
    try:
        part = float(number) / (100 if percent else 1)
    except ValueError:
        part = -1.0
    if rest or not 0.001 <= part <= 1:
        raise Refusal(f"--share is {text!r}: give a part of the processes such as 10% or 0.1, at least 0.1%")
    return part


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting of nested tables: its dotted path, and its value as JSON."""
    for name, value in table.items():
        path = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping) and value:
            yield from _flat(value, path)
        else:
            yield path, json.dumps(value, ensure_ascii=False, default=str)
