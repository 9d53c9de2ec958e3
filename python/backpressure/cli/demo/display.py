"""How the demo shows a run: a live panel on a terminal, a line a second elsewhere."""

from __future__ import annotations

import collections
import contextlib
from typing import TYPE_CHECKING, Protocol

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from backpressure.cli._format import ZONE_STYLES, sparkline
from backpressure.cli.demo.result import PRIORITIES, Counts
from backpressure.cli.demo.run import RUNS, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rich.console import Console, RenderableType

    from backpressure.cli.demo.run import Advice, Snapshot

__all__ = ["Display", "LiveDisplay", "PlainDisplay", "display_for"]

_SPARK_WIDTH = 48
_NEWS_SHOWN = 4
_FRAMES_A_SECOND = 8
_CIRCUIT_STYLES = {"closed": "green", "half-open": "yellow", "open": "bold red"}


def title(name: str) -> str:
    """Return a run's headline."""
    return f"run {list(RUNS).index(name) + 1} of {len(RUNS)}: {RUNS[name]}"


def _delay(advice: Advice) -> str:
    if advice.shed:
        return "shed"
    return f"{advice.delay * 1e3:.0f} ms" if advice.delay < 1 else f"{advice.delay:.1f} s"


def _jobs(backlog: int | None) -> str:
    return "no answer" if backlog is None else f"{backlog:,}"


class Display(Protocol):
    """Shows runs. `news` may be called from any thread, the rest by one."""

    def run(self, name: str) -> AbstractContextManager[None]:
        """Return a context; inside, the run of that name is shown."""
        ...

    def update(self, snapshot: Snapshot | Comparison) -> None:
        """Show the state of the run."""
        ...

    def news(self, text: str) -> None:
        """Report an event."""
        ...


def display_for(console: Console) -> Display:
    """Return the display that fits where `console` writes to."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(console)


class PlainDisplay:
    """A line a second, and one for each event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0
        self._name = ""

    @contextlib.contextmanager
    def run(self, name: str) -> Iterator[None]:
        """See `Display.run`."""
        self._next, self._name = 0.0, name
        self._say(title(name))
        yield

    def update(self, snapshot: Snapshot | Comparison) -> None:
        """See `Display.update`."""
        if snapshot.elapsed < self._next:
            return
        self._next = int(snapshot.elapsed) + 1.0
        parts = _compared(snapshot) if isinstance(snapshot, Comparison) else _told(snapshot)
        self._say(f"{self._name:>7} {snapshot.elapsed:4.0f} s  " + " | ".join(parts))

    def news(self, text: str) -> None:
        """See `Display.news`."""
        self._say(f"{self._name:>7}         {text}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _told(snapshot: Snapshot) -> list[str]:
    total = sum(snapshot.counts.values(), Counts())
    parts = [f"backlog {_jobs(snapshot.backlog)}", f"enqueued {total.enqueued:,}", f"drained {snapshot.drained:,}"]
    if snapshot.advice is not None:
        told = snapshot.advice.items()
        parts.append("delay " + ", ".join(f"{priority} {_delay(advice)}" for priority, advice in told))
        parts += [f"shed {total.shed:,}", f"blocked {total.blocked:,}", f"circuit {snapshot.circuit}"]
    return parts


def _compared(shown: Comparison) -> list[str]:
    waits = [f"{law}: jobs waited {_waited(shown, law)}, backlog {_jobs(shown.backlogs[law])}" for law in shown.waits]
    return [*waits, f"workers take {shown.drain:,.0f} a second"]


def _waited(shown: Comparison, law: str) -> str:
    waits = shown.waits[law]
    return f"{waits[-1]:.1f} s" if waits else "–"


class LiveDisplay:
    """A panel that is redrawn in place; its last state stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._news: collections.deque[str] = collections.deque(maxlen=_NEWS_SHOWN)
        self._elapsed = 0.0

    @contextlib.contextmanager
    def run(self, name: str) -> Iterator[None]:
        """See `Display.run`."""
        self._news.clear()
        self._elapsed = 0.0
        with Live(
            Panel("starting", title=title(name), title_align="left"),
            console=self._console,
            refresh_per_second=_FRAMES_A_SECOND,
        ) as self._live:
            yield
        self._live = None

    def update(self, snapshot: Snapshot | Comparison) -> None:
        """See `Display.update`."""
        self._elapsed = snapshot.elapsed
        if self._live is not None:
            self._live.update(self._panel(snapshot))

    def news(self, text: str) -> None:
        """See `Display.news`."""
        self._news.append(f"{self._elapsed:4.1f} s  {text}")

    def _panel(self, snapshot: Snapshot | Comparison) -> Panel:
        parts: list[RenderableType]
        if isinstance(snapshot, Comparison):
            parts = [_waits_table(snapshot), "", Text(f"workers take {snapshot.drain:,.0f} jobs a second")]
        else:
            parts = [_backlog_line(snapshot), "", _priority_table(snapshot), "", _state_line(snapshot)]
        parts += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in self._news.copy()]
        parts += ["", _progress(snapshot)]
        return Panel(Group(*parts), title=title(snapshot.name), title_align="left")


def _backlog_line(snapshot: Snapshot) -> Text:
    line = Text("backlog ", no_wrap=True)
    style = "bold red" if snapshot.backlog is None else "bold"
    line.append(f"{_jobs(snapshot.backlog):>9}  ", style=style)
    line.append(sparkline(snapshot.history, _SPARK_WIDTH), style="cyan")
    return line


def _priority_table(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("priority")
    table.add_column("zone", min_width=6)
    for heading in ("delay", "offered", "enqueued", "shed", "blocked", "failed"):
        table.add_column(heading, justify="right", min_width=8)
    for priority in PRIORITIES:
        counts = snapshot.counts[priority]
        zone, delay = Text("–"), Text("–")
        if snapshot.advice is not None:
            advice = snapshot.advice[priority]
            style = ZONE_STYLES[advice.zone]
            zone, delay = Text(str(advice.zone), style=style), Text(_delay(advice), style=style)
        numbers = (counts.offered, counts.enqueued, counts.shed, counts.blocked, counts.failed)
        table.add_row(str(priority), zone, delay, *(f"{number:,}" for number in numbers))
    return table


def _state_line(snapshot: Snapshot) -> Text:
    line = Text("circuit ")
    if snapshot.circuit is None:
        line.append("none")
    else:
        line.append(snapshot.circuit, style=_CIRCUIT_STYLES[snapshot.circuit])
    return line.append(f"   drained by workers {snapshot.drained:,}")


def _waits_table(shown: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("law")
    for heading in ("jobs waited", "backlog", "enqueued", "shed"):
        table.add_column(heading, justify="right", min_width=8)
    table.add_column(f"to wait {shown.target:g} s by age")
    highest = max((waited for waits in shown.waits.values() for waited in waits), default=0.0)
    for law, waits in shown.waits.items():
        counts, last = shown.counts[law], waits[-1] if waits else 0.0
        style = "green" if last <= 1.5 * shown.target else "yellow" if last <= 3 * shown.target else "bold red"
        # With the highest of both as the first point, so that the lines have one scale, and that point cut off.
        line = sparkline([round(1_000 * highest), *(round(1_000 * waited) for waited in waits)], _SPARK_WIDTH + 1)[1:]
        numbers = (_jobs(shown.backlogs[law]), f"{counts.enqueued:,}", f"{counts.shed:,}")
        table.add_row(law, Text(_waited(shown, law), style=style), *numbers, Text(line, style="cyan"))
    return table


def _progress(snapshot: Snapshot | Comparison) -> Table:
    row = Table.grid(padding=(0, 1))
    left = max(0.0, snapshot.seconds - snapshot.elapsed)
    row.add_row(
        ProgressBar(total=snapshot.seconds, completed=snapshot.elapsed, width=_SPARK_WIDTH), f"{left:3.0f} s left"
    )
    return row
