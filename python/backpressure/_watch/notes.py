"""What keeps a configuration from doing what its thresholds say, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["notes"]


def notes(config: BackpressureConfig, queue_name: str | None = None) -> list[str]:
    """Return what keeps `config` from doing what its thresholds say: for all queues, or for one."""
    recovery = config.recovery
    switches = {"manual_override": recovery.manual_override, "emergency_mode": recovery.emergency_mode}
    told = [f"recovery.{name} is on: everything goes at once" for name, on in switches.items() if on]
    own = [] if queue_name is not None else [name for name in config.queues if config.mode_of(name) != config.mode]
    observed = [name for name in own if config.mode_of(name) == "observe"]
    mode = config.mode if queue_name is None else config.mode_of(queue_name)
    if mode == "observe":
        but = f" (but not of {', '.join(own)})" if own else ""
        told.append(f"mode is observe: advice is counted and logged, but producers are told to go at once{but}")
    elif observed:
        told.append(f"mode is observe for {', '.join(observed)}: producers are told to go at once")
    share = config.enforce_share if queue_name is None else config.enforce_share_of(queue_name)
    if mode == "enforce" and share < 1:
        told.append(f"enforce_share is {share:g}: the other processes count and log advice, and tell producers to go")
    return told
