"""What a job is told by the budget of its queue: go, wait, or no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from backpressure._age.protocol import HIGH, LEVELS, LIMIT_NONE, MILLION, Terms
from backpressure._engine.laws.age import Judged
from backpressure._model.vocabulary import Reason, Zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._age.lease import AnyLease, QueueLease
    from backpressure._age.protocol import Answer
    from backpressure._engine.laws.age import AgeLaw

__all__ = ["SLACK_US", "Fallback", "Replies"]

_LOW = LEVELS[-1]
_NS = 1_000
#: Microseconds that make no difference to who waits.
SLACK_US = 1_000


class Fallback(Protocol):
    """What holds for a process that never reached the store; by priority, from low to high."""

    @property
    def fallback_ns(self) -> tuple[int, int, int]: ...
    @property
    def fallback_reason(self) -> Reason: ...


class Replies:
    """Says what was decided, with what is known of the age. Its user brings a lock.

    Args:
        law: what is to be held.
        lease: by what is decided.
        fallback: returns what holds before the first answer.
        own: for what a process lets pass that never reached the store, from `now_us` on, if that is set.
        uniform: draws between two numbers.

    Attributes:
        answer: the store's last; ``None`` before the first.
        limit_permille: part of the budget that the memory of the queue's server leaves.
    """

    def __init__(
        self,
        law: AgeLaw,
        lease: QueueLease,
        fallback: Callable[[], Fallback],
        own: AnyLease,
        now_us: int,
        uniform: Callable[[float, float], float],
    ) -> None:
        self.law = law
        self.answer: Answer | None = None
        self.limit_permille = LIMIT_NONE
        self._lease = lease
        self._fallback = fallback
        self._own = own if law.safe_rate else None
        if self._own is not None:
            rate = int(law.safe_rate * MILLION)
            self._own.renew(now_us, Terms(0, 0, rate, max(MILLION, min(rate, 2 * MILLION)), 1, 0, 0))
        self._uniform = uniform

    def most_us(self, level: int) -> int:
        """Return how long a turn may be told to take: HIGH waits half of the target at most, others all of it."""
        return self.law.budget.target_ms * (500 if level == HIGH else 1_000)

    def zone(self) -> Zone | None:
        """Return the zone of the age, for display; ``None`` before the first answer."""
        if self.answer is None:
            return None
        target_ms = self.law.budget.target_ms
        if 2 * self.answer.age_ms < target_ms:
            return Zone.GREEN
        return Zone.YELLOW if self.answer.age_ms <= target_ms else Zone.RED

    def goes(self, level: int, *, waited: bool = False) -> Judged:
        """Let a job go, and further ones by the lease for as long as that is fresh."""
        lease = self._lease
        share = lease.levels[level]
        reason = Reason.AGE_OPEN if share.share_ppm >= MILLION else Reason.AGE_SHARE
        judged = Judged(self.zone(), 0, False, self._reason(Reason.AGE_WAIT if waited else reason))
        if lease.is_safe or waited:
            return judged
        other = self._sheds() if level == _LOW and reason is Reason.AGE_SHARE else None
        return self._lent(judged, level, other)

    def refuses(self, level: int, limit_us: int | None) -> Judged:
        """Refuse a job, LOW for good and MEDIUM until later: by a delay that is longer than its caller waits."""
        if level == _LOW or self.law.sheds_medium:
            shed = self._sheds()
            if level != _LOW or self._lease.is_safe or self._lease.levels[level].share_ppm >= MILLION:
                return shed
            return self._lent(shed, level, Judged(shed.zone, 0, False, Reason.AGE_SHARE))
        retry_us = max(self._retry_us(), (limit_us or 0) + SLACK_US)
        return Judged(self.zone(), retry_us * _NS, False, self._reason(Reason.AGE_WAIT))

    def turn_in(self, delay_us: int) -> Judged:
        """Have a job wait for its turn."""
        return Judged(self.zone(), delay_us * _NS, False, self._reason(Reason.AGE_WAIT))

    def unknown(self, level: int, now_us: int) -> Judged:
        """Return what holds before the first answer: the rate of a process by itself, or else the fallback."""
        if self._own is None:
            return self.falls_back(level)
        if level == HIGH or self._own.take_saved(now_us):
            return Judged(None, 0, False, Reason.AGE_SAFE)
        due_us = min(self._own.foresee_us(now_us), 60 * MILLION)
        sheds = level == _LOW or self.law.sheds_medium
        return Judged(None, due_us * _NS, sheds, Reason.AGE_SHED if sheds else Reason.AGE_SAFE)

    def falls_back(self, level: int) -> Judged:
        """Return what holds without an answer and without a rate of a process by itself."""
        fallback = self._fallback()
        return Judged(None, fallback.fallback_ns[_LOW - level], False, fallback.fallback_reason)

    def _sheds(self) -> Judged:
        reason = Reason.AGE_SHED if self.limit_permille == LIMIT_NONE else Reason.MEMORY
        return Judged(self.zone(), self._retry_us() * _NS, True, reason)

    def _retry_us(self) -> int:
        """Return when another attempt makes sense: after the age, half of it more or less, by chance."""
        budget = self.law.budget
        age_ms = budget.target_ms if self.answer is None else self.answer.age_ms
        return int(min(max(age_ms, budget.tick_ms), 60_000) * self._uniform(500, 1_500))

    def _lent(self, judged: Judged, level: int, other: Judged | None) -> Judged:
        """Have further jobs decided by the lease for as long as that is fresh."""
        lease = self._lease
        share = lease.levels[level]
        until_ns = lease.fresh_until_us * _NS - 1
        return judged._replace(
            lease=share, patient=level != _LOW, until_ns=until_ns, renewal=share.renewal, other=other
        )

    def _reason(self, reason: Reason) -> Reason:
        return Reason.AGE_SAFE if self._lease.is_safe else reason
