"""Compare the simulated law with a measured reference, over seeds: `python -m benches.control.compare cold jump`.

The reference's figures lie in reference.jsonl: the same scenarios in the simulator of the law's specification. Those of
the law as it ships are kept in ours.jsonl and replaced row by row; benches/SIMULATED.md is the table of both. Without
names, every group; `--table` runs nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from benches.control.figures import figures
from benches.control.scenarios import GROUPS
from benches.control.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benches.control.figures import Figures
    from benches.control.scenario import Scenario

__all__ = ["OURS", "REFERENCE", "TABLE", "Row", "Rows", "Spread", "dump", "load", "render", "spread", "worse"]

HERE = Path(__file__).resolve().parent
REFERENCE, OURS, TABLE = HERE / "reference.jsonl", HERE / "ours.jsonl", HERE.parent / "SIMULATED.md"

#: Least, median and most of the seeds; ``None``: never, of `settled`.
Spread = list["float | None"]
#: Of one phase of a scenario: how many seeds, and figures by name.
Row = dict[str, "int | Spread"]
#: By group, scenario and phase.
Rows = dict["tuple[str, str, str]", Row]

_SHOWN = {"peak": 1, "age": 2, "settled": 0, "used": 1, "calls": 0}
_HEAD = """# The simulated law and its reference

Written by `python -m benches.control.compare`: least–median–most over seeds. *Ours* is the law as it ships, script and
leases, in the simulator of `benches/control/`. *Reference* is the measured reference, in the simulator of the law's
specification: other programs, so that the same seed is other chance.

*Peak*: largest backlog, in seconds of work. *Age*: how long jobs waited at rest, in seconds; 5 is the target, unless
the scenario names another. *Settled*: seconds until the backlog stays within a tenth of the target; ∞: not before the
end. *Used*: per cent of what the workers could do from second 10 to 60. *Calls* of the store a second, from second 12
on. *Worse* names what is worse than noise: our median is further off than the reference's worst seed, by more than a
twentieth of the target.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.control.compare", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    parser.add_argument("--most", type=int, default=10_000, help="leave out larger fleets (10000)")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--seeds", type=int, default=5, help="so many runs of each row (5)")
    parser.add_argument("--table", action="store_true", help="run nothing")
    asked = parser.parse_args()
    if unknown := set(asked.groups) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; choose from {', '.join(GROUPS)}")
    reference, ours = load(REFERENCE), load(OURS)
    for group in () if asked.table else asked.groups or GROUPS:
        for scenario in GROUPS[group]():
            known = (group, scenario.name, scenario.phases[0].name) in reference
            if not known or scenario.processes > asked.most + 1 or asked.only not in scenario.name:
                continue
            print(f"{group}: {scenario.name}", flush=True)
            runs = [Simulation(scenario, seed).run() for seed in range(1, asked.seeds + 1)]
            for phase in scenario.phases:
                ours[group, scenario.name, phase.name] = spread([figures(run, phase) for run in runs])
            OURS.write_text(dump(ours), "utf-8")
    TABLE.write_text(render(reference, ours), "utf-8")
    print(TABLE)


def load(path: Path) -> Rows:
    lines = map(json.loads, path.read_text("utf-8").splitlines())
    return {(line.pop("group"), line.pop("scenario"), line.pop("phase")): line for line in lines}


def dump(rows: Rows) -> str:
    """Return the rows, a line each."""
    names = ("group", "scenario", "phase")
    lines = (json.dumps(dict(zip(names, key, strict=True)) | row) for key, row in rows.items())
    return "".join(f"{line}\n" for line in lines)


def spread(runs: Sequence[Figures]) -> Row:
    """Return what the seeds of one phase have in common."""
    row: Row = {"seeds": len(runs)}
    for name in _SHOWN:
        figure = sorted(getattr(run, name) for run in runs)
        three = (figure[0], statistics.median(figure), figure[-1])
        row[name] = [None if math.isinf(it) else round(it, 3) for it in three]
    return row


def worse(reference: Row, ours: Row, target: float) -> list[str]:
    """Return which figures are worse than the reference's by more than its seeds differ."""
    found = []
    for name, off in (("peak", 0.0), ("age", target)):
        theirs, mine = reference[name], ours[name]
        assert not isinstance(theirs, int)
        assert not isinstance(mine, int)
        worst = max(abs((it or 0.0) - off) for it in theirs)
        if abs((mine[1] or 0.0) - off) > worst + target / 20:
            found.append(name)
    return found


def render(reference: Rows, ours: Rows) -> str:
    """Return the page."""
    lines = [_HEAD]
    for group, scenarios in GROUPS.items():
        rows = [line for scenario in scenarios() for line in _lines(group, scenario, reference, ours)]
        if rows:
            head = f"| scenario | | seeds | {' | '.join(_SHOWN)} | worse |", "|---" * (len(_SHOWN) + 4) + "|"
            lines += [f"## {group}: {scenarios.__doc__}\n", *head, *rows, ""]
    return "\n".join(lines)


def _lines(group: str, scenario: Scenario, reference: Rows, ours: Rows) -> Iterator[str]:
    for phase in scenario.phases:
        key = group, scenario.name, phase.name
        if key in reference and key in ours:
            theirs, mine = reference[key], ours[key]
            name = ", ".join(filter(None, key[1:]))
            yield f"| {name} | ours | {_cells(mine)} | {', '.join(worse(theirs, mine, scenario.target))} |"
            yield f"| | reference | {_cells(theirs)} | |"


def _cells(row: Row) -> str:
    cells = [str(row["seeds"])]
    for name, digits in _SHOWN.items():
        three = row[name]
        assert not isinstance(three, int)
        cells.append("–".join("∞" if it is None else f"{it:.{digits}f}" for it in three))
    return " | ".join(cells)


if __name__ == "__main__":
    main()
