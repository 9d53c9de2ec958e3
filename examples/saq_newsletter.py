"""SAQ: `protect` puts a controller in front of a ``saq.Queue``."""

from __future__ import annotations

import asyncio
import logging

import saq

import shop
from backpressure import AsyncBackpressureController, AsyncRedisStatsProvider, JobShedError
from backpressure.integrations.saq import protect

queue = saq.Queue.from_url(shop.URL, name="mail")


async def newsletter(_: object, *, customer: int) -> None:
    await asyncio.to_thread(shop.newsletter, customer)


async def receipt(_: object, *, customer: int) -> None:
    await asyncio.to_thread(shop.receipt, customer)


settings = {"queue": queue, "functions": [newsletter, receipt], "concurrency": 1}
logging.getLogger("saq").setLevel(logging.ERROR)  # SAQ warns of any idle worker that ends


async def campaign() -> list[int]:
    """Write to all customers; return those whose newsletter was shed."""
    postponed = []
    provider = AsyncRedisStatsProvider(shop.URL, ["mail"], layout="saq")
    async with AsyncBackpressureController(shop.CONFIG, provider) as controller:
        protect(queue, controller, priority={"newsletter": "low", "receipt": "high"})
        async for customer in shop.customers_async():
            try:
                await queue.enqueue("newsletter", customer=customer)
            except JobShedError:
                postponed.append(customer)
            if shop.buys(customer):
                await queue.enqueue("receipt", customer=customer)
    await provider.aclose()
    await queue.disconnect()
    return postponed


if __name__ == "__main__":
    with shop.worker("saq", "saq_newsletter.settings"):
        shop.report(asyncio.run(campaign()))
