"""What is recommended for all queues: as a configuration, as a file of settings, as JSON."""

from collections.abc import Mapping
from typing import Any

import attrs

from backpressure._model.config.root import BackpressureConfig
from backpressure._recommend.values import RecommendedQueue
from backpressure._recommend.writing import toml_of

__all__ = ["Recommendation"]


@attrs.frozen(kw_only=True)
class Recommendation:
    """What is recommended for the queues of a recording. Immutable. Made by ``recommend``.

    Attributes:
        source: where it comes from.
        queues: in the order of the alphabet.

    Example:
        >>> Recommendation(source="week.bpr", queues=()).config().mode
        'observe'
    """

    source: str
    queues: tuple[RecommendedQueue, ...]

    def to_toml(self) -> str:
        """Return a file of settings with the reason beside each number, to begin with: it only observes."""
        return toml_of(self.source, self.queues)

    def config(self) -> BackpressureConfig:
        """Return the same as a configuration."""
        sections = {it.queue_name: it.best.settings for it in self.queues if it.best is not None}
        return BackpressureConfig.from_mapping({"mode": "observe", "queues": sections})

    def to_dict(self) -> dict[str, Any]:
        """Return all as nested dicts and lists of numbers and texts, as JSON takes them; of replays, the figures."""
        without_trails = attrs.filters.exclude("answer")
        return {
            "source": self.source,
            "queues": [
                attrs.asdict(it, filter=without_trails, value_serializer=lambda _, __, value: _plain(value))
                for it in self.queues
            ],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [*value] if isinstance(value, tuple) else value
