"""What follows from an age to be held: the whole numbers that every producer of a queue sends with its report."""

from __future__ import annotations

import math

import attrs

__all__ = ["BudgetSettings"]

_LEAST_TARGET, _MOST_TARGET = 0.5, 3_600.0
_MOST_CALLS = 1_000_000
#: A sample that is older cannot show the drain: the script measures it over five ticks at most, and keeps twelve.
_OLDEST_SAMPLE_TICKS = 8


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
    def of(
        cls, target: float, *, low_floor: float = 0.005, calls: int = 2_000, oldest_sample: float = 0.0
    ) -> BudgetSettings:
        """Derive the settings from the target.

        Args:
            target: seconds that a job is to wait.
            low_floor: part of the demand of LOW that always passes.
            calls: calls a second that one queue may cost.
            oldest_sample: seconds after which statistics may be renewed, by the configuration of polling.

        Raises:
            ValueError: a value is impossible, or statistics come too seldom to show what the workers do.
        """
        if not _LEAST_TARGET <= target <= _MOST_TARGET:  # not a number is refused, too
            raise ValueError(f"age.target is {target} s; give it {_LEAST_TARGET} to {_MOST_TARGET:.0f} seconds")
        if not 0 <= low_floor <= 1:
            raise ValueError(f"age.low_floor is {low_floor}; give it a part between 0 and 1")
        if not 1 <= calls <= _MOST_CALLS:
            raise ValueError(f"age.calls is {calls}; give it 1 to {_MOST_CALLS:_} calls a second")
        target_ms = math.floor(target * 1_000 + 0.5)
        tick_ms = min(max(target_ms // 5, 100), 1_000)
        if not 0 <= oldest_sample * 1_000 <= _OLDEST_SAMPLE_TICKS * tick_ms:
            raise ValueError(
                f"statistics may be {oldest_sample:g} s old, and age.target = {target:g} s needs them within "
                f"{_OLDEST_SAMPLE_TICKS * tick_ms / 1_000:g} s; lower polling.busy_interval or polling.timeout, or "
                "raise age.target"
            )
        return cls(
            target_ms=target_ms,
            tick_ms=tick_ms,
            gain_most_permille=min(max(3 * target_ms // 10, 1_500), 9_000),
            drain_window_ms=min(6 * target_ms // 10, 6_000),
            low_floor_permille=math.floor(low_floor * 1_000 + 0.5),
            calls_per_second=calls,
        )
