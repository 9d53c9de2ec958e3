"""A decision's reason as a sentence; what a law decided, the law explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._engine.laws.registry import sampled_law_of
from backpressure._model.units import duration
from backpressure._model.vocabulary import LAW_REASONS, Reason

if TYPE_CHECKING:
    from backpressure._engine.sample import Sample
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.decision import ThrottleDecision

__all__ = ["why"]


def why(decision: ThrottleDecision, config: BackpressureConfig, sample: Sample | None) -> str:
    """Explain `decision`, made under `config` from `sample`, the first of its queue; ``None``: there is none."""
    if sample is not None and decision.reason in LAW_REASONS:
        law = sampled_law_of(config, decision.queue_name)
        return law.explain(sample, decision.priority.value, law.new_state())
    circuit, mode = config.circuit_of(decision.queue_name), config.recovery.fallback_mode
    match decision.reason:
        case Reason.CIRCUIT_OPEN:
            return f"the circuit is open: jobs are rejected for recovery_timeout ({duration(circuit.recovery_timeout)})"
        case Reason.CIRCUIT_HALF_OPEN:
            return (
                "the circuit is half-open and its probe is under way: one job goes through each probe_interval "
                f"({duration(circuit.probe_interval)}), and {circuit.recovery_threshold} successes close it"
            )
        case Reason.MANUAL_OVERRIDE | Reason.EMERGENCY_MODE:
            return f"recovery.{decision.reason} is on: everything goes at once"
        case Reason.FALLBACK_CONSERVATIVE:
            return f"there is no sample: recovery.fallback_mode {mode} delays {decision.priority} jobs by a fixed time"
        case Reason.FALLBACK_PERMISSIVE:
            return f"there is no sample: recovery.fallback_mode {mode} delays nothing"
        case Reason.FALLBACK_CIRCUIT_ONLY:
            return f"there is no sample: recovery.fallback_mode {mode} leaves it to the circuit"
        case reason:
            return reason.replace("_", " ")
