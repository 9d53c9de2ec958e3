"""Where five waiting jobs are an overload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure import BackpressureConfig

if TYPE_CHECKING:
    from backpressure import AsyncBackpressureController, BackpressureController

OVERLOAD = 5
CONFIG = BackpressureConfig().evolve(
    {
        "thresholds.low_priority.green_max": 1,
        "thresholds.low_priority.yellow_max": 2,
        "thresholds.low_priority.red_max": 4,
        "thresholds.medium_priority.green_max": 1,
        "thresholds.medium_priority.yellow_max": 2,
        "thresholds.medium_priority.red_max": 4,
    }
)
#: What has the overload delay HIGH as well.
HIGH_IS_RED = {
    "thresholds.high_priority.green_max": 1,
    "thresholds.high_priority.yellow_max": 2,
    "thresholds.high_priority.red_max": 4,
}


def decided(controller: BackpressureController | AsyncBackpressureController) -> int:
    """Return how many decisions a controller has counted."""
    return sum(sum(totals.cache_requests()) for totals in controller._engine.totals().values())
