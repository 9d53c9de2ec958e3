"""Simulate the age law and print a table: `python -m benches.control cold steps`; without names, every group.

`--most 100000` adds fleets of that size, `--only` chooses rows by a part of their name, `--seeds 3` repeats each with
other chance. The picture goes to target/control.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benches.control import picture
from benches.control.figures import figures
from benches.control.scenarios import GROUPS
from benches.control.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.control.figures import Figures
    from benches.control.scenario import Scenario

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = (
    "scenario",
    "age at rest, s",
    "peak, s of work",
    "settled, s",
    "used, %",
    "worst, s",
    "calls/s",
    "shed (needed), %",
    "in/s",
    "Jain",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.control", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    parser.add_argument("--most", type=int, default=10_000, help="leave out larger fleets (10000)")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="so many runs of each row")
    parser.add_argument("--picture", type=Path, default=ROOT / "target" / "control.png")
    asked = parser.parse_args()
    if unknown := set(asked.groups) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; choose from {', '.join(GROUPS)}")
    drawn: dict[str, list[Simulation]] = {}
    for group in asked.groups or GROUPS:
        scenarios = [it for it in GROUPS[group]() if it.processes <= asked.most + 1 and asked.only in it.name]
        if not scenarios:
            continue
        print(f"\n## {group}: {GROUPS[group].__doc__}\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
        for scenario in scenarios:
            for seed in range(asked.seed, asked.seed + asked.seeds):
                run = Simulation(scenario, seed).run(progress(scenario))
                show(run, seed if asked.seeds > 1 else None)
                drawn.setdefault(group, []).append(run)
    if drawn:
        asked.picture.parent.mkdir(parents=True, exist_ok=True)
        picture.draw(drawn, asked.picture)
        print(f"\n{asked.picture}")


def show(run: Simulation, seed: int | None) -> None:
    """Print a row for each phase."""
    for phase in run.scenario.phases:
        words = [run.scenario.name, phase.name, "" if seed is None else f"seed {seed}"]
        print(f"| {' | '.join([', '.join(filter(None, words)), *cells(figures(run, phase))])} |", flush=True)


def cells(it: Figures) -> list[str]:
    shed = "; ".join(f"{no:.1f} ({need:.1f})" for no, need in zip(it.shed, it.needed, strict=True) if no or need > 0.05)
    return [
        f"{it.age:.2f} ± {it.spread:.2f}",
        f"{it.peak:.1f}",
        f"{it.settled:.0f}",
        f"{it.used:.0f}",
        f"{it.worst:.1f}",
        f"{it.calls:.0f} (most {it.most_calls})",
        shed,
        f"{it.admitted:.0f}",
        f"{it.fairness:.3f}" if it.fairness else "",
    ]


def progress(scenario: Scenario) -> Callable[[float], None] | None:
    """Return what tells how far a run is, on a terminal, a few times a second."""
    if not sys.stderr.isatty():
        return None
    shown_at = 0.0

    def tell(at: float) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if at >= scenario.seconds - 1:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        elif now - shown_at > 0.2:
            shown_at = now
            print(f"\r\033[K{scenario.name}: {at:.0f} of {scenario.seconds:.0f} s", end="", file=sys.stderr, flush=True)

    return tell


if __name__ == "__main__":
    main()
