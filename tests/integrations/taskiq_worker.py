"""What taskiq's commands are to run, see `commands`."""

from __future__ import annotations

import os

from taskiq import TaskiqEvents, TaskiqMessage, TaskiqMiddleware, TaskiqResult, TaskiqScheduler, TaskiqState
from taskiq.schedule_sources import LabelScheduleSource
from taskiq_redis import ListQueueBroker

from backpressure import AsyncBackpressureController, InMemoryStatsProvider
from backpressure.integrations.taskiq import BackpressureMiddleware
from integrations.everywhere import from_everywhere

URL = os.environ["SERVER_URL"]


class SendsMore(TaskiqMiddleware):
    """Sends something after each task, and before a scheduled one is sent."""

    async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[object]) -> None:
        """See ``taskiq.TaskiqMiddleware``."""
        await send(f"after {message.task_name}")


class Schedules(LabelScheduleSource):
    """Sends something before a scheduled task."""

    async def pre_send(self, task: object) -> None:
        """See ``taskiq.ScheduleSource``."""
        await send("before a schedule")


def protected(queue_name: str) -> ListQueueBroker:
    """Return a broker whose controller nobody starts."""
    controller = AsyncBackpressureController(None, InMemoryStatsProvider({}))
    broker = ListQueueBroker(URL, queue_name=queue_name)
    broker.add_middlewares(BackpressureMiddleware(controller, priority="low"))
    return broker


broker, later = protected("jobs"), protected("later")
broker.add_middlewares(SendsMore())
scheduler = TaskiqScheduler(broker, [Schedules(broker)])


@later.task(task_name="send")
async def sent(where: str) -> None:
    """Is never received."""


async def send(where: str) -> None:
    """Kick what is never received."""
    await sent.kiq(where)


@broker.task(task_name="work")
async def work() -> None:
    """Send from everywhere."""
    await from_everywhere(send)


@broker.task(task_name="scheduled", schedule=[{"interval": 1}])
async def scheduled() -> None:
    """Is due at once."""


@broker.on_event(TaskiqEvents.WORKER_STARTUP, TaskiqEvents.CLIENT_STARTUP)
async def startup(_: TaskiqState) -> None:
    """Send as the process begins."""
    await send("startup")


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN, TaskiqEvents.CLIENT_SHUTDOWN)
async def shutdown(_: TaskiqState) -> None:
    """Send as the process ends."""
    await send("shutdown")
    await later.shutdown()
