"""The Celery app, and the controller in front of it. Each process that enqueues starts its own, after its fork."""

from __future__ import annotations

import os

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

from django.conf import settings

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    RedisStatsProvider,
)
from backpressure.integrations.celery import protect

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

config = BackpressureConfig.from_django(settings.BACKPRESSURE)
provider = RedisStatsProvider.from_celery(app, ["mail"])
controller = BackpressureController(config, provider)
protect(
    app,
    controller,
    priority={"shop.receipt": "high", "*": "low"},
    inside_tasks={"shop.campaign"},  # all else that workers send passes
)


# A worker's pool processes enqueue too: the campaign's newsletters.
@signals.worker_process_init.connect
def start(**_: object) -> None:
    controller.start()


@signals.worker_process_shutdown.connect
def stop(**_: object) -> None:
    controller.stop()  # writes the last counts
