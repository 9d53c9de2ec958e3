"""What arq's command is to run, see `commands`."""

from __future__ import annotations

import os
from typing import Any

from arq import create_pool, cron  # type: ignore[import-not-found]
from arq.connections import RedisSettings  # type: ignore[import-not-found]

from backpressure import AsyncBackpressureController, InMemoryStatsProvider
from backpressure.integrations.arq import protect
from integrations.everywhere import from_everywhere

settings = RedisSettings.from_dsn(os.environ["SERVER_URL"])
controller = AsyncBackpressureController(None, InMemoryStatsProvider({}))


async def startup(ctx: dict[str, Any]) -> None:
    protect(ctx["redis"], controller, priority="low")
    later = await create_pool(settings, default_queue_name="later")
    ctx["later"] = protect(later, controller, priority="low")
    await send(ctx, "startup")


async def send(ctx: dict[str, Any], where: str) -> None:
    await ctx["later"].enqueue_job("work", _job_id=where)


async def work(ctx: dict[str, Any]) -> None:
    await from_everywhere(lambda way: send(ctx, way))


async def nightly(ctx: dict[str, Any]) -> None:
    await send(ctx, "cron")


async def on_job_start(ctx: dict[str, Any]) -> None:
    await send(ctx, "start of a job")


async def after_job_end(ctx: dict[str, Any]) -> None:
    await send(ctx, "end of a job")


async def shutdown(ctx: dict[str, Any]) -> None:
    await send(ctx, "shutdown")
    await ctx["later"].aclose(close_connection_pool=True)


class WorkerSettings:
    """As arq's command takes them."""

    redis_settings = settings
    functions = (work,)
    cron_jobs = (cron(nightly, hour=0, run_at_startup=True),)
    on_startup = startup
    on_job_start = on_job_start
    after_job_end = after_job_end
    on_shutdown = shutdown
    poll_delay = 0.05
    # A job that a signal cancels while it ends would take arq's own `on_shutdown` with it.
    job_completion_wait = 10
