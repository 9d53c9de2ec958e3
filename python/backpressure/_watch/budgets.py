"""What the store knows of the budgets of queues whose age is held. It is read there: no command takes part in a law."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from backpressure._age.protocol import HIGH, LEVELS, MILLION
from backpressure._age.script import budget_key
from backpressure._controller.age.stores import Stores
from backpressure._model.budget import FEW_JOBS
from backpressure._model.units import duration
from backpressure._model.vocabulary import Zone
from backpressure._watch.advice import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from backpressure._age.state import State
    from backpressure._model.config.age import AgeConfig
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.vocabulary import Priority

__all__ = ["StoredBudget", "stored_budgets", "stores_of"]

_LOW = LEVELS[-1]
#: After so many targets without a call the script measures all but the drain anew.
_FORGOTTEN_TARGETS = 60


@attrs.frozen
class StoredBudget:
    """A queue's budget as it lies in its store, or why it could not be read there."""

    queue_name: str
    age: AgeConfig
    state: State | None = None
    now_ms: int = 0
    problem: str | None = None

    @property
    def target(self) -> float:
        """Return the age to be held, in seconds."""
        assert self.age.target is not None  # noqa: S101 - none is made without one
        return self.age.target

    def complaint(self) -> str | None:
        """Say that it could not be read, if that is so."""
        return (
            None if self.problem is None else f"the budget of queue {self.queue_name!r} cannot be read: {self.problem}"
        )

    def silent(self) -> float:
        """Return seconds since the last tick."""
        return 0.0 if self.state is None else max(0, self.now_ms - self.state.ticked_ms) / 1_000

    def zone(self) -> Zone | None:
        """Return the zone of the age, as producers are told."""
        if self.state is None:
            return None
        age = self.state.age_ms / 1_000
        if 2 * age < self.target:
            return Zone.GREEN
        return Zone.YELLOW if age <= self.target else Zone.RED

    def share(self, priority: Priority) -> float | None:
        """Return the part of the demand of `priority` that fits, from 0 to 1."""
        return None if self.state is None else self.state.shares_ppm[_LOW - priority.value] / MILLION

    def sentences(self) -> list[str]:
        """Say how the budget comes about."""
        aim = f"an age of {duration(self.target)} is to be held"
        if self.problem is not None:
            return [aim, f"the budget is not known: {self.problem}"]
        state = self.state
        if state is None:
            return [aim, f"no producer has asked for the budget yet (key {budget_key(self.queue_name)})"]
        if self.silent() > _FORGOTTEN_TARGETS * self.target:
            since = duration(self.silent())
            return [aim, f"no producer has asked for {since}: only the drain is kept, {_rate(state.drain_mjobs_per_s)}"]
        return [self._age(state), self._budget(state), *self._doubts(state)]

    def _age(self, state: State) -> str:
        drain = _rate(state.drain_mjobs_per_s)
        if state.backlog_jobs < 0:
            return f"nobody has read the queue yet; target {duration(self.target)}"
        trim = "" if state.trim_ppm == MILLION else f", corrected by {state.trim_ppm / MILLION:.2f}"
        oldest = "" if state.oldest_age_ms < 0 else f" (oldest {duration(state.oldest_age_ms / 1_000, 3)}{trim})"
        sample = duration(max(0, self.now_ms - state.read_ms) / 1_000, 2)
        age, target = duration(state.age_ms / 1_000, 3), duration(self.target)
        if self._is_foreseen(state):
            return (
                f"{state.backlog_jobs:,} jobs{oldest}, read {sample} ago; by what was enqueued since and by a drain of "
                f"{drain} {age}, target {target}"
            )
        return f"{state.backlog_jobs:,} jobs at a drain of {drain} = {age}{oldest}, target {target}; read {sample} ago"

    def _is_foreseen(self, state: State) -> bool:
        """Tell whether the age is not that of the backlog last told, but reckoned on, as where news come seldom."""
        drain, most_ms = state.drain_mjobs_per_s, int(100_000 * self.target)  # the script tells no longer age
        if drain <= 0 or state.ticked_ms <= state.read_ms:
            return False
        told_ms = min(state.backlog_jobs * MILLION // drain, most_ms)
        return abs(min(told_ms * state.trim_ppm // MILLION, most_ms) - state.age_ms) > 1

    def _budget(self, state: State) -> str:
        asked = ", ".join(
            f"{rate / 1_000:,.4g} {priority}"
            for priority, rate in zip(PRIORITIES, state.demand_mjobs_per_s, strict=True)
        )
        of_whom = "1 process that asks" if state.processes == 1 else f"{state.processes:,} processes that ask"
        budget, silent = _rate(state.budget_mjobs_per_s), duration(self.silent(), 2)
        return f"budget {budget} for {of_whom} for {asked}; last asked {silent} ago"

    def _doubts(self, state: State) -> Iterator[str]:
        jobs = state.drain_mjobs_per_s * self.target / 1_000
        if 0 < jobs < FEW_JOBS:
            yield f"the target is {jobs:.2g} jobs: the age swings with each of them; a longer target is held better"
        if state.shares_ppm[HIGH] < MILLION:
            yield "HIGH alone asks for more than the budget, and is never refused: the age cannot be held"

    def told(self, priority: Priority) -> str:
        """Say in a word what callers are told: go, or which part of them goes."""
        share = self.share(priority)
        if share is None:
            return "–"
        return "go" if share >= 1 else f"{100 * share:.3g} %"

    def why(self, priority: Priority) -> str:
        """Explain that."""
        share = self.share(priority)
        if share is None:
            return "the budget is not known here"
        if share >= 1:
            return "all that is asked for fits into the budget: goes at once"
        level = _LOW - priority.value
        if level == HIGH:
            return f"is never refused; who can wait does, up to half of the target ({duration(self.target / 2)})"
        part = f"{100 * share:.3g} % of what is asked for fits into the budget"
        if level != _LOW:
            rest = "is shed" if self.age.medium == "shed" else "is told when to come again"
            return f"{part}: who waits is let go in turn, who does not wait {rest}"
        return f"{part}{' (its floor)' if share <= self.age.low_floor else ''}: the others are shed"

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts, in the words of `health()`; ``None`` is unknown."""
        state = self.state
        told: dict[str, Any] = {
            "target_age": self.target,
            "age": None,
            "drain_rate": None,
            "granted_rate": None,
            "demand_rate": None,
            "share": None,
            "processes": None,
            "asked": None,
            "problem": self.problem,
        }
        if state is None:
            return told
        names = [str(priority) for priority in PRIORITIES]
        return told | {
            "age": state.age_ms / 1_000,
            "drain_rate": state.drain_mjobs_per_s / 1_000,
            "granted_rate": state.budget_mjobs_per_s / 1_000,
            "demand_rate": dict(zip(names, [rate / 1_000 for rate in state.demand_mjobs_per_s], strict=True)),
            "share": dict(zip(names, [share / MILLION for share in state.shares_ppm], strict=True)),
            "processes": state.processes,
            "asked": self.silent(),
        }


def stored_budgets(stores: Stores, config: BackpressureConfig, names: Sequence[str]) -> dict[str, StoredBudget]:
    """Read the budgets of those of the queues whose age is held. Errors are theirs."""
    held = [name for name in names if config.age_of(name).target is not None]
    budgets = {}
    for store, queues in stores.by_store(held):
        looks: Mapping[str, Any] = store.look([budget_key(name) for name in queues])
        for name in queues:
            age, look = config.age_of(name), looks[budget_key(name)]
            if isinstance(look, Exception):
                budgets[name] = StoredBudget(name, age, problem=str(look))
            else:
                budgets[name] = StoredBudget(name, age, *look)
    return budgets


@contextlib.contextmanager
def stores_of(provider: object, config: BackpressureConfig) -> Iterator[Stores]:
    """Give the stores of a configuration, whose connections end with the body.

    Raises:
        ConfigurationError: a store cannot be one.
    """
    stores = Stores(provider)
    stores.configure(config)
    with contextlib.closing(stores):
        yield stores


def _rate(millijobs_per_s: int) -> str:
    return f"{millijobs_per_s / 1_000:,.4g}/s"
