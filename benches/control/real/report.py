"""The report of real runs, in Markdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benches.control.real.bounds import bounds
from benches.control.real.figures import figures
from benches.control.real.scenario import LAWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from benches.control.real.bounds import Bound
    from benches.control.real.figures import Figures
    from benches.control.real.run import Outcome

__all__ = ["report", "verdicts"]

_HEAD = (
    "",
    "law",
    "age at rest, s",
    "settled, s",
    "worst, s",
    "used, %",
    "in/s",
    "refused (needed), %",
    "Jain",
    "commands",
    "µs a call",
)
_WORDS = """\
*Age at rest*: how long jobs had waited, by their own time stamps, that workers took in the last two fifths of a phase:
mean [least–most]. *Settled*: seconds into the phase from which on the mean of each tick stays within 10 % of the
target; –: not before its end. *Worst*: the longest wait of a job taken in the phase. *Used*: part of what the workers
could take that they took; the first 10 s, in which a queue fills, are left out. *In/s*: jobs enqueued. *Refused*: per
cent of what was offered in the last 45 s, HIGH / MEDIUM / LOW, and what did not fit if HIGH goes first and LOW keeps
its floor. *Jain*: how alike producers of one priority fared, where they enqueued 20 jobs each; 1: all the same; of
tenants in the last 45 s, each by its weight; *heavy*: how many times as much as the others those of weight 4 got.
*Commands*: of the store at rest, for each controller, queue and tick. *µs a call*: of the store's time, by its own
`INFO commandstats`."""


def report(runs: Sequence[Mapping[str, Outcome]], about: str, picture: str) -> str:
    """Return all of it: what was run, the table, and the bounds."""
    return (
        "\n\n".join(
            (
                "# Both laws on a real server",
                about,
                f"![How long jobs waited]({picture})",
                _WORDS,
                *(_table(run) for run in runs),
                "## Bounds",
                _bounds([it for run in runs for law in LAWS for it in bounds(run[law])]),
            )
        )
        + "\n"
    )


def verdicts(found: Sequence[Bound]) -> str:
    """Return the bounds that were missed, each on a line, and how many were met."""
    missed = [f"missed: {it.where}: {it.name}: {it.figure}" for it in found if not it.met]
    return "\n".join([*missed, f"{len(found) - len(missed)} of {len(found)} bounds met"])


def _table(run: Mapping[str, Outcome]) -> str:
    scenario = run[LAWS[0]].scenario
    lines = [f"### {scenario.name}: {scenario.title}", "", _row(_HEAD), _row(["---"] * len(_HEAD))]
    judged = {law: figures(run[law]) for law in LAWS}
    for index in range(len(judged[LAWS[0]])):
        lines += [_row(_cells(run[law], judged[law][index])) for law in LAWS]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(outcome: Outcome, it: Figures) -> Iterator[str]:
    lanes = outcome.scenario.lanes
    yield ", ".join(filter(None, (lanes[it.lane].name if len(lanes) > 1 else "", it.phase.name)))
    yield outcome.law
    yield f"{it.age:.2f} [{it.least:.2f}–{it.most:.2f}]"
    yield "–" if math.isinf(it.settled) else f"{it.settled:.0f}"
    yield f"{it.worst:.1f}"
    yield f"{100 * it.used:.1f}"
    yield f"{it.admitted:.0f}"
    offers = any(it.shed) or any(it.needed)
    yield " / ".join(f"{no:.1f} ({must:.1f})" for no, must in zip(it.shed, it.needed, strict=True)) if offers else ""
    yield ", ".join(
        f"{'tenants ' if who.startswith('tenants') else ''}{index:.3f}" for who, index in it.fairness.items()
    ) + ("" if it.heavier is None else f", heavy {it.heavier:.2f} ×")
    yield "" if it.commands is None else f"{it.commands:.2f}"
    yield "" if it.microseconds is None else f"{it.microseconds:.0f}"


def _bounds(found: Sequence[Bound]) -> str:
    missed = [it for it in found if not it.met]
    rows = [_row((it.where, it.name, it.figure, "met" if it.met else "**missed**")) for it in found]
    head = (
        f"{len(found) - len(missed)} of {len(found)} are met; the law of the table promises only that no job is lost."
    )
    return "\n".join([head, "", _row(("where", "what", "figure", "")), _row(["---"] * 4), *rows])
