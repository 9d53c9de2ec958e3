"""What a run of a scenario is judged by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.control.scenario import Phase
    from benches.control.simulation import Second, Simulation

__all__ = ["Figures", "figures"]


@attrs.frozen
class Figures:
    """Figures of one phase.

    Attributes:
        peak: largest backlog, in seconds of work.
        settled: seconds until the backlog was last off by more than a tenth of the target; infinite: at the end.
        used: per cent of what the workers could do that they did, in seconds 10 to 60.
        age, spread: how long jobs waited at rest, on average, and the standard deviation.
        worst: longest average wait of a second.
        calls, most_calls: a second, from second 12 on.
        admitted: jobs a second.
        shed, needed: per cent of what was offered that was refused, and that had to be, in the last 45 seconds; HIGH,
            MEDIUM, LOW.
        fairness: Jain's index of the jobs of the processes' loops; 1: all the same.
    """

    peak: float
    settled: float
    used: float
    age: float
    spread: float
    worst: float
    calls: float
    most_calls: int
    admitted: float
    shed: tuple[float, ...]
    needed: tuple[float, ...]
    fairness: float


def figures(run: Simulation, phase: Phase) -> Figures:
    """Judge a phase of a run."""
    begin, end, drain, target = phase.begin, phase.end, phase.drain, run.scenario.target
    within = between(run, begin, end)
    rest = between(run, max(begin, end - phase.rests_for), end)
    busy = between(run, min(begin + 10, end - 1), min(begin + 60, end))
    age, spread = mean_wait(rest)
    calls = [
        later.calls - earlier.calls
        for earlier, later in zip(run.seconds, run.seconds[1:], strict=False)
        if min(begin + 12, end - 2) <= earlier.at < end
    ]
    late = between(run, max(begin, end - 45), end)
    offered, refused, admitted = (
        [last - first for first, last in zip(getattr(late[0], it), getattr(late[-1], it), strict=True)]
        for it in ("offered", "refused", "admitted")
    )
    return Figures(
        peak=max(second.backlog for second in within) / drain,
        settled=settled(within, begin, end, drain, target),
        used=100 * sum(second.taken for second in busy) / max(1e-9, sum(second.capacity for second in busy)),
        age=age,
        spread=spread,
        worst=max(second.waited for second in within),
        calls=sum(calls) / max(1, len(calls)),
        most_calls=max(calls, default=0),
        admitted=sum(admitted) / max(1.0, late[-1].at - late[0].at),
        shed=tuple(100 * no / of if of else 0.0 for no, of in zip(refused, offered, strict=True)),
        needed=needed(offered, drain * (late[-1].at - late[0].at), run.settings.low_floor_permille / 1_000),
        fairness=jain([jobs for process in run.processes for jobs in process.loops]),
    )


def between(run: Simulation, begin: float, end: float) -> list[Second]:
    return [second for second in run.seconds if begin < second.at <= end]


def mean_wait(seconds: list[Second]) -> tuple[float, float]:
    jobs = sum(second.taken for second in seconds)
    if not jobs:
        return math.nan, 0.0
    mean = sum(second.waited * second.taken for second in seconds) / jobs
    return mean, math.sqrt(sum(second.taken * (second.waited - mean) ** 2 for second in seconds) / jobs)


def settled(seconds: list[Second], begin: float, end: float, drain: float, target: float) -> float:
    off = [second.at for second in seconds if abs(second.backlog / drain - target) > target / 10 + 2 / drain]
    last = off[-1] if off else begin
    return last - begin if last < end - 2 else math.inf


def needed(offered: list[int], capacity: float, low_floor: float) -> tuple[float, ...]:
    """Return the per cent of each priority that do not fit, HIGH served first, and LOW's floor before MEDIUM."""
    kept, left, over = low_floor * offered[2], capacity, []
    for level, jobs in enumerate(offered):
        fit = min(jobs, max(0.0, left - (kept if level < 2 else 0.0)))
        left -= fit
        over.append(100 * (1 - fit / jobs) if jobs else 0.0)
    return tuple(over)


def jain(jobs: Sequence[float]) -> float:
    """Return the fairness of Jain, Chiu and Hawe, 1984: 1 where all get the same, 1/n where one gets all."""
    return sum(jobs) ** 2 / (len(jobs) * sum(it * it for it in jobs)) if sum(jobs) else 0.0
