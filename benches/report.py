"""The results of a run of the benchmarks: tables, targets and curves, as the page RESULTS.md."""

from __future__ import annotations

import math
import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benches.interleave import Timing

PEERS = (
    "cachebox",
    "cachetools",
    "circuitbreaker",
    "interlock-cb",
    "limits",
    "moka-py",
    "prometheus-client",
    "purgatory",
    "pybreaker",
    "throttled-py",
)
# Costs that grow by more than this power of the size are super-linear. Noise alone makes some hundredths.
LINEAR = 1.1


@attrs.frozen
class Target:
    """A figure to reach: at most `limit`, or at least `limit` where `least` is true."""

    what: str
    measured: float
    limit: float
    unit: str
    least: bool
    range: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        verdicts = {self._meets(measured) for measured in (self.measured, *(self.range or ()))}
        unsure = ", not in every process" if len(verdicts) > 1 else ""
        if self._meets(self.measured):
            return f"met{unsure}"
        by = f" by {abs(self.measured / self.limit - 1):.0%}" if self.limit else ""
        return f"**missed**{by}{unsure}"

    def _meets(self, measured: float) -> bool:
        return measured >= self.limit if self.least else measured <= self.limit


@attrs.frozen
class Curve:
    """The total cost of sizes, in seconds; `beside` is the cost of the least possible work, where that grows too."""

    name: str
    seconds: Mapping[int, float]
    beside: Mapping[int, float] | None = None

    @property
    def slope(self) -> float:
        return slope(self.seconds)

    @property
    def linear(self) -> bool:
        return self.slope <= LINEAR * max(1.0, slope(self.beside) if self.beside else 1.0)


def slope(seconds: Mapping[int, float]) -> float:
    """Return the power of the size by which cost grows, over the largest hundredfold: below, fixed costs hide it."""
    sizes = [size for size in seconds if size * 100 >= max(seconds)]
    logs = [math.log(seconds[size]) for size in sizes]
    return statistics.linear_regression([math.log(size) for size in sizes], logs).slope


@attrs.define
class Report:
    """Collects while benchmarks run."""

    began: datetime = attrs.field(factory=lambda: datetime.now(UTC))
    load: tuple[float, float, float] = attrs.field(factory=os.getloadavg)
    sections: list[str] = attrs.field(factory=list)
    targets: list[Target] = attrs.field(factory=list)
    curves: list[Curve] = attrs.field(factory=list)
    timings: dict[str, dict[str, Timing]] = attrs.field(factory=dict)

    def times(self, title: str, timings: dict[str, Timing], *bases: str) -> None:
        """Add a table of medians, and their ratios to each of `bases`."""
        self.timings[title] = timings
        rows = [
            (name, nanoseconds(it.ns), nanoseconds(it.iqr), *(f"{it.ratio_to(timings[base]):,.2f}" for base in bases))
            for name, it in sorted(timings.items(), key=lambda item: item[1].ns)
        ]
        self.table(title, ("", "median", "IQR", *(f"× {base}" for base in bases)), rows)

    def table(self, title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table: a column of words, the others of figures."""
        self.sections.append(f"## {title}\n\n{markdown(head, rows)}")

    def target(self, what: str, measured: float, limit: float, unit: str, *, least: bool = False) -> None:
        """Compare a figure with its target."""
        self.targets.append(Target(what, measured, limit, unit, least))

    def ratio(self, what: str, ours: Timing, to: Timing, limit: float, *, least: bool = False) -> None:
        """Compare a ratio with its target."""
        self.targets.append(Target(what, ours.ratio_to(to), limit, f"× {to.name}", least, ours.range_to(to)))

    def curve(self, name: str, costs: dict[int, float], *, beside: dict[int, float] | None = None) -> None:
        """Add how cost in seconds grows with size."""
        self.curves.append(Curve(name, costs, beside))

    def page(self) -> str:
        """Return everything as Markdown."""
        sections = [f"# Benchmarks\n\nWritten by `make bench`. How it measures: NOTES.md.\n\n{self._machine()}"]
        if self.targets:
            sections.append(f"## Targets\n\n{self._targets()}")
        if self.curves:
            sections.append(f"## Growth\n\n{self._growth()}")
        return "\n\n".join([*sections, *self.sections]) + "\n"

    def _machine(self) -> str:
        release = f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}"
        peers = ", ".join(f"{name} {version(name)}" for name in PEERS)
        load = ", ".join(f"{value:.2f}" for value in self.load)
        return "\n".join(
            (
                f"- {self.began:%Y-%m-%d %H:%M} UTC, {_processor()}, load before {load}",
                f"- {release}, producer-backpressure {version('producer-backpressure')}, redis {version('redis')}",
                f"- {peers}",
            )
        )

    def _targets(self) -> str:
        head = ("", "measured", "by process", "target", "")
        rows = [
            (
                it.what,
                f"{figure(it.measured)} {it.unit}",
                f"{figure(it.range[0])}–{figure(it.range[1])}" if it.range else "",
                f"{'≥' if it.least else '≤'} {figure(it.limit)} {it.unit}",
                it.verdict,
            )
            for it in self.targets
        ]
        return markdown(head, rows)

    def _growth(self) -> str:
        head = ("", "sizes", "slope on log-log axes", "")
        rows = [
            (
                curve.name,
                f"{min(curve.seconds):,} to {max(curve.seconds):,}",
                f"{curve.slope:.2f}" + (f", a dict's {slope(curve.beside):.2f}" if curve.beside else ""),
                "at most linear" if curve.linear else "**super-linear**",
            )
            for curve in self.curves
        ]
        return f"{markdown(head, rows)}\n\n![growth](results.svg)"


def figure(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def nanoseconds(ns: float) -> str:
    """Return a duration in the unit that suits it."""
    for factor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if ns >= factor:
            return f"{figure(ns / factor)} {unit}"
    return f"{ns:.1f} ns"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table that reads well as plain text too: first column left, figures right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, rule)
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in cells)
        + " |"
        for cells in (list(enumerate(zip(line, widths, strict=True))) for line in lines)
    )


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    models = described.read_text().splitlines() if described.exists() else []
    model = next((line.split(":")[1].strip() for line in models if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} × {model}"
