"""The demo's picture: backlog over time of the first three runs, and how long jobs waited by either law in the last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backpressure._engine.laws.three_zone import ThreeZoneLaw
from backpressure._model.config.root import BackpressureConfig
from backpressure.cli.demo.workload import DRAIN_RATE, SLOWED_TO, offered_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from backpressure.cli.demo.result import RunResult

__all__ = ["draw", "open_spans"]

# Okabe and Ito's colours, which people of any colour vision can tell apart; the dashes help in print.
_STYLES = {
    "without": {"color": "#D55E00", "linestyle": "-", "label": "without backpressure"},
    "with": {"color": "#0072B2", "linestyle": "-", "label": "with backpressure"},
    "outage": {"color": "#009E73", "linestyle": (0, (4, 1.5)), "label": "with backpressure and an outage"},
    "table": {"color": "#D55E00", "linestyle": (0, (4, 1.5)), "label": "by the table of zones"},
    "age": {"color": "#0072B2", "linestyle": "-", "label": "with an age that is held"},
}
_GREY = "#555555"
_AWAY, _OPEN = "#BBBBBB", "#CC79A7"


def draw(results: Mapping[str, RunResult], folder: Path) -> Path:
    """Write ``backlog.png`` into `folder` and return its path.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
        OSError: the file cannot be written.
    """
    # Without pyplot, which would look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, and slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

    backlogs, waits = "outage" in results, "age" in results
    heights = [1, 1.25] * backlogs + [1] * waits
    figure = Figure(figsize=(10, 3.3 * sum(heights)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights).flat)
    figure.suptitle(
        f"One Redis list: up to {offered_rate():,.0f} jobs a second offered, {DRAIN_RATE:,} drained",
        fontsize=14,
        fontweight="bold",
    )
    if backlogs:
        panels[0].sharex(panels[1])
        _draw_all(panels[0], results)
        _draw_protected(panels[1], results)
    if waits:
        _draw_waits(panels[-1], results)
    path = folder / "backlog.png"
    figure.savefig(path)
    return path


def open_spans(run: RunResult) -> Iterator[tuple[float, float]]:
    """Yield from when to when the circuit was not closed, in seconds into the run."""
    began: float | None = None
    for transition in run.transitions:
        if transition.new == "closed":
            if began is not None:
                yield began, transition.at
            began = None
        elif began is None:
            began = transition.at
    if began is not None:
        yield began, run.seconds


def _plot(axes: Axes, run: RunResult) -> None:
    times = [at for at, _ in run.samples]
    # Not a number where the server did not answer: the line has a gap there.
    counts = [math.nan if count is None else count for _, count in run.samples]
    axes.plot(times, counts, linewidth=2, **_STYLES[run.name])  # type: ignore[arg-type]  # a dict of mixed values


def _finish(axes: Axes) -> None:
    axes.set_ylabel("jobs waiting")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=True, axis="y", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_all(axes: Axes, results: Mapping[str, RunResult]) -> None:
    for name in ("without", "with", "outage"):
        _plot(axes, results[name])
    axes.set_title("Backlog without and with backpressure", loc="left", fontsize=11)
    axes.legend(loc="upper left", frameon=False)
    _finish(axes)


def _draw_protected(axes: Axes, results: Mapping[str, RunResult]) -> None:
    outage = results["outage"]
    if outage.away is not None:
        axes.axvspan(*outage.away, color=_AWAY, alpha=0.45, linewidth=0, label="outage: server away")
    for index, span in enumerate(open_spans(outage)):
        label = "outage: circuit not closed" if index == 0 else None
        # A strip along the lower edge, hatched, so that it differs from the shade above also without colour.
        axes.axvspan(*span, ymax=0.05, facecolor=_OPEN, edgecolor="white", hatch="////", linewidth=0, label=label)
    for run in (results["with"], outage):
        _plot(axes, run)
    _draw_limits(axes, max(results["with"].peak_backlog, outage.peak_backlog))
    axes.set_title(
        "The two runs with backpressure, enlarged, and the limits above which the default law acts",
        loc="left",
        fontsize=11,
    )
    axes.set_xlabel("seconds into the run")
    axes.set_xlim(0, outage.seconds)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False)
    _finish(axes)


def _draw_waits(axes: Axes, results: Mapping[str, RunResult]) -> None:
    target, seconds = results["age"].target or 0.0, results["age"].seconds
    for name in ("table", "age"):
        run = results[name]
        axes.plot(*zip(*run.waits, strict=True) if run.waits else ([], []), linewidth=2, **_STYLES[name])  # type: ignore[arg-type]  # a dict of mixed values
    axes.axhline(target, color=_GREY, linewidth=0.9, linestyle=":")
    axes.axvline(seconds / 2, color=_GREY, linewidth=0.9)
    _note(axes, f"workers slow down to {DRAIN_RATE * SLOWED_TO:,.0f}", (seconds / 2, 1), "data", "axes fraction", -10)
    _note(axes, f"{target:g} s: age to hold", (1, target), "axes fraction", "data", -3)
    axes.set_title("How long jobs had waited that workers took, by either law", loc="left", fontsize=11)
    axes.set_xlabel("seconds into the run")
    axes.set_xlim(0, seconds)
    axes.legend(loc="upper left", frameon=False)
    _finish(axes)
    axes.set_ylabel("seconds")
    axes.yaxis.set_major_formatter("{x:g}")


def _draw_limits(axes: Axes, peak: int) -> None:
    config = BackpressureConfig()
    high, medium, low = (
        config.thresholds.high_priority,
        config.thresholds.medium_priority,
        config.thresholds.low_priority,
    )
    shed = ThreeZoneLaw.of(config.thresholds, config.curve).shed_limit()
    limits = {
        low.green_max: "low slowed",
        low.yellow_max: "low in red",
        shed: "low shed",
    }
    # Equal limits share a line.
    for limit, text in ((medium.green_max, "medium slowed"), (high.green_max, "high slowed")):
        limits[limit] = f"{limits[limit]},\n{text}" if limit in limits else text
    top = max(peak * 1.15, high.green_max * 1.15)
    axes.set_ylim(0, top)
    for limit, text in limits.items():
        axes.axhline(limit, color=_GREY, linewidth=0.9, linestyle=":")
        _note(axes, f"{limit:,}: {text}", (1, limit), "axes fraction", "data", va="center")


def _note(
    axes: Axes, text: str, at: tuple[float, float], across: str, up: str, shift: int = 0, va: str = "baseline"
) -> None:
    """Write a small text to the right of a point, whose parts are measured as `across` and `up` say."""
    axes.annotate(
        text, at, xycoords=(across, up), xytext=(4, shift), textcoords="offset points", va=va, fontsize=9, color=_GREY
    )
