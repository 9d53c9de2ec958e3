"""What producers of a queue would be told. A real controller is asked, on a clock that stands still."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from prometheus_client import CollectorRegistry

from backpressure._controller.blocking import BackpressureController
from backpressure._model.decision import ThrottleDecision
from backpressure._model.units import duration
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM, Priority, Reason
from backpressure._watch.aside import taking_no_part
from backpressure.testing import InMemoryStatsProvider, ManualClock

if TYPE_CHECKING:
    from backpressure._engine.sample import Sample
    from backpressure._model.config.root import BackpressureConfig

__all__ = ["PRIORITIES", "Advice", "Circuit", "advice_dict", "adviser", "ask", "told"]

PRIORITIES = (HIGH, MEDIUM, LOW)
_REJECTIONS = frozenset({Reason.CIRCUIT_OPEN, Reason.CIRCUIT_HALF_OPEN})
Advice: TypeAlias = Mapping[Priority, ThrottleDecision]


class Circuit(StrEnum):
    """A state to put the queue's circuit into; half-open with its probe under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


def told(decision: ThrottleDecision, digits: int = 4) -> str:
    """Write what a producer is told, in a word or a duration."""
    if decision.should_shed:
        return "reject" if decision.reason in _REJECTIONS else "shed"
    return duration(decision.delay, digits) if decision.delay else "go"


def advice_dict(decision: ThrottleDecision) -> dict[str, Any]:
    """Return what scripts are told of a decision; the delay of a refused job is ``None``."""
    every = decision.to_dict()
    return {name: every[name] for name in ("zone", "delay", "should_shed", "reason", "retry_after")}


def ask(decide: Callable[[Priority, str], ThrottleDecision], queue_name: str) -> Advice:
    """Ask a controller for each priority; in observe mode the answer is what would be told in enforce mode."""
    decisions = (decide(priority, queue_name) for priority in PRIORITIES)
    return {decision.priority: decision.advised or decision for decision in decisions}


@contextlib.contextmanager
def adviser(
    config: BackpressureConfig, queue_name: str, circuit: Circuit = Circuit.CLOSED
) -> Iterator[Callable[[Sample | None], Advice]]:
    """Give a function that returns the advice on a sample; ``None`` stands for statistics that cannot be read."""
    clock, provider = ManualClock(), InMemoryStatsProvider()
    with BackpressureController(
        taking_no_part(config), provider, registry=CollectorRegistry(), clock=clock
    ) as controller:
        settings = config.circuit_of(queue_name)
        if circuit is not Circuit.CLOSED:
            for _ in range(settings.failure_threshold):
                controller.record_failure(queue_name)
        if circuit is Circuit.HALF_OPEN:
            clock.advance(settings.recovery_timeout)
            controller.suggest_throttle(MEDIUM, queue_name)  # never shed, so it takes the probe

        def advise(sample: Sample | None) -> Advice:
            if sample is not None:
                age_ns, permille = sample.oldest_age_ns, sample.memory_permille
                provider.set(
                    queue_name,
                    sample.backlog,
                    oldest_age=None if age_ns is None else age_ns / 1e9,
                    memory_used=None if permille is None else (permille + 0.5) / 1_000,
                )
                controller.refresh(queue_name)
            return ask(controller.suggest_throttle, queue_name)

        yield advise
