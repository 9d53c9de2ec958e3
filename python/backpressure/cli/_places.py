"""Where the queues of a configuration lie, and what one read of each of them brings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs
from rich import box
from rich.table import Table
from rich.text import Text

from backpressure._model.arguments import masked
from backpressure._model.errors import StatsUnavailableError
from backpressure._model.stats import QueueStats, age_of, part_of
from backpressure._model.units import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backpressure.providers.several import SeveralProviders

__all__ = ["Place", "places", "places_table"]


@attrs.frozen
class Place:
    """A queue's place; and if it was read, what was found there, or why nothing was."""

    queue_name: str
    read_as: str
    server: str
    stats: QueueStats | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts."""
        stats = self.stats
        return {
            "queue_name": self.queue_name,
            "read_as": self.read_as,
            "server": self.server,
            "backlog": None if stats is None else stats.backlog_count,
            "processing": None if stats is None else stats.processing_count,
            "delayed": None if stats is None else stats.delayed_count,
            "oldest_age": None if stats is None else age_of(stats.oldest_age),
            "memory_used": None if stats is None else part_of(stats.memory_used),
            "problem": self.problem,
        }


def places(provider: SeveralProviders, queue_names: Sequence[str], *, read: bool) -> list[Place]:
    """Return the places of queues, and if wanted read each of them once. Closes the provider."""
    outcomes: Mapping[str, Any] = {}
    with contextlib.closing(provider):
        try:
            outcomes = provider.get_many(queue_names) if read else {}
        except StatsUnavailableError as error:
            outcomes = dict.fromkeys(queue_names, error)
        found = []
        for name in queue_names:
            outcome = outcomes.get(name)
            stats = outcome if isinstance(outcome, QueueStats) else None
            problem = None if outcome is None or stats is not None else str(outcome)
            found.append(Place(name, provider.told_of(name), provider.server_of(name), stats, problem))
    return found


def places_table(found: Sequence[Place], *, read: bool) -> Table:
    """Return them for people."""
    title = Text("queues as they are read" if read else "where queues are read", style="bold")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("queue")
    table.add_column("read as")
    table.add_column("server", overflow="fold")
    for column in ("waiting", "running", "delayed", "oldest", "memory") if read else ():
        table.add_column(column, justify="right")
    for place in found:
        table.add_row(
            *(Text(masked(told)) for told in (place.queue_name, place.read_as, place.server)),
            *(_numbers(place) if read else ()),
        )
    return table


def _numbers(place: Place) -> list[Text]:
    stats = place.stats
    if stats is None:
        return [Text("unreadable", style="bold red"), *[Text("-")] * 4]
    counts = (stats.backlog_count, stats.processing_count, stats.delayed_count)
    age, used = age_of(stats.oldest_age), part_of(stats.memory_used)
    return [
        *(Text("-" if count is None else f"{count:,}") for count in counts),
        Text("-" if age is None else duration(age)),
        Text("-" if used is None else f"{used:.1%}"),
    ]
