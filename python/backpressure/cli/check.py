"""`backpressure check`: is a configuration sound, what does it come to, and what will producers be told?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from backpressure._engine.laws.registry import has_own_law
from backpressure._model.arguments import WITHHELD, holds_credentials, masked, shown, validate_queue_name
from backpressure._model.errors import InvalidQueueError
from backpressure.cli._config_options import ConfigArgument, Faults, FromEnv, Settings, load, source
from backpressure.cli._config_view import config_view, notes
from backpressure.cli._delay_table import delay_table
from backpressure.cli._endings import Refusal, ending
from backpressure.cli._format import new_console
from backpressure.cli._masking import print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.errors import ConfigurationError
    from backpressure.cli._delay_table import DelayTable

__all__ = ["EXAMPLES", "check"]

EXAMPLES = """\
backpressure check backpressure.toml
backpressure check --env
backpressure check backpressure.toml --set curve.red_max_delay=10s
backpressure check backpressure.toml --queue email-queue
backpressure check backpressure.toml --json | jq .delays[0].rows
"""


def check(
    *,
    file: ConfigArgument = None,
    env: FromEnv = False,
    settings: Settings = None,
    queues: Annotated[
        list[str] | None, typer.Option("--queue", metavar="NAME", help="Show this queue's delays alone. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Validate a configuration and show its delays.

    What it comes to is printed as TOML that can be used in its stead, then what each priority is told at the backlogs
    where the answer changes. Exits with 0 when it is valid, 1 when it is not, with every fault on a line of stderr, 2
    for wrong usage.
    """
    with ending("check"):
        if file is None and not env:
            raise Refusal("there is nothing to check: give a TOML or JSON file, or --env")
        try:
            config = load(file, env, settings)
        except Faults as found:
            if as_json:
                print_json({"valid": False, "faults": [_fault(error) for error in found.errors]})
            raise
        tables = [delay_table(config, name) for name in _queues_to_show(config, queues)]
    if as_json:
        print_json({"valid": True, "config": config.to_dict(), "delays": [table.to_dict() for table in tables]})
    else:
        _print(config, source(file, env, settings), tables)


def _queues_to_show(config: BackpressureConfig, queues: Sequence[str] | None) -> list[str | None]:
    if queues:
        try:
            return list(dict.fromkeys(map(validate_queue_name, queues)))
        except InvalidQueueError as error:
            raise Refusal(f"--queue: {error}") from None
    return [None, *(name for name in config.queues if has_own_law(config, name))]


def _print(config: BackpressureConfig, where: str, tables: Sequence[DelayTable]) -> None:
    console = new_console()
    console.print(Text(masked(f"# valid: {where}\n"), style="green"), config_view(config), sep="\n", soft_wrap=True)
    for table in tables:
        console.print("", table.render())
    for note in notes(config):
        console.print(note)


def _fault(error: ConfigurationError) -> dict[str, Any]:
    try:
        if holds_credentials(json.dumps(error.value, allow_nan=False)):
            return {"field": error.field, "value": WITHHELD, "message": str(error)}
    except (TypeError, ValueError, RecursionError):  # TOML knows dates and infinities, and either may be too large
        return {"field": error.field, "value": shown(error.value), "message": str(error)}
    return {"field": error.field, "value": error.value, "message": str(error)}
