"""Whether this process enforces what it decides, where only a share of all processes is to.

Each process is on one side by its name, `backpressure._runtime.identity.instance_id`: so a larger share only adds
processes, and the controllers of one process are on the same side. A forked child has a name, and a side, of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._runtime.identity import instance_id, is_among

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["enforces", "enforces_here", "is_divided"]


def enforces(share: float) -> bool:
    """Tell whether this process is among the share of all that enforces."""
    return is_among(instance_id(), share)


def enforces_here(config: BackpressureConfig, queue_name: str | None = None) -> bool:
    """Tell whether this process enforces what is decided for a queue; without a name, for those that have no own."""
    shared = 0.0 if config.mode == "observe" else config.enforce_share
    share = shared if queue_name is None else config.enforce_share_of(queue_name)
    return enforces(share)


def is_divided(config: BackpressureConfig) -> bool:
    """Tell whether any share is a real part, so that not all processes are on one side."""
    return any(0 < share < 1 for share in (config.enforce_share, *map(config.enforce_share_of, config.queues)))
