"""A Celery application whose worker's and beat's processes send, though everything would be shed and nothing runs."""

from __future__ import annotations

import os

from celery import Celery, signals

from backpressure import BackpressureController, InMemoryStatsProvider, JobShedError
from backpressure.integrations.celery import protect

controller = BackpressureController(None, InMemoryStatsProvider({"later": 5000, "jobs": 5000}))
app = protect(
    Celery(broker=os.environ["TEST_REDIS_URL"], backend=os.environ["TEST_REDIS_URL"]),
    controller,
    priority="low",
    inside_tasks={"campaign"},
)
app.conf.task_default_queue = "jobs"
app.conf.beat_schedule = {"often": {"task": "often", "schedule": 0.05, "options": {"queue": "later"}}}


def tell(name: str) -> None:
    app.send_task(name, queue="later")


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def on_celeryd_init(**_: object) -> None:
    tell("celeryd_init")


@signals.worker_init.connect  # type: ignore[untyped-decorator]
def on_worker_init(**_: object) -> None:
    tell("worker_init")


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def on_process_init(**_: object) -> None:
    tell("worker_process_init")


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def on_ready(**_: object) -> None:
    tell("worker_ready")


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def on_shutdown(**_: object) -> None:
    tell("worker_shutdown")


@signals.beat_init.connect  # type: ignore[untyped-decorator]
def on_beat(**_: object) -> None:
    tell("beat_init")


@app.task(name="plain")  # type: ignore[untyped-decorator]
def plain() -> None:
    tell("from_task")


@app.task(name="campaign")  # type: ignore[untyped-decorator]
def campaign() -> None:
    controller.start()
    try:
        tell("mail")
    except JobShedError:
        return
    raise AssertionError
