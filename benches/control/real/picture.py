"""The picture of real runs: how long jobs waited over time, both laws in one panel for each scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.control.real.figures import ages
from benches.control.real.scenario import LAWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benches.control.real.run import Outcome
    from benches.control.real.scenario import Scenario
    from matplotlib.axes import Axes

__all__ = ["draw"]

# Okabe and Ito's colours, which people of any colour vision can tell apart; the dashes help where queues are several.
_COLOURS = {"table": "#D55E00", "age": "#0072B2"}
_DASHES = ("-", "--", ":")
_GREY = "#555555"
_MOST_TARGETS = 8


def draw(runs: Sequence[Mapping[str, Outcome]], path: Path) -> None:
    """Write the picture; its kind follows from the name's ending. The same bytes for the same runs."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if len(runs) > 1 else 1
    rows = -(-len(runs) // columns)
    with mpl.rc_context({"svg.hashsalt": "backpressure", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7 * columns, 2.6 * rows + 0.8), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle("How long jobs had waited that workers took, in seconds", fontweight="bold")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, run in zip(panels, runs, strict=False):
            _panel(axes, run)
        for axes in panels[len(runs) :]:
            axes.set_axis_off()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axes: Axes, run: Mapping[str, Outcome]) -> None:
    scenario, most = run[LAWS[0]].scenario, 0.0
    for law in LAWS:
        for lane, it in enumerate(scenario.lanes):
            waited = ages(run[law], lane)
            label = f"{law} law{f', {it.name}' if len(scenario.lanes) > 1 else ''}"
            axes.plot(
                list(waited),
                list(waited.values()),
                color=_COLOURS[law],
                linestyle=_DASHES[lane],
                linewidth=1.5,
                label=label,
            )
            most = max(most, *waited.values(), 0.0)
    target = scenario.target
    axes.axhspan(0.9 * target, 1.1 * target, color=_COLOURS["age"], alpha=0.15, linewidth=0)
    axes.set_ylim(0, min(max(1.35 * most, 2 * target), _MOST_TARGETS * target))
    axes.set_xlim(0, scenario.seconds)
    _mark(axes, scenario)
    axes.set_title(scenario.title, loc="left", fontsize=10)
    axes.grid(visible=True, axis="y", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", fontsize=7, frameon=False, ncols=2)


def _mark(axes: Axes, scenario: Scenario) -> None:
    for phase, begin, _ in scenario.spans():
        if begin:
            axes.axvline(begin, color=_GREY, linewidth=0.8, linestyle=":")
        if phase.name:
            axes.annotate(
                phase.name, (begin, 1), xycoords=("data", "axes fraction"), xytext=(3, -24), textcoords="offset points",
                fontsize=7, color=_GREY,
            )  # fmt: skip
