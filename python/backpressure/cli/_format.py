"""How all commands show numbers, zones and advice, for people and for scripts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.console import Console

from backpressure._model.units import duration
from backpressure._model.vocabulary import Zone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backpressure._model.decision import ThrottleDecision

__all__ = [
    "ZONE_STYLES",
    "new_console",
    "span",
    "sparkline",
    "style_of",
]

ZONE_STYLES = {Zone.GREEN: "green", Zone.YELLOW: "yellow", Zone.RED: "red"}
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_WIDTH = 120
_SPANS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def new_console(*, stderr: bool = False) -> Console:
    """Return a console that is wide enough also without a terminal, which would tell its width."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=_PLAIN_WIDTH)


def style_of(decision: ThrottleDecision) -> str:
    """Return the style of a decision's zone."""
    return "" if decision.zone is None else ZONE_STYLES[decision.zone]


def span(seconds: float) -> str:
    """Return a time in the two largest of its units: ``"7 d"``, ``"1 h 5 min"``, ``"2 min 8 s"``, ``"250 ms"``."""
    for size, unit, smaller, small in _SPANS:
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole} {unit}" + (f" {rest // smaller} {small}" if rest >= smaller else "")
    return duration(seconds, 2)


def sparkline(values: Sequence[int | None], width: int) -> str:
    """Draw `values` as at most `width` bars, scaled to the largest; an unknown value is a gap.

    Where there are more values than bars, a bar stands for the largest of its share.
    """
    top = max((value for value in values if value is not None), default=0)
    bars = min(width, len(values))
    line = ""
    for index in range(bars):
        share = values[index * len(values) // bars : (index + 1) * len(values) // bars]
        height = max((value for value in share if value is not None), default=None)
        line += " " if height is None else _BARS[height * (len(_BARS) - 1) // max(top, 1)]
    return line
