"""What follows from an age to be held: the whole numbers that every producer of a queue sends with its report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from backpressure._model.config.age import AgeConfig

__all__ = ["FEW_JOBS", "BudgetSettings", "budget_of"]

#: With fewer jobs in the target, the age swings with each of them.
FEW_JOBS = 5
#: The script measures the drain over no longer time.
_OLDEST_SAMPLE_MS = 600_000
#: Who waits less than that is not given a place in the line: the answer that would call it may come too late.
_PATIENT_TICKS = 2


@attrs.frozen(kw_only=True)
class BudgetSettings:
    """The settings of one queue's budget, the same in all its producers. Immutable.

    Attributes:
        target_ms: how long a job that is enqueued now is to wait.
        tick_ms: how often the budget is set: a fifth of the target, 100 ms to 1 s.
        gain_most_permille: by how many thousandths of the drain the budget differs from it, for each target's length
            that the age is off. The script takes less where statistics are old.
        drain_window_ms: over how long the drain is smoothed.
        trims: whether the oldest job's age corrects the age.
        least_budget_permille: part of the drain that is granted however old the backlog is.
        medium_floor_permille, low_floor_permille: part of the demand that always passes. HIGH always passes.
        burst_jobs: jobs that one process may let pass in a tick beyond twice what it asked for.
        calls_per_second: how many calls a queue may cost, whatever the number of processes.
    """

    target_ms: int
    tick_ms: int
    gain_most_permille: int
    drain_window_ms: int
    trims: bool = True
    least_budget_permille: int = 50
    medium_floor_permille: int = 0
    low_floor_permille: int = 5
    burst_jobs: int = 5
    calls_per_second: int = 2_000

    @classmethod
    def of(cls, target: float, *, low_floor: float = 0.005, calls: int = 2_000) -> BudgetSettings:
        """Derive the settings from the target. `AgeConfig` says which values are possible.

        Args:
            target: seconds that a job is to wait.
            low_floor: part of the demand of LOW that always passes.
            calls: calls a second that one queue may cost.
        """
        target_ms = math.floor(target * 1_000 + 0.5)
        return cls(
            target_ms=target_ms,
            tick_ms=min(max(target_ms // 5, 100), 1_000),
            gain_most_permille=min(max(3 * target_ms // 10, 1_500), 9_000),
            drain_window_ms=min(6 * target_ms // 10, 6_000),
            low_floor_permille=math.floor(low_floor * 1_000 + 0.5),
            calls_per_second=calls,
        )

    @property
    def oldest_sample_ms(self) -> int:
        """Return how old statistics may be that still show the drain."""
        return _OLDEST_SAMPLE_MS

    @property
    def patient_ms(self) -> int:
        """Return the least ``max_wait`` of callers that are given a place in the line."""
        return _PATIENT_TICKS * self.tick_ms


def budget_of(age: AgeConfig) -> BudgetSettings | None:
    """Return the settings that follow from a section of the configuration; ``None`` without a target."""
    return None if age.target is None else BudgetSettings.of(age.target, low_floor=age.low_floor, calls=age.calls)
