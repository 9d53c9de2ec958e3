"""What a controller tells of itself: everything as JSON, and what metrics are made of."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from backpressure._controller.age.standing import as_dict, standing
from backpressure._controller.enforcing import enforces_here
from backpressure._engine.word import is_forced
from backpressure._fleet.presence import MAX_QUEUES, MAX_TENANTS
from backpressure._model.errors import ControllerNotStartedError, ControllerStoppedError
from backpressure._model.stats import age_of, part_of
from backpressure._model.vocabulary import CircuitState, Priority
from backpressure._runtime.identity import instance_id
from backpressure._runtime.pauses import paced
from backpressure._telemetry.ledger import Details

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backpressure._controller.age.budgets import Budgets
    from backpressure._controller.candidate import Candidate, Compared
    from backpressure._controller.fleet.fleet import Fleet
    from backpressure._controller.following import Following
    from backpressure._controller.polling.samples import Samples
    from backpressure._controller.sparing import Sparing
    from backpressure._engine.border import Engine
    from backpressure._engine.totals import Totals
    from backpressure._model.clock import Clock
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.config.three_zone import BacklogThresholds, CurveConfig
    from backpressure._telemetry.ages import HeldAge
    from backpressure._telemetry.compliance import Compliance
    from backpressure._telemetry.ledger import Bounds, Durations, FleetNow
    from backpressure._telemetry.passed import Passed

__all__ = ["Health"]

_PRIORITIES = tuple(map(str, Priority))


class Health:
    """Of one controller. Thread-safe; to the metrics it is a `backpressure._telemetry.ledger.MetricsSource`."""

    def __init__(
        self,
        engine: Engine,
        samples: Samples,
        compliance: Compliance,
        passed: Passed,
        budgets: Budgets,
        sparing: Sparing,
        candidate: Candidate,
        clock: Clock,
        config: Callable[[], BackpressureConfig],
        fleet: Fleet | None = None,
        following: Following | None = None,
    ) -> None:
        self._engine = engine
        self._samples = samples
        self._budgets = budgets
        self._sparing = sparing
        self._candidate = candidate
        self._clock = clock
        self._config = config
        self._fleet = fleet
        self._following = following
        self.totals: Callable[[], dict[tuple[str, int], Totals]] = engine.totals
        self.errors: Callable[[], dict[str, int]] = samples.errors
        self.passed: Callable[[], dict[tuple[str, str], int]] = passed.counts
        self.compliance: Callable[[], dict[str, tuple[int, int]]] = compliance.counts

    def circuits(self) -> dict[str, tuple[int, bool]]:
        breakers = ((name, self._engine.breaker(name, False)) for name in self._engine.queue_names())
        return {name: (breaker.state(), is_forced(breaker.word)) for name, breaker in breakers if breaker is not None}

    def backlogs(self) -> dict[str, tuple[int, float]]:
        now_ns = self._clock.monotonic_ns()
        samples = ((name, self._engine.sample(name)) for name in self._engine.queue_names())
        return {name: (sample[0], max(0, now_ns - sample[1]) / 1e9) for name, sample in samples if sample is not None}

    def details(self) -> dict[str, Details]:
        found = ((name, self._samples.stats.get(name)) for name in self._engine.queue_names())
        return {
            name: Details(
                stats.processing_count, stats.delayed_count, age_of(stats.oldest_age), part_of(stats.memory_used)
            )
            for name, stats in found
            if stats is not None
        }

    def thresholds(self) -> dict[str, Bounds]:
        config = self._config()
        made: dict[tuple[BacklogThresholds, CurveConfig], Bounds] = {}
        bounds: dict[str, Bounds] = {}
        for name in self._samples.stats.keys() & set(self._engine.queue_names()):
            parts = config.thresholds_of(name), config.curve_of(name)
            if parts not in made:
                made[parts] = _bounds(*parts)
            bounds[name] = made[parts]
        return bounds

    def held_ages(self) -> dict[str, HeldAge]:
        now_us = self._clock.monotonic_ns() // 1_000
        return {name: standing(budget, now_us) for name, budget in self._budgets.all().items()}

    def calls(self) -> dict[str, int]:
        return self._budgets.calls.copy()

    def max_queues(self) -> int:
        return self._config().max_queues

    def polls(self) -> Durations:
        return self._samples.durations

    def fleet(self) -> FleetNow | None:
        return None if self._fleet is None else self._fleet.now()

    def compared(self) -> dict[tuple[str, int], Compared]:
        return self._candidate.counts()

    def enforces(self) -> bool:
        return enforces_here(self._config())

    def switches(self) -> tuple[bool, bool, bool]:
        return self._engine.override(), self._engine.emergency(), self._config().mode == "observe"

    def as_dict(
        self, *, state: str, engine_name: str, last_fallback: datetime | None, poller_alive: bool
    ) -> dict[str, Any]:
        """See `backpressure.BackpressureController.health`; the arguments are what only the controller knows."""
        requests = [totals.cache_requests() for totals in paced(self.totals().values())]
        hits, misses = sum(hits for hits, _ in requests), sum(misses for _, misses in requests)
        names = self._engine.queue_names()
        known, backlogs, config, held = self.circuits(), self.backlogs(), self._config(), self.held_ages()
        circuits = {name: known.get(name, (CircuitState.CLOSED.value, False)) for name in names}
        return {
            "started": state != "new",
            "stopped": state == "stopped",
            "manual_override": self._engine.override(),
            "emergency_mode": self._engine.emergency(),
            "cache_hit_rate": hits / (hits + misses) if hits + misses else 0.0,
            "cache_size": self._engine.cache_size(),
            "circuit_states": {name: str(CircuitState(state)) for name, (state, _) in circuits.items()},
            "forced": [name for name, (_, forced) in circuits.items() if forced],
            "polling_enabled": config.polling.enabled,
            "last_fallback": None if last_fallback is None else last_fallback.isoformat(),
            "engine": engine_name,
            "mode": config.mode,
            "instance": instance_id(),
            "enforces": enforces_here(config),
            "pid": os.getpid(),
            "poller_alive": poller_alive,
            "provider": self._provider(),
            "failing": self._failing(),
            "polling_errors": self.errors(),
            "passed": self._passed_by_queue(),
            "last_poll_seconds": self._samples.last_poll_seconds,
            "fleet": None if self._fleet is None else self._fleet.as_dict(),
            "control": None if self._following is None else self._following.as_dict(),
            "queues": {
                name: self._queue(name, forced, backlogs.get(name, (None, None)), held.get(name))
                for name, (_, forced) in paced(circuits.items())
            },
        }

    def _queue(
        self, name: str, forced: bool, sample: tuple[int, float] | tuple[None, None], held: HeldAge | None
    ) -> dict[str, Any]:
        stats = self._samples.stats.get(name)
        return {
            "forced": forced,
            "mode": self._config().mode_of(name),
            "enforces": enforces_here(self._config(), name),
            "backlog": sample[0],
            "sample_age": sample[1],
            "processing": None if stats is None else stats.processing_count,
            "delayed": None if stats is None else stats.delayed_count,
            "oldest_age": None if stats is None else age_of(stats.oldest_age),
            "memory_used": None if stats is None else part_of(stats.memory_used),
            "advice": self._advice(name),
            "budget": None if held is None else as_dict(held),
            "tenants": self._tenants(name),
            "candidate": self._candidate.of_queue(name),
        }

    def heaviest(self) -> dict[str, dict[str, float]]:
        """Return which tenants ask most of each queue, of all priorities together: jobs a second by their names."""
        found: dict[str, dict[str, float]] = {}
        for name in self._engine.queue_names():
            asks: dict[str, float] = {}
            for tenants in self._tenants(name).values():
                for told in tenants:
                    asks[told["tenant"]] = round(asks.get(told["tenant"], 0.0) + told["asks"], 3)
            if asks:
                most = sorted(asks.items(), key=lambda item: -item[1])
                found[name] = dict(most[:MAX_TENANTS])
        return dict(list(found.items())[:MAX_QUEUES])

    def _tenants(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """Say which tenants ask most, as this process sees them, where what may go is dealt among tenants."""
        budget = self._budgets.all().get(name)
        asking = {"low": self._sparing.askers(name)} if budget is None else budget.askers()
        return {
            priority: [
                {
                    "tenant": asker.tenant.name,
                    "class": asker.tenant.weight_class,
                    "asks": asker.asks,
                    "share": asker.share,
                }
                for asker in found
            ]
            for priority, found in asking.items()
            if found
        }

    def _advice(self, name: str) -> dict[str, dict[str, Any]] | None:
        """Say what would be decided for each priority; ``None`` where nothing is decided."""
        try:
            return dict(zip(_PRIORITIES, self._engine.outlook(name), strict=True))
        except (ControllerNotStartedError, ControllerStoppedError):
            return None

    def _passed_by_queue(self) -> dict[str, dict[str, int]]:
        passed: dict[str, dict[str, int]] = {}
        for (name, why), count in self.passed().items():
            passed.setdefault(name, {})[why] = count
        return passed

    def _failing(self) -> dict[str, Any]:
        """Say what cannot be read now, since when, and how often that failed."""
        now_ns, whole = self._clock.monotonic_ns(), self._samples.failing
        queues = self._samples.failing_queues.copy()
        return {
            "provider": None if whole is None else whole.as_dict(now_ns),
            "queues": {name: failing.as_dict(now_ns) for name, failing in paced(queues.items())},
        }

    def _provider(self) -> str:
        """Say how the last read ended; an answer older than samples may be says nothing about the provider now."""
        health, answered_ns, polling = self._samples.health(), self._samples.answered_ns, self._config().polling
        if health != "ok" or answered_ns is None:
            return health
        limit = polling.interval + polling.jitter + polling.timeout if polling.enabled else polling.cache_ttl
        return "stale" if self._clock.monotonic_ns() - answered_ns > limit * 1e9 else health


def _bounds(thresholds: BacklogThresholds, curve: CurveConfig) -> Bounds:
    windows = {str(priority): thresholds.window(priority) for priority in Priority}
    bounds = {
        (priority, bound): getattr(window, bound)
        for priority, window in windows.items()
        for bound in ("green_max", "yellow_max", "red_max")
    }
    limit = curve.shed_limit(thresholds.low_priority)
    return bounds if limit is None else bounds | {("low", "shed_at"): limit}
