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
from backpressure._model.arguments import masked
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.stats import MAX_BACKLOG, permille_of
from backpressure._model.units import nanoseconds
from backpressure._model.vocabulary import CIRCUIT_REASONS, Reason
from backpressure.cli._advice import Circuit, adviser
from backpressure.cli._budgets import StoredBudget, stored_budgets, stores_of, taking_no_part
from backpressure.cli._config_options import ConfigFile, FromEnv, Settings, load
from backpressure.cli._config_view import notes
from backpressure.cli._endings import Finding, Refusal, ending
from backpressure.cli._format import PRIORITIES, ZONE_STYLES, advice, advice_dict, new_console
from backpressure.cli._masking import print_json
from backpressure.cli._queue_options import Group, KeyTemplate, LayoutName, Queues, RedisUrl, chosen, open_provider
from backpressure.cli._why import why

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.decision import ThrottleDecision
    from backpressure.cli._advice import Advice
    from backpressure.providers.several import SeveralProviders

__all__ = ["EXAMPLES", "explain"]

EXAMPLES = """\
backpressure explain --backlog 1250
backpressure explain --backlog 950 --set curve.shed_permille=950
backpressure explain --backlog 1250 --queue email-queue --config backpressure.toml
backpressure explain --queue email-queue --redis-url redis://localhost:6379/0
backpressure explain -q mail --layout rq --redis-url redis://localhost:6379/0
backpressure explain --config backpressure.toml
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
    queues: Queues = None,
    redis_url: RedisUrl = None,
    layout: LayoutName = None,
    key: KeyTemplate = None,
    group: Group = None,
    circuit: Annotated[Circuit, typer.Option(help="State of the queue's circuit.")] = Circuit.CLOSED,
    file: ConfigFile = None,
    env: FromEnv = False,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell what jobs would be told, and why.

    Give --backlog; else the queues that the file has sections of, or those given, are read. The answer is a real
    controller's; nothing is written anywhere. Of a queue whose age is held, it is what stands in the store of its
    budget. Exits with 0 when there is one, 1 when a queue could not be read or the configuration is faulty, 2 for
    wrong usage.
    """
    with ending("explain"):
        config = load(file, env, settings)
        names = chosen(config, queues) if queues or backlog is None else []
        answers: list[_Answer]
        if backlog is not None:
            sample = Sample(backlog, 0, None)
            if not names:  # one of the sections could be called as _ANY_QUEUE is
                config = attrs.evolve(config, queues={})
            told: list[str | None] = [*names] or [None]
            answers = [_Answer(config=config, queue_name=name, circuit=circuit, sample=sample) for name in told]
        elif not names:
            raise Refusal(
                "there is no backlog to judge: give --backlog, or --queue or --config with sections of queues"
            )
        else:
            timeout = config.polling.timeout
            provider, _ = open_provider(config, names, redis_url, layout=layout, key=key, group=group, timeout=timeout)
            with contextlib.closing(provider), stores_of(provider, config) as stores:
                answers = _read(config, circuit, names, provider, stored_budgets(stores, config, names))
        answers = [answer.advised() for answer in answers]
        if as_json:
            each = [answer.to_dict() for answer in answers]
            print_json(each[0] if len(each) == 1 else {"queues": each})
        else:
            for answer in answers:
                answer.print()
        problems = [problem for answer in answers for problem in answer.problems()]
        if problems:
            raise Finding(problems[-1], *problems[:-1])


def _read(
    config: BackpressureConfig,
    circuit: Circuit,
    names: Sequence[str],
    provider: SeveralProviders,
    budgets: Mapping[str, StoredBudget],
) -> list[_Answer]:
    """Return answers with what was read of the queues, or with the reason why one could not be read."""
    outcomes: Mapping[str, Any]
    try:
        outcomes = provider.get_many(names)
    except StatsUnavailableError as error:
        outcomes = dict.fromkeys(names, error)
    answers = []
    for name in names:
        outcome = outcomes[name]
        answer = _Answer(
            config=config,
            queue_name=name,
            circuit=circuit,
            sample=None,
            server=provider.server_of(name),
            budget=budgets.get(name),
        )
        if isinstance(outcome, StatsUnavailableError):
            answers.append(attrs.evolve(answer, problem=str(outcome)))
            continue
        oldest_ns = None if outcome.oldest_age is None else nanoseconds(outcome.oldest_age)
        sample = Sample(outcome.backlog_count, 0, oldest_ns, permille_of(outcome.memory_used))
        answers.append(attrs.evolve(answer, sample=sample))
    return answers


@attrs.frozen(kw_only=True)
class _Answer:
    """What is known, and what follows from it."""

    config: BackpressureConfig
    queue_name: str | None
    circuit: Circuit
    sample: Sample | None
    server: str | None = None
    problem: str | None = None
    budget: StoredBudget | None = None
    advice: Advice = attrs.field(factory=dict)

    def advised(self) -> _Answer:
        """Return it with what a controller says, beside which a budget decides where an age is held."""
        name = self.queue_name or _ANY_QUEUE
        age = self.config.age_of(name)
        budget = self.budget
        if budget is None and age.target is not None:
            budget = StoredBudget(name, age, problem="no store was asked: give --queue and --redis-url to have it read")
        with adviser(taking_no_part(self.config), name, self.circuit) as advise:
            return attrs.evolve(self, advice=advise(self.sample), budget=budget)

    def budget_of(self, decision: ThrottleDecision) -> StoredBudget | None:
        """Return what decides in the place of the law of `decision`; ``None``: nothing does."""
        decided_before = {*CIRCUIT_REASONS, Reason.MANUAL_OVERRIDE, Reason.EMERGENCY_MODE}
        return None if decision.reason in decided_before else self.budget

    def problems(self) -> list[str]:
        """Return what could not be read."""
        of_budget = None if self.budget is None or self.server is None else self.budget.complaint()
        return [problem for problem in (self.problem, of_budget) if problem is not None]

    def why(self) -> dict[Any, str]:
        """Return a sentence for each priority."""
        attempted = "" if self.circuit is Circuit.CLOSED else "circuit.high_priority is attempt, hence: "
        return {
            priority: f"{'' if decision.should_shed else attempted}{self._why(decision)}"
            for priority, decision in self.advice.items()
        }

    def _why(self, decision: ThrottleDecision) -> str:
        budget = self.budget_of(decision)
        if budget is not None:
            return budget.why(decision.priority)
        return why(decision, self.config, self.sample)

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts."""
        told = {str(priority): self._told(decision) for priority, decision in self.advice.items()}
        for priority, sentence in self.why().items():
            told[str(priority)]["why"] = sentence
        return {
            "queue_name": self.queue_name,
            "backlog": None if self.sample is None else self.sample.backlog,
            "memory_used": self._memory_used(),
            "circuit": self.circuit,
            "mode": self.config.mode_of(self.queue_name or _ANY_QUEUE),
            "server": self.server,
            "problem": self.problem,
            "advice": told,
            "budget": None if self.budget is None else self.budget.to_dict(),
        }

    def _told(self, decision: ThrottleDecision) -> dict[str, Any]:
        budget = self.budget_of(decision)
        if budget is None:
            return advice_dict(decision)
        return {"zone": budget.zone(), "share": budget.share(decision.priority)}

    def print(self) -> None:
        """Show it to people."""
        console = new_console()
        console.print(self._headline(), soft_wrap=True)
        table = Table("priority", "zone", "advice", "reason", box=box.SIMPLE_HEAD)
        sentences = Table.grid(padding=(0, 2, 0, 0))
        for priority in PRIORITIES:
            table.add_row(str(priority), *self._cells(self.advice[priority]))
        for priority, sentence in self.why().items():
            sentences.add_row(f"  {priority}", sentence)
        if self.budget is not None:
            for sentence in self.budget.sentences():
                console.print(masked(sentence), soft_wrap=True)
        if (memory := self._memory()) is not None:
            console.print(memory, soft_wrap=True)
        console.print(table, sentences)
        for note in notes(self.config, self.queue_name):
            console.print(note)

    def _memory_used(self) -> float | None:
        permille = None if self.sample is None else self.sample.memory_permille
        return None if permille is None else permille / 1_000

    def _memory(self) -> str | None:
        """Say how much of its memory the server of the queue uses; ``None`` where it has no limit, or none is set."""
        bounds, used = self.config.age_of(self.queue_name or _ANY_QUEUE).memory, self._memory_used()
        if used is None or bounds is None:
            return None
        low, high = (100 * bound for bound in bounds)
        held = self.budget is not None
        effect = "the budget shrinks" if held else "low jobs are shed"
        end = "nothing but high jobs goes" if held else "medium ones too"
        return f"the server uses {100 * used:.3g} % of its memory: from {low:g} % on {effect}, from {high:g} % {end}"

    def _cells(self, decision: ThrottleDecision) -> tuple[Text, Text, str]:
        budget = self.budget_of(decision)
        if budget is not None:
            zone, told, reason = budget.zone(), budget.told(decision.priority), "age"
        else:
            zone, told, reason = decision.zone, advice(decision), str(decision.reason)
        style = "" if zone is None else ZONE_STYLES[zone]
        return Text("–" if zone is None else zone, style=style), Text(told, style=style), reason

    def _headline(self) -> Text:
        of_whom = "any queue" if self.queue_name is None else f"queue {masked(self.queue_name)}"
        jobs = "an unknown number of jobs" if self.sample is None else f"{self.sample.backlog:,} jobs"
        text = Text(f"{of_whom}: {jobs} waiting, circuit {self.circuit}", style="bold")
        if self.server is not None:
            text.append(f", read from {self.server}", style="not bold")
        return text
