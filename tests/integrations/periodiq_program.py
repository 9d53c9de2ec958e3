"""A program with an actor for periodiq. Its controller is not started."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from periodiq import PeriodiqMiddleware, cron

from backpressure import BackpressureController, InMemoryStatsProvider
from backpressure.integrations.dramatiq import BackpressureMiddleware

controller = BackpressureController(None, InMemoryStatsProvider({"default": 0}))
_RedisBroker: Any = RedisBroker
broker: Any = _RedisBroker(url=os.environ["SERVER_URL"], middleware=[PeriodiqMiddleware()])
broker.add_middleware(BackpressureMiddleware(controller, priority="low"))
dramatiq.set_broker(broker)


def work(*_: str) -> None:
    """Do nothing."""


options: dict[str, Any] = {"periodic": cron("* * * * *")}
minutely: Any = dramatiq.actor(actor_name="minutely", **options)(work)
dramatiq.actor(work)
