"""What the age law has to hold in a run, and whether it did. The table promises none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from benches.control.real.figures import figures, lost
from benches.control.real.scenario import HEAVY, LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.control.real.figures import Figures
    from benches.control.real.run import Outcome

__all__ = ["Bound", "bounds"]

_WITHIN, _WIPED = 0.10, 0.15
_SETTLED = 30.0
_USED = 0.97
_POINTS = 2.0
_FAIR = 0.95
#: One each tick; as calls of several processes are kept apart by a tenth of a tick, some ticks see two of one.
_COMMANDS = 1.1


@attrs.frozen
class Bound:
    """What had to hold, where, whether it did, and the figure."""

    where: str
    name: str
    met: bool
    figure: str


def bounds(outcome: Outcome) -> list[Bound]:
    """Judge a run of the age law, or the counts of one of the table."""
    missing = lost(outcome)
    counts = Bound(f"{outcome.scenario.name}, {outcome.law}", "no job lost or made", missing == 0, f"{missing} jobs")
    return [counts, *(it for one in figures(outcome) for it in _of(outcome, one) if outcome.law == "age")]


def _of(outcome: Outcome, it: Figures) -> Iterator[Bound]:
    scenario = outcome.scenario
    lane, target, index = scenario.lanes[it.lane], scenario.target, scenario.phases.index(it.phase)
    where = ", ".join(filter(None, (scenario.name, lane.name if len(scenario.lanes) > 1 else "", it.phase.name)))

    def bound(name: str, met: bool, figure: str) -> Bound:
        return Bound(where, name, met, figure)

    if lane.fits:
        yield bound("age at most the target", it.age <= target * (1 + _WITHIN), f"{it.age:.2f} s")
    elif it.phase.fault == "away":
        before = scenario.lanes[it.lane].drains[index - 1]
        yield bound(
            "admitted at most the drain before", it.admitted <= before, f"{it.admitted:.1f} of {before:g} a second"
        )
    elif it.phase.fault in {"flush", "delete"}:
        yield bound("age within 15 % throughout", it.farthest <= _WIPED, f"{100 * it.farthest:.1f} % off at most")
    else:
        yield bound("age at rest within 10 %", abs(it.age - target) <= _WITHIN * target, f"{it.age:.2f} s")
    if not lane.fits:
        yield bound("drain used at least 97 %", it.used >= _USED, f"{100 * it.used:.1f} %")
    if index and it.drain != lane.drains[index - 1]:
        yield bound("step absorbed in 30 s", it.settled <= _SETTLED / scenario.scale, f"{it.settled:.0f} s")
    if any(it.needed) or lane.fits:
        far = max(abs(no - must) for no, must in zip(it.shed, it.needed, strict=True))
        yield bound("sheds within 2 points of what is needed", far <= _POINTS, f"{far:.1f} points off at most")
        yield bound("sheds strictly by priority", _is_strict(it), " / ".join(f"{no:.1f} %" for no in it.shed))
    for who, index_of_jain in it.fairness.items():
        yield bound(f"{who} alike", index_of_jain >= _FAIR, f"Jain {index_of_jain:.3f}")
    if it.heavier is not None:
        met = abs(it.heavier - HEAVY) <= _WITHIN * HEAVY
        yield bound(f"weight {HEAVY} tells within 10 %", met, f"{it.heavier:.2f} times as much")
    if it.commands is not None:
        yield bound("one command a process and tick", it.commands <= _COMMANDS, f"{it.commands:.2f}")


def _is_strict(it: Figures) -> bool:
    """Tell whether each priority lost jobs only where those below it lost all that they may lose."""
    full = [100 * (1 - part) for part in (0, 0, 0.005)]
    return all(
        it.shed[above] <= _POINTS or it.shed[below] >= full[below] - _POINTS
        for above in range(len(LEVELS))
        for below in range(above + 1, len(LEVELS))
    )
