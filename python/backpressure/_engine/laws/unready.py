"""The age law, which the engines do not have yet: a target is refused, so that nobody believes to be protected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from backpressure._model.config.age import AgeConfig
from backpressure._model.errors import ConfigurationError

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["unready", "without_targets"]


def unready(config: BackpressureConfig) -> ConfigurationError | None:
    """Return the error of a configuration that no engine can decide by; ``None`` if they can."""
    own_ages = {f"queues.{json.dumps(name, ensure_ascii=False)}.age": own.age for name, own in config.queues.items()}
    for path, age in {"age": config.age, **own_ages}.items():
        if age is not None and age.target is not None:
            return ConfigurationError(
                f"{path}.target is {age.target}: the age law is not in this release's engines: remove it, and "
                "thresholds and curve hold",
                field=f"{path}.target",
                value=age.target,
            )
    return None


def without_targets(config: BackpressureConfig) -> BackpressureConfig:
    """Return what is left for the engines: the table of zones for all queues."""
    queues = {name: attrs.evolve(own, age=None) for name, own in config.queues.items()}
    return attrs.evolve(config, age=AgeConfig(), queues=queues)
