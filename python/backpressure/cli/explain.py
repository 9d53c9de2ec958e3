"""`backpressure explain`: what would a job of each priority be told now, and why?"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs
import click
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._model.arguments import masked
from backpressure._model.stats import MAX_BACKLOG
from backpressure._model.units import duration
from backpressure._model.vocabulary import Zone
from backpressure._watch.advice import PRIORITIES, Circuit, told
from backpressure._watch.answer import assumed, read
from backpressure._watch.budgets import stored_budgets, stores_of
from backpressure._watch.notes import notes
from backpressure._watch.tenants import heaviest_of, heaviest_sentence
from backpressure.cli._command import command, json_option
from backpressure.cli._config_options import ConfigOptions, config_options
from backpressure.cli._endings import Finding, Refusal, ending
from backpressure.cli._format import ZONE_STYLES, new_console
from backpressure.cli._masking import print_json
from backpressure.cli._queue_options import QueueOptions, queue_options

if TYPE_CHECKING:
    from backpressure._model.decision import ThrottleDecision
    from backpressure._watch.answer import Answer

__all__ = ["explain"]

_EXAMPLES = """\
backpressure explain --backlog 1250
backpressure explain --backlog 950 --set curve.shed_permille=950
backpressure explain --backlog 1250 --queue email-queue --config backpressure.toml
backpressure explain --queue email-queue --redis-url redis://localhost:6379/0
backpressure explain -q mail --layout rq --redis-url redis://localhost:6379/0
backpressure explain --config backpressure.toml
backpressure explain --backlog 0 --circuit open --json
"""


@command(_EXAMPLES)
@click.option(
    "--backlog",
    type=click.IntRange(0, MAX_BACKLOG),
    metavar="N",
    help="Judge this many waiting jobs; no server is asked.",
)
@queue_options
@click.option(
    "--circuit",
    type=click.Choice([state.value for state in Circuit]),
    default=Circuit.CLOSED.value,
    help="State of the queue's circuit.",
)
@config_options
@json_option("Print one JSON object.")
def explain(backlog: int | None, place: QueueOptions, circuit: str, given: ConfigOptions, as_json: bool) -> None:
    """Tell what jobs would be told, and why.

    Give --backlog; else the queues that the file has sections of, or those given, are read. The answer is a real
    controller's; nothing is written anywhere. Of a queue whose age is held, it is what stands in the store of its
    budget. Exits with 0 when there is one, 1 when a queue could not be read or the configuration is faulty, 2 for
    wrong usage.
    """
    with ending("explain"):
        config, state = given.load(), Circuit(circuit)
        names = place.chosen(config) if place.queues or backlog is None else []
        answers: list[Answer]
        if backlog is not None:
            names_told: list[str | None] = [*names] or [None]
            answers = [assumed(config, name, state, backlog) for name in names_told]
        elif not names:
            raise Refusal(
                "there is no backlog to judge: give --backlog, or --queue or --config with sections of queues"
            )
        else:
            provider, _ = place.provider(config, names, config.polling.timeout)
            with (
                contextlib.closing(provider),
                stores_of(provider, config) as stores,
                heaviest_of(config, provider, names) as heaviest,
            ):
                tenants = heaviest()
                answers = [
                    attrs.evolve(answer, tenants=tenants.get(answer.queue_name or "", {}))
                    for answer in read(config, state, names, provider, stored_budgets(stores, config, names))
                ]
        answers = [answer.advised() for answer in answers]
        if as_json:
            each = [answer.to_dict() for answer in answers]
            print_json(each[0] if len(each) == 1 else {"queues": each})
        else:
            for answer in answers:
                _print(answer)
        problems = [problem for answer in answers for problem in answer.problems()]
        if problems:
            raise Finding(problems[-1], *problems[:-1])


def _print(answer: Answer) -> None:
    """Show it to people."""
    console = new_console()
    console.print(_headline(answer), soft_wrap=True)
    candidate = answer.candidate()
    more = ["candidate"] if candidate else []
    table = Table("priority", "zone", "advice", "reason", *more, box=box.SIMPLE_HEAD)
    sentences = Table.grid(padding=(0, 2, 0, 0))
    for priority in PRIORITIES:
        judged = [_by_candidate(candidate[str(priority)])] if candidate else []
        table.add_row(str(priority), *_cells(answer, answer.advice[priority]), *judged)
    for priority, sentence in answer.why().items():
        sentences.add_row(f"  {priority}", sentence)
    if answer.budget is not None:
        for sentence in answer.budget.sentences():
            console.print(masked(sentence), soft_wrap=True)
    if tenants := heaviest_sentence(answer.tenants):
        console.print(masked(tenants), soft_wrap=True)
    if (memory := answer.memory()) is not None:
        console.print(memory, soft_wrap=True)
    console.print(table, sentences)
    for note in notes(answer.config, answer.queue_name):
        console.print(note)


def _cells(answer: Answer, decision: ThrottleDecision) -> tuple[Text, Text, str]:
    budget = answer.budget_of(decision)
    if budget is not None:
        zone, word, reason = budget.zone(), budget.told(decision.priority), "age"
    else:
        zone, word, reason = decision.zone, told(decision), str(decision.reason)
    style = "" if zone is None else ZONE_STYLES[zone]
    return Text("–" if zone is None else zone, style=style), Text(word, style=style), reason


def _by_candidate(told: dict[str, Any]) -> Text:
    """Write what a candidate would tell a producer."""
    delay = told["delay"]
    word = "shed" if told["should_shed"] else duration(delay, 4) if delay else "go"
    return Text(word, style=ZONE_STYLES[Zone(told["zone"])])


def _headline(answer: Answer) -> Text:
    of_whom = "any queue" if answer.queue_name is None else f"queue {masked(answer.queue_name)}"
    jobs = "an unknown number of jobs" if answer.sample is None else f"{answer.sample.backlog:,} jobs"
    text = Text(f"{of_whom}: {jobs} waiting, circuit {answer.circuit}", style="bold")
    if answer.server is not None:
        text.append(f", read from {answer.server}", style="not bold")
    return text
