"""Makes the shops under test shed above four waiting jobs, which they notice at once."""

from __future__ import annotations

from backpressure import BackpressureConfig

CONFIG = BackpressureConfig().evolve(
    {
        "polling.interval": 0.1,
        "polling.jitter": 0,
        "polling.timeout": 0.1,
        "polling.cache_ttl": 0.5,
        "polling.max_backoff": 0.2,
        "thresholds.low_priority.green_max": 1,
        "thresholds.low_priority.yellow_max": 2,
        "thresholds.low_priority.red_max": 4,
    }
)
