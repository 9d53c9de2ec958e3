"""Who wants to enqueue jobs, and is not answered yet."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Caller", "Wakes"]


class Wakes(Protocol):
    """What a caller waits for."""

    def set(self) -> None: ...


class Caller:
    """Who wants to enqueue a job and is not answered yet.

    Attributes:
        level: of the priority, see `backpressure._age.protocol`.
        jobs: how many it enqueues; `left` of them have no place yet.
        patient: whether it waits for its turn, not only for an answer.
        until_us: when it gives up; ``None``: never.
        goes: what became of it; ``None`` while it waits.
        asked: whether a call under way tells of it.
        place: of its tenant, see `backpressure._age.tenants`; ``None`` without one.
        dealt: how many of its jobs were let go, of which it does not know yet.
    """

    __slots__ = (
        *("asked", "dealt", "goes", "jobs", "left", "level", "looks_at_us", "patient", "place", "since_us", "ticket"),
        *("until_us", "wake"),
    )

    def __init__(
        self,
        level: int,
        jobs: int,
        patient: bool,
        since_us: int,
        until_us: int | None,
        place: int | None = None,
    ) -> None:
        self.level = level
        self.jobs = self.left = jobs
        self.patient = patient
        self.place = place
        self.since_us = since_us
        self.until_us = until_us
        self.asked = False
        self.dealt = 0
        self.ticket: int | None = None
        self.looks_at_us = 0
        self.goes: bool | None = None
        self.wake: Wakes | None = None

    def settle(self, *, goes: bool) -> None:
        """Tell it what becomes of it."""
        self.goes = goes
        self.rouse()

    def rouse(self) -> None:
        """Have it look again."""
        if self.wake is not None:
            self.wake.set()
