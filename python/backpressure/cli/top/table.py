"""How `backpressure top` shows a look to people: a line for each queue, and below what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from backpressure._model.arguments import masked
from backpressure._watch.advice import PRIORITIES, told
from backpressure._watch.tenants import heaviest_sentence
from backpressure.cli._format import ZONE_STYLES, sparkline, style_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from backpressure._model.decision import ThrottleDecision
    from backpressure._model.vocabulary import Priority
    from backpressure._watch.watch import QueueView, Snapshot

__all__ = ["top_view"]

# From this width on there is room for the zones' names and a longer history.
_WIDE = 110
_GAP = 2
_BACKLOG, _AGE = 9, 6
_LEGEND = "G green  Y yellow  R red"


def top_view(snapshot: Snapshot, width: int) -> RenderableType:
    """Return what fits into `width` columns."""
    wide = width >= _WIDE
    history, told = (28, 14) if wide else (10, 9)
    taken = _BACKLOG + history + len(PRIORITIES) * told + _AGE
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    table.add_column("queue", max_width=max(8, width - taken - 6 * _GAP), no_wrap=True)
    table.add_column("backlog", justify="right", width=_BACKLOG)
    table.add_column("history", justify="right", width=history)
    for priority in PRIORITIES:
        table.add_column(str(priority), width=told, no_wrap=True)
    table.add_column("age", justify="right", width=_AGE, no_wrap=True)
    for view in snapshot.queues:
        told_each = (_told(view, priority, wide=wide) for priority in PRIORITIES)
        line = Text(sparkline(view.history[-history:], history), style="cyan")
        table.add_row(Text(masked(view.queue_name)), _backlog(view), line, *told_each, _age(view))
    parts: list[RenderableType] = [_headline(snapshot), Text(), table, Text()]
    for view in snapshot.queues:
        if view.budget is not None and view.budget.problem is None:
            parts += [Text(masked(f"{view.queue_name}: {sentence}")) for sentence in view.budget.sentences()]
    for view in snapshot.queues:
        if sentence := heaviest_sentence(view.tenants):
            parts.append(Text(masked(f"{view.queue_name}: {sentence}")))
    parts += [Text(masked(problem), style="red") for problem in snapshot.problems()]
    parts += [Text(note) for note in snapshot.notes]
    return Group(*parts, _footer(snapshot, wide=wide))


def _headline(snapshot: Snapshot) -> Text:
    line = Text(snapshot.server, style="bold", no_wrap=True, overflow="ellipsis")
    line.append("  statistics ", style="not bold")
    statistics = snapshot.statistics()
    line.append(statistics, style="green" if statistics == "ok" else "bold red")
    return line.append(f"  {snapshot.at:%H:%M:%S} UTC", style="not bold")


def _backlog(view: QueueView) -> Text:
    return Text("–" if view.backlog is None else f"{view.backlog:,}")


def _told(view: QueueView, priority: Priority, *, wide: bool) -> Text:
    if view.budget is None:
        return _cell(view.advice[priority], wide=wide)
    zone = view.budget.zone()
    shown = "–" if zone is None else str(zone) if wide else zone[0].upper()
    style = "" if zone is None else ZONE_STYLES[zone]
    return Text(f"{shown:<{6 if wide else 1}} {view.budget.told(priority)}", style=style)


def _cell(decision: ThrottleDecision, *, wide: bool) -> Text:
    zone = "–" if decision.zone is None else str(decision.zone) if wide else decision.zone[0].upper()
    return Text(f"{zone:<{6 if wide else 1}} {told(decision, 3)}", style=style_of(decision))


def _age(view: QueueView) -> Text:
    seconds = view.sample_age
    if seconds is None:
        return Text("–")
    return Text(f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min", style="red" if view.problem else "")


def _footer(snapshot: Snapshot, *, wide: bool) -> Text:
    parts = [] if wide else [_LEGEND]
    if snapshot.errors:
        failed = ", ".join(f"{name} {count:,}" for name, count in sorted(snapshot.errors.items()))
        parts.append(f"failed reads: {failed}")
    return Text("   ".join(parts), style="dim")
