"""Dramatiq: `BackpressureMiddleware`, as the last one of a broker."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

import shop
from backpressure import BackpressureController, JobShedError, RedisStatsProvider
from backpressure.integrations.dramatiq import BackpressureMiddleware

broker = RedisBroker(url=shop.URL)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="mail")
def newsletter(customer: int) -> None:
    shop.newsletter(customer)


@dramatiq.actor(queue_name="mail")
def receipt(customer: int) -> None:
    shop.receipt(customer)


def campaign() -> list[int]:
    """Write to all customers; return those whose newsletter was shed."""
    postponed = []
    provider = RedisStatsProvider(shop.URL, ["mail"], layout="dramatiq")
    with BackpressureController(shop.CONFIG, provider) as controller:
        broker.add_middleware(BackpressureMiddleware(controller, priority={"newsletter": "low", "receipt": "high"}))
        for customer in shop.customers():
            try:
                newsletter.send(customer)
            except JobShedError:
                postponed.append(customer)
            if shop.buys(customer):
                receipt.send(customer)
    provider.close()
    return postponed


if __name__ == "__main__":
    with shop.worker("dramatiq", "dramatiq_newsletter", "--processes=1", "--threads=1", "--skip-logging"):
        shop.report(campaign())
