"""A budget for hosts that are none, around leases of any kind; and a lease told a second time, for the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backpressure._age.lease import NEVER_US
from backpressure._age.protocol import MILLION, Terms
from backpressure._engine.laws.age import Judged
from backpressure._model.vocabulary import Priority, Reason, Zone

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FakeBudget", "HeldError", "ModelLease"]

PHASE_PPM = 400_000
SALT = 0x9E37_79B9_7F4A_7C15
#: Nobody is told a longer delay: floats hold it to the nanosecond.
MOST_NS = 60 * 1_000_000_000


class HeldError(Exception):
    """Stands for what makes a caller wait outside of the engine."""


class FakeBudget:
    """Has LOW jobs go by the share and all others by the line, in the order in which they come.

    Attributes:
        leases: by queue and priority, made when they are first asked for.
        until_ns: until when their terms are fresh.
        zone: what is told of the age.
        is_safe: whether the store is lost, so that every job is to ask.
        holds: how many of the next callers have to wait outside.
    """

    def __init__(self, make_lease: Callable[..., Any], now_ns: Callable[[], int]) -> None:
        self._make_lease = make_lease
        self._now_ns = now_ns
        self.leases: dict[tuple[str, Priority], Any] = {}
        self.until_ns: dict[tuple[str, Priority], int] = {}
        self.zone: Zone | None = None
        self.is_safe = False
        self.holds = 0

    def lease(self, queue_name: str, priority: Priority) -> Any:
        key = queue_name, priority
        return self.leases.get(key) or self.leases.setdefault(key, self._make_lease(PHASE_PPM))

    def now_us(self) -> int:
        return self._now_ns() // 1_000

    def renew(self, queue_name: str, priority: Priority, terms: Terms, fresh_ns: int) -> None:
        self.lease(queue_name, priority).renew(self.now_us(), terms)
        self.until_ns[queue_name, priority] = self._now_ns() + fresh_ns

    def judge(self, queue_name: str, priority: Priority, tenant: object = None) -> Judged:
        if self.holds:
            self.holds -= 1
            raise HeldError(queue_name)
        lease = self.lease(queue_name, priority)
        if priority is Priority.LOW:
            goes = lease.offer() if tenant is None else lease.offer_for(lease.deal(SALT).place(tenant))
            return self._by_share(queue_name, priority, goes=goes)
        due_us = lease.foresee_us(self.now_us())
        lease.take_ticket()
        return self._by_line(queue_name, priority, due_us)

    def foresee(self, queue_name: str, priority: Priority) -> Judged:
        return self._foresee(queue_name, priority)._replace(lease=None)

    def _foresee(self, queue_name: str, priority: Priority) -> Judged:
        lease = self.lease(queue_name, priority)
        if priority is Priority.LOW:
            goes = lease.share_ppm > 0 and lease.used < max(1, lease.cap_jobs)
            return self._by_share(queue_name, priority, goes=goes)
        return self._by_line(queue_name, priority, lease.foresee_us(self.now_us()))

    def _by_share(self, queue_name: str, priority: Priority, *, goes: bool) -> Judged:
        told = self._goes(queue_name, priority)
        retry_ns = 2_000_000_000 + self.lease(queue_name, priority).remainder_ppm  # other terms, another delay
        refused = Judged(self.zone, retry_ns, True, Reason.AGE_SHED)
        if told.lease is None or told.reason is Reason.AGE_OPEN:
            return told if goes else refused
        told, other = (told, refused) if goes else (refused._replace(**_lent(told)), told._replace(lease=None))
        return told._replace(other=other)

    def _by_line(self, queue_name: str, priority: Priority, due_us: int) -> Judged:
        if due_us == 0:
            return self._goes(queue_name, priority)
        reason = Reason.AGE_SAFE if self.is_safe else Reason.AGE_WAIT
        return Judged(self.zone, min(due_us * 1_000, MOST_NS), False, reason)

    def _goes(self, queue_name: str, priority: Priority) -> Judged:
        if self.is_safe:
            return Judged(self.zone, 0, False, Reason.AGE_SAFE)
        lease = self.lease(queue_name, priority)
        reason = Reason.AGE_OPEN if lease.share_ppm >= MILLION else Reason.AGE_SHARE
        until_ns = self.until_ns.get((queue_name, priority), 0)
        return Judged(self.zone, 0, False, reason, lease, priority is not Priority.LOW, until_ns, lease.renewal)


def _lent(judged: Judged) -> dict[str, Any]:
    return {name: getattr(judged, name) for name in ("lease", "patient", "until_ns", "renewal")}


class ModelLease:
    """See `backpressure._age.lease.Lease`. The line is what it is ahead of the last ticket; below 0, callers wait."""

    def __init__(self, phase_ppm: int) -> None:
        self.share_ppm = self.cap_jobs = self.used = 0
        self.rate_ujobs_per_s = 0
        self.remainder_ppm = phase_ppm
        self._carry_ppm = self._ahead_ujobs = phase_ppm
        self._burst_ujobs, self._since_us = 2 * MILLION, 0
        self._tickets = self.renewal = 0
        self._counts = [0, 0, 0]

    def renew(self, now_us: int, terms: Terms) -> None:
        kept = min(self._ahead(now_us), self._burst_ujobs)
        if terms.fill and kept < terms.burst_ujobs:
            kept = terms.burst_ujobs
        self._ahead_ujobs, self._since_us = min(kept, terms.burst_ujobs), now_us
        self._burst_ujobs, self.rate_ujobs_per_s = terms.burst_ujobs, terms.rate_ujobs_per_s
        self.share_ppm, self.cap_jobs, self.remainder_ppm = terms.share_ppm, terms.cap_jobs, terms.remainder_ppm
        self.used = 0
        self.renewal += 1

    def prolong(self) -> None:
        self.used = 0

    def _ahead(self, now_us: int) -> int:
        return self._ahead_ujobs + (now_us - self._since_us) * self.rate_ujobs_per_s // MILLION

    def _carries(self) -> bool:
        return self.used < self.cap_jobs and self._carry_ppm + self.share_ppm >= MILLION

    def is_used_up(self) -> bool:
        return self.share_ppm == MILLION and self.used >= self.cap_jobs

    def offer(self) -> bool:
        if self._carries():
            self._carry_ppm += self.share_ppm - MILLION
            self.used += 1
            return True
        if self.used < self.cap_jobs:
            self._carry_ppm += self.share_ppm
        return False

    def take_share(self) -> bool:
        all_fit = self.share_ppm == MILLION
        if not self._carries() or (all_fit and self.used + 1 > self.cap_jobs / 2):
            return False
        self._counts[0] += 1
        return self.offer()

    def take_saved(self, now_us: int) -> bool:
        goes = self.foresee_us(now_us) == 0
        if goes:
            self._counts[1] += 1
            self.take_ticket()
        return goes

    def refuse_share(self, renewal: int) -> bool:
        if renewal != self.renewal or self.share_ppm == MILLION or self._carries():
            return False
        self._counts[2] += 1
        return not self.offer()

    def take_counts(self) -> tuple[int, int, int]:
        shared, gone, refused = self._counts
        self._counts = [0, 0, 0]
        return shared, gone, refused

    def take_ticket(self) -> int:
        self._ahead_ujobs -= MILLION
        self._tickets += 1
        return self._tickets

    def leave_places(self, places: int) -> None:
        self._ahead_ujobs += places * MILLION

    def foresee_us(self, now_us: int) -> int:
        return self._due_us(1, now_us)

    def due_in_us(self, ticket: int, now_us: int) -> int:
        return self._due_us(ticket - self._tickets, now_us)

    def _due_us(self, behind: int, now_us: int) -> int:
        """Return how long a ticket so far behind the last one has to wait."""
        lack = behind * MILLION - self._ahead(now_us)
        if lack <= 0:
            return 0
        if self.rate_ujobs_per_s == 0:
            return NEVER_US
        return min(NEVER_US, -(-lack * MILLION // self.rate_ujobs_per_s))
