"""The delay table: what each priority is told at the backlogs where the answer changes, and between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._model.vocabulary import LOW
from backpressure.cli._advice import Advice, adviser
from backpressure.cli._format import PRIORITIES, advice, advice_dict, style_of
from backpressure.cli._why import shed_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.decision import ThrottleDecision

__all__ = ["DelayTable", "delay_table"]

# Stands for every queue that has nothing of its own.
_ANY_QUEUE = "any"


@attrs.frozen
class DelayTable:
    """Advice by backlog, for one queue, or for all that have no thresholds or curve of their own."""

    queue_name: str | None
    rows: Sequence[tuple[int, Advice]]

    def render(self) -> Table:
        """Return it for people."""
        of_whom = "all queues without their own" if self.queue_name is None else f"queue {self.queue_name}"
        table = Table(box=box.SIMPLE_HEAD, title=Text(f"delays of {of_whom}", style="bold"), title_justify="left")
        table.add_column("backlog", justify="right")
        for priority in PRIORITIES:
            table.add_column(str(priority), min_width=15)
        for backlog, advised in self.rows:
            table.add_row(f"{backlog:,}", *(_cell(advised[priority]) for priority in PRIORITIES))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts."""
        rows = [
            {"backlog": backlog, **{str(priority): advice_dict(advised[priority]) for priority in PRIORITIES}}
            for backlog, advised in self.rows
        ]
        return {"queue_name": self.queue_name, "rows": rows}


def delay_table(config: BackpressureConfig, queue_name: str | None) -> DelayTable:
    """Return the table of a queue, or with ``None`` that of the shared thresholds and curve.

    Switches and observe mode are left out of account: it is the law that a table shows.
    """
    own = {} if queue_name is None else {name: one for name, one in config.queues.items() if name == queue_name}
    recovery = attrs.evolve(config.recovery, manual_override=False, emergency_mode=False)
    law = attrs.evolve(config, mode="enforce", recovery=recovery, queues=own)
    name = queue_name or _ANY_QUEUE
    with adviser(law, name) as advise:
        return DelayTable(queue_name, [(backlog, advise(backlog)) for backlog in _backlogs(law, name)])


def _backlogs(config: BackpressureConfig, queue_name: str) -> list[int]:
    thresholds = config.thresholds_of(queue_name)
    backlogs = {0}
    for priority in PRIORITIES:
        window = thresholds.window(priority)
        green, yellow, red = window.green_max, window.yellow_max, window.red_max
        backlogs |= {green, (green + yellow) // 2, yellow, (yellow + red) // 2, red}
    limit = shed_limit(thresholds.window(LOW), config.curve_of(queue_name))
    return sorted(backlogs | {limit, limit + 1})


def _cell(decision: ThrottleDecision) -> Text:
    return Text(f"{decision.zone:<6} {advice(decision):>8}", style=style_of(decision))
