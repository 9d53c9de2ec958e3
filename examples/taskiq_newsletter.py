"""taskiq: `BackpressureMiddleware`, as the last one of a broker."""

from __future__ import annotations

import asyncio

from taskiq_redis import ListQueueBroker

import shop
from backpressure import AsyncBackpressureController, AsyncRedisStatsProvider, JobShedError
from backpressure.integrations.taskiq import BackpressureMiddleware

broker = ListQueueBroker(shop.URL, queue_name="mail")


@broker.task("newsletter")
async def newsletter(customer: int) -> None:
    await asyncio.to_thread(shop.newsletter, customer)


@broker.task("receipt")
async def receipt(customer: int) -> None:
    await asyncio.to_thread(shop.receipt, customer)


async def campaign() -> list[int]:
    """Write to all customers; return those whose newsletter was shed."""
    postponed = []
    provider = AsyncRedisStatsProvider(shop.URL, ["mail"], layout="taskiq")
    async with AsyncBackpressureController(shop.CONFIG, provider) as controller:
        broker.add_middlewares(BackpressureMiddleware(controller, priority={"newsletter": "low", "receipt": "high"}))
        await broker.startup()
        async for customer in shop.customers_async():
            try:
                await newsletter.kiq(customer)
            except JobShedError:
                postponed.append(customer)
            if shop.buys(customer):
                await receipt.kiq(customer)
        await broker.shutdown()
    await provider.aclose()
    return postponed


if __name__ == "__main__":
    options = ("--workers=1", "--max-async-tasks=1", "--log-level=WARNING")
    with shop.worker("taskiq", "worker", "taskiq_newsletter:broker", *options):
        shop.report(asyncio.run(campaign()))
