"""What jobs of each priority would be told, and why: of a backlog that somebody names, or of one that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from backpressure._controller.candidate import candidate_advice, candidate_law
from backpressure._engine.sample import Sample
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.stats import permille_of
from backpressure._model.units import nanoseconds
from backpressure._model.vocabulary import CIRCUIT_REASONS, Reason
from backpressure._watch.advice import Circuit, advice_dict, adviser
from backpressure._watch.budgets import StoredBudget
from backpressure._watch.why import why

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.decision import ThrottleDecision
    from backpressure._watch.advice import Advice
    from backpressure.providers.several import SeveralProviders

__all__ = ["Answer", "assumed", "read"]

# Stands for every queue without settings of its own.
_ANY_QUEUE = "any"


def assumed(config: BackpressureConfig, queue_name: str | None, circuit: Circuit, backlog: int) -> Answer:
    """Return the answer for so many waiting jobs of a queue; ``None`` stands for any without settings of its own."""
    if queue_name is None:  # one of the sections could be called as _ANY_QUEUE is
        config = attrs.evolve(config, queues={})
    return Answer(config=config, queue_name=queue_name, circuit=circuit, sample=Sample(backlog, 0, None))


def read(
    config: BackpressureConfig,
    circuit: Circuit,
    names: Sequence[str],
    provider: SeveralProviders,
    budgets: Mapping[str, StoredBudget],
) -> list[Answer]:
    """Return answers with what was read of the queues, or with the reason why one could not be read."""
    outcomes: Mapping[str, Any]
    try:
        outcomes = provider.get_many(names)
    except StatsUnavailableError as error:
        outcomes = dict.fromkeys(names, error)
    answers = []
    for name in names:
        outcome = outcomes[name]
        answer = Answer(
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
class Answer:
    """What is known, and what follows from it."""

    config: BackpressureConfig
    queue_name: str | None
    circuit: Circuit
    sample: Sample | None
    server: str | None = None
    problem: str | None = None
    budget: StoredBudget | None = None
    advice: Advice = attrs.field(factory=dict)
    tenants: Mapping[str, float] = attrs.field(factory=dict)

    def advised(self) -> Answer:
        """Return it with what a controller says, beside which a budget decides where an age is held."""
        name = self.queue_name or _ANY_QUEUE
        age = self.config.age_of(name)
        budget = self.budget
        if budget is None and age.target is not None:
            budget = StoredBudget(name, age, problem="no store was asked: give --queue and --redis-url to have it read")
        with adviser(self.config, name, self.circuit) as advise:
            return attrs.evolve(self, advice=advise(self.sample), budget=budget)

    def budget_of(self, decision: ThrottleDecision) -> StoredBudget | None:
        """Return what decides in the place of the law of `decision`; ``None``: nothing does."""
        decided_before = {*CIRCUIT_REASONS, Reason.MANUAL_OVERRIDE, Reason.EMERGENCY_MODE}
        return None if decision.reason in decided_before else self.budget

    def problems(self) -> list[str]:
        """Return what could not be read."""
        of_budget = None if self.budget is None or self.server is None else self.budget.complaint()
        return [problem for problem in (self.problem, of_budget) if problem is not None]

    def candidate(self) -> dict[str, dict[str, Any]] | None:
        """Return what the candidate says by priority; ``None`` without one, or where it holds an age."""
        candidate = self.config.with_candidate()
        law = None if candidate is None else candidate_law(candidate, self.queue_name or _ANY_QUEUE)
        return None if law is None or self.sample is None else candidate_advice(law, self.sample)

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
            "memory_used": self.memory_used(),
            "circuit": self.circuit,
            "mode": self.config.mode_of(self.queue_name or _ANY_QUEUE),
            "enforce_share": self.config.enforce_share_of(self.queue_name or _ANY_QUEUE),
            "server": self.server,
            "problem": self.problem,
            "advice": told,
            "candidate": self.candidate(),
            "budget": None if self.budget is None else self.budget.to_dict(),
            "tenants": dict(self.tenants),
        }

    def _told(self, decision: ThrottleDecision) -> dict[str, Any]:
        budget = self.budget_of(decision)
        if budget is None:
            return advice_dict(decision)
        return {"zone": budget.zone(), "share": budget.share(decision.priority)}

    def memory_used(self) -> float | None:
        """Return how full the memory of the queue's server is, from 0 to 1; ``None`` is unknown."""
        permille = None if self.sample is None else self.sample.memory_permille
        return None if permille is None else permille / 1_000

    def memory(self) -> str | None:
        """Say how much of its memory the server of the queue uses; ``None`` where it has no limit, or none is set."""
        bounds, used = self.config.age_of(self.queue_name or _ANY_QUEUE).memory, self.memory_used()
        if used is None or bounds is None:
            return None
        low, high = (100 * bound for bound in bounds)
        held = self.budget is not None
        effect = "the budget shrinks" if held else "low jobs are shed"
        end = "nothing but high jobs goes" if held else "medium ones too"
        return f"the server uses {100 * used:.3g} % of its memory: from {low:g} % on {effect}, from {high:g} % {end}"
