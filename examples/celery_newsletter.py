"""Celery: `protect` puts a controller in front of an app."""

from __future__ import annotations

from celery import Celery

import shop
from backpressure import BackpressureController, JobShedError, RedisStatsProvider
from backpressure.integrations.celery import protect

app = Celery("shop", broker=shop.URL)
app.conf.task_default_queue = "mail"
app.conf.worker_prefetch_multiplier = 1  # the queue does not show tasks that a worker has taken


@app.task(name="newsletter", ignore_result=True)
def newsletter(customer: int) -> None:
    shop.newsletter(customer)


@app.task(name="receipt", ignore_result=True)
def receipt(customer: int) -> None:
    shop.receipt(customer)


def campaign() -> list[int]:
    """Write to all customers; return those whose newsletter was shed."""
    postponed = []
    provider = RedisStatsProvider(shop.URL, ["mail"], layout="celery")
    with BackpressureController(shop.CONFIG, provider) as controller:
        protect(app, controller, priority={"newsletter": "low", "receipt": "high"})
        for customer in shop.customers():
            try:
                newsletter.delay(customer)
            except JobShedError:
                postponed.append(customer)
            if shop.buys(customer):
                receipt.delay(customer)
    provider.close()
    return postponed


if __name__ == "__main__":
    worker = ("worker", "--queues=mail", "--concurrency=1", "--loglevel=error", "--without-mingle")
    with shop.worker("celery", "--app=celery_newsletter", "--quiet", *worker):
        shop.report(campaign())
