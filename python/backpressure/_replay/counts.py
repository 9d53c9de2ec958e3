"""What became of the offers of one priority."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backpressure._replay.judge import Verdict

__all__ = ["Counts"]


class Counts:
    """What became of the offers of one priority, in millionths of jobs, and for how long it was so, in milliseconds."""

    __slots__ = ("delays", "held", "offers", "shed_ms", "sheds", "waits_ms", "zones_ms")

    def __init__(self) -> None:
        self.offers = self.delays = self.sheds = self.held = 0
        self.zones_ms = [0, 0, 0]
        self.shed_ms = self.waits_ms = 0

    def judge(self, jobs: int, verdict: Verdict) -> None:
        """Count offers that were judged alike."""
        self.offers += jobs
        if verdict.shed:
            self.sheds += jobs
        elif verdict.waits:
            self.delays += jobs
            self.held += jobs * verdict.held_us

    def last(self, span_ms: int, verdict: Verdict) -> None:
        """Count for how long a verdict was in force."""
        self.note(span_ms, verdict.zone, sheds=verdict.shed, waits=verdict.waits)

    def note(self, span_ms: int, zone: int, *, sheds: bool, waits: bool) -> None:
        """Count for how long the zone was this one, and the advice to shed or to wait."""
        self.zones_ms[zone] += span_ms
        if sheds:
            self.shed_ms += span_ms
        elif waits:
            self.waits_ms += span_ms

    def told(self) -> tuple[int, ...]:
        """Return all as a tuple; `held` is in millionths of job-microseconds."""
        return (
            self.offers, self.delays, self.sheds, self.held, *self.zones_ms, self.waits_ms, self.shed_ms,
        )  # fmt: skip
