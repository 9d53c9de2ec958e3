"""The workers of all queues: a program that takes jobs at a set pace and writes down how long each had waited.

It is told its part as `producers` is.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from benches.control.real.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Seconds between two takes, of as many jobs as have become due.
STEP = 0.01
#: Longest stall of the machine, in seconds, that is caught up on: laws are compared, not machines.
ARREARS = 1.0


class Workers:
    """A thread for each queue."""

    def __init__(self, scenario: Scenario, queue_url: str) -> None:
        self.scenario = scenario
        self.client: Any = redis.Redis.from_url(queue_url)
        self.taken: list[tuple[int, float, float, int, int, int]] = []
        self.possible: list[Counter[int]] = [Counter() for _ in scenario.lanes]

    def run(self, begin: float) -> dict[str, Any]:
        """Take jobs from an instant on; return them, and how many could be taken in tenths of seconds."""
        threads = [threading.Thread(target=self.work, args=(lane, begin)) for lane in range(len(self.scenario.lanes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"taken": self.taken, "possible": [list(tenths.items()) for tenths in self.possible]}

    def work(self, lane: int, begin: float) -> None:
        name, credit, before = self.scenario.lanes[lane].name, 0.0, begin
        time.sleep(max(0.0, begin - time.monotonic()))
        while (now := time.monotonic()) < begin + self.scenario.seconds:
            credit += self.scenario.drain(lane, now - begin) * min(now - before, ARREARS)
            before = now
            jobs = int(credit)
            if jobs:
                credit -= jobs  # what could not be taken from an empty queue is gone
                self.possible[lane][int(10 * (now - begin))] += jobs
                self.take(lane, self.client.lpop(name, jobs) or (), time.monotonic(), begin)
            time.sleep(STEP)

    def take(self, lane: int, jobs: Iterable[bytes], now: float, begin: float) -> None:
        for job in jobs:
            stamp, producer, level, tenant = job.split()
            waited = round(now - float(stamp), 5)
            self.taken.append((lane, round(now - begin, 5), waited, int(producer), int(level), int(tenant)))


def main() -> None:
    told = json.loads(sys.stdin.readline())
    workers = Workers(Scenario.heard(told["scenario"]), told["queue_url"])
    workers.client.ping()
    print("ready", flush=True)
    taken = workers.run(float(sys.stdin.readline()))
    Path(told["to"]).write_text(json.dumps(taken))


if __name__ == "__main__":
    main()
