"""The demo's last run: both laws on the same load at once, each on a list of its own, while workers slow down."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import attrs

from backpressure._age.script import budget_key
from backpressure.cli.demo.result import Counts, RunResult
from backpressure.cli.demo.run import (
    LOOK_SECONDS,
    Comparison,
    backlog_of,
    config_for,
    controller_for,
    final_of,
    remove,
)
from backpressure.cli.demo.workload import DRAIN_RATE, SLOWED_TO, Workload

if TYPE_CHECKING:
    import redis

    from backpressure._model.config.root import BackpressureConfig
    from backpressure.cli.demo.run import Watcher
    from backpressure.cli.demo.server import DemoServer

__all__ = ["LAWS", "LawsRun", "target_for"]

#: What decides on each side.
LAWS = ("table", "age")

# As a part of the run, so that the age settles twice in runs of any length; the limits are in seconds.
_TARGET, _LEAST, _MOST = 1 / 16, 0.5, 5.0


def target_for(seconds: float) -> float:
    """Return the age to be held in a run of `seconds`."""
    return round(min(max(_TARGET * seconds, _LEAST), _MOST), 1)


@attrs.frozen
class _Side:
    """One law with its list and its traffic."""

    law: str
    key: str
    workload: Workload
    samples: list[tuple[float, int | None]] = attrs.Factory(lambda: [(0.0, 0)])


class LawsRun:
    """One run of `seconds` on two lists whose keys begin with `key`."""

    def __init__(self, name: str, seconds: float, server: DemoServer, key: str, watcher: Watcher) -> None:
        self._name = name
        self._seconds = seconds
        self._server = server
        self._key = key
        self._watcher = watcher
        self._target = target_for(seconds)
        self._began = time.monotonic()

    def execute(self) -> dict[str, RunResult]:
        """Let producers produce, and return the results by law. The keys are removed in every case.

        Raises:
            DemoError: the server failed.
        """
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(self._server.client())
            sides = [self._side(law, client, stack) for law in LAWS]
            self._began = time.monotonic()
            try:
                for side in sides:
                    side.workload.start()
                self._watch(client, sides)
            finally:
                for side in sides:
                    side.workload.stop()
            return {side.law: self._result(side, client) for side in sides}

    def _side(self, law: str, client: redis.Redis, stack: contextlib.ExitStack) -> _Side:
        # The name of the queue too is of this run alone: the budget of all producers is kept under it.
        key = f"{self._key}:{law}"
        stack.callback(remove, client, key, self._watcher)
        config = config_for(self._seconds)
        if law == "age":
            stack.callback(remove, client, budget_key(key), self._watcher)
            config = _holding(config, self._target)
        controller = stack.enter_context(controller_for(config, client, {key: key}, self._watcher))
        return _Side(law, key, Workload(client, key, self._seconds, controller, queue=key, slows=True))

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _watch(self, client: redis.Redis, sides: list[_Side]) -> None:
        """Look at the run until its time is over."""
        elapsed, slowed = 0.0, False
        while elapsed < self._seconds:
            time.sleep(max(0.0, min(LOOK_SECONDS, self._seconds - self._elapsed())))
            elapsed = min(self._elapsed(), self._seconds)
            if elapsed >= self._seconds / 2 and not slowed:
                slowed = True
                self._watcher.news(f"workers slow down to {DRAIN_RATE * SLOWED_TO:,.0f} jobs a second")
            for side in sides:
                side.samples.append((elapsed, backlog_of(client, side.key)))
            self._watcher.update(
                Comparison(
                    name=self._name,
                    elapsed=elapsed,
                    seconds=self._seconds,
                    target=self._target,
                    drain=DRAIN_RATE * (SLOWED_TO if slowed else 1),
                    waits={side.law: tuple(waited for _, waited in side.workload.waits()) for side in sides},
                    backlogs={side.law: side.samples[-1][1] for side in sides},
                    counts={side.law: sum(side.workload.counts().values(), Counts()) for side in sides},
                )
            )

    def _result(self, side: _Side, client: redis.Redis) -> RunResult:
        return RunResult(
            name=side.law,
            seconds=self._seconds,
            samples=tuple(side.samples),
            peak_backlog=side.workload.peak(),
            final_backlog=final_of(client, side.key),
            drained=side.workload.drained(),
            cut_off=side.workload.cut_off(),
            counts=side.workload.counts(),
            waits=side.workload.waits(),
            target=self._target,
        )


def _holding(config: BackpressureConfig, target: float) -> BackpressureConfig:
    """Return a configuration that holds an age, with statistics as young as that needs."""
    return config.evolve({"age.target": target, "polling.busy_interval": target / 5})
