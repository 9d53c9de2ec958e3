"""Draw docs/pictures/delay.svg: the delay that the engine advises over the backlog, for the three priorities.

Run it after a change of the law or of its defaults; a test notices when the picture is not what this draws.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from backpressure import HIGH, LOW, MEDIUM, BackpressureConfig, BackpressureController, InMemoryStatsProvider, Priority
from backpressure.testing import ManualClock

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "delay.svg"
# Okabe and Ito's colours, which people of any colour vision can tell apart.
COLOURS = {HIGH: "#0072B2", MEDIUM: "#006B4F", LOW: "#B14A00"}
ZONES = {"green": "#DDF0DD", "yellow": "#FFF3C4", "red": "#FBDAD3"}
WIDEST = 11_000
STEP = 50


def advice(priority: Priority) -> tuple[list[tuple[int, float]], int | None]:
    """Return (backlog, delay in seconds) until jobs are shed, and the backlog above which they are."""
    points: list[tuple[int, float]] = []
    provider = InMemoryStatsProvider()
    with BackpressureController(None, provider, clock=ManualClock()) as controller:
        for backlog in range(0, WIDEST + 1, STEP):
            provider.set("queue", backlog)
            controller.refresh("queue")
            decision = controller.suggest_throttle(priority, "queue")
            if decision.should_shed:
                return points, points[-1][0]
            points.append((backlog, decision.delay))
    return points, None


def draw_priority(panel: Axes, priority: Priority) -> None:
    """Draw one priority's delay over its zones."""
    window = BackpressureConfig().thresholds.window(priority)
    edges = (0, window.green_max, window.yellow_max, WIDEST)
    for colour, left, right in zip(ZONES.values(), edges, edges[1:], strict=False):
        panel.axvspan(left, right, color=colour, linewidth=0)
    points, shed_beyond = advice(priority)
    panel.plot(*zip(*points, strict=True), color=COLOURS[priority], linewidth=2.5)
    if shed_beyond is None:
        panel.annotate(f"{points[-1][1]:g} s", (WIDEST, points[-1][1]), (-6, 5), textcoords="offset points", ha="right")
    else:
        panel.axvspan(shed_beyond, WIDEST, facecolor="none", edgecolor="#D9988B", hatch="//", linewidth=0)
        panel.annotate("shed", ((shed_beyond + WIDEST) / 2, 3.5), ha="center", va="center", fontsize=14)
    panel.set_title(f"{priority}".upper(), loc="left", fontweight="bold", color=COLOURS[priority])
    panel.set_ylabel("delay, s")
    panel.spines[["top", "right"]].set_visible(False)


def draw() -> Figure:
    """Return the figure: one panel per priority."""
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(3, 1, sharex=True, sharey=True)
    for panel, priority in zip(panels, (HIGH, MEDIUM, LOW), strict=True):
        draw_priority(panel, priority)
    panels[0].set(xlim=(0, WIDEST), ylim=(0, 7))
    panels[-1].set_xlabel("backlog, waiting jobs")
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    return figure


def main() -> None:
    """Write the picture to the path given, or to its place."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    # With these settings the same picture is the same file.
    with mpl.rc_context({"svg.hashsalt": "backpressure", "font.size": 11}):
        draw().savefig(target, bbox_inches="tight", pad_inches=0.2, metadata={"Date": None, "Creator": None})
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
