"""The shared budget in Python: what `script.lua` computes, equal in every bit, for the simulator and for tests.

Names are those of the script; what they mean and why a step is taken is said there. Integers, floor division of what is
not negative, `toward_zero` for the rest.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING

from backpressure._age.protocol import MILLION, NO_SAMPLER, VERSION, Answer, Terms

if TYPE_CHECKING:
    from backpressure._age.protocol import Demand, Report
    from backpressure._model.budget import BudgetSettings

__all__ = ["EXACT", "Budget"]

#: Beyond it doubles are not exact.
EXACT = 2**53
_MOST_JOBS, _MOST_RATE, _MOST_DEMAND = 10**9, 10**9, 2 * 10**9
_FURTHEST_CALL_MS = 10**6
_FURTHEST_APART_MS = 600_000
_RING = 12
_ALL = (0, 1, 2)
_FORMAT = "<H90d"


def toward_zero(dividend: int, divisor: int) -> int:
    return dividend // divisor if dividend >= 0 else -(-dividend // divisor)


class Budget:
    """The state of one queue's key. `call` is the script."""

    def __init__(self, settings: BudgetSettings) -> None:
        self.settings = settings
        self._begin(0, 0, MILLION)
        self.exists = False

    def forget(self) -> None:
        """Lose the key, as a server does that starts empty."""
        self.exists = False

    def _begin(self, now: int, drain: int, trim: int) -> None:
        tick = self.settings.tick_ms
        self.exists, self.sampler = True, ""
        self.ticked, self.ticks, self.drain, self.trim = now, 0, drain, trim
        self.budget, self.age, self.smoothed = 0, 0, -1
        self.gap = tick if drain > 0 else max(1, tick // 8)
        self.sum_offers, self.sum_asked, self.sum_gone = [0, 0, 0], [0, 0, 0], [0, 0, 0]
        self.sum_waited, self.sum_waiting = [0, 0, 0], [0, 0, 0]
        self.sum_since = self.total = self.sum_leased = self.sum_dealt = 0
        self.demand, self.patient, self.waiters, self.asked = [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]
        self.processes = 1
        self.backlog = self.oldest = self.read = self.backlog_before = self.read_before = self.total_before = -1
        self.share, self.spare, self.room, self.sampled_at = [4 * MILLION] * 3, 0, 0, -_MOST_JOBS
        self.promised = self.promised_rate = self.promised_spare = self.next_call = self.next_start = 0
        self.delay = self.unheard = self.busy = 0
        self.calm, self.known = (2 * tick, 1) if drain > 0 else (0, 0)
        self.ring: list[tuple[int, int]] = []  # newest first
        self.apart = self.far = self.lift = self.held = 0

    def call(self, now: int, report: Report) -> Answer:
        """Take a report at a millisecond of the server's clock; return the lease."""
        settings = self.settings
        tick = settings.tick_ms
        if not self.exists or now < self.ticked - 2_000:
            self._begin(now, report.seed_drain_mjobs_per_s, MILLION)
        elif now - self.ticked > 60 * settings.target_ms:
            self._begin(now, self.drain, self.trim)
        since, enqueued = report.since_ms, report.enqueued
        decided = [demand.decided for demand in report.demands]
        gone = [demand.gone for demand in report.demands]
        interval = max(tick, self.next_call // 1_000 - now)
        if since > 3 * interval:
            decided = [jobs * interval // since for jobs in decided]
            gone = [jobs * interval // since for jobs in gone]
            enqueued = enqueued * interval // since
            since = interval
        was_sampler = self.sampler == report.producer_id
        self._choose_sampler(now, report, since, sum(decided) + sum(gone))
        self._add(report, since, decided, gone, enqueued)
        seen, elapsed, first = report.seen, now - self.ticked, self.ticks == 0
        if elapsed > 5 * tick:
            self.total_before, self.ring = -1, []
        if seen is not None:
            self.backlog, self.oldest = seen.jobs, -1 if seen.oldest_age_ms is None else seen.oldest_age_ms
            read = now - seen.ago_ms
            if self.read >= 0 and elapsed <= 5 * tick and 2 * (read - self.read) >= self.gap:
                self.apart = min(read - self.read, _FURTHEST_APART_MS)
                self.far = min(now - self.read, _FURTHEST_APART_MS)
            self.read = read
        used_up = not first and self.spare > 0 and self.promised >= self._promisable() and 8 * elapsed >= tick
        if used_up:
            self.calm = 0
        due = 2 * elapsed >= self.gap if seen is not None else was_sampler and 4 * elapsed >= 3 * self.gap
        if first or used_up or due or elapsed >= 2 * self.gap:
            self._tick(now, elapsed, report)
        return self._lease(now, report, since, decided, gone)

    def _choose_sampler(self, now: int, report: Report, since: int, went: int) -> None:
        demand = sum(self.demand)
        brought = went + sum(it.waiting for it in report.demands)
        heavy = since > 0 and demand > 0 and brought * MILLION // since * 5 > 3 * demand
        who, gap = report.producer_id, self.gap
        if who != NO_SAMPLER and (self.sampler == who or heavy or now - self.sampled_at > 2 * gap + gap // 2):
            self.sampler, self.sampled_at = who, now

    def _add(self, report: Report, since: int, decided: list[int], gone: list[int], enqueued: int) -> None:
        tick = self.settings.tick_ms
        for level in _ALL:
            it = report.demands[level]
            self.sum_offers[level] = min(self.sum_offers[level] + decided[level] + it.held, _MOST_JOBS)
            self.sum_asked[level] = min(self.sum_asked[level] + it.held, _MOST_JOBS)
            self.sum_gone[level] = min(self.sum_gone[level] + gone[level] + it.held_patient, _MOST_JOBS)
            waited = min(it.waiting * min(since, tick), _MOST_RATE)
            self.sum_waited[level] = min(self.sum_waited[level] + waited, 100 * _MOST_RATE)
            self.sum_waiting[level] = min(self.sum_waiting[level] + it.waiting, _MOST_JOBS)
        self.total += enqueued
        self.sum_leased = min(self.sum_leased + enqueued, _MOST_JOBS)
        self.sum_since += since or tick

    def _promisable(self) -> int:
        return self.budget * self.gap * 3 // 2_000 + self.room * 1_000

    def _seldom(self) -> bool:
        return 2 * self.apart > 3 * self.settings.tick_ms

    # The tick.

    def _tick(self, now: int, elapsed: int, report: Report) -> None:
        tick, first = self.settings.tick_ms, self.ticks == 0
        dt = tick if first else min(max(elapsed, 1), 5 * tick)
        many = max(1, report.seed_processes) if first else 1
        self._measure_demand(dt, many, first=first)
        self._measure_delay(now, dt)
        sampled = report.seen is not None or (self._seldom() and self.read != self.read_before)
        read_before, was_dry = self.read_before, self._is_dry(self.backlog_before)
        apart = max(0, self.read - read_before)
        steady = sampled and self._measure_drain(now)
        if not self.ring or 11 * (now - self.ring[0][0]) >= self.far:
            self.ring = [(now, self.total), *self.ring[: _RING - 1]]
        self._measure_age(now, steady=steady)
        old = max(0, now - self.read) if sampled else 0
        if self.read_before != read_before:
            self._explore(min(apart, self.apart), old, was_dry=was_dry)
        self._set_budget(now, min(dt, apart), old, report.limit_permille, sampled=sampled)
        self._set_gap(dt, old, first=first)
        self._set_shares(report.limit_permille)
        self.ticks += 1
        self.ticked = now

    def _measure_demand(self, dt: int, many: int, *, first: bool) -> None:
        tick = self.settings.tick_ms

        def rate(jobs: int) -> int:
            return min(jobs * many, _MOST_JOBS) * MILLION // dt

        for level in _ALL:
            if first:
                waiting = min(self.sum_waiting[level] * many, _MOST_JOBS) * MILLION // tick
            else:
                waiting = self.sum_waited[level] * 1_000 // tick * 1_000 // dt
            patient = min(rate(self.sum_gone[level]) + waiting, _MOST_DEMAND)
            wanted = min(patient + rate(self.sum_offers[level]), _MOST_DEMAND)
            if first or wanted > 2 * self.demand[level]:
                self.demand[level], self.patient[level] = wanted, patient
            else:
                self.demand[level] = (self.demand[level] + wanted) // 2
                self.patient[level] = (self.patient[level] + patient) // 2
            self.asked[level] = (self.asked[level] + min(rate(self.sum_asked[level]), _MOST_DEMAND)) // 2
            waiters = self.sum_waiting[level] * many if first else self.sum_waited[level] // dt
            self.waiters[level] = max(1, waiters) if self.sum_waiting[level] else 0
            for sums in (self.sum_offers, self.sum_asked, self.sum_gone, self.sum_waited, self.sum_waiting):
                sums[level] = 0
        if first:
            self.processes = many
        else:
            heard = (2 * self.sum_since + dt) // (2 * dt)  # to the nearest: of few, one less is much
            self.processes = max(1, (self.processes + heard + 1) // 2 if self.ticks > 16 else heard)

    def _measure_delay(self, now: int, dt: int) -> None:
        delay = max(0, self.next_call // 1_000 - now - self.gap)
        known = self.sum_leased + self.sum_dealt
        self.delay = delay * self.sum_leased // known if self.sum_leased else 0
        self.unheard = min(max(self.unheard - dt, self.delay + self.gap), 4 * self.settings.tick_ms)
        self.sum_since = self.sum_leased = self.sum_dealt = 0

    def _enqueued_by(self, instant: int, now: int) -> int | None:
        if instant >= now:
            return self.total
        for (later, jobs), (earlier, fewer) in pairwise([(now, self.total), *self.ring]):
            if earlier <= instant:
                span = max(1, later - earlier)
                return fewer + min(jobs - fewer, 9 * 10**15 // span) * (instant - earlier) // span
        return None

    def _measure_drain(self, now: int) -> bool:
        settings = self.settings
        jobs = self._enqueued_by(self.read, now)
        if jobs is None:
            if self.total_before < 0:
                self.backlog_before, self.read_before = self.backlog, self.read
            return False
        dt, steady = self.read - self.read_before, False
        if self.total_before >= 0 and 0 <= dt <= _FURTHEST_APART_MS:
            if 4 * dt < 3 * self.unheard:
                return False
            drain, window = self.drain, settings.drain_window_ms
            gone = max(0, jobs - self.total_before - (self.backlog - self.backlog_before))
            seen = min(min(gone, _MOST_JOBS) * MILLION // dt, _MOST_RATE)
            if self.known and drain // 1_000 * dt >= 8_000:
                seen = min(seen, 4 * drain)
            least = min(self.backlog, self.backlog_before)
            if least >= 1 and least * 4 * MILLION >= drain * self.gap:
                steady = abs(seen - drain) * 4 <= drain
                slow = max(window, min(20 * MILLION // max(drain, 1), 20 * window))
                if not self.known:
                    over = min(slow, self.busy)
                else:
                    over = slow if seen < drain else min(slow, max(self.busy, window))
                self.drain = drain + toward_zero((seen - drain) * dt, dt + over)
                self.busy = min(self.busy + dt, 20 * window)
            else:
                if seen > drain:
                    self.drain = seen if self._seldom() else drain + (seen - drain) // 2
                else:
                    self.drain = drain - drain * min(dt, 15 * settings.target_ms) // (60 * settings.target_ms)
                self.busy -= self.busy * dt // (4 * settings.target_ms + dt)
        self.backlog_before, self.read_before, self.total_before = self.backlog, self.read, jobs
        self.lift = 0
        return steady

    def _is_dry(self, backlog: int) -> bool:
        return backlog <= 0 or backlog * 4 * MILLION < self.drain * self.gap

    def _foresees(self) -> bool:
        return self._seldom() and self.total_before >= 0

    def _foreseen(self, now: int) -> int:
        came = min(self.total - self.total_before, _MOST_JOBS)
        went = self.drain * min(max(0, now - self.read_before), _FURTHEST_APART_MS) // MILLION
        jobs = self.backlog_before + came - went
        self.lift = max(self.lift, -jobs)
        return jobs + self.lift

    def _measure_age(self, now: int, *, steady: bool) -> None:
        settings = self.settings
        target, tick = settings.target_ms, settings.tick_ms
        backlog = max(self.backlog, 0)
        age = 0
        if self.drain > 0:
            age = backlog * MILLION // self.drain
        elif backlog > 0:
            age = 100 * target
        ticks, sixteenths = max(8, 2 * target // tick), backlog * 16
        if self.smoothed < 0:
            self.smoothed = sixteenths
        else:
            self.smoothed += toward_zero(sixteenths - self.smoothed, ticks)
        rests = abs(sixteenths - self.smoothed) * 8 <= self.smoothed
        trusted = settings.trims and steady and rests and self.calm >= 2 * tick
        if trusted and self.oldest > 0 and backlog >= 10 and age > 0:
            told = min(2 * MILLION, max(MILLION // 2, self.oldest * MILLION // age))
            self.trim += toward_zero(told - self.trim, 4 * ticks)
        if self._foresees() and self.drain > 0:
            age = self._foreseen(now) * MILLION // self.drain
        self.age = min(min(age, 100 * target) * self.trim // MILLION, 100 * target)

    def _set_budget(self, now: int, dt: int, old: int, limit: int, *, sampled: bool) -> None:
        settings = self.settings
        target, tick, gap, drain = settings.target_ms, settings.tick_ms, self.gap, self.drain
        wanted = sum(self.demand)
        foresees = self._foresees()
        late = self.delay + (self.far // 4 if foresees else old)
        gain = min(settings.gain_most_permille, 1_000 * target // (2 * late + 3 * gap))
        lack = min(1_500, toward_zero((target - min(self.age, 20 * target)) * gain, target))
        budget = max(drain * settings.least_budget_permille // 1_000, drain + toward_zero(drain * lack, 1_000))
        unseen, seldom = now - self.read, self._seldom()
        most = drain
        if self._is_dry(self.backlog):
            least = (1 if drain > 0 else 10) * MILLION // tick
            if self.read >= 0:
                most = max(drain, least)
            if seldom:
                up = self.held
                if unseen <= 2 * self.far:
                    most = max(most, up)
            else:
                up = self.budget
                if sampled:
                    up += self.budget * min(dt, gap) // (old + self.delay + gap)
            budget = max(budget, min(up, 2 * wanted), least)
        if (seldom or not sampled) and unseen > (2 * self.far if foresees else 3 * tick):
            budget = min(budget, most)
        self.budget = min(budget * limit // 1_000, _MOST_DEMAND)

    def _explore(self, apart: int, old: int, *, was_dry: bool) -> None:
        dry = was_dry and self._is_dry(self.backlog)
        up = self.budget * apart // max(1, old + self.delay + apart)
        self.held = min(self.budget + up, 2 * sum(self.demand)) if dry else 0

    def _set_gap(self, dt: int, old: int, *, first: bool) -> None:
        tick = self.settings.tick_ms
        fits = self.budget >= sum(self.demand) and self.ticks > 16
        if not first and (self.busy > 0 or fits):
            self.calm += dt
        self.calm = min(self.calm, 2 * tick)
        if self.calm >= 2 * tick:
            self.known, self.gap = 1, tick
        else:
            self.gap = min(tick, max(tick // 8, old, self.apart if self._seldom() else 0, 1))

    def _set_shares(self, limit: int) -> None:
        settings, demand = self.settings, self.demand
        kept = (
            0,
            demand[1] * settings.medium_floor_permille // 1_000 * limit // 1_000,
            demand[2] * settings.low_floor_permille // 1_000 * limit // 1_000,
        )
        left = self.budget
        for level in _ALL:
            has = max(left - kept[2] if level == 1 else left, kept[level], 0)
            self.share[level] = 4 * MILLION if has >= 4 * demand[level] else has * MILLION // demand[level]
            left = max(0, left - demand[level])
        self.spare = left
        self.room = self.drain * max(0, settings.target_ms - self.age) // (2 * MILLION) * limit // 1_000
        self.promised = self.promised_rate = self.promised_spare = 0

    # The lease.

    def _lease(self, now: int, report: Report, since: int, decided: list[int], gone: list[int]) -> Answer:
        settings = self.settings
        apart = MILLION // settings.calls_per_second
        self.next_call = max(self.next_call, (now + self.gap) * 1_000)
        if since > 0 or any(it.waiting or it.held or it.held_patient for it in report.demands):
            self.next_call = min(self.next_call + apart, (now + _FURTHEST_CALL_MS) * 1_000)
            interval = max(1, self.next_call // 1_000 - now)
        else:
            self.next_start = max(self.next_start, now * 1_000) + apart
            interval = max(1, (self.next_start // 1_000 - now) % settings.target_ms)
        since = max(since, settings.tick_ms // 8, 1)
        samples = self.sampler == report.producer_id
        if samples:
            interval = self.gap
        high, medium, low = (
            self._terms(level, report.demands[level], decided[level], gone[level], since, interval) for level in _ALL
        )
        return Answer(
            now_ms=now,
            ticks=self.ticks,
            drain_mjobs_per_s=self.drain,
            budget_mjobs_per_s=self.budget,
            age_ms=self.age,
            backlog_jobs=self.backlog,
            processes=self.processes,
            spare_mjobs_per_s=self.spare,
            is_sampler=samples,
            wait_ms=interval,
            terms=(high, medium, low),
            demand_mjobs_per_s=(self.demand[0], self.demand[1], self.demand[2]),
            shares_ppm=(min(self.share[0], MILLION), min(self.share[1], MILLION), min(self.share[2], MILLION)),
        )

    def _terms(self, level: int, it: Demand, decided: int, gone: int, since: int, interval: int) -> Terms:
        settings = self.settings
        tick, gap, processes, room = settings.tick_ms, self.gap, self.processes, self.room
        warm = self.calm >= 2 * tick
        whole = self.share[level]
        share, roomy = min(whole, MILLION), whole >= MILLION
        asks = min(gone * MILLION // since + it.waiting * MILLION // max(since, tick), _MOST_DEMAND)
        rate = asks * whole // 1_000

        deals = it.waiting > 0 and rate // 1_000 * interval < min(it.waiting, 4) * MILLION
        share_held, share_decided = self._shares(level, share, interval)
        due = it.remainder_ppm + it.held * share_held + it.held_patient * share
        if deals:
            waited = it.waiting * min(since, tick) * 1_000 // tick
            due += min(gone * 1_000 + waited, _MOST_RATE) * whole // 1_000
        go = min(due // MILLION, it.held + it.held_patient + (it.waiting if deals else 0))
        promisable = self._promisable()
        if level > 0:
            go = min(go, max(0, promisable - self.promised) // 1_000)
        self.promised += go * 1_000
        self.total += go
        self.sum_dealt = min(self.sum_dealt + go, _MOST_JOBS)

        cap = 1 if warm and not roomy else 0
        wants = min(max(0, decided - 1), MILLION) * share_decided // 1_000 * interval // since
        free = max(0, promisable - self.promised)
        if wants > free:
            cap += free // 1_000
            self.promised += free
        else:
            jumps = self.sum_offers[level] * MILLION > 2 * self.demand[level] * gap
            cap += decided if jumps else 2 * decided * interval // since
            self.promised += wants
            if self.sum_since <= processes * gap:
                extra = min(settings.burst_jobs, (room + self.budget * gap // MILLION) // processes)
                cap += extra + room // (2 * processes)

        most, fill = MILLION, 0
        if roomy and it.waiting == 0:
            in_tick = self.budget * tick // MILLION
            if asks == 0 and self.ticks > 1:
                rate = self.spare * 1_000 // processes if warm else 0
            most = (1 + max(0, min(settings.burst_jobs - 1, in_tick // processes)) + room // processes) * MILLION
            fill = int(self.drain > 0 and (level == 0 or warm or room + in_tick >= processes))
        elif deals:
            rate = 0
        else:
            waiters = self.waiters[level]
            if it.waiting > 0 and waiters > 0:
                each = self.patient[level] * whole // 1_000 // waiters
                eighth = each * min(it.waiting, waiters) // 8
                rate = rate - rate // 8 + eighth * tick // max(since, tick)
            most = max(2 * MILLION, rate * tick // 2_000)
        if asks > 0:
            left = max(0, self.budget * gap * 3 // 2_000 - self.promised_rate)
            rate = min(rate, left * 1_000 // interval * 1_000)
            self.promised_rate += rate // 1_000 * interval // 1_000
        elif rate > 0:
            left = max(0, self.spare * gap // 1_000 - self.promised_spare)
            rate = min(rate, left * 1_000 // interval * 1_000)
            self.promised_spare += rate // 1_000 * interval // 1_000
        return Terms(share_decided, cap, rate, most, fill, go, due % MILLION)

    def _shares(self, level: int, share: int, interval: int) -> tuple[int, int]:
        if self.share[level] >= MILLION or interval <= 2 * self.gap:
            return share, share
        impatient, asked = max(0, self.demand[level] - self.patient[level]), self.asked[level]
        fit = impatient * share // MILLION
        if fit < asked:
            return fit * MILLION // asked, 0
        if fit == asked or impatient <= asked:
            return MILLION, 0
        return MILLION, min(MILLION, (fit - asked) * MILLION // (impatient - asked))

    # What lies in the key.

    def packed(self) -> bytes:
        """Return the key's value."""
        numbers = [self.ticked, self.ticks, self.drain, self.budget, self.age, self.gap, self.trim, self.smoothed]
        numbers += [*self.sum_offers, *self.sum_asked, *self.sum_gone, *self.sum_waited, *self.sum_waiting]
        numbers += [self.sum_since, self.total, self.sum_leased, self.sum_dealt]
        numbers += [*self.demand, *self.patient, *self.waiters, *self.asked, self.processes]
        numbers += [self.backlog, self.oldest, self.read, self.backlog_before, self.read_before, self.total_before]
        numbers += [*self.share, self.spare, self.room, self.sampled_at]
        numbers += [self.promised, self.promised_rate, self.next_call, self.next_start]
        numbers += [self.delay, self.unheard, self.busy, self.calm, self.known]
        numbers += [number for entry in self.ring for number in entry] + [-1] * 2 * (_RING - len(self.ring))
        numbers += [self.promised_spare, self.apart, self.far, self.lift, self.held]
        return struct.pack(_FORMAT, VERSION, *numbers) + self.sampler.encode()
