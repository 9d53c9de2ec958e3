"""BullMQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Steps, ask, items, text
from backpressure.providers.layouts._times import age, number

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["BullMQLayout"]


@repr_when_half_built
@attrs.frozen
class BullMQLayout:
    """Queues of `BullMQ <https://docs.bullmq.io>`_ 5 and 6, in any language.

    Args:
        prefix: what all keys begin with.

    Jobs with and without a priority are waiting, also those of a paused queue. Active jobs are running; jobs that are
    not due are delayed. Parents that wait for their children are not counted. The age is that of the next job without
    a priority or of the next job with one: the older of the two.

    Immutable.

    Example:
        >>> BullMQLayout(prefix="{bull}")
        BullMQLayout(prefix='{bull}')
    """

    prefix: str = "bull"

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count every state, then find the ages of the next jobs."""
        queue = f"{self.prefix}:{queue_name}"
        waiting, paused, prioritized, running, delayed, plain, held, urgent = yield from ask(
            Command("llen", f"{queue}:wait"),
            Command("llen", f"{queue}:paused"),
            Command("zcard", f"{queue}:prioritized"),
            Command("llen", f"{queue}:active"),
            Command("zcard", f"{queue}:delayed"),
            Command("lindex", f"{queue}:wait", (-1,)),
            Command("lindex", f"{queue}:paused", (-1,)),
            Command("zrange", f"{queue}:prioritized", (0, 0)),
        )
        ids = [text(job) for job in (plain, held, *items(urgent)) if job is not None]
        times = []
        if ids:
            times = yield from ask(*[Command("hget", f"{queue}:{job}", ("timestamp",)) for job in ids])
        ages = [found for time in times if (found := age(now, number(time, per_second=1000))) is not None]
        return QueueStats(
            queue_name, waiting + paused + prioritized, running, delayed, max(ages, default=None), last_updated=now
        )
