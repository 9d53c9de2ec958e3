"""`backpressure check`: is a configuration sound, what does it come to, and what will producers be told?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import click
from rich.text import Text

from backpressure._engine.laws.order import inversions
from backpressure._engine.laws.registry import has_own_law
from backpressure._model.arguments import WITHHELD, holds_credentials, masked, shown
from backpressure._model.config.doubts import doubts
from backpressure._watch.budgets import StoredBudget, stored_budgets, stores_of
from backpressure._watch.notes import notes
from backpressure.cli._age_table import ages_table, held_ages
from backpressure.cli._command import command, json_option
from backpressure.cli._config_options import ConfigOptions, Faults, config_argument
from backpressure.cli._config_view import config_view
from backpressure.cli._delay_table import delay_table
from backpressure.cli._endings import Finding, Refusal, ending
from backpressure.cli._format import new_console
from backpressure.cli._masking import print_json
from backpressure.cli._places import Place, places, places_table
from backpressure.cli._queue_options import QueueOptions, queue_options
from backpressure.cli._rate import narrow_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.errors import ConfigurationError
    from backpressure.cli._delay_table import DelayTable

__all__ = ["check"]

# Where nothing is read, only what a section says is checked.
_ANY_SERVER = "redis://localhost"

_EXAMPLES = """\
backpressure check backpressure.toml
backpressure check --env
backpressure check backpressure.toml --set curve.red_max_delay=10s
backpressure check backpressure.toml --queue email-queue
backpressure check backpressure.toml --read
backpressure check backpressure.toml --rate 200
backpressure check backpressure.toml --json | jq .delays[0].rows
"""


@command(_EXAMPLES)
@config_argument
@queue_options
@click.option("--read", is_flag=True, help="Read each queue once, too, and each budget.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    metavar="N",
    help="Warn of windows that N jobs a second fill during one poll.",
)
@json_option("Print one JSON object.")
def check(given: ConfigOptions, place: QueueOptions, read: bool, rate: float | None, as_json: bool) -> None:
    """Validate a configuration and show its delays.

    What it comes to is printed as TOML that can be used in its stead, then what each priority is told at the backlogs
    where the answer changes: of all queues, or of those given. Of queues with a target age, it is what follows from
    that. Exits with 0 when it is valid, 1 when it is not, with every fault on a line of stderr, or when with --read a
    queue or a budget could not be read, 2 for wrong usage. A warning changes no exit code.
    """
    with ending("check"):
        if given.file is None and not given.env:
            raise Refusal("there is nothing to check: give a TOML or JSON file, or --env")
        try:
            config = given.load()
        except Faults as found:
            if as_json:
                print_json({"valid": False, "faults": [_fault(error) for error in found.errors]})
            raise
        names = place.chosen(config)
        lying: list[Place] = []
        budgets: list[StoredBudget] = []
        lost: list[str] = []
        if names and (read or place.redis_url is not None or any(config.of(name).url for name in names)):
            if not read:
                place = attrs.evolve(place, redis_url=place.redis_url or _ANY_SERVER)
            provider, _ = place.provider(config, names, config.polling.timeout)
            lying = places(provider, names, read=read)
            if read:
                with stores_of(provider, config) as stores:
                    budgets = [*stored_budgets(stores, config, names).values()]
                lost = [complaint for budget in budgets if (complaint := budget.complaint()) is not None]
        elif read:
            raise Refusal("there is no queue to read: give --queue, or a file with sections of queues")
        warnings = [*inversions(config), *(() if rate is None else narrow_windows(config, rate)), *doubts(config)]
        wanted = names if place.queues else None
        tables = [delay_table(config, name) for name in _queues_to_show(config, wanted)]
        second = config.with_candidate()
        seconds: list[DelayTable] = []
        if second is not None:
            seconds = [delay_table(second, name, ", by the candidate") for name in _queues_to_show(second, wanted)]
        ages = held_ages(config, wanted)
        if as_json:
            tell = {
                "valid": True,
                "config": config.to_dict(),
                "delays": [table.to_dict() for table in tables],
                "candidate_delays": [table.to_dict() for table in seconds],
                "ages": [age.to_dict() for age in ages],
                "warnings": warnings,
                "queues": [place.to_dict() for place in lying],
            }
            print_json(tell)
        else:
            more = [*([ages_table(ages)] if ages else []), *([places_table(lying, read=read)] if lying else [])]
            _print(config, given.source(), [*tables, *seconds], more)
            for warning in warnings:
                print(masked(f"warning: {warning}"))
        problems = [place.problem for place in lying if place.problem is not None]
        if problems:
            raise Finding(f"{len(problems)} of {len(lying)} queues cannot be read", *problems, *lost)
        if lost:
            raise Finding(f"{len(lost)} of {len(budgets)} budgets cannot be read", *lost)


def _queues_to_show(config: BackpressureConfig, queues: Sequence[str] | None) -> list[str | None]:
    # Where the shared age has a target, each section without one is an exception to it.
    own = [name for name in config.queues if has_own_law(config, name) or config.age.target is not None]
    names: Sequence[str | None] = queues or [None, *own]
    return [name for name in names if (config.age if name is None else config.age_of(name)).target is None]


def _print(config: BackpressureConfig, where: str, tables: Sequence[DelayTable], more: Sequence[Table]) -> None:
    console = new_console()
    console.print(Text(masked(f"# valid: {where}\n"), style="green"), config_view(config), sep="\n", soft_wrap=True)
    for table in (*(delays.render() for delays in tables), *more):
        console.print("", table)
    for note in notes(config):
        console.print(note)


def _fault(error: ConfigurationError) -> dict[str, Any]:
    try:
        if holds_credentials(json.dumps(error.value, allow_nan=False)):
            return {"field": error.field, "value": WITHHELD, "message": str(error)}
    except (TypeError, ValueError, RecursionError):  # TOML knows dates and infinities, and either may be too large
        return {"field": error.field, "value": shown(error.value), "message": str(error)}
    return {"field": error.field, "value": error.value, "message": str(error)}
