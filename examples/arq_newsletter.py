"""arq: `protect` puts a controller in front of a pool."""

from __future__ import annotations

import asyncio

from arq import create_pool
from arq.connections import RedisSettings

import shop
from backpressure import AsyncBackpressureController, AsyncRedisStatsProvider, JobShedError
from backpressure.integrations.arq import protect


async def newsletter(_: object, customer: int) -> None:
    await asyncio.to_thread(shop.newsletter, customer)


async def receipt(_: object, customer: int) -> None:
    await asyncio.to_thread(shop.receipt, customer)


class WorkerSettings:
    """The worker that ``arq arq_newsletter.WorkerSettings`` runs."""

    redis_settings = RedisSettings.from_dsn(shop.URL)
    queue_name = "mail"
    functions = (newsletter, receipt)
    max_jobs = 1
    poll_delay = 0.01


QUIET = {"version": 1}


async def campaign() -> list[int]:
    """Write to all customers; return those whose newsletter was shed."""
    postponed = []
    provider = AsyncRedisStatsProvider(shop.URL, ["mail"], layout="arq")
    pool = await create_pool(WorkerSettings.redis_settings, default_queue_name="mail")
    async with AsyncBackpressureController(shop.CONFIG, provider) as controller:
        protect(pool, controller, priority={"newsletter": "low", "receipt": "high"})
        async for customer in shop.customers_async():
            try:
                await pool.enqueue_job("newsletter", customer)
            except JobShedError:
                postponed.append(customer)
            if shop.buys(customer):
                await pool.enqueue_job("receipt", customer)
    await pool.aclose()
    await provider.aclose()
    return postponed


if __name__ == "__main__":
    with shop.worker("arq", "arq_newsletter.WorkerSettings", "--custom-log-dict", "arq_newsletter.QUIET"):
        shop.report(asyncio.run(campaign()))
