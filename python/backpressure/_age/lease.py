"""What one process makes of an answer until its next call: who may go, who waits, who is held, and when to call again.

Whole numbers throughout: jobs and millionths of a job (ujobs), microseconds of a monotonic clock that the caller reads,
and of which only differences count. Nothing here waits or reads a clock. Whoever uses a `QueueLease` from several
threads brings a lock; of a `Lease`, the three calls that an engine makes without asking are safe beside that. Callers
themselves (tasks, threads, simulated ones) are kept by the user of this file; here they are counted. Levels are HIGH,
MEDIUM, LOW, as in `protocol`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import attrs

from backpressure._age.protocol import HIGH, LEVELS, LIMIT_NONE, MILLION, NO_SAMPLER, Demand, Report, Terms
from backpressure._age.tenants import Tenants

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from backpressure._age.protocol import Answer, BacklogSeen
    from backpressure._age.tenants import AnyTenants
    from backpressure._model.budget import BudgetSettings

__all__ = ["NEVER_US", "AnyLease", "Dealt", "Lease", "QueueLease"]

#: Longer than anybody waits: the rate is nothing.
NEVER_US = 1 << 40
#: Jobs that a word of 21 bits counts between two calls.
_MOST_USED = (1 << 21) - 1
#: While the store is away, a process lets pass nine tenths of what it did: so a backlog shrinks that nobody sees.
_SAFE_PERMILLE = 900
_SAFE_BURST = 2 * MILLION
#: Where the queue can be read while the store is away, the rate follows its age and its growth, within these bounds.
_AGE_GAIN_PERMILLE, _GROWTH_GAIN_PERMILLE, _MOST_CHANGE_PERMILLE = 100, 400, 500
_LEAST_FACTOR_PERMILLE, _MOST_FACTOR_PERMILLE = 20, 4_000
#: A sampler leaves its duty when in so many ticks it let nothing pass, and no job was asked for: an idle queue costs
#: nothing. Left sooner, in a fleet of sparse producers nobody would read the queue for two and a half ticks at a time.
_IDLE_TICKS = 10


class AnyLease(Protocol):
    """One priority's terms, and what was used of them: `Lease`, or the native engine's.

    What `take_share` and `take_saved` let go, and what `refuse_share` refuses, is counted here, until `take_counts`
    fetches it. `renewal` tells terms from those before and after them.
    """

    @property
    def share_ppm(self) -> int: ...
    @property
    def cap_jobs(self) -> int: ...
    @property
    def used(self) -> int: ...
    @property
    def rate_ujobs_per_s(self) -> int: ...
    @property
    def remainder_ppm(self) -> int: ...
    @property
    def renewal(self) -> int: ...

    def renew(self, now_us: int, terms: Terms) -> None: ...
    def prolong(self) -> None: ...
    def offer(self) -> bool: ...
    def offer_stale(self, *, aged: bool) -> bool: ...
    def is_used_up(self) -> bool: ...
    def take_ticket(self) -> int: ...
    def due_in_us(self, ticket: int, now_us: int) -> int: ...
    def foresee_us(self, now_us: int) -> int: ...
    def leave_places(self, places: int) -> None: ...
    def take_share(self) -> bool: ...
    def take_saved(self, now_us: int) -> bool: ...
    def refuse_share(self, renewal: int) -> bool: ...
    def deal(self, salt: int) -> AnyTenants: ...
    def tenants(self) -> AnyTenants | None: ...
    def offer_for(self, place: int) -> bool: ...
    def offer_stale_for(self, place: int, *, aged: bool) -> bool: ...
    def decide_for(self, place: int, renewal: int, *, refuses: bool) -> bool | None: ...
    def take_counts(self) -> tuple[int, int, int]: ...


def _no_lock() -> AbstractContextManager[object]:
    return contextlib.nullcontext()


class Lease:
    """One priority's terms, and what was used of them.

    Two words change with a decision: `carry_ppm` with `used` for callers who will not wait, and `taken_ujobs`, the
    tickets, for those who will.
    """

    __slots__ = (
        "_gone",
        "_lock",
        "_refused",
        "_shared",
        "_tenants",
        "base_ujobs",
        "burst_ujobs",
        "cap_jobs",
        "carry_ppm",
        "rate_ujobs_per_s",
        "remainder_ppm",
        "renewal",
        "share_ppm",
        "since_us",
        "taken_ujobs",
        "used",
    )

    def __init__(self, phase_ppm: int, lock: Callable[[], AbstractContextManager[object]] = _no_lock) -> None:
        """Begin at a random part of a job: else the first jobs of all processes would go at one instant.

        `lock` keeps `take_share`, `take_saved` and `refuse_share` apart from what else is done at that time.
        """
        self._lock = lock
        self._shared = self._gone = self._refused = 0
        self._tenants: Tenants | None = None
        self.renewal = 0
        self.share_ppm = 0
        self.cap_jobs = 0
        self.carry_ppm = phase_ppm
        self.used = 0
        self.remainder_ppm = phase_ppm
        self.taken_ujobs = 0
        self.base_ujobs = phase_ppm
        self.rate_ujobs_per_s = 0
        self.since_us = 0
        self.burst_ujobs = 2 * MILLION

    def renew(self, now_us: int, terms: Terms) -> None:
        """Take new terms. Who waits keeps the place; what was released and not taken is kept up to a burst."""
        saved = min(self.released_ujobs(now_us) - self.taken_ujobs, self.burst_ujobs)
        if terms.fill:
            saved = max(saved, terms.burst_ujobs)
        self.share_ppm, self.cap_jobs = min(terms.share_ppm, MILLION), min(terms.cap_jobs, _MOST_USED)
        self.used = 0
        self.renewal += 1
        self.base_ujobs = self.taken_ujobs + min(saved, terms.burst_ujobs)
        self.rate_ujobs_per_s, self.burst_ujobs, self.since_us = terms.rate_ujobs_per_s, terms.burst_ujobs, now_us
        self.remainder_ppm = terms.remainder_ppm
        if self._tenants is not None:
            self._tenants.renew(self.share_ppm)

    def prolong(self) -> None:
        """Let the last terms go on, with nothing used of them."""
        self.used = 0

    # What an engine decides by itself, as most jobs are decided.

    def take_share(self) -> bool:
        """Take what `offer` would let go, and tell so; else nothing has happened, and the offer is to be decided.

        Of terms by which all fits half of the cap is left: whoever decides by that tells that more is asked for.
        """
        # Without a call under the lock, which does not keep out a signal handler of its holder: that runs at calls.
        with self._lock():
            carry_ppm, used = self.carry_ppm + self.share_ppm - MILLION, self.used + 1
            if carry_ppm < 0 or used > self.cap_jobs or (self.share_ppm >= MILLION and 2 * used > self.cap_jobs):
                return False
            self.carry_ppm, self.used = carry_ppm, used
            self._shared += 1
            return True

    def take_saved(self, now_us: int) -> bool:
        """Take a ticket only if its job may go now, and tell so."""
        with self._lock():
            released_ujobs = self.base_ujobs + self.rate_ujobs_per_s * (now_us - self.since_us) // MILLION
            if released_ujobs - self.taken_ujobs < MILLION:
                return False
            self.taken_ujobs += MILLION
            self._gone += 1
            return True

    def refuse_share(self, renewal: int) -> bool:
        """Take the refusal that `offer` would give by the terms of this `renewal`, and tell so; else nothing happens.

        Of terms by which all fits no offer is refused here: whoever decides has it wait for an answer.
        """
        # Looked at before the lock is taken, and again under it: most that are not refused show it.
        if self.carry_ppm + self.share_ppm >= MILLION and self.used < self.cap_jobs:
            return False
        with self._lock():
            if self.renewal != renewal or self.share_ppm >= MILLION:
                return False
            if self.used < self.cap_jobs:
                carry_ppm = self.carry_ppm + self.share_ppm
                if carry_ppm >= MILLION:
                    return False
                self.carry_ppm = carry_ppm
            self._refused += 1
            return True

    def take_counts(self) -> tuple[int, int, int]:
        """Return how many went by `take_share` and by `take_saved`, and `refuse_share` refused, since last asked."""
        with self._lock():
            counts = self._shared, self._gone, self._refused
            self._shared = self._gone = self._refused = 0
        return counts

    # Callers who name a tenant: by its part, in the place of the share, and under the same cap.

    def deal(self, salt: int) -> AnyTenants:
        """Begin to deal the share among tenants, unless that was begun; every renewal sets their level."""
        tenants = self._tenants
        if tenants is None:
            tenants = self._tenants = Tenants(salt, self.share_ppm, self._lock)
        return tenants

    def tenants(self) -> AnyTenants | None:
        """Return among whom the share is dealt, once that has begun."""
        return self._tenants

    def offer_for(self, place: int) -> bool:
        """As `offer`, of a tenant."""
        goes = self._tenants is not None and self.used < self.cap_jobs and self._tenants.offer(place)
        self.used += goes
        return goes

    def offer_stale_for(self, place: int, *, aged: bool) -> bool:
        """As `offer_stale`, of a tenant."""
        if aged and self.cap_jobs != 1:
            self.used = 0
        self.cap_jobs = 1
        return self.offer_for(place)

    def decide_for(self, place: int, renewal: int, *, refuses: bool) -> bool | None:
        """As `take_share` and, for who `refuses`, `refuse_share`, of a tenant: tell whether it goes.

        ``None``: nothing has happened, and the offer is to be decided.
        """
        tenants = self._tenants
        if tenants is None:
            return None
        with self._lock():
            used, all_fit = self.used + 1, self.share_ppm >= MILLION
            refuses = refuses and not all_fit
            if self.renewal != renewal or (all_fit and 2 * used > self.cap_jobs):
                return None
            taken, goes = (
                tenants.step(place, lets_go=True, refuses=refuses) if used <= self.cap_jobs else (refuses, False)
            )
            if not taken:
                return None
            # Read anew: a signal handler may have come in between.
            self.used += goes
            self._shared += goes
            self._refused += not goes
            return goes

    # Callers who will not wait.

    def offer(self) -> bool:
        """Tell whether the next offer may go: the share's part of them, evenly, without chance or time."""
        if self.used >= self.cap_jobs:
            return False
        carry = self.carry_ppm + self.share_ppm
        if carry < MILLION:
            self.carry_ppm = carry
            return False
        self.carry_ppm = carry - MILLION
        self.used += 1
        return True

    def offer_stale(self, *, aged: bool) -> bool:
        """Tell whether an offer may go that nobody answers in time: by old terms, of which one job is left."""
        if aged and self.cap_jobs != 1:
            self.used = 0
        self.cap_jobs = 1
        return self.offer()

    def is_used_up(self) -> bool:
        """Tell whether all that was asked for fits, and more is asked for now."""
        return self.share_ppm >= MILLION and self.used >= self.cap_jobs

    # Callers who will.

    def released_ujobs(self, now_us: int) -> int:
        return self.base_ujobs + self.rate_ujobs_per_s * (now_us - self.since_us) // MILLION

    def take_ticket(self) -> int:
        """Return a place in the line."""
        self.taken_ujobs += MILLION
        return self.taken_ujobs

    def due_in_us(self, ticket: int, now_us: int) -> int:
        """Return how long the line takes until this place; 0: its job may go now."""
        lack = ticket - self.released_ujobs(now_us)
        if lack <= 0:
            return 0
        rate = self.rate_ujobs_per_s
        return min((lack * MILLION + rate - 1) // rate, NEVER_US) if rate else NEVER_US

    def foresee_us(self, now_us: int) -> int:
        """Return how long a ticket taken now would have to wait."""
        return self.due_in_us(self.taken_ujobs + MILLION, now_us)

    def leave_places(self, places: int) -> None:
        """Give the places of callers who went otherwise, or gave up, to those behind."""
        self.base_ujobs += places * MILLION


@attrs.frozen
class Dealt:
    """How many callers of one priority an answer lets go at once: of those held, waiting, and held patiently."""

    held: int
    waiting: int
    held_patient: int


class QueueLease:
    """One process's leases on one queue, and what it has to report.

    Attributes:
        call_at_us: when to ask `is_due`; ``None``: not before something happens. To be looked at after every other call
            here.
        in_flight: whether a call is under way.
        has_terms: whether an answer ever came. A process that never had one goes by the fallback while calls fail.
        is_sampler: whether the next report is to carry the backlog.
        is_safe: whether the store is lost, so that the process lets pass a part of what it last did.
        is_local: whether what it lets pass then follows what can still be read of the queue.
        unfinished: how many jobs were let go whose enqueue has not ended: told before they are in the queue, they would
            seem to have been drained.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        producer_id: str,
        phases_ppm: Sequence[int],
        make_lease: Callable[[int], AnyLease] = Lease,
    ) -> None:
        self.settings = settings
        self.producer_id = producer_id
        self.levels = [make_lease(phase) for phase in phases_ppm]
        self.call_at_us: int | None = 0
        self.in_flight = self.has_terms = self.is_sampler = self.is_safe = self.is_local = False
        self.drain_mjobs_per_s, self.processes, self.unfinished = 0, 1, 0
        self.fresh_until_us = 0
        self._told_us = self._called_us = self._calls = self._busy_us = self._retry_us = 0
        self._lost_since_us: int | None = None
        self._decided, self._gone, self._enqueued = [0, 0, 0], [0, 0, 0], 0
        self._waiting, self._had_to_wait = [0, 0, 0], [0, 0, 0]
        self._held, self._held_patient = [0, 0, 0], [0, 0, 0]
        self._asked, self._asked_patient = [0, 0, 0], [0, 0, 0]
        self._admitted, self._own_ujobs_per_s = [0, 0, 0], [0, 0, 0]
        self._kept_jobs = [0, 0, 0]  # of offers of several, what the share let go of those that did not go yet
        self._sent: Report | None = None
        self._sent_had_to_wait = [0, 0, 0]
        self._called_before_us = 0
        self._safe_ujobs_per_s, self._factor_permille = [0, 0, 0], 1_000
        self._seen_before: tuple[int, int] | None = None

    # Offers.

    def is_stale(self, level: int, now_us: int, *, patient: bool) -> bool:
        """Tell whether an offer should be held for an answer. HIGH that will not wait never is."""
        if self.is_safe or (level == HIGH and not patient):
            return False
        return now_us >= self.fresh_until_us or (not patient and self.levels[level].is_used_up())

    def hold(self, level: int, now_us: int, *, patient: bool, jobs: int = 1) -> None:
        """Count an offer that waits for the answer of a call made now, or very soon after the last one."""
        (self._held_patient if patient else self._held)[level] += jobs
        self._ask(now_us)

    def unhold(self, level: int, *, patient: bool, asked: bool, jobs: int = 1) -> None:
        """Count off a held offer that is given up, or decided without the answer; `asked`: a call tells of it."""
        if asked:
            (self._asked_patient if patient else self._asked)[level] -= jobs
        else:
            (self._held_patient if patient else self._held)[level] -= jobs

    def decide(self, level: int, now_us: int, jobs: int = 1, place: int | None = None) -> bool:
        """Decide an offer that will not wait by fresh terms, or by those of a lost store.

        An offer of several jobs goes when the share has let as many go; what it lets go until then is kept for it.
        `place` is the tenant's, see `deal`.
        """
        lease = self.levels[level]
        self._decided[level] += jobs
        if self.is_safe:
            goes = lease.foresee_us(now_us) == 0
            if goes:
                self._take_tickets(lease, jobs)
        else:
            went = sum(lease.offer() if place is None else lease.offer_for(place) for _ in range(jobs))
            goes = self._afford(level, went, jobs)
            used_half = lease.share_ppm >= MILLION and 2 * lease.used > lease.cap_jobs
            fresh = now_us < self.fresh_until_us
            if fresh and used_half and now_us - self._called_us >= self.settings.tick_ms * 125:
                self._want(now_us)  # more is asked for than before: say so early
        return self._settle(level, jobs, goes=goes or level == HIGH)

    def prefers(self, level: int, place: int) -> bool:
        """Tell whether a held offer of a tenant goes before others, as it would by the share; it is counted there."""
        tenants = self.levels[level].tenants()
        return tenants is not None and tenants.offer(place)

    def decide_stale(
        self, level: int, now_us: int, *, asked: bool = False, jobs: int = 1, place: int | None = None
    ) -> bool:
        """Decide an offer that no answer reached in time; `asked`: a call told of it already."""
        if not asked:
            self._decided[level] += jobs
        lease = self.levels[level]
        if self.is_safe:
            goes = lease.foresee_us(now_us) == 0
            if goes:
                self._take_tickets(lease, jobs)
        else:
            aged = now_us >= self.fresh_until_us
            went = sum(
                lease.offer_stale(aged=aged) if place is None else lease.offer_stale_for(place, aged=aged)
                for _ in range(jobs)
            )
            goes = self._afford(level, went, jobs)
        return self._settle(level, jobs, goes=goes or level == HIGH)

    def _afford(self, level: int, went: int, jobs: int) -> bool:
        if jobs == 1:
            return went > 0
        self._kept_jobs[level] += went
        if self._kept_jobs[level] < jobs:
            return False
        self._kept_jobs[level] -= jobs
        return True

    def _settle(self, level: int, jobs: int, *, goes: bool) -> bool:
        if goes:
            self._count(level, jobs)
        self._plan()
        return goes

    @staticmethod
    def _take_tickets(lease: AnyLease, jobs: int) -> int:
        for _ in range(jobs - 1):
            lease.take_ticket()
        return lease.take_ticket()

    def _count(self, level: int, jobs: int) -> None:
        """Count jobs that go by the lease: they are enqueued, as far as is known, but for the unfinished."""
        self._admitted[level] += jobs
        self._enqueued += jobs

    # Callers who wait.

    def foresee_us(self, level: int, now_us: int) -> int:
        """Return how long a ticket taken now would have to wait."""
        return self.levels[level].foresee_us(now_us)

    def take_ticket(self, level: int, now_us: int, jobs: int = 1) -> int | None:
        """Return a place in the line, the last of those of several jobs; ``None``: they may go now."""
        lease = self.levels[level]
        ticket = self._take_tickets(lease, jobs)
        if lease.due_in_us(ticket, now_us) == 0:
            self._go(level, jobs)
            return None
        self._waiting[level] += jobs
        self._had_to_wait[level] = 1
        self._plan()
        return ticket

    def due_in_us(self, level: int, ticket: int, waited_us: int, now_us: int) -> int:
        """Return how long a caller waits on, until the next answer at most. HIGH waits half the target at most."""
        due = self.levels[level].due_in_us(ticket, now_us)
        return due if level != HIGH else min(due, max(0, self.settings.target_ms * 500 - waited_us))

    def go_from_line(self, level: int, jobs: int = 1) -> None:
        """Count a caller who waited, and whose turn it is."""
        self._waiting[level] -= jobs
        self._go(level, jobs)

    def give_up(self, level: int, jobs: int = 1) -> None:
        """Count off a caller who waits no more."""
        self._waiting[level] -= jobs
        self.levels[level].leave_places(jobs)

    def _go(self, level: int, jobs: int) -> None:
        self._gone[level] += jobs
        self._count(level, jobs)
        self._plan()

    # What became of who went.

    def take_back(self, jobs: int = 1) -> None:
        """Count off jobs that went, or were dealt a place, and were not enqueued."""
        self._enqueued -= jobs

    def let_go_anyway(self, level: int, jobs: int = 1) -> None:
        """Count jobs that are enqueued although their offer was refused: where decisions are only observed."""
        self._count(level, jobs)

    def go_along(self, level: int, jobs: int, place: int | None = None) -> None:
        """Count jobs that are enqueued by a caller whom the engine let go by itself, which counted one of them."""
        lease = self.levels[level]
        if level == LEVELS[-1]:
            self._decided[level] += jobs
            for _ in range(jobs):
                lease.offer() if place is None else lease.offer_for(place)
        else:
            self._gone[level] += jobs
            self._take_tickets(lease, jobs)
        self._count(level, jobs)

    # Calls.

    def is_due(self, now_us: int) -> bool:
        """Tell whether to call now. Where there is nothing to tell, the next offer asks for a call."""
        if self.in_flight or self.call_at_us is None or now_us < self.call_at_us:
            return False
        self._fetch_counts()
        told_of = (self._decided, self._gone, self._waiting, self._had_to_wait, self._held, self._held_patient)
        if not self._calls or any(map(any, told_of)) or self._enqueued > self.unfinished:
            self._busy_us = now_us
            return True
        if self.is_sampler and now_us - self._busy_us <= _IDLE_TICKS * self.settings.tick_ms * 1_000:
            return True
        self.call_at_us = None
        return False

    def _fetch_counts(self) -> None:
        """Count what the engine decided by itself."""
        for level, lease in enumerate(self.levels):
            shared, gone, refused = lease.take_counts()
            self._decided[level] += shared + refused
            self._gone[level] += gone
            self._count(level, shared + gone)

    def report(self, now_us: int, seen: BacklogSeen | None = None, limit_permille: int = LIMIT_NONE) -> Report:
        """Return what a call that is sent now tells; it is then in flight, until `renew` or `fail`."""
        self._fetch_counts()
        waiting = [max(now, ever) for now, ever in zip(self._waiting, self._had_to_wait, strict=True)]
        since_ms = max(1, (now_us - self._called_us) // 1_000) if self._calls else 0
        woken_after_us = self.fresh_until_us + self._told_us // 5 + 50_000
        if now_us > woken_after_us and not (self.is_sampler or any(waiting) or any(self._decided)):
            since_ms = 0  # idle until now: as a new process
        demands = [
            Demand(
                self._decided[level],
                self._gone[level],
                waiting[level],
                self._held[level],
                self._held_patient[level],
                self.levels[level].remainder_ppm,
            )
            for level in LEVELS
        ]
        high, medium, low = demands
        report = Report(
            producer_id=self.producer_id,
            since_ms=since_ms,
            demands=(high, medium, low),
            enqueued=max(0, self._enqueued - self.unfinished),  # a debt is carried
            seen=seen,
            seed_drain_mjobs_per_s=self.drain_mjobs_per_s,
            seed_processes=self.processes,
            limit_permille=limit_permille,
        )
        self._sent, self._sent_had_to_wait = report, self._had_to_wait
        self._asked, self._held = self._held, [0, 0, 0]
        self._asked_patient, self._held_patient = self._held_patient, [0, 0, 0]
        self._decided, self._gone, self._had_to_wait = [0, 0, 0], [0, 0, 0], [0, 0, 0]
        self._enqueued -= report.enqueued
        self._called_before_us, self._called_us = self._called_us if self._calls else now_us, now_us
        self._calls += 1
        self.in_flight, self.call_at_us = True, None
        return report

    def renew(self, now_us: int, answer: Answer, spread_ppm: int = MILLION) -> tuple[Dealt, Dealt, Dealt]:
        """Take the answer; return who of those that the call told of, and of those waiting, goes at once.

        Held offers beyond that are refused, held patient ones beyond it take a ticket. Offers that came during the call
        are to be offered anew. The terms are fresh for `spread_ppm` of the time that the answer tells, from when the
        call was sent: about a tenth more or less, by chance, keeps processes apart.
        """
        self.in_flight = False
        self._lost_since_us, self.is_safe, self.is_local, self.has_terms = None, False, False, True
        self.is_sampler = answer.is_sampler and self.producer_id != NO_SAMPLER
        self.drain_mjobs_per_s, self.processes = answer.drain_mjobs_per_s, answer.processes
        if sum(answer.demand_mjobs_per_s) * _IDLE_TICKS * self.settings.tick_ms >= MILLION:
            self._busy_us = now_us
        self._told_us = answer.wait_ms * 1_000
        self.fresh_until_us = self._called_us + self._told_us * spread_ppm // MILLION
        high, medium, low = (self._deal(level, now_us, answer) for level in LEVELS)
        self._held, self._held_patient = [0, 0, 0], [0, 0, 0]
        self._plan()
        return high, medium, low

    def _deal(self, level: int, now_us: int, answer: Answer) -> Dealt:
        lease, terms = self.levels[level], answer.terms[level]
        lease.renew(now_us, terms)
        self._smooth_own(level)
        to_held = min(terms.go_jobs, self._asked[level])
        to_waiting = min(terms.go_jobs - to_held, self._waiting[level])
        to_patient = min(terms.go_jobs - to_held - to_waiting, self._asked_patient[level])
        lease.leave_places(to_waiting)
        self._waiting[level] -= to_waiting
        if answer.wait_ms * 10 <= self.settings.tick_ms * 22:  # where calls are far apart, who waits is all that counts
            self._gone[level] += to_waiting
        self._asked[level] = self._asked_patient[level] = 0
        went = to_held + to_waiting + to_patient
        self._admitted[level] += went
        self._enqueued -= terms.go_jobs - went  # counted by the state, but nobody was left to go
        return Dealt(to_held, to_waiting, to_patient)

    def fail(self, now_us: int, seen: BacklogSeen | None = None) -> None:
        """Take back what an unanswered call told; the next one, a tick later, tells it.

        All that were held are to be decided by `decide_stale`, or to take a ticket. `seen` is what could be read of the
        queue all the same.
        """
        self.in_flight = False
        sent, self._sent = self._sent, None
        if sent is not None:
            for level, demand in enumerate(sent.demands):
                self._decided[level] += demand.decided
                self._gone[level] += demand.gone
                self._had_to_wait[level] = max(self._had_to_wait[level], self._sent_had_to_wait[level])
            self._enqueued += sent.enqueued
            self._called_us = self._called_before_us
        self._asked, self._asked_patient = [0, 0, 0], [0, 0, 0]
        self._held, self._held_patient = [0, 0, 0], [0, 0, 0]
        self.is_sampler = False
        for lease in self.levels:
            lease.prolong()  # the last terms go on for another tick
        tick_us = self.settings.tick_ms * 1_000
        if self._lost_since_us is None:
            self._lost_since_us = now_us
        lost_us = now_us - self._lost_since_us
        if self.has_terms and not self.is_safe and lost_us > 3 * max(tick_us, self._told_us):
            self._be_safe(now_us)
        elif self.is_safe and seen is not None:
            self._follow(now_us, seen)
        self.fresh_until_us = self.call_at_us = self._retry_us = now_us + tick_us

    # A lost store.

    def _smooth_own(self, level: int) -> None:
        """Follow what this process let pass: a quarter of the difference a tick."""
        since_us, tick_us = max(1, self._called_us - self._called_before_us), self.settings.tick_ms * 1_000
        rate = self._admitted[level] * MILLION * MILLION // since_us
        step = (rate - self._own_ujobs_per_s[level]) * min(since_us, 4 * tick_us)
        self._own_ujobs_per_s[level] += step // (4 * tick_us) if step >= 0 else -(-step // (4 * tick_us))
        self._admitted[level] = 0

    def _be_safe(self, now_us: int) -> None:
        """Let pass nine tenths of what passed before; where all fitted, of its part of the drain at least."""
        self.is_safe = True
        lack = 0
        if all(lease.share_ppm >= MILLION for lease in self.levels):
            part = self.drain_mjobs_per_s * 1_000 // self.processes
            lack = max(0, part - sum(self._own_ujobs_per_s)) // len(LEVELS)
        self._safe_ujobs_per_s = [(own + lack) * _SAFE_PERMILLE // 1_000 for own in self._own_ujobs_per_s]
        self._factor_permille, self._seen_before = 1_000, None
        self._renew_safe(now_us)

    def _renew_safe(self, now_us: int) -> None:
        for lease, safe in zip(self.levels, self._safe_ujobs_per_s, strict=True):
            rate = safe * self._factor_permille // 1_000
            lease.renew(now_us, Terms(0, 0, rate, _SAFE_BURST, 0, 0, lease.remainder_ppm))

    def _follow(self, now_us: int, seen: BacklogSeen) -> None:
        """Let pass less while jobs wait longer than they are to, or become more, and more in the other case.

        All processes see the same, and follow by the same factor. It bounds the age; it does not hold it.
        """
        drain, target_ms = max(1, self.drain_mjobs_per_s), self.settings.target_ms
        seen_us = now_us - 1_000 * seen.ago_ms
        age_ms = seen.jobs * MILLION // drain if seen.oldest_age_ms is None else seen.oldest_age_ms
        change = _AGE_GAIN_PERMILLE * (age_ms - target_ms) // target_ms
        if self._seen_before is not None and seen_us > self._seen_before[1]:
            jobs, before_us = self._seen_before
            growth_mjobs_per_s = (seen.jobs - jobs) * 1_000 * MILLION // (seen_us - before_us)
            change += _GROWTH_GAIN_PERMILLE * growth_mjobs_per_s // drain
        change = min(max(change, -_MOST_CHANGE_PERMILLE), _MOST_CHANGE_PERMILLE)
        factor = self._factor_permille * (1_000 - change) // 1_000
        self._factor_permille = min(max(factor, _LEAST_FACTOR_PERMILLE), _MOST_FACTOR_PERMILLE)
        self._seen_before, self.is_local = (seen.jobs, seen_us), True
        self._renew_safe(now_us)

    # When to call.

    def _want(self, at_us: int) -> None:
        if self.in_flight:
            return
        if self._lost_since_us is not None:
            at_us = max(at_us, self._retry_us)
        self.call_at_us = at_us if self.call_at_us is None else min(self.call_at_us, at_us)

    def _ask(self, now_us: int) -> None:
        """At once, but no more than twenty times a tick."""
        self._want(max(now_us, self._called_us + self.settings.tick_ms * 50) if self._calls else now_us)

    def _plan(self) -> None:
        """When the terms have aged."""
        if self._calls:
            self._want(self.fresh_until_us)
