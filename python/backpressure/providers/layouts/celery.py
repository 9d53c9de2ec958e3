"""Celery with a Redis broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs

from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Steps, ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = ["CeleryLayout"]


def _steps(steps: Iterable[int]) -> tuple[int, ...]:
    return tuple(steps)


@repr_when_half_built
@attrs.frozen
class CeleryLayout:
    r"""Queues of `Celery <https://docs.celeryq.dev>`_, one list per step of priority.

    Args:
        prefix: ``global_keyprefix`` of the transport options.
        priority_steps: of the transport options.
        sep: of the transport options.

    `from_app` reads all three from an app. The tasks of all steps are waiting. Running and delayed are ``None``,
    because the broker does not tell them: workers move tasks, also those with an ETA, into a hash that all queues
    share, long before they run them. So the backlog does not include prefetched tasks (by default four a process,
    ``worker_prefetch_multiplier``). The age is ``None``: messages carry no time.

    Immutable.

    Example:
        >>> CeleryLayout(priority_steps=range(10), sep=":")
        CeleryLayout(prefix='', priority_steps=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), sep=':')
    """

    prefix: str = ""
    priority_steps: tuple[int, ...] = attrs.field(default=(0, 3, 6, 9), converter=_steps)
    sep: str = "\x06\x16"

    @classmethod
    def from_app(cls, app: Any) -> Self:
        """Return the layout of a ``celery.Celery``, from its ``broker_transport_options``."""
        return cls.from_options(app.conf.broker_transport_options)

    @classmethod
    def from_options(cls, options: Mapping[str, Any] | None) -> Self:
        """Return the layout that ``broker_transport_options`` describe."""
        options = options or {}
        names = {"prefix": "global_keyprefix", "priority_steps": "priority_steps", "sep": "sep"}
        return cls(**{field: options[option] for field, option in names.items() if option in options})

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the tasks of every step."""
        steps = [f"{queue_name}{self.sep}{step}" if step else queue_name for step in self.priority_steps]
        lengths = yield from ask(*[Command("llen", f"{self.prefix}{key}") for key in steps])
        return QueueStats(queue_name, sum(lengths), last_updated=now)
