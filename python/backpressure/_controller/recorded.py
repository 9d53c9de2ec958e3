"""What a controller hands to its recorder after each poll: a row of every queue that was read."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from backpressure._controller.enforcing import enforces_here
from backpressure._model.stats import age_of, count_of, permille_of
from backpressure._recording.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._controller.polling.samples import Samples
    from backpressure._engine.border import Engine
    from backpressure._engine.totals import Totals
    from backpressure._model.clock import Clock
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.stats import QueueStats
    from backpressure._recording.recorder import Recorder
    from backpressure._telemetry.events import Announcer

__all__ = ["Recorded"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# In the order of the columns of a `Row`.
_PRIORITIES = (2, 1, 0)
_MILLISECOND = timedelta(milliseconds=1)
_NO_COUNTS = (0, 0, 0)


class Recorded:
    """Used by the poller's thread alone."""

    def __init__(
        self,
        recorder: Recorder,
        engine: Engine,
        samples: Samples,
        announcer: Announcer,
        clock: Clock,
        config: Callable[[], BackpressureConfig],
    ) -> None:
        self._recorder = recorder
        self._engine = engine
        self._samples = samples
        self._announcer = announcer
        self._clock = clock
        self._config = config
        self._known: BackpressureConfig | None = None
        self._pid = 0
        self._policies: dict[str, int] = {}
        self._latest_ms: dict[str, int] = {}
        self._counts: dict[tuple[str, int], tuple[int, int, int]] = {}

    def poll(self) -> None:
        """Hand over what the last poll found."""
        config, pid = self._config(), os.getpid()
        if config is not self._known or pid != self._pid:  # a forked child numbers its policies anew
            self._known, self._pid = config, pid
            self._policies.clear()
        rows: dict[str, Row] = {}
        if not self._samples.is_failing():
            totals = self._engine.totals()
            for name, stats in self._samples.stats.copy().items():
                at_ms = (stats.last_updated - _EPOCH) // _MILLISECOND
                if name not in self._samples.failing_queues and at_ms != self._latest_ms.get(name):
                    self._latest_ms[name] = at_ms
                    rows[name] = self._row(name, at_ms, stats, totals)
            for name in self._latest_ms.keys() - self._samples.stats.keys():  # it was evicted
                del self._latest_ms[name]
                for priority in _PRIORITIES:
                    self._counts.pop((name, priority), None)
        self._recorder.take(rows, self._clock.monotonic_ns(), self._ended)

    def finish(self) -> None:
        """Have the rest written."""
        self._recorder.finish(self._ended)

    def _row(self, name: str, at_ms: int, stats: QueueStats, totals: dict[tuple[str, int], Totals]) -> Row:
        counts: list[int | None] = []
        for priority in _PRIORITIES:
            total = totals.get((name, priority))
            counts += [None] * 3 if total is None else self._since_last(name, priority, total)
        age = age_of(stats.oldest_age)
        breaker = self._engine.breaker(name, False)
        used = None if stats.memory_used is None else permille_of(stats.memory_used)
        oldest_ms = None if age is None else round(1_000 * age)
        circuit = None if breaker is None else breaker.state()
        flow = count_of(stats.entered), count_of(stats.left)
        told = (at_ms, stats.backlog_count, oldest_ms, *flow, used, *counts, circuit, self._policy(name))
        return Row._make(told)

    def _since_last(self, name: str, priority: int, total: Totals) -> list[int]:
        now = sum(total.reasons), sum(total.delays), total.refused()[0]
        before = self._counts.get((name, priority), _NO_COUNTS)
        self._counts[name, priority] = now
        if any(new < old for new, old in zip(now, before, strict=True)):
            before = _NO_COUNTS  # a queue that was evicted begins anew
        return [new - old for new, old in zip(now, before, strict=True)]

    def _policy(self, name: str) -> int:
        number = self._policies.get(name)
        if number is None:
            number = self._policies[name] = self._recorder.policy(_policy_of(self._config(), name))
        return number

    def _ended(self, problem: str | None, before: str | None) -> None:
        if problem is not None:
            self._samples.count_error("recorder")
        if problem is not None and before is None:
            self._announcer.caution(f"{problem}; it is tried again each minute")
        elif problem is None and before is not None:
            self._announcer.caution("the recording is written again", level=logging.INFO)


def _policy_of(config: BackpressureConfig, name: str) -> str:
    """Return the settings that decide about a queue, as JSON: a configuration that has no queues of its own."""
    policy = attrs.evolve(
        config,
        thresholds=config.thresholds_of(name),
        curve=config.curve_of(name),
        circuit=config.circuit_of(name),
        age=config.age_of(name),
        mode="enforce" if enforces_here(config, name) else "observe",
        enforce_share=1.0,
        queues={},
    ).to_dict()
    decides = ("thresholds", "curve", "circuit", "age", "mode", "recovery")
    return json.dumps({part: policy[part] for part in decides}, sort_keys=True)
