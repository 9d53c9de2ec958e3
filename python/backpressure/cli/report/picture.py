"""Backlogs over time as a picture, SVG: one line for each, gaps where nothing is known, thresholds across."""

from __future__ import annotations

import html
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backpressure.cli.report.known import Trail

__all__ = ["Bound", "Line", "picture"]

_WIDTH, _HEIGHT = 960, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 216, 12, 28
#: Lines of text that may lie above each other.
_APART = 15
#: Between two labels of the time; as many as there is room for.
_TICKS = (
    *(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30)),
    *(timedelta(hours=hours) for hours in (1, 3, 6, 12, 24, 48, 168)),
)
_MOST_TICKS = 9


class Line(NamedTuple):
    """One backlog over time; `style` is a class of the page's style sheet."""

    style: str
    trail: Trail


class Bound(NamedTuple):
    """A backlog from which something changes."""

    backlog: int
    told: str


def picture(lines: Sequence[Line], bounds: Sequence[Bound], began_ms: int, stretch_ms: float, label: str) -> str:
    """Return an ``svg`` element. The upright axis is logarithmic: thresholds are low, and peaks are high."""
    highest = max([1, *(value or 0 for line in lines for value in line.trail), *(it.backlog for it in bounds)])
    stretches = max(1, *(len(line.trail) for line in lines))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(label)}">',
        *_heights(highest),
        *_times(began_ms, stretch_ms * stretches),
        *_bounds(bounds, highest),
        *(
            f'<path class="{line.style}" d="{path}"/>'
            for line in lines
            if (path := "".join(_path(line.trail, stretches, highest)))
        ),
        "</svg>",
    ]
    return "".join(parts)


def _across(part: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * part, 1)


def _up(backlog: float, highest: int) -> float:
    part = math.log1p(backlog) / math.log1p(highest)
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * part, 1)


def _path(trail: Trail, stretches: int, highest: int) -> Iterator[str]:
    """Draw a stretch as a level line, so that even a single one between two gaps is seen."""
    before: int | None = None
    for place, value in enumerate(trail):
        if value is not None:
            x, then, y = _across(place / stretches), _across((place + 1) / stretches), _up(value, highest)
            yield f"M{x:g} {y:g}H{then:g}" if before is None else f"V{y:g}H{then:g}"
        before = value


def _heights(highest: int) -> Iterator[str]:
    values = [0, *(10**power for power in range(len(str(highest))))]
    for value in values:
        y = _up(value, highest)
        yield f'<path class="grid" d="M{_LEFT} {y:g}H{_WIDTH - _RIGHT}"/>'
        if value != 1:  # too near to 0
            yield f'<text x="{_LEFT - 8}" y="{y + 4:g}" class="end">{value:,}</text>'


def _times(began_ms: int, span_ms: float) -> Iterator[str]:
    began = datetime.fromtimestamp(began_ms / 1_000, UTC)
    span = timedelta(milliseconds=max(1.0, span_ms))
    step = next((it for it in _TICKS if span / it <= _MOST_TICKS), timedelta(days=math.ceil(span.days / _MOST_TICKS)))
    midnight = began.replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + math.ceil((began - midnight) / step) * step
    while at <= began + span:
        x = _across((at - began) / span)
        told = f"{at:%a} {at.day}" if step >= timedelta(days=1) else f"{at:%H:%M}"
        yield f'<path class="grid" d="M{x:g} {_TOP}V{_HEIGHT - _BOTTOM + 4}"/>'
        yield f'<text x="{x + 3:g}" y="{_HEIGHT - 10}">{told}</text>'
        at += step


def _bounds(bounds: Sequence[Bound], highest: int) -> Iterator[str]:
    """Draw bounds, and what they mean beside them, apart from one another."""
    lowest = float(_HEIGHT)
    for bound in sorted(bounds):
        y = _up(bound.backlog, highest)
        lowest = min(y + 4, lowest - _APART)
        yield f'<path class="bound" d="M{_LEFT} {y:g}H{_WIDTH - _RIGHT + 4}"/>'
        yield f'<text x="{_WIDTH - _RIGHT + 8}" y="{lowest:g}" class="bound">{html.escape(bound.told)}</text>'
