"""What one controller tells the metrics collector when it is scraped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._engine.word import is_forced

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._controller.polling.samples import Samples
    from backpressure._engine.border import Engine
    from backpressure._engine.totals import Totals
    from backpressure._model.clock import Clock
    from backpressure._telemetry.compliance import Compliance
    from backpressure._telemetry.ledger import Durations
    from backpressure._telemetry.passed import Passed

__all__ = ["ControllerSource"]


class ControllerSource:
    """See `backpressure._telemetry.ledger.MetricsSource`."""

    def __init__(
        self,
        engine: Engine,
        samples: Samples,
        compliance: Compliance,
        passed: Passed,
        clock: Clock,
        *,
        observing: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._samples = samples
        self._clock = clock
        self._observing = observing
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

    def polls(self) -> Durations:
        return self._samples.durations

    def switches(self) -> tuple[bool, bool, bool]:
        return self._engine.override(), self._engine.emergency(), self._observing()
