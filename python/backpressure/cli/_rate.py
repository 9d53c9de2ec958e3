"""Whether the windows are wide enough for jobs that come at a given rate: a poll must not miss a whole window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backpressure._model.units import duration
from backpressure._watch.advice import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure._model.config.root import BackpressureConfig

__all__ = ["narrow_windows"]


def narrow_windows(config: BackpressureConfig, rate: float) -> Iterator[str]:
    """Yield a sentence for each window, shared or a section's own, that `rate` jobs a second fill during one poll."""
    polling = config.polling
    arriving = math.ceil(rate * (polling.interval + polling.jitter))
    poll = f"{duration(polling.interval)} + up to {duration(polling.jitter)}"
    for name in (None, *(name for name, own in config.queues.items() if own.thresholds is not None)):
        thresholds = config.thresholds if name is None else config.thresholds_of(name)
        for priority in PRIORITIES:
            window = thresholds.window(priority)
            spans = (("green_max", "yellow_max"), ("yellow_max", "red_max"))
            narrow = [
                f"{low} ({getattr(window, low):,}) to {high} ({getattr(window, high):,})"
                for low, high in spans
                if getattr(window, high) - getattr(window, low) < arriving
            ]
            if narrow:
                of_whom = "thresholds" if name is None else f"thresholds of {name}"
                advice = "raise red_max" if len(narrow) < len(spans) else "raise the bounds"
                yield (
                    f"{of_whom}: {rate:g} jobs/s are {arriving:,} jobs in one poll ({poll}), more than lie from "
                    f"{' and from '.join(narrow)} of {priority}_priority: {advice}, or lower polling.interval"
                )
