"""The picture of a table of runs: how old jobs became over time, a panel for each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benches.control.simulation import Simulation

__all__ = ["draw"]

# Okabe and Ito's colours, which people of any colour vision can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#555555"


def draw(groups: Mapping[str, Sequence[Simulation]], path: Path) -> None:
    """Write the picture; its kind follows from the name's ending."""
    # Without pyplot, which would look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2 * len(groups)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("How long jobs waited that were taken in each second, and the target", fontweight="bold")
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, (group, runs) in zip(panels, groups.items(), strict=True):
        for number, run in enumerate(runs):
            axes.plot(
                [second.at for second in run.seconds],
                [second.waited / run.scenario.target for second in run.seconds],
                color=_COLOURS[number % len(_COLOURS)],
                linestyle=("-", "--", ":", "-.")[number // len(_COLOURS) % 4],
                linewidth=1.2,
                label=run.scenario.name,
            )
        axes.axhline(1, color=_GREY, linewidth=0.9, linestyle=":")
        axes.set_title(group, loc="left", fontsize=11)
        axes.set_ylabel("targets")
        axes.set_ylim(0, 3)
        axes.set_xlabel("seconds")
        axes.grid(visible=True, axis="y", color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if len(runs) <= 16:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    figure.savefig(path)
