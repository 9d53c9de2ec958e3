"""What follows from the ages that queues are to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._age.script import budget_key
from backpressure._model.arguments import masked
from backpressure._model.budget import budget_of
from backpressure._model.config.patterns import is_pattern
from backpressure._model.units import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._model.budget import BudgetSettings
    from backpressure._model.config.age import AgeConfig
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["HeldAge", "ages_table", "held_ages"]


@attrs.frozen
class HeldAge:
    """The age that a queue is to hold, or all queues without their own; and what follows from it."""

    queue_name: str | None
    age: AgeConfig
    budget: BudgetSettings

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts."""
        key = None if self.queue_name is None or is_pattern(self.queue_name) else budget_key(self.queue_name)
        return {
            "queue_name": self.queue_name,
            "store": self.age.store,
            "key": key,
            "medium": self.age.medium,
            "safe_rate": self.age.safe_rate,
            "memory": self.age.memory,
            "tenant_weights": dict(self.age.tenant_weights),
            "patient_ms": self.budget.patient_ms,
            "oldest_sample_ms": self.budget.oldest_sample_ms,
            **attrs.asdict(self.budget),
        }


def held_ages(config: BackpressureConfig, queues: Sequence[str] | None) -> list[HeldAge]:
    """Return the ages that `queues` are to hold; without these, the shared one and those of sections."""
    names: Sequence[str | None] = queues or [
        None,
        *(name for name, own in config.queues.items() if own.age is not None),
    ]
    ages = [(name, config.age if name is None else config.age_of(name)) for name in names]
    return [HeldAge(name, age, budget) for name, age in ages if (budget := budget_of(age)) is not None]


def ages_table(held: Sequence[HeldAge]) -> Table:
    """Return them for people."""
    table = Table(box=box.SIMPLE_HEAD, title=Text("ages to be held", style="bold"), title_justify="left")
    table.add_column("queue")
    for column in ("target", "tick", "drain over", "gain", "LOW's floor", "waits from", "samples to", "calls/s"):
        table.add_column(column, justify="right")
    table.add_column("store", overflow="fold")
    for it in held:
        budget = it.budget
        table.add_row(
            Text(masked(it.queue_name or "all without their own")),
            _milliseconds(budget.target_ms),
            _milliseconds(budget.tick_ms),
            _milliseconds(budget.drain_window_ms),
            f"{budget.gain_most_permille / 1_000:g}",
            f"{budget.low_floor_permille / 10:g} %",
            _milliseconds(budget.patient_ms),
            _milliseconds(budget.oldest_sample_ms),
            f"{budget.calls_per_second:,}",
            Text(masked(it.age.store or "the provider's")),
        )
    return table


def _milliseconds(count: int) -> str:
    return duration(count / 1_000)
