"""A configuration for those who look on: their controllers take part in nothing that producers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure._model.config.age import AgeConfig
from backpressure._model.config.fleet import FleetConfig

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["taking_no_part"]


def taking_no_part(config: BackpressureConfig) -> BackpressureConfig:
    """Return `config` for a controller that takes part in no budget, is in no fleet and judges no candidate."""
    queues = {name: attrs.evolve(own, age=None) for name, own in config.queues.items()}
    return attrs.evolve(config, age=AgeConfig(), fleet=FleetConfig(), candidate=None, queues=queues)
