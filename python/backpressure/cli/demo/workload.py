"""The demo's traffic: threads that push jobs onto a list, and threads that take them at a steady pace.

The rates follow from the default law. Workers take 400 jobs a second. HIGH producers offer less than that and find
green below 1 000 waiting jobs, so they are hardly slowed. MEDIUM alone would flood the workers: the paced rate of its
56 callers meets what HIGH leaves over at a delay of some 220 ms, that is at about 1 150 waiting jobs. Most LOW jobs are
shed then, for that begins above 900. The first LOW producers spend much of a short run asleep, told to wait for seconds
while the backlog rose, so more of them join in the third quarter. Together they offer more than four times what
workers take, and later more than five times.
"""

from __future__ import annotations

import collections
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import attrs
from redis.exceptions import RedisError

from backpressure._model.errors import CircuitOpenError, ControllerStoppedError, JobShedError
from backpressure._model.vocabulary import Priority
from backpressure.cli.demo.result import Counts

if TYPE_CHECKING:
    from concurrent.futures import Future

    import redis

    from backpressure._controller.blocking import BackpressureController

__all__ = ["DRAIN_RATE", "LOADS", "QUEUE", "SLOWED_TO", "Load", "Workload", "offered_rate"]

#: Name of the queue, as the controller knows it.
QUEUE = "demo-jobs"


@attrs.frozen
class Load:
    """`producers` threads that each offer `rate` jobs a second; `late` of them join one by one in the third quarter."""

    producers: int
    rate: float
    late: int = 0

    def wait(self, index: int, seconds: float) -> float:
        """Return after how many seconds of a run of `seconds` a producer begins."""
        if index < self.late:
            return seconds * (0.5 + 0.25 * index / self.late)
        return index / self.producers / self.rate  # spread over a period, or all would come at once


LOADS = {Priority.HIGH: Load(8, 20), Priority.MEDIUM: Load(56, 18), Priority.LOW: Load(32, 35, late=16)}
WORKERS = 4
#: Jobs a second that workers take together.
DRAIN_RATE = 400
#: Part of that which is left where workers slow down.
SLOWED_TO = 0.4

_IDLE = 0.02
# Longest stall of this machine, in seconds, that a worker catches up on: workers are compared, not machines.
_ARREARS = 1.0
# The waits of jobs are averaged over such parts of a second.
_WAITS_A_SECOND = 4


def offered_rate(*, late: bool = True) -> float:
    """Return the jobs a second that producers offer while nothing slows them, with or without the late ones."""
    return sum((load.producers - (0 if late else load.late)) * load.rate for load in LOADS.values())


@attrs.define
class _Producer:
    """One thread's own figures, so that no lock is needed to count."""

    priority: Priority
    wait: float  # seconds until it begins
    counts: Counts = attrs.Factory(Counts)
    peak: int = 0


@attrs.define
class _Worker:
    drained: int = 0
    cut_off: int = 0
    waited: collections.Counter[int] = attrs.Factory(collections.Counter)  # milliseconds of jobs taken, by part of time
    taken: collections.Counter[int] = attrs.Factory(collections.Counter)


class Workload:
    """Producers and workers of one run of `seconds`. The figures are exact once `stop` has returned.

    With `slows`, workers slow down to `SLOWED_TO` halfway.
    """

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        seconds: float,
        controller: BackpressureController | None,
        *,
        queue: str = QUEUE,
        slows: bool = False,
    ) -> None:
        self._client: Any = client  # its replies are typed for sync and async alike
        self._key = key
        self._queue = queue
        self._seconds = seconds
        self._controller = controller
        self._slows = slows
        self._began = time.monotonic()
        self._producers = [
            _Producer(priority, load.wait(index, seconds))
            for priority, load in LOADS.items()
            for index in range(load.producers)
        ]
        self._workers = [_Worker() for _ in range(WORKERS)]
        self._producing_ends, self._working_ends = threading.Event(), threading.Event()
        threads = len(self._producers) + len(self._workers)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="demo")
        self._futures: list[Future[None]] = []

    def start(self) -> None:
        """Start all threads."""
        self._began = time.monotonic()
        for worker in self._workers:
            self._futures.append(self._pool.submit(self._work, worker))
        for producer in self._producers:
            self._futures.append(self._pool.submit(self._produce, producer))

    def stop(self) -> None:
        """End producers, sleeping ones too, then workers; raise the error that ended any thread."""
        self._producing_ends.set()
        if self._controller is not None:
            self._controller.stop()
        self._working_ends.set()
        self._pool.shutdown()
        for future in self._futures:
            future.result()

    def _produce(self, producer: _Producer) -> None:
        period = 1 / LOADS[producer.priority].rate
        due = time.monotonic() + producer.wait
        while not self._producing_ends.wait(max(0.0, due - time.monotonic())):
            self._offer(producer)
            # A producer that was held back goes on at once, and does not catch up on the jobs that it missed.
            due = max(due + period, time.monotonic())

    def _offer(self, producer: _Producer) -> None:
        counts = producer.counts
        counts.offered += 1
        try:
            producer.peak = max(producer.peak, self._enqueue(producer.priority, counts.offered))
        except CircuitOpenError:
            counts.blocked += 1
        except JobShedError:
            counts.shed += 1
        except RedisError:
            counts.failed += 1
        except ControllerStoppedError:
            counts.offered -= 1
        else:
            counts.enqueued += 1

    def _enqueue(self, priority: Priority, number: int) -> int:
        """Push one job; return how many wait now."""
        job = json.dumps({"priority": str(priority), "number": number, "at": time.monotonic()})
        if self._controller is None:
            return cast("int", self._client.rpush(self._key, job))
        return cast("int", self._controller.run(priority, self._queue, self._client.rpush, self._key, job))

    def _period(self, now: float) -> float:
        """Return the seconds between two jobs that a worker takes."""
        slowed = self._slows and now - self._began >= self._seconds / 2
        return WORKERS / DRAIN_RATE / (SLOWED_TO if slowed else 1)

    def _work(self, worker: _Worker) -> None:
        due = time.monotonic()
        while not self._working_ends.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            try:
                job = self._client.lpop(self._key)
            except RedisError:
                worker.cut_off += 1
                due = now + _IDLE
                continue
            if job is None:
                due = now + _IDLE
            else:
                worker.drained += 1
                part = int((now - self._began) * _WAITS_A_SECOND)
                worker.waited[part] += round((now - json.loads(job)["at"]) * 1_000)
                worker.taken[part] += 1
                due = max(due + self._period(now), now - _ARREARS)

    def counts(self) -> dict[Priority, Counts]:
        """Return the producers' counts by priority."""
        return {
            priority: sum((producer.counts for producer in self._producers if producer.priority is priority), Counts())
            for priority in LOADS
        }

    def peak(self) -> int:
        """Return the longest the list has been."""
        return max(producer.peak for producer in self._producers)

    def drained(self) -> int:
        """Return how many jobs workers took."""
        return sum(worker.drained for worker in self._workers)

    def cut_off(self) -> int:
        """Return how many takes got no answer."""
        return sum(worker.cut_off for worker in self._workers)

    def waits(self) -> tuple[tuple[float, float], ...]:
        """Return how long jobs had waited that were taken, in seconds: the means of parts of a second, by their ends.

        The instants are seconds into the run.
        """
        waited, taken = collections.Counter[int](), collections.Counter[int]()
        for worker in self._workers:
            waited.update(worker.waited.copy())
            taken.update(worker.taken.copy())
        return tuple(
            ((part + 1) / _WAITS_A_SECOND, waited[part] / jobs / 1_000) for part, jobs in sorted(taken.items())
        )
