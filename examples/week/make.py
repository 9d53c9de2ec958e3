"""A week of a shop, simulated in half a minute and recorded as it would be in production: observed, by a `Recorder`.

Three queues, each with its own trouble:

- `mail`: receipts and passwords all day; on two mornings a campaign, when 20 loops write one newsletter after another.
- `images`: what customers upload; on one afternoon somebody has all old pictures made anew, by one job for each.
- `reports`: its workers do other work at night, when they take a quarter of what they take by day.

Each day at three workers are away for two minutes, for a new version is deployed. All numbers are whole, and drawn from
one seed: the week is the same on every machine.

    python examples/week/make.py week.bpr
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections import deque
from datetime import timedelta
from pathlib import Path

from backpressure import BackpressureConfig, BackpressureController, InMemoryStatsProvider, Recorder
from backpressure.testing import ManualClock

STEP = 20  # seconds between two readings
HOUR = 3_600
#: Rows that may wait to be written.
WAITING = 300
DAYS = 7
#: How busy each hour of a day is, in percent of the busiest.
RHYTHM = (12, 8, 6, 6, 8, 14, 28, 48, 72, 90, 100, 96, 88, 92, 96, 94, 90, 86, 80, 74, 64, 48, 32, 20)
CONFIG = BackpressureConfig.from_mapping(
    {
        "mode": "observe",
        "polling": {"interval": STEP, "busy_interval": STEP, "jitter": 0, "timeout": STEP},
        "recovery": {"graceful_degrade": 0},
    }
)

#: Thousandths of jobs a second.
Rates = dict[str, int]


def busy(second: int) -> int:
    """Return how busy the shop is, in percent; in between two hours in proportion."""
    hour, part = divmod(second % (24 * HOUR), HOUR)
    return (RHYTHM[hour] * (HOUR - part) + RHYTHM[(hour + 1) % 24] * part) // HOUR


def is_within(second: int, day: int, begin: int, end: int) -> bool:
    """Tell whether a second is of a day, from one minute of it to another."""
    return second // (24 * HOUR) == day and begin * 60 <= second % (24 * HOUR) < end * 60


def deploys(second: int) -> bool:
    """Tell whether workers are away."""
    return any(is_within(second, day, 15 * 60, 15 * 60 + 2) for day in range(DAYS))


def mail(second: int) -> tuple[Rates, int]:
    """Return what is offered, and what workers take."""
    campaign = any(is_within(second, day, 9 * 60, 10 * 60 + 30) for day in (1, 5))
    offers = {"high": 4 * busy(second), "medium": 60 * busy(second), "low": 20_000 if campaign else 0}
    return offers, 0 if deploys(second) else 16_000


def images(second: int) -> tuple[Rates, int]:
    """Return what is offered, and what workers take."""
    anew = is_within(second, 3, 13 * 60, 13 * 60 + 40)
    return {"medium": 20 * busy(second), "low": 12_000 if anew else 5 * busy(second)}, 0 if deploys(second) else 6_000


def reports(second: int) -> tuple[Rates, int]:
    """Return what is offered, and what workers take."""
    hour = second // HOUR % 24
    nightly = any(is_within(second, day, 60, 75) for day in range(DAYS))
    weekly = is_within(second, 4, 9 * 60, 9 * 60 + 30)
    offers = {"medium": 6 * busy(second), "low": 2_000 if nightly else 6_000 if weekly else 100}
    return offers, 0 if deploys(second) else 500 if hour < 6 else 2_000


QUEUES = {"mail": mail, "images": images, "reports": reports}


class Chance:
    """Draws whole numbers that vary as counts of independent jobs do, by coins alone."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - a shop, no secret

    def jobs(self, thousandths: int) -> int:
        """Return how many jobs come, of so many to be expected."""
        whole, rest = divmod(thousandths, 1_000)
        mean = whole + (self._draw.randrange(1_000) < rest)
        coins = 4 * mean  # their heads vary by as much as `mean` jobs do
        return max(0, mean + self._draw.getrandbits(coins).bit_count() - 2 * mean) if mean else 0


def make(path: Path, *, days: int = DAYS, seed: int = 1) -> None:
    """Simulate the first days, and record them."""
    chance, clock, provider = Chance(seed), ManualClock(), InMemoryStatsProvider()
    waiting: dict[str, deque[list[int]]] = {name: deque() for name in QUEUES}  # jobs that came at a second
    for name in QUEUES:
        provider.set(name, 0, last_updated=clock.utc_now())
    recorder = Recorder(path, keep=timedelta(days=60))
    quiet = logging.Logger("week", logging.ERROR)  # noqa: LOG001 - nobody's
    rows = len(QUEUES)
    with BackpressureController(CONFIG, provider, clock=clock, recorder=recorder, logger=quiet) as controller:
        for second in range(0, days * 24 * HOUR, STEP):
            later = clock.utc_now() + timedelta(seconds=STEP)
            for name, what in QUEUES.items():
                offers, drain = what(second)
                jobs = waiting[name]
                for priority, thousandths in offers.items():
                    come = chance.jobs(STEP * thousandths)
                    suggest = controller.gate(priority, name).suggest
                    for _ in range(come):
                        suggest()
                    jobs.append([come, second])
                take = chance.jobs(STEP * drain)
                while jobs and take >= jobs[0][0]:
                    take -= jobs.popleft()[0]
                if jobs:
                    jobs[0][0] -= take
                oldest = second + STEP - jobs[0][1] if jobs else None
                provider.set(name, sum(count for count, _ in jobs), oldest_age=oldest, last_updated=later)
            clock.advance(STEP)
            rows += len(QUEUES)
            while recorder.gathered < rows:  # this clock waits for no machine that has too much to do
                time.sleep(0.001)
            if rows - recorder.written > WAITING:  # nor for its disk
                time.sleep(0.05)
    if recorder.written < recorder.gathered:
        sys.exit(recorder.problem or f"{path} is not whole: the disk is too slow")


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        sys.exit("usage: python examples/week/make.py FILE, which must not exist")
    make(Path(sys.argv[1]))
