"""`backpressure recommend`: settings that suit what was recorded, chosen by replays."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._engine import choice
from backpressure._model.arguments import masked
from backpressure._recommend.recommend import recommend as recommended
from backpressure.cli._command import command, json_option
from backpressure.cli._config_options import ConfigOptions, config_options
from backpressure.cli._endings import Finding, Refusal, ending, terminable
from backpressure.cli._format import new_console, span
from backpressure.cli._masking import print_json
from backpressure.cli._progress import bar
from backpressure.cli.recordings._options import (
    BehaviourOptions,
    behaviour_options,
    by_priority,
    opened,
    queues_option,
    readable,
    recording_argument,
    seconds,
)

if TYPE_CHECKING:
    from rich.console import Console

    from backpressure._recommend.recommendation import Recommendation
    from backpressure._recommend.values import Candidate, RecommendedQueue

__all__ = ["recommend"]

_EXAMPLES = """\
backpressure recommend week.bpr --out policy.toml
backpressure recommend week.bpr --loops mail/low=20 --return 0.5 --out policy.toml
backpressure recommend week.bpr -q mail --target-age 2m
backpressure recommend week.bpr --target-age low=10m,medium=5m --json
"""
#: Candidates that people are shown.
_SHOWN = 6


@command(_EXAMPLES)
@recording_argument
@queues_option
@click.option(
    "--target-age",
    metavar="TIME",
    help="How long jobs may wait in a queue: 10m, or by priority: low=10m,medium=5m. Without it, no more is shed than "
    "by thresholds at twice the usual peak.",
)
@behaviour_options
@config_options
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Write the settings there: TOML, a new file."
)
@json_option("Print one JSON object at the end.")
def recommend(
    path: Path,
    queues: tuple[str, ...],
    target_age: str | None,
    producers: BehaviourOptions,
    given: ConfigOptions,
    out: Path | None,
    as_json: bool,
) -> None:
    """Recommend settings that suit what was recorded.

    Some twenty policies are made for each queue from what was recorded of it, and each is replayed. They are shown in
    their order, with what became of the queue: the first is recommended. The file has the reason beside each number,
    and begins with observe mode. What --config says holds for the rest, above all how often queues are read.

    Exits with 0 when something is recommended for each queue, 1 when there is one for which nothing can be, or the
    recording cannot be read, 2 for wrong usage.
    """
    with ending("recommend"), terminable(), readable():
        if out is not None and out.exists():
            raise Refusal(f"{out} exists: give a new file, so that no settings are lost")
        targets = None if target_age is None else by_priority("--target-age", target_age, seconds)
        recording, names = opened(path, queues)
        producers.check(names)
        behaviour = {name: behaves for name in names if (behaves := producers.of(name)) is not None}
        with bar("replaying", as_json=as_json) as move:
            found = recommended(
                recording,
                queues=names,
                target_age=targets,
                behaviour=behaviour,
                mix=producers.parts(),
                base=given.load(),
                progress=lambda name, part: move((names.index(name) + part) / len(names)),
                _engine=choice.ENGINE,
            )
        if out is not None:
            out.write_text(found.to_toml(), "utf-8")
        if as_json:
            print_json({**found.to_dict(), "written": None if out is None else str(out)})
        else:
            _print(found, out)
        without = [queue for queue in found.queues if queue.best is None]
        if without:
            raise Finding(f"nothing can be recommended for {len(without)} of {len(names)} queues")


def _print(found: Recommendation, out: Path | None) -> None:
    console = new_console()
    for queue in found.queues:
        console.print(Text(masked(queue.queue_name), style="bold"), f"confidence {queue.confidence}", sep="  ")
        for fact in queue.facts:
            console.print(f"  {fact}", soft_wrap=True)
        if queue.candidates:
            _print_candidates(console, queue)
        else:
            console.print(f"  nothing can be recommended: {queue.missing}", soft_wrap=True, style="yellow")
        if queue.come_back_ms is not None:
            why = "there may be enough" if queue.best is None else "it will be surer"
            at = datetime.fromtimestamp(queue.come_back_ms / 1_000, UTC)
            console.print(f"  come back on {at:%Y-%m-%d at %H:%M} UTC, when {why}", soft_wrap=True)
        console.print("")
    print(masked(f"written to {out}" if out is not None else "write it with --out policy.toml"))


def _print_candidates(console: Console, queue: RecommendedQueue) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for column in ("shed", "longest wait", "usual wait", "held"):
        table.add_column(column, justify="right")
    shown = [*queue.candidates[:_SHOWN], *(it for it in queue.candidates[_SHOWN:] if it.name.startswith("t"))]
    for place, candidate in enumerate(shown):
        table.add_row(*_cells(candidate), style="green" if place == 0 else None)
    console.print(table)
    left = len(queue.candidates) - len(shown)
    if left:
        console.print(f"  and {left} more, which --json shows")
    for note in queue.notes:
        console.print(f"  - {note}", soft_wrap=True)


def _cells(candidate: Candidate) -> tuple[str, ...]:
    kept = {None: "", True: "", False: " (too long)"}[candidate.keeps]
    sheds = ", ".join(f"{count:,} {name}" for name, count in candidate.sheds.items() if count)
    return (
        candidate.name,
        sheds or "0",
        span(candidate.longest_wait) + kept,
        span(candidate.usual_wait),
        span(candidate.held),
    )
