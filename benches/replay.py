"""How long a replay takes: a queue with a row each second, on both engines. Run by ``python -m benches.replay``.

CPU time, the best of some runs; a week on the native engine, a day on the pure one. A week of a hundred queues has
60,480,000 such rows.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backpressure import BackpressureConfig, Recording
from backpressure._recording.book import Book
from backpressure._recording.row import Row
from backpressure.replay import Behaviour, Loops, Replay

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400
WEEK_OF_100 = 7 * 100 * DAY
BEGIN_MS = 1_800_000_000_000
#: Seconds of the day in which twice as much is offered as workers take.
RUSH = range(40_000, 44_000)


def rows(days: int) -> list[Row]:
    """Return days: some 75 offers a second for workers that take 100, and a rush in each."""
    draw, backlog, made = random.Random(1), 0, [Row(BEGIN_MS, 0, circuit=0, policy=1)]
    for second in range(1, days * DAY):
        more = 2.7 if second % DAY in RUSH else 1.0
        low, medium, high = (max(0, round(draw.gauss(mean * more, mean**0.5))) for mean in (40, 25, 10))
        backlog = max(0, backlog + low + medium + high - max(0, round(draw.gauss(100, 10))))
        counts = (high, 0, 0, medium, 0, 0, low, 0, 0)
        made.append(Row._make((BEGIN_MS + 1_000 * second, backlog, *[None] * 4, *counts, 0, 1)))
    return made


def seconds(work: Callable[[], object], runs: int) -> float:
    """Return the CPU seconds of the fastest run."""
    best = float("inf")
    for _ in range(runs):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def main() -> None:
    """Time replays with and without the third answer, and how much of that is reading the file."""
    behaviour = Behaviour(returns=0.5, loops={"medium": Loops(20, pause=1)})
    with tempfile.TemporaryDirectory() as folder:
        book = Book(Path(folder) / "week.bpr")
        for name, days in (("week", 7), ("day", 1)):
            book.write({name: rows(days)}, {1: '{"mode": "observe"}'}, BEGIN_MS, 10**12)
        hours = book.hours("week")
        read = seconds(lambda: book.blocks("week", hours[0], hours[-1]), 3) / 7 / DAY
        print(f"reading and unpacking the file: {1e9 * read:.0f} ns a row")
        for engine, name, days, runs in (("native", "week", 7, 5), ("pure", "day", 1, 1)):
            for label, given in (("two answers", None), ("three answers", behaviour)):
                replay = Replay(Recording(book.path), BackpressureConfig(), behaviour=given, _engine=engine)
                took = seconds(lambda: replay.queue(name), runs) / days / DAY  # noqa: B023 - it is called here
                print(f"{engine}, {label}: {1e9 * took:,.0f} ns a row, {took * WEEK_OF_100:,.1f} s for 100 queue-weeks")


if __name__ == "__main__":
    main()
