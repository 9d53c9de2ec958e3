"""FastStream: `BackpressureMiddleware`, as the first one of a broker."""

from __future__ import annotations

import asyncio

from faststream import FastStream
from faststream.redis import RedisBroker

import shop
from backpressure import AsyncBackpressureController, AsyncRedisStatsProvider, JobShedError
from backpressure.integrations.faststream import BackpressureMiddleware

subscribers = RedisBroker(shop.URL, logger=None)  # type: ignore[arg-type] # no line for each message
app = FastStream(subscribers)


@subscribers.subscriber(list="mail")
async def send(mail: dict[str, int]) -> None:
    for kind, customer in mail.items():
        await asyncio.to_thread(getattr(shop, kind), customer)


async def campaign() -> list[int]:
    """Write to all customers; return those whose newsletter was shed."""
    postponed = []
    provider = AsyncRedisStatsProvider(shop.URL, ["mail"])
    async with AsyncBackpressureController(shop.CONFIG, provider) as controller:
        middleware = BackpressureMiddleware(controller, priority="low")
        async with RedisBroker(shop.URL, middlewares=[middleware]) as broker:
            async for customer in shop.customers_async():
                try:
                    await broker.publish({"newsletter": customer}, list="mail")
                except JobShedError:
                    postponed.append(customer)
                if shop.buys(customer):
                    await broker.publish({"receipt": customer}, list="mail", headers={"backpressure_priority": "high"})
    await provider.aclose()
    return postponed


if __name__ == "__main__":
    with shop.worker("faststream", "run", "faststream_newsletter:app", "--log-level=warning"):
        shop.report(asyncio.run(campaign()))
