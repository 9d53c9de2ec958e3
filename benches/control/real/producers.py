"""A process of producers: a program that is told its part on standard input and writes down what became of each offer.

It says "ready" once its controllers have started, and begins at the instant that it is then told, by the machine's
monotonic clock, which all processes share.
"""

from __future__ import annotations

import functools
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from benches.control.real.scenario import HEAVY, LEVELS, Scenario
from redis.backoff import NoBackoff
from redis.retry import Retry

from backpressure import (
    BackpressureConfig,
    BackpressureController,
    CircuitOpenError,
    ControllerStoppedError,
    JobShedError,
    RedisStatsProvider,
    Tenant,
    ThrottledError,
)

if TYPE_CHECKING:
    from benches.control.real.scenario import Load, Producer

#: How an offer ended. Only the first means that there is a job more.
OUTCOMES = ("enqueued", "shed", "throttled", "blocked", "failed", "unfinished")
ENQUEUED, SHED, THROTTLED, BLOCKED, FAILED, UNFINISHED = range(len(OUTCOMES))

#: Seconds after a refusal, which a closed loop is not meant to get.
REFUSED = 0.05


class Process:
    """The producers of one process, each a thread."""

    def __init__(self, scenario: Scenario, law: str, number: int, queue_url: str, store_url: str, seed: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.events: list[list[tuple[float, int, int, int, int]]] = []
        self.client = redis.Redis.from_url(queue_url, max_connections=10_000, retry=Retry(NoBackoff(), 0))
        names = [lane.name for lane in scenario.lanes]
        self.controllers = [
            BackpressureController(config_for(law, scenario, store_url), RedisStatsProvider(queue_url, names))
            for _ in range(scenario.controllers)
        ]
        mine = scenario.producers()[number :: scenario.processes]
        self.threads = [
            threading.Thread(target=self.produce, args=(it, self.controllers[index % len(self.controllers)]))
            for index, it in enumerate(mine)
        ]
        self.begin = self.end = 0.0

    def prepare(self) -> None:
        for controller in self.controllers:
            controller.start()

    def run(self, begin: float) -> list[tuple[float, int, int, int, int]]:
        """Produce from an instant on; return the offers: when each ended, queue, priority, producer, outcome."""
        self.begin, self.end = begin, begin + self.scenario.seconds
        for thread in self.threads:
            thread.start()
        time.sleep(max(0.0, self.end - time.monotonic()))
        for controller in self.controllers:
            controller.stop()
        for thread in self.threads:
            thread.join()
        return sorted(event for events in self.events for event in events)

    def produce(self, producer: Producer, controller: BackpressureController) -> None:
        lane, load = producer.lane, producer.load
        level, name = LEVELS.index(load.level), self.scenario.lanes[lane].name
        events: list[tuple[float, int, int, int, int]] = []
        self.events.append(events)
        draw = random.Random(f"{self.seed} {producer.number}")
        due = self.begin + draw.random() * (1 / load.rate if load.rate else load.pause)
        while due < self.end:
            time.sleep(max(0.0, due - time.monotonic()))
            tenant = load.tenant(draw)
            push = functools.partial(self.push, name, f"{producer.number} {level} {-1 if tenant is None else tenant}")
            outcome = offer(controller, load, name, push, tenant)
            now = time.monotonic()
            events.append((round(now - self.begin, 4), lane, level, producer.number, outcome))
            if outcome == UNFINISHED:
                return
            if load.rate:
                due += draw.expovariate(load.rate)  # a caller that had to wait does not keep the next ones away
            else:
                due = now + (load.pause if outcome == ENQUEUED else REFUSED)

    def push(self, name: str, about: str) -> None:
        self.client.rpush(name, f"{time.monotonic():.6f} {about}")


def config_for(law: str, scenario: Scenario, store_url: str) -> BackpressureConfig:
    """Return the defaults, and for the age law its target and where its budget lies.

    A shorter target needs younger statistics; at full length these are those of the defaults.
    """
    config = BackpressureConfig().evolve({"age.tenant_weights": {"heavy": HEAVY}})
    if law == "table":
        return config
    polling = {
        f"polling.{name}": getattr(config.polling, name) / scenario.scale for name in ("busy_interval", "timeout")
    }
    return config.evolve({"age.target": scenario.target, "age.store": store_url, **polling})


def offer(controller: BackpressureController, load: Load, name: str, push: Any, tenant: int | None) -> int:
    who = None if tenant is None else Tenant(f"tenant {tenant}", "heavy" if load.weight(tenant) == HEAVY else "")
    try:
        controller.run(load.level, name, push, max_wait=load.max_wait, tenant=who)
    except JobShedError:
        return SHED
    except ThrottledError:
        return THROTTLED
    except CircuitOpenError:
        return BLOCKED
    except ControllerStoppedError:
        return UNFINISHED
    except redis.RedisError:
        return FAILED
    return ENQUEUED


def main() -> None:
    told = json.loads(sys.stdin.readline())
    scenario = Scenario.heard(told["scenario"])
    process = Process(scenario, told["law"], told["number"], told["queue_url"], told["store_url"], told["seed"])
    process.prepare()
    print("ready", flush=True)
    events = process.run(float(sys.stdin.readline()))
    Path(told["to"]).write_text(json.dumps(events))


if __name__ == "__main__":
    main()
