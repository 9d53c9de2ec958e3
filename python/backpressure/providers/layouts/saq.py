"""SAQ with Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Steps, ask, text
from backpressure.providers.layouts._times import age, field, number

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["SAQLayout"]


@attrs.frozen
class SAQLayout:
    """Queues of `SAQ <https://saq-py.readthedocs.io>`_.

    It tells waiting, running and delayed jobs (also retries that are not due). The age is the time since the next job
    was enqueued; ``None`` where jobs are not dumped as JSON.

    Immutable.

    Example:
        >>> SAQLayout()
        SAQLayout()
    """

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count the two lists and what is not due, then find the next job's age."""
        queue = f"saq:{queue_name}"
        waiting, running, delayed, next_id = yield from ask(
            Command("llen", f"{queue}:queued"),
            Command("llen", f"{queue}:active"),
            # This set holds every unfinished job; the score of those that are not delayed is 0, or long past.
            Command("zcount", f"{queue}:incomplete", (f"({int(now.timestamp())}", "+inf")),
            Command("lindex", f"{queue}:queued", (0,)),
        )
        job = None
        if next_id is not None:
            (job,) = yield from ask(Command("get", text(next_id)))
        enqueued = number(field(job, "queued"), per_second=1000)
        return QueueStats(queue_name, waiting, running, delayed, age(now, enqueued), now)
