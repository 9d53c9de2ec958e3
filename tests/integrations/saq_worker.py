"""What SAQ's command is to run, see `commands`."""

from __future__ import annotations

import os
from typing import Any

from saq import CronJob, Queue

from backpressure import AsyncBackpressureController, InMemoryStatsProvider
from backpressure.integrations.saq import protect
from integrations.everywhere import from_everywhere

controller = AsyncBackpressureController(None, InMemoryStatsProvider({}))
jobs, later = (
    protect(Queue.from_url(os.environ["SERVER_URL"], name=name), controller, priority="low")
    for name in ("jobs", "later")
)


async def work(_: Any) -> None:
    await from_everywhere(lambda way: later.enqueue("work", key=way))


async def startup(_: Any) -> None:
    await later.enqueue("work", key="startup")


async def before(_: Any) -> None:
    await later.enqueue("work", key="before")


async def after(_: Any) -> None:
    await later.enqueue("work", key="after")


async def shutdown(_: Any) -> None:
    await later.enqueue("work", key="shutdown")
    await later.disconnect()


settings = {
    "queue": jobs,
    "functions": [work],
    "cron_jobs": [CronJob(work, cron="0 0 1 1 *")],
    "startup": startup,
    "before_process": before,
    "after_process": after,
    "shutdown": shutdown,
}
