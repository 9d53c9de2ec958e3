"""`backpressure replay`: what a policy would have done with what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._engine import choice
from backpressure._model.arguments import masked
from backpressure._model.units import duration
from backpressure._replay.replay import Replay
from backpressure.cli._command import command, json_option
from backpressure.cli._config_options import ConfigOptions
from backpressure.cli._endings import Refusal, ending, terminable
from backpressure.cli._format import new_console, span, sparkline
from backpressure.cli._masking import print_json
from backpressure.cli._progress import bar
from backpressure.cli.recordings._options import (
    BehaviourOptions,
    behaviour_options,
    opened,
    queues_option,
    readable,
    recording_argument,
)
from backpressure.cli.report.known import known_stretches, with_gaps
from backpressure.cli.report.page import EVIDENCE, Compared, answers_of, page, simulated, time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._recording.recording import Recording
    from backpressure._replay.values import ReplayAnswer, ReplayedPriority, ReplayedQueue

__all__ = ["replay"]

_EXAMPLES = """\
backpressure replay week.bpr --policy policy.toml
backpressure replay week.bpr --policy policy.toml --against backpressure.toml --html report.html
backpressure replay week.bpr --policy policy.toml -q mail --loops mail/low=20 --return 0.5 --return-after 60
backpressure replay day.bpr --policy policy.toml --mix low=0.5,medium=0.4,high=0.1 --json
"""
_SPARKS = 60
_PATH = click.Path(path_type=Path)


@command(_EXAMPLES)
@recording_argument
@click.option("--policy", required=True, type=_PATH, metavar="FILE", help="The settings to try: TOML or JSON.")
@click.option("--against", type=_PATH, metavar="FILE", help="Other settings, to compare them with.")
@queues_option
@behaviour_options
@click.option("--html", type=_PATH, metavar="FILE", help="Write a page with pictures there, too.")
@json_option("Print one JSON object.")
def replay(
    path: Path,
    policy: Path,
    against: Path | None,
    queues: tuple[str, ...],
    producers: BehaviourOptions,
    html: Path | None,
    as_json: bool,
) -> None:
    """Tell what a policy would have done with what was recorded.

    For each queue there are up to three answers: at the recorded backlog, which is what observe mode counts and
    overstates; with feedback, at a backlog into which nothing comes that is shed or delayed; and with what producers do
    about it, if --return or --loops say that. Whether a policy observes or enforces makes no difference here.

    Exits with 0 when it was replayed, 1 when the recording cannot be read or a policy is faulty, 2 for wrong usage.
    """
    with ending("replay"), terminable(), readable():
        config = ConfigOptions(policy).load()
        other = None if against is None else ConfigOptions(against).load()
        recording, names = opened(path, queues)
        producers.check(names)
        with bar("replaying", as_json=as_json) as move:
            found = _replayed(recording, names, (config, other), producers, move)
        if html is not None:
            _write(html, page(path.name, (policy.name, config), None if against is None else against.name, found))
        if as_json:
            print_json(
                {
                    "recording": str(path),
                    "policy": str(policy),
                    "against": None if against is None else str(against),
                    "queues": [
                        {**it.told.to_dict(), "against": None if it.against is None else it.against.to_dict()}
                        for it in found
                    ],
                }
            )
            return
        console = new_console()
        for it in found:
            _print(console, it, policy.name, None if against is None else against.name)
        if html is not None:
            print(masked(f"written to {html}"))


def _replayed(
    recording: Recording,
    names: Sequence[str],
    policies: tuple[BackpressureConfig, BackpressureConfig | None],
    producers: BehaviourOptions,
    move: Callable[[float], object],
) -> list[Compared]:
    found, mix = [], producers.parts()

    def told_of(name: str, config: BackpressureConfig) -> ReplayedQueue:
        behaviour = producers.of(name)
        return Replay(recording, config, behaviour=behaviour, mix=mix, _engine=choice.ENGINE).queue(name)

    policy, against = policies
    for place, name in enumerate(names):
        told = told_of(name, policy)
        other = None if against is None else told_of(name, against)
        found.append(Compared(told, other, known_stretches(recording, told)))
        move((place + 1) / len(names))
    return found


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror}") from None


def _print(console: Console, it: Compared, policy: str, against: str | None) -> None:
    told = it.told
    console.print(Text(masked(told.queue_name), style="bold"), f"{told.evidence}: {EVIDENCE[told.evidence]}", sep="  ")
    console.print(
        f"  {time_of(told.began_ms)} to {time_of(told.ended_ms)} UTC, {told.rows:,} rows, workers busy "
        f"{100 * told.busy:.1f} % of the time",
        soft_wrap=True,
    )
    lines: list[tuple[str, ReplayAnswer]] = [("recorded", told.recorded)]
    if (mine := simulated(told)) is not None:
        lines.append((policy, mine))
    if it.against is not None and against is not None and (theirs := simulated(it.against)) is not None:
        lines.append((against, theirs))
    width = max(len(name) for name, _ in lines)
    for name, answer in lines:
        spark = sparkline(with_gaps(answer.trail, it.known), _SPARKS)
        console.print(Text(masked(f"  {name:<{width}} {spark} {answer.peak_backlog:,}")), soft_wrap=True)
    console.print(_table(policy, told))
    if it.against is not None and against is not None:
        console.print(_table(against, it.against))
    if told.parity is not None:
        console.print(f"  parity: {told.parity}", soft_wrap=True)
    for caveat in told.caveats:
        console.print(f"  - {caveat}", soft_wrap=True)
    console.print("")


def _table(policy: str, told: ReplayedQueue) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(masked(f"  {policy}")), title_justify="left")
    for column in ("answer", "priority"):
        table.add_column(column)
    for column in ("offers", "delayed", "held", "shed", "longest wait"):
        table.add_column(column, justify="right")
    for what, answer in answers_of(told):
        wait = "–" if answer.longest_wait is None else span(answer.longest_wait)
        offered = {name: it for name, it in answer.priorities.items() if it.offers != 0} or answer.priorities
        for place, (priority, it) in enumerate(offered.items()):
            table.add_row(what if place == 0 else "", priority, *_cells(it), wait if place == 0 else "")
        table.add_section()
    return table


def _cells(it: ReplayedPriority) -> tuple[str, ...]:
    if it.offers is None or it.delays is None or it.sheds is None:
        return "–", f"{span(it.delay_seconds)} long", "–", f"{span(it.shed_seconds)} long"
    held = duration((it.delayed_job_seconds or 0.0) / it.delays, 2) if it.delays else "–"
    return f"{it.offers:,}", f"{it.delays:,}", held, f"{it.sheds:,}"
