"""Prints the share of a core that a controller takes over a minute: ``steady.py URL idle|paced|busy``.

`paced` runs the producer's loop without its decisions: the rest of the time of `busy` is theirs.
"""

from __future__ import annotations

import sys
import time

from backpressure import BackpressureController, RedisStatsProvider

SECONDS = 60.0
TICKS = 10
PER_TICK = 100


def main(url: str, how: str) -> None:
    """Run for a minute."""
    names = [f"queue-{number}" for number in range(100)]
    with BackpressureController(None, RedisStatsProvider(url, names)) as controller:
        for name in names:
            controller.suggest_throttle("low", name)
        suggest = controller.suggest_throttle if how == "busy" else lambda *_: None
        began, worked = time.monotonic(), time.process_time()
        if how == "idle":
            time.sleep(SECONDS)
        else:
            for tick in range(int(SECONDS) * TICKS):
                time.sleep(max(0.0, began + tick / TICKS - time.monotonic()))
                for name in names[:PER_TICK]:
                    suggest("low", name)
        print((time.process_time() - worked) / (time.monotonic() - began))


main(*sys.argv[1:])
