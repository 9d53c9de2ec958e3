"""The picture of a report: what calls cost beside those of peers, and how costs grow, both on logarithmic axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from benches.report import nanoseconds, slope
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benches.interleave import Timing
    from benches.report import Curve, Report
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which people of any colour vision can tell apart; the markers help in print.
OURS, PURE, PEERS = "#0072B2", "#56B4E9", "#999999"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")
MARKERS = "osD^vPX"


def draw(report: Report, path: Path) -> None:
    """Write the picture to `path`, the same bytes for the same report."""
    bars = [title for title in report.timings if title.startswith(("A decision that lies ready", "run of"))]
    heights = [len(report.timings[title]) for title in bars]
    with mpl.rc_context({"svg.hashsalt": "backpressure", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(14, 0.32 * sum(heights) + 1.5), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False).flat
        for axes, title in zip(
            left.subplots(len(bars), 1, sharex=True, squeeze=False, height_ratios=heights).flat, bars, strict=True
        ):
            _bars(axes, title, report.timings[title])
        axes.set_xlabel("nanoseconds a call")
        _curves(right.subplots(), report.curves)
        FigureCanvasSVG(figure)
        figure.savefig(path, metadata={"Date": None})


def _bars(axes: Axes, title: str, timings: Mapping[str, Timing]) -> None:
    shown = sorted(timings.values(), key=lambda it: -it.ns)
    colours = [{"native": OURS, "pure": PURE}.get(it.name.split()[0], PEERS) for it in shown]
    drawn = axes.barh([it.name for it in shown], [it.ns for it in shown], color=colours)
    axes.bar_label(drawn, [nanoseconds(it.ns) for it in shown], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, curves: list[Curve]) -> None:
    for curve, colour, marker in zip(curves, COLOURS, MARKERS, strict=False):
        label = f"{curve.name} (slope {curve.slope:.2f})"
        axes.plot(*zip(*curve.seconds.items(), strict=True), color=colour, marker=marker, label=label)
        if curve.beside:
            label = f"the same of a dict (slope {slope(curve.beside):.2f})"
            axes.plot(*zip(*curve.beside.items(), strict=True), color=colour, linestyle="--", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("how many")
    axes.set_ylabel("seconds in all")
    axes.set_title("Growth: a slope of 1 is linear", loc="left", fontsize=10)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
