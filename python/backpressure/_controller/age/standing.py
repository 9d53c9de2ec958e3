"""How a budget stands, for metrics and health: read from beside it, without any effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._age.protocol import MILLION
from backpressure._model.vocabulary import HIGH, LOW, MEDIUM
from backpressure._telemetry.ages import Fleet, HeldAge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backpressure._age.protocol import Answer
    from backpressure._controller.age.budget import Budget

__all__ = ["as_dict", "standing"]

_PRIORITIES = tuple(map(str, (HIGH, MEDIUM, LOW)))


def standing(budget: Budget, now_us: int) -> HeldAge:
    """Return how `budget` stands at an instant of its clock."""
    answer, lease, state = budget.answer, budget.lease, budget.state
    return HeldAge(
        target=lease.settings.target_ms / 1_000,
        state=state,
        waiting=budget.waiting(),
        lease_age=None if answer is None else max(0, now_us - budget.answered_us) / MILLION,
        fleet=None if answer is None else _fleet(answer),
        # While the store is lost, what was last known of the others holds.
        idle=state == "coordinated" and lease.call_at_us is None and not lease.in_flight,
    )


def _fleet(answer: Answer) -> Fleet:
    high, medium, low = (rate / 1_000 for rate in answer.demand_mjobs_per_s)
    of_high, of_medium, of_low = (share / MILLION for share in answer.shares_ppm)
    return Fleet(
        age=answer.age_ms / 1_000,
        drain_rate=answer.drain_mjobs_per_s / 1_000,
        granted_rate=answer.budget_mjobs_per_s / 1_000,
        demand_rates=(high, medium, low),
        shares=(of_high, of_medium, of_low),
        processes=answer.processes,
    )


def as_dict(held: HeldAge) -> dict[str, Any]:
    """Return it as JSON takes it; what no answer told is ``None``."""
    fleet = held.fleet
    return {
        "state": held.state,
        "idle": held.idle,
        "target_age": held.target,
        "age": None if fleet is None else fleet.age,
        "drain_rate": None if fleet is None else fleet.drain_rate,
        "granted_rate": None if fleet is None else fleet.granted_rate,
        "demand_rate": None if fleet is None else _by_priority(fleet.demand_rates),
        "share": None if fleet is None else _by_priority(fleet.shares),
        "processes": None if fleet is None else fleet.processes,
        "waiting": _by_priority(held.waiting),
        "lease_age": held.lease_age,
    }


def _by_priority(numbers: Iterable[float]) -> dict[str, float]:
    return dict(zip(_PRIORITIES, numbers, strict=True))
