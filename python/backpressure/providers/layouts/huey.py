"""Huey with Redis, plain or by priority."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

import attrs

from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Rounds, Steps, ask
from backpressure.providers.layouts._times import age

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["HueyLayout"]

_MAX_PRIORITIES = 10


@repr_when_half_built
@attrs.frozen
class HueyLayout:
    """Queues of `Huey <https://huey.readthedocs.io>`_; a queue's name is that of the ``Huey`` object.

    Args:
        priority: whether it is a ``PriorityRedisHuey``.
        clean_name: as given to Huey, which by default removes all except ASCII letters, digits and underscores.

    The tasks of the queue are waiting, the scheduled ones delayed. A task with a delay is in the queue too until a
    consumer moves it. Running is ``None``: Huey does not record it. The age of a ``PriorityRedisHuey`` is that of the
    oldest task among the ten most urgent priorities in use; for any other ``Huey`` it is ``None``.

    Immutable.

    Example:
        >>> HueyLayout(priority=True)
        HueyLayout(priority=True, clean_name=True)
    """

    priority: bool = False
    clean_name: bool = True

    @classmethod
    def from_huey(cls, huey: Any) -> Self:
        """Return the layout of a ``RedisHuey`` or a related class.

        Raises:
            ConfigurationError: it keeps its tasks elsewhere.
        """
        key = getattr(huey.storage, "queue_key", None)
        if key is None:
            raise ConfigurationError(
                f"huey keeps its tasks in a {type(huey.storage).__name__}: give a RedisHuey or one of its kin",
                field="huey",
            )
        priority = any(base.__name__ == "RedisPriorityQueue" for base in type(huey.storage).__mro__)
        return cls(priority=priority, clean_name=key == f"huey.redis.{_cleaned(huey.name)}")

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the queue and the schedule, then find the oldest task where tasks carry a time."""
        name = _cleaned(queue_name) if self.clean_name else queue_name
        queue = f"huey.redis.{name}"
        waiting, delayed = yield from ask(
            Command("zcard" if self.priority else "llen", queue), Command("zcard", f"huey.schedule.{name}")
        )
        oldest = None
        if self.priority and waiting:
            oldest = yield from _oldest(queue)
        return QueueStats(queue_name, waiting, None, delayed, age(now, oldest), now)


def _cleaned(name: str) -> str:
    return re.sub("[^A-Za-z0-9_]", "", name)


def _oldest(queue: str) -> Rounds[float | None]:
    """Return the Unix time of the oldest task: members with the same score are sorted by time."""
    times: list[float] = []
    above: Any = "-inf"
    for _ in range(_MAX_PRIORITIES):
        (found,) = yield from ask(Command("zrangebyscore", queue, (above, "+inf", 0, 1, True)))
        match found:
            case [(bytes(task), float(score) | int(score))]:
                times.append(int.from_bytes(task[:8]) / 1e6)
                above = f"({score}"
            case _:
                break
    return min(times, default=None)
