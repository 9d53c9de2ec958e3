"""Queues whose age is held: what one process knows of a budget, and its lines of a metrics page.

Triples are ordered HIGH, MEDIUM, LOW, as in `backpressure._age.protocol`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backpressure._model.vocabulary import HIGH, LOW, MEDIUM

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LEASE_STATES", "Fleet", "HeldAge", "age_series", "worse"]

#: From the best to the worst.
LEASE_STATES = ("coordinated", "new", "local", "safe")
_PRIORITIES = tuple(map(str, (HIGH, MEDIUM, LOW)))


class Fleet(NamedTuple):
    """What a budget's last answer told of all producers together; rates are jobs a second, the age is in seconds."""

    age: float
    drain_rate: float
    granted_rate: float
    demand_rates: tuple[float, float, float]
    shares: tuple[float, float, float]
    processes: int


class HeldAge(NamedTuple):
    """How one queue's budget stands in one process.

    Attributes:
        target: seconds that a job is to wait.
        state: one of `LEASE_STATES`.
        waiting: callers in line here.
        lease_age: seconds since the last answer; ``None`` before the first.
        fleet: what that told; ``None`` before the first.
        idle: whether this process has nothing to tell, and so hears nothing any more.
    """

    target: float
    state: str
    waiting: tuple[int, int, int]
    lease_age: float | None
    fleet: Fleet | None
    idle: bool


def worse(one: HeldAge, other: HeldAge) -> HeldAge:
    """Merge two controllers' budgets of one queue: the latest answer, the worst state, all who wait."""
    latest, older = sorted((one, other), key=lambda held: (held.idle, held.fleet is None, held.lease_age or 0.0))
    state = max(latest.state, older.state, key=LEASE_STATES.index)
    high, medium, low = (mine + others for mine, others in zip(latest.waiting, older.waiting, strict=True))
    return latest._replace(state=state, waiting=(high, medium, low))


def age_series(held: HeldAge) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yield name, labels beside the queue, and value.

    An idle process hears of the others no more: all that it knows of them is that it asks for nothing itself.
    """
    yield "target_age_seconds", (), held.target
    for state in LEASE_STATES:
        yield "lease_state", (state,), float(state == held.state)
    for priority, count in zip(_PRIORITIES, held.waiting, strict=True):
        yield "waiting", (priority,), count
    fleet = held.fleet
    if fleet is None:
        return
    for priority, rate in zip(_PRIORITIES, fleet.demand_rates, strict=True):
        yield "demand_rate", (priority,), 0.0 if held.idle else rate
    if held.idle or held.lease_age is None:
        return
    yield "lease_age_seconds", (), held.lease_age
    yield "age_seconds", (), fleet.age
    yield "drain_rate", (), fleet.drain_rate
    yield "granted_rate", (), fleet.granted_rate
    yield "processes", (), fleet.processes
    for priority, share in zip(_PRIORITIES, fleet.shares, strict=True):
        yield "share", (priority,), share
