"""The Celery app, and the controller in front of it. Each process that enqueues starts its own, after its fork."""

from __future__ import annotations

import os

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

from django.conf import settings

from backpressure import BackpressureConfig, BackpressureController, RedisStatsProvider
from backpressure.integrations.celery import protect

app = Celery("shop", broker=settings.REDIS_URL)
app.conf.task_routes = {"shop.newsletter": {"queue": "mail"}, "shop.receipt": {"queue": "mail"}}
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 1  # the queue does not show tasks that a worker has taken
app.conf.broker_connection_retry_on_startup = True
app.conf.beat_schedule = {"campaign": {"task": "shop.campaign", "schedule": settings.CAMPAIGN_EVERY}}
app.autodiscover_tasks()

# Read four times a second, because a campaign enqueues a thousand mails in one second.
CONFIG = BackpressureConfig().evolve(
    {
        "thresholds.low_priority.green_max": 100,
        "thresholds.low_priority.yellow_max": 200,
        "thresholds.low_priority.red_max": 400,
        "polling.interval": "250ms",
        "polling.jitter": "50ms",
        "polling.timeout": "250ms",
    }
)
controller = BackpressureController(CONFIG, RedisStatsProvider.from_celery(app))
protect(
    app,
    controller,
    priority={"shop.newsletter": "low", "*": "high"},
    inside_tasks={"shop.campaign"},  # all else that workers send passes
)


# A worker's pool processes enqueue too: the campaign's newsletters.
@signals.worker_process_init.connect
def start(**_: object) -> None:
    controller.start()


@signals.worker_process_shutdown.connect
def stop(**_: object) -> None:
    controller.stop()  # writes the last counts
