"""RQ's queue behind a controller, with RQ's own workers on a real server."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis

from backpressure import CircuitOpenError, JobShedError
from backpressure.providers.layouts import RQLayout
from integrations import rq_functions
from integrations.conftest import OVERLOAD, decided
from integrations.frameworks import required
from integrations.rq_functions import enqueue_more, fail_once, runs, work

required("rq")

import rq  # noqa: E402 - skipped before where it is missing

from backpressure.integrations.rq import Queue  # noqa: E402

if TYPE_CHECKING:
    from backpressure import BackpressureController
    from integrations.conftest import Watch


@pytest.fixture(autouse=True)
def no_runs() -> None:
    """Forget what other tests ran."""
    runs.clear()


@pytest.fixture
def controller(watch: Watch, redis_client: redis.Redis) -> BackpressureController:
    """A controller that sees an overload in the queue ``mail``."""
    plain = rq.Queue("mail", connection=redis_client)
    for _ in range(OVERLOAD):
        plain.enqueue(work)
    controller = watch(RQLayout(), "mail")
    assert controller.health()["queues"]["mail"]["backlog"] == OVERLOAD
    return controller


def queue(redis_client: redis.Redis, controller: BackpressureController, **options: Any) -> Queue:
    return Queue("mail", connection=redis_client, controller=controller, **{"priority": "low", **options})


def drain(redis_client: redis.Redis, controller: BackpressureController) -> None:
    """Run all jobs in this process, by a worker all of whose queues are of a class that sheds low jobs."""

    class LowQueue(Queue):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, controller=controller, priority="low", **kwargs)

    worker = rq.SimpleWorker(["mail"], connection=redis_client, queue_class=LowQueue)
    worker.work(burst=True, logging_level="CRITICAL")


def test_under_overload_low_is_shed_and_high_passes(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    table = queue(redis_client, controller, priority={f"{work.__module__}.work": "low", "*": "high"})
    keys = set(redis_client.keys())
    with pytest.raises(JobShedError):
        table.enqueue(work)
    assert set(redis_client.keys()) == keys, "a shed job left something behind"
    table.enqueue(fail_once, "high")
    table.enqueue(work, meta={"backpressure_priority": "high"})
    assert table.count == OVERLOAD + 2


@pytest.mark.parametrize(
    "enqueue",
    [
        lambda queue: queue.enqueue_call(work),
        lambda queue: queue.enqueue_in(timedelta(hours=1), work),
        lambda queue: queue.enqueue_job(rq.job.Job.create(work, connection=queue.connection)),
        lambda queue: queue.enqueue(work, unique=True, job_id="1"),
        lambda queue: queue.enqueue_in(timedelta(hours=1), work, unique=True, job_id="1"),
        lambda queue: queue.enqueue_many([Queue.prepare_data(work)]),
    ],
)
def test_every_way_of_enqueueing_is_gated(
    redis_client: redis.Redis, controller: BackpressureController, enqueue: Any
) -> None:
    keys = set(redis_client.keys())
    with pytest.raises(JobShedError):
        enqueue(queue(redis_client, controller))
    assert set(redis_client.keys()) == keys


def test_many_jobs_are_gated_once_and_enqueued_all_or_none(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    high = Queue.prepare_data(work, meta={"backpressure_priority": "high"})
    low = Queue.prepare_data(work)
    low_queue = queue(redis_client, controller)
    with pytest.raises(JobShedError):
        low_queue.enqueue_many(data for data in (high, low))
    assert low_queue.count == OVERLOAD
    before = decided(controller)
    low_queue.enqueue_many([high] * 10)
    assert low_queue.count == OVERLOAD + 10
    assert decided(controller) == before + 1


@pytest.mark.parametrize("retry", [rq.Retry(max=1), rq.Retry(max=1, interval=60)], ids=["at once", "later"])
def test_a_retry_under_overload_is_not_lost(
    redis_client: redis.Redis, controller: BackpressureController, retry: rq.Retry
) -> None:
    rq.Queue("mail", connection=redis_client).enqueue(fail_once, "job", retry=retry)
    low_queue = queue(redis_client, controller)
    drain(redis_client, controller)  # retries, with an interval by schedule_job of this very queue
    for job_id in low_queue.scheduled_job_registry.get_job_ids():
        redis_client.zadd(low_queue.scheduled_job_registry.key, {job_id: 1})  # its time has come
    scheduler: Any = rq.scheduler.RQScheduler([low_queue], redis_client)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    scheduler.release_locks()
    drain(redis_client, controller)
    assert runs.count("job") == 2


def test_dependents_and_jobs_from_inside_a_job_pass(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    plain = rq.Queue("mail", connection=redis_client)
    first = plain.enqueue(enqueue_more, "mail")
    plain.enqueue(work, "dependent", depends_on=first)
    rq_functions.queues["mail"] = queue(redis_client, controller)
    drain(redis_client, controller)
    assert runs.count("dependent") == 1
    assert runs.count("from a job") == 1


def test_a_synchronous_queue_runs_its_jobs_whatever_the_backlog(
    redis_client: redis.Redis, controller: BackpressureController
) -> None:
    queue(redis_client, controller, is_async=False).enqueue(work, "at once")
    assert runs == ["at once"]


def test_a_server_that_refuses_opens_the_circuit(
    redis_client: redis.Redis, controller: BackpressureController, full_server: None
) -> None:
    high_queue = queue(redis_client, controller, priority="high")
    for _ in range(5):
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            high_queue.enqueue(work)
    with pytest.raises(CircuitOpenError):
        high_queue.enqueue(work)
