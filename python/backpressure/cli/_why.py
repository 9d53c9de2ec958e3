"""A decision's reason as a sentence: which bounds, where between them, and the formula with its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpressure._model.vocabulary import LOW, Reason
from backpressure.cli._format import duration

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig
    from backpressure._model.config.three_zone import BacklogWindow, CurveConfig
    from backpressure._model.decision import ThrottleDecision

__all__ = ["shed_limit", "why"]


def shed_limit(window: BacklogWindow, curve: CurveConfig) -> int:
    """Return the largest backlog at which LOW is not shed, as far as it lies below ``red_max``."""
    return window.yellow_max + curve.shed_permille * (window.red_max - window.yellow_max) // 1_000


def why(decision: ThrottleDecision, config: BackpressureConfig) -> str:
    """Explain `decision`, made under `config`."""
    circuit, mode = config.circuit_of(decision.queue_name), config.recovery.fallback_mode
    match decision.reason:
        case Reason.BACKLOG_GREEN | Reason.BACKLOG_YELLOW | Reason.BACKLOG_RED | Reason.BACKLOG_RED_SHED:
            return _by_the_law(decision, config)
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


def _by_the_law(decision: ThrottleDecision, config: BackpressureConfig) -> str:
    priority, name, backlog = decision.priority, decision.queue_name, decision.backlog_size or 0
    window, curve = config.thresholds_of(name).window(priority), config.curve_of(name)
    green, yellow, red = window.green_max, window.yellow_max, window.red_max
    lowest, middle, highest = curve.yellow_min_delay, curve.yellow_max_delay, curve.red_max_delay

    if decision.reason is Reason.BACKLOG_GREEN:
        return f"{backlog:,} is not above green_max ({green:,}): nothing to wait for"
    if decision.reason is Reason.BACKLOG_RED_SHED:
        share, unshed = f"{curve.shed_permille / 10:g} %", duration(decision.retry_after or 0)
        return (
            f"{backlog:,} is above {shed_limit(window, curve):,}, which is {share} of the way from yellow_max "
            f"({yellow:,}) to red_max ({red:,}): {LOW} jobs are shed (else it would wait {unshed})"
        )
    scaled = f"× {curve.scale(priority)} = {duration(decision.delay)}"
    if decision.reason is Reason.BACKLOG_YELLOW:
        where = f"{_share(backlog, green, yellow)} of the way from green_max ({green:,}) to yellow_max ({yellow:,})"
        base = f"{duration(lowest)} + {duration(middle - lowest)} × {backlog - green:,}/{yellow - green:,}"
        result = f"({base}) {scaled}" if curve.scale_yellow else f"{base} = {duration(decision.delay)}, not scaled"
        return f"{backlog:,} lies {where}: {result}"
    if backlog >= red:
        return f"{backlog:,} has reached red_max ({red:,}), where delays end: {duration(highest)} {scaled}"
    where = f"{_share(backlog, yellow, red)} of the way from yellow_max ({yellow:,}) to red_max ({red:,})"
    base = f"{duration(middle)} + {duration(highest - middle)} × {backlog - yellow:,}/{red - yellow:,}"
    return f"{backlog:,} lies {where}: ({base}) {scaled}"


def _share(backlog: int, low: int, high: int) -> str:
    return f"{100 * (backlog - low) / (high - low):.3g} %"
