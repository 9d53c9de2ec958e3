"""Huey: `protect` puts a controller in front of a ``Huey``."""

from __future__ import annotations

from huey import RedisHuey

import shop
from backpressure import BackpressureController, JobShedError, RedisStatsProvider
from backpressure.integrations.huey import protect

huey = RedisHuey("mail", url=shop.URL, results=False)

# Huey names tasks after the module of their function, which the consumer must import by the same name.
newsletter = huey.task()(shop.newsletter)
receipt = huey.task()(shop.receipt)


def campaign() -> list[int]:
    """Write to all customers; return those whose newsletter was shed."""
    postponed = []
    provider = RedisStatsProvider(shop.URL, ["mail"], layout="huey")
    with BackpressureController(shop.CONFIG, provider) as controller:
        protect(huey, controller, priority={"newsletter": "low", "receipt": "high"})
        for customer in shop.customers():
            try:
                newsletter(customer)
            except JobShedError:
                postponed.append(customer)
            if shop.buys(customer):
                receipt(customer)
    provider.close()
    return postponed


if __name__ == "__main__":
    with shop.worker("huey.bin.huey_consumer", "huey_newsletter.huey", "--workers=1", "--quiet"):
        shop.report(campaign())
