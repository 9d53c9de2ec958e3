"""Soak: 8 threads and 1 000 tasks on each engine, a flapping server, an operator and forks, for ten minutes.

`make soak` runs it (``ARGS="--seconds 60"``). No decision may go uncounted, every job must end, and the process must
not grow. Ctrl-C ends it early with the table so far. Exit status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from scripts.soak.growth import Growth
from scripts.soak.producers import TaskCrew, ThreadCrew
from scripts.soak.tally import ENDS, engine_counts
from scripts.soak.trouble import CONFIG, Flapping, Forks, Operator

from support.servers import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.soak.growth import Size
    from scripts.soak.producers import Crew

_FORK_EVERY = 2.0
_LINES = 30


class Soak:
    """One run."""

    def __init__(self, server: Server, engines: list[str]) -> None:
        self.interrupted = threading.Event()
        self._threads = [ThreadCrew(engine, server.url, CONFIG) for engine in engines]
        self._crews: list[Crew] = [*self._threads, *(TaskCrew(engine, server.url, CONFIG) for engine in engines)]
        self._flapping = Flapping(self.interrupted, server)
        self._operator = Operator(self.interrupted, self._crews)
        self._forks = Forks(self._threads)
        self._growth = Growth()

    def run(self, seconds: float) -> bool:
        """Run everything, print a line now and then, and tell whether all is well."""
        for crew in self._crews:
            crew.start()
        self._flapping.start()
        self._operator.start()
        print(f"{'s':>5} {'decisions':>11} {'jobs':>9} {'outages':>7} {'changes':>7} {'forks':>5} {'MiB':>6} "
              f"{'files':>5} {'threads':>7}", flush=True)  # fmt: skip
        try:
            self._watch(seconds)
        finally:
            for stop in (self._operator.stop, self._flapping.stop, *(crew.stop for crew in self._crews)):
                stop()
            self._forks.reap(wait=True)
        return self._print_verdicts()

    def _watch(self, seconds: float) -> None:
        start = time.monotonic()
        passed = next_fork = next_line = 0.0
        while passed < seconds and not self.interrupted.wait(1):
            passed = time.monotonic() - start
            size = self._growth.note()
            for crew in self._crews:
                engine_counts(crew.registry)  # by the thread that forks: the registry's lock is not made for forks
            self._forks.reap()
            if passed >= next_fork:
                next_fork = passed + _FORK_EVERY
                self._forks.fork()
            if passed >= next_line:
                next_line += seconds / _LINES
                self._print_line(passed, size)

    def _print_line(self, seconds: float, size: Size) -> None:
        tallies = [crew.tally() for crew in self._crews]
        decisions, jobs = sum(t.asked.total() for t in tallies), sum(t.ends.total() for t in tallies)
        print(f"{seconds:5.0f} {decisions:11_} {jobs:9_} {self._flapping.times:7} {self._operator.times:7} "
              f"{self._forks.times:5} {size.mib:6.1f} {size.files:5} {size.threads:7}", flush=True)  # fmt: skip

    def _print_verdicts(self) -> bool:
        print(f"\n{'':24} {'decisions':>11} {' '.join(f'{end:>9}' for end in ENDS)}")
        for crew in self._crews:
            tally = crew.tally()
            ends = " ".join(f"{tally.ends[end]:9_}" for end in ENDS)
            print(f"{crew.name:24} {tally.asked.total():11_} {ends}")
        print()
        held = True
        for name, faults in self._faults():
            print(f"{name:40} {'holds' if not faults else 'FAILED: ' + '; '.join(faults)}")
            held = held and not faults
        return held

    def _faults(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each property with its faults."""
        for crew in self._crews:
            yield f"{crew.name}: all counts agree", crew.tally().differences(crew.registry)
        surprises = [text for crew in self._crews for text in crew.tally().surprises]
        yield "nothing else was raised", surprises + self._flapping.surprises + self._operator.surprises
        failed = self._forks.failed
        yield f"{self._forks.times} children ended well", [f"{failed} did not"] if failed else []
        rises = self._growth.rises()
        if not rises:
            print("too short to tell whether it grows")
        for name, by, allowed in rises:
            faults = [f"{by:+.1f} in the second half, where {allowed:.1f} is noise"] if by > allowed else []
            yield f"{name} are flat ({by:+.1f})", faults


def _engines() -> list[str]:
    """Return the engines that are installed."""
    return ["native", "pure"] if importlib.util.find_spec("backpressure._native") else ["pure"]


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (default 600)")
    parser.add_argument("--engines", nargs="+", choices=("native", "pure"), default=_engines())
    options = parser.parse_args()
    # Outages and changes of zone are intended here: a log of them all would hide the table.
    logging.getLogger("backpressure").setLevel(logging.CRITICAL)
    with Server() as server:
        soak = Soak(server, options.engines)
        signal.signal(signal.SIGINT, lambda *_: soak.interrupted.set())
        held = soak.run(options.seconds)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
