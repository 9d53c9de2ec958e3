"""arq."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from backpressure._model.arguments import shown
from backpressure._model.errors import ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.stats import QueueStats
from backpressure.providers.layouts._steps import Command, Steps, ask, items, text
from backpressure.providers.layouts._times import age, number

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ArqLayout"]


@repr_when_half_built
@attrs.frozen
class ArqLayout:
    """Queues of `arq <https://arq-docs.helpmanual.io>`_.

    Args:
        running_limit: how many of the jobs that are due longest are checked for running, with one command each. Give at
            least the sum of ``max_jobs`` of all workers; from 0 to 10000.

    A queue's name is its key, ``arq:queue`` by default. Running jobs stay in arq's queue until they are done. A job
    that is due and does not run is waiting; a job that is not due is delayed. Jobs run in the order in which they
    become due, so no job beyond `running_limit` runs. The age is the time since the first due job that does not run
    became due.

    Immutable.

    Raises:
        ConfigurationError: the limit is impossible.

    Example:
        >>> ArqLayout(running_limit=400)
        ArqLayout(running_limit=400)
    """

    running_limit: int = attrs.field(default=100)

    @running_limit.validator
    def _bounded(self, _: Any, value: Any) -> None:
        if type(value) is not int or not 0 <= value <= 10_000:
            raise ConfigurationError(
                f"running_limit is {shown(value)}: give an integer from 0 to 10000", field="running_limit", value=value
            )

    def read(self, queue_name: str, now: datetime) -> Steps:
        """Count due and delayed jobs, then which of the due ones run."""
        limit = int(now.timestamp() * 1000)
        due, delayed, oldest = yield from ask(
            Command("zcount", queue_name, ("-inf", limit)),
            Command("zcount", queue_name, (f"({limit}", "+inf")),
            # One job more than may run: it is the one that has waited longest.
            Command("zrangebyscore", queue_name, ("-inf", limit, 0, self.running_limit + 1, True)),
        )
        jobs = [job for job in items(oldest) if len(items(job)) == 2]
        asked = jobs[: self.running_limit]
        runs: list[Any] = []
        if asked:
            runs = yield from ask(*[Command("exists", f"arq:in-progress:{text(job)}") for job, _ in asked])
        running = sum(1 for answer in runs if answer)
        idle = (score for (_, score), answer in zip(jobs, [*runs, 0], strict=False) if not answer)
        oldest_age = age(now, number(next(idle, None), per_second=1000))
        return QueueStats(queue_name, max(0, due - running), running, delayed, oldest_age, now)
