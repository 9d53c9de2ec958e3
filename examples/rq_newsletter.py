"""RQ: a `Queue` instead of ``rq.Queue``."""

from __future__ import annotations

import redis

import shop
from backpressure import BackpressureController, JobShedError, RedisStatsProvider
from backpressure.integrations.rq import Queue


def campaign() -> list[int]:
    """Write to all customers; return those whose newsletter was shed."""
    postponed = []
    provider = RedisStatsProvider(shop.URL, ["mail"], layout="rq")
    with redis.Redis.from_url(shop.URL) as connection, BackpressureController(shop.CONFIG, provider) as controller:
        priority = {"shop.newsletter": "low", "shop.receipt": "high"}
        queue = Queue("mail", connection=connection, controller=controller, priority=priority)
        for customer in shop.customers():
            try:
                queue.enqueue(shop.newsletter, customer)
            except JobShedError:
                postponed.append(customer)
            if shop.buys(customer):
                queue.enqueue(shop.receipt, customer)
    provider.close()
    return postponed


if __name__ == "__main__":
    # A SimpleWorker runs jobs itself; rq's default forks for each job, which is too slow for a campaign of one second.
    with shop.worker("rq.cli", "worker", "mail", "--url", shop.URL, "--quiet", "--worker-class", "rq.SimpleWorker"):
        shop.report(campaign())
