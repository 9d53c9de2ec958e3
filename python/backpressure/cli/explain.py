"""`backpressure explain`: what would a job of each priority be told now, and why?"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._engine.sample import Sample
from backpressure._model.arguments import masked, validate_queue_name
from backpressure._model.errors import InvalidQueueError, StatsUnavailableError
from backpressure._model.stats import MAX_BACKLOG
from backpressure._model.units import nanoseconds
from backpressure.cli._advice import Circuit, adviser
from backpressure.cli._config_options import ConfigFile, FromEnv, Settings, load
from backpressure.cli._config_view import notes
from backpressure.cli._endings import Finding, Refusal, ending
from backpressure.cli._format import PRIORITIES, advice, advice_dict, new_console, style_of
from backpressure.cli._masking import print_json
from backpressure.cli._redis_options import KeyTemplate, RedisUrl, open_provider
from backpressure.cli._why import why

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig
    from backpressure.cli._advice import Advice

__all__ = ["EXAMPLES", "explain"]

EXAMPLES = """\
backpressure explain --backlog 1250
backpressure explain --backlog 950 --set curve.shed_permille=950
backpressure explain --backlog 1250 --queue email-queue --config backpressure.toml
backpressure explain --queue email-queue --redis-url redis://localhost:6379/0
backpressure explain --backlog 0 --circuit open --json
"""

# Stands for every queue without settings of its own.
_ANY_QUEUE = "any"


def explain(
    *,
    backlog: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_BACKLOG, metavar="N", help="Judge this many waiting jobs; no server is asked."),
    ] = None,
    queue: Annotated[
        str | None, typer.Option(metavar="NAME", help="The queue whose settings hold, and which is read.")
    ] = None,
    redis_url: RedisUrl = None,
    key: KeyTemplate = "{queue}",
    circuit: Annotated[Circuit, typer.Option(help="State of the queue's circuit.")] = Circuit.CLOSED,
    file: ConfigFile = None,
    env: FromEnv = False,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell what jobs would be told, and why.

    Give --backlog, or --queue and --redis-url. The answer is a real controller's; nothing is written anywhere. Exits
    with 0 when there is one, 1 when the queue could not be read or the configuration is faulty, 2 for wrong usage.
    """
    with ending("explain"):
        config, name = load(file, env, settings), _queue_name(queue)
        if queue is None:
            config = attrs.evolve(config, queues={})  # one of them could be called as _ANY_QUEUE is
        given = None if backlog is None else Sample(backlog, 0, None)
        answer = _Answer(config=config, queue_name=queue, circuit=circuit, sample=given)
        if backlog is None:
            if queue is None or redis_url is None:
                raise Refusal("there is no backlog to judge: give --backlog, or --queue and --redis-url (or REDIS_URL)")
            answer = _read(answer, name, redis_url, key)
        with adviser(config, name, circuit) as advise:
            answer = attrs.evolve(answer, advice=advise(answer.sample))
        if as_json:
            print_json(answer.to_dict())
        else:
            answer.print()
        if answer.problem is not None:
            raise Finding(answer.problem)


def _queue_name(queue: str | None) -> str:
    try:
        return _ANY_QUEUE if queue is None else validate_queue_name(queue)
    except InvalidQueueError as error:
        raise Refusal(f"--queue: {error}") from None


def _read(answer: _Answer, name: str, redis_url: str, key: str) -> _Answer:
    """Return the answer with what was read of the queue, or with the reason why it could not be read."""
    provider, server = open_provider(redis_url, [name], key, answer.config.polling.timeout)
    with contextlib.closing(provider):
        try:
            stats = provider.get_queue_stats(name)
        except StatsUnavailableError as error:
            return attrs.evolve(answer, server=server, problem=str(error))
    oldest_ns = None if stats.oldest_age is None else nanoseconds(stats.oldest_age)
    return attrs.evolve(answer, server=server, sample=Sample(stats.backlog_count, 0, oldest_ns))


@attrs.frozen(kw_only=True)
class _Answer:
    """What is known, and what follows from it."""

    config: BackpressureConfig
    queue_name: str | None
    circuit: Circuit
    sample: Sample | None
    server: str | None = None
    problem: str | None = None
    advice: Advice = attrs.field(factory=dict)

    def why(self) -> dict[Any, str]:
        """Return a sentence for each priority."""
        attempted = "" if self.circuit is Circuit.CLOSED else "circuit.high_priority is attempt, hence: "
        return {
            priority: f"{'' if decision.should_shed else attempted}{why(decision, self.config, self.sample)}"
            for priority, decision in self.advice.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts."""
        told = {str(priority): advice_dict(decision) for priority, decision in self.advice.items()}
        for priority, sentence in self.why().items():
            told[str(priority)]["why"] = sentence
        return {
            "queue_name": self.queue_name,
            "backlog": None if self.sample is None else self.sample.backlog,
            "circuit": self.circuit,
            "mode": self.config.mode,
            "server": self.server,
            "problem": self.problem,
            "advice": told,
        }

    def print(self) -> None:
        """Show it to people."""
        console = new_console()
        console.print(self._headline(), soft_wrap=True)
        table = Table("priority", "zone", "advice", "reason", box=box.SIMPLE_HEAD)
        sentences = Table.grid(padding=(0, 2, 0, 0))
        for priority in PRIORITIES:
            decision = self.advice[priority]
            zone = Text("–" if decision.zone is None else decision.zone, style=style_of(decision))
            told = Text(advice(decision), style=style_of(decision))
            table.add_row(str(priority), zone, told, decision.reason)
        for priority, sentence in self.why().items():
            sentences.add_row(f"  {priority}", sentence)
        console.print(table, sentences)
        for note in notes(self.config):
            console.print(note)

    def _headline(self) -> Text:
        of_whom = "any queue" if self.queue_name is None else f"queue {masked(self.queue_name)}"
        jobs = "an unknown number of jobs" if self.sample is None else f"{self.sample.backlog:,} jobs"
        text = Text(f"{of_whom}: {jobs} waiting, circuit {self.circuit}", style="bold")
        if self.server is not None:
            text.append(f", read from {self.server}", style="not bold")
        return text
