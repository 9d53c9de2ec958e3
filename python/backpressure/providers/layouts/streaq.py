"""streaQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Steps, ask, together
from backpressure.providers.layouts.stream import StreamKey

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["StreaqLayout"]


def _names(priorities: Iterable[str]) -> tuple[str, ...]:
    return tuple(priorities)


@repr_when_half_built
@attrs.frozen
class StreaqLayout:
    """Queues of `streaQ <https://streaq.readthedocs.io>`_, one stream per priority.

    Args:
        priorities: the worker's.

    Tasks that no worker has taken are waiting, over all priorities. Tasks that a worker has taken are running, also
    prefetched ones. Scheduled tasks are delayed. The age is that of the oldest among the next tasks of each priority.

    Immutable.

    Example:
        >>> StreaqLayout(priorities=["low", "high"])
        StreaqLayout(priorities=('low', 'high'))
    """

    priorities: tuple[str, ...] = attrs.field(default=("normal",), converter=_names)

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Read every priority's stream and what is scheduled for it."""
        queue = f"streaq:{queue_name}:queues"
        streams = [
            StreamKey(f"{queue}:{priority}", "workers", acked_entries_are_deleted=True).read(queue_name, now)
            for priority in self.priorities
        ]
        schedules = [Command("zcard", f"{queue}:delayed:{priority}") for priority in self.priorities]
        scheduled, samples = yield from together(ask(*schedules), together(*streams))
        return QueueStats(
            queue_name,
            sum(sample.backlog_count for sample in samples),
            sum(sample.processing_count for sample in samples),
            sum(scheduled),
            max((sample.oldest_age for sample in samples if sample.oldest_age is not None), default=None),
            now,
        )
