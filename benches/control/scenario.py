"""One simulated situation: which producers meet which workers, over what time, and what goes wrong meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure._age.protocol import HIGH
from backpressure._model.budget import BudgetSettings

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WEB", "Phase", "Scenario", "steady"]

#: Whose callers wait, HIGH, MEDIUM, LOW: on the web only those of HIGH.
WEB = (True, False, False)


def steady(rate: float) -> Callable[[float], float]:
    return lambda _: rate


@attrs.frozen
class Phase:
    """A part of the time to be judged by itself: in seconds, with its drain; at its end the age should rest."""

    name: str
    begin: float
    end: float
    drain: float
    rests_for: float = 30.0


@attrs.frozen(kw_only=True)
class Scenario:
    """A situation. Times are seconds, rates jobs a second.

    Attributes:
        name: what the table calls it.
        seconds: how long it runs.
        phases: what of it is judged.
        drain: what the workers can do, by time.
        workers: how they do it: ``"steady"``, ``"poisson"``, ``"batches"`` of 2 s, or a ``"pool"`` of 50 that need
            10 s a job; ``"scaled"``: of 20 jobs a second each, each 30 s as many as 1.1 of the demand needs.
        processes: how many there are.
        loops: in each process, so many callers who enqueue one job after the other, of MEDIUM; 0: none; ``"pareto"``:
            few here, many there.
        loops_in_first: the same of the first process, if that differs.
        offers: what comes from outside, by time, to any of the processes; a part of it, `hot`, to the first.
        mix: parts of HIGH and MEDIUM among these; the rest is LOW.
        patient: whose callers wait, HIGH, MEDIUM, LOW.
        tenants: how much each of some tenants makes of what comes from outside, in proportion; none: nobody names one.
        heavy: how many of them, from the first on, have weight 4.
        never_held: callers who will not wait take no answer either: ``max_wait=0``.
        held_for: how long a held caller who will not wait stays; ``None``: until the answer.
        latency: how long a call takes, on average.
        jitter: part by which calls come sooner or later.
        sample_age: how old statistics are when they come.
        sample_every: how far statistics lie apart; 0: each read brings new ones.
        sample_repeats: reads in between tell the last ones again, with their age; else nothing.
        sample_noise: part by which the backlog is misread.
        tells_oldest: whether the queue can tell the oldest job's age.
        unprotected: jobs a second of producers that do not take part.
        crashes: part of the processes that end each second, and of those ended that come back.
        store_away: from when to when calls fail.
        wiped_at: when the store loses its data.
    """

    name: str
    seconds: float
    phases: tuple[Phase, ...]
    drain: Callable[[float], float] = steady(200.0)
    workers: str = "steady"
    processes: int = 100
    loops: int | str = 1
    loops_in_first: int | None = None
    offers: Callable[[float], float] | None = None
    hot: float = 0.0
    mix: tuple[float, float] = (0.1, 0.3)
    patient: tuple[bool, bool, bool] = (True, True, False)
    tenants: tuple[float, ...] = ()
    heavy: int = 0
    never_held: bool = False
    held_for: float | None = None
    settings: BudgetSettings = BudgetSettings.of(5.0)
    latency: float = 0.003
    jitter: float = 0.1
    sample_age: float = 0.0
    sample_every: float = 0.0
    sample_repeats: bool = False
    sample_noise: float = 0.0
    tells_oldest: bool = True
    unprotected: float = 0.0
    crashes: tuple[float, float] = (0.0, 0.5)
    store_away: tuple[float, float] | None = None
    wiped_at: tuple[float, ...] = ()

    @property
    def target(self) -> float:
        return self.settings.target_ms / 1_000

    def waits(self, level: int) -> bool:
        return self.patient[level]

    def level(self, chance: float) -> int:
        """Return the priority of an offer from outside, by a number from 0 to 1."""
        high, medium = self.mix
        return HIGH if chance < high else HIGH + 1 if chance < high + medium else HIGH + 2
