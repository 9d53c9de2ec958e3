"""The tasks that workers run."""

from __future__ import annotations

import time

import redis
from celery import shared_task
from django.conf import settings

from backpressure import JobShedError, ThrottledError

store = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)


@shared_task(name="shop.newsletter")
def newsletter(customer: int) -> None:
    time.sleep(0.002)  # send it
    store.incr("shop:newsletters")


@shared_task(name="shop.receipt")
def receipt(customer: int) -> None:
    time.sleep(0.002)
    store.incr("shop:receipts")
    welcome.delay(customer)  # passes, although it is low: a worker sends it


@shared_task(name="shop.welcome")
def welcome(customer: int) -> None:
    time.sleep(0.002)
    store.incr("shop:welcomes")


@shared_task(name="shop.campaign")
def campaign() -> None:
    """Write to all customers; keep those whose newsletter was refused for tomorrow."""
    if not store.set("shop:campaign", "under way", nx=True):
        return  # beat starts another one
    postponed = []
    for customer in range(settings.MAILS):
        try:
            newsletter.delay(customer)
        except (JobShedError, ThrottledError):
            postponed.append(customer)
    store.rpush("shop:postponed", -1, *postponed)
    store.set("shop:campaign", "done")
