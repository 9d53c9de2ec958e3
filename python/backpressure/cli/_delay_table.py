"""The delay table: what each priority is told at the samples where the answer changes, and between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._engine.laws.registry import sampled_law_of
from backpressure._model.arguments import masked
from backpressure._model.config.age import AgeConfig
from backpressure._model.units import duration
from backpressure._watch.advice import PRIORITIES, Advice, advice_dict, adviser, told
from backpressure.cli._format import style_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._engine.sample import Sample
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.decision import ThrottleDecision

__all__ = ["DelayTable", "delay_table"]

# Stands for every queue without settings of its own.
_ANY_QUEUE = "any"


@attrs.frozen
class DelayTable:
    """Advice by sample, for one queue, or for all queues that have no law of their own."""

    queue_name: str | None
    rows: Sequence[tuple[Sample, Advice]]
    by: str = ""

    def render(self) -> Table:
        """Return it for people."""
        of_whom = "all queues without their own" if self.queue_name is None else f"queue {masked(self.queue_name)}"
        table = Table(
            box=box.SIMPLE_HEAD, title=Text(f"delays of {of_whom}{self.by}", style="bold"), title_justify="left"
        )
        aged = any(sample.oldest_age_ns is not None for sample, _ in self.rows)
        table.add_column("backlog", justify="right")
        if aged:
            table.add_column("oldest", justify="right")
        for priority in PRIORITIES:
            table.add_column(str(priority), min_width=15)
        for sample, advised in self.rows:
            age = [_age(sample)] if aged else []
            table.add_row(f"{sample.backlog:,}", *age, *(_cell(advised[priority]) for priority in PRIORITIES))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts."""
        rows = [
            {**_sample_dict(sample), **{str(priority): advice_dict(advised[priority]) for priority in PRIORITIES}}
            for sample, advised in self.rows
        ]
        return {"queue_name": self.queue_name, "rows": rows}


def delay_table(config: BackpressureConfig, queue_name: str | None, by: str = "") -> DelayTable:
    """Return the table of a queue, or with ``None`` that of the shared law; `by` is added to its title.

    Switches and observe mode do not count: the table shows the law.
    """
    name = queue_name or _ANY_QUEUE
    own = {} if queue_name is None else {name: attrs.evolve(config.of(name), mode=None, age=None)}
    recovery = attrs.evolve(config.recovery, manual_override=False, emergency_mode=False)
    only = attrs.evolve(config, mode="enforce", recovery=recovery, queues=own, age=AgeConfig(), candidate=None)
    with adviser(only, name) as advise:
        return DelayTable(
            queue_name, [(sample, advise(sample)) for sample in sampled_law_of(only, name).turning_points()], by
        )


def _sample_dict(sample: Sample) -> dict[str, Any]:
    age_ns = sample.oldest_age_ns
    return {"backlog": sample.backlog} | ({} if age_ns is None else {"oldest_age": age_ns / 1e9})


def _age(sample: Sample) -> str:
    return "–" if sample.oldest_age_ns is None else duration(sample.oldest_age_ns / 1e9)


def _cell(decision: ThrottleDecision) -> Text:
    return Text(f"{decision.zone:<6} {told(decision):>8}", style=style_of(decision))
