//! What one producer is granted until its next call.

use super::{ALL, Answer, Budget, Demand, FURTHEST_CALL_MS, MILLION, MOST_DEMAND, MOST_JOBS, MOST_RATE, Report, Terms};

/// A report's numbers of one priority, and over which time they came and are to serve.
struct Asked<'a> {
    level: usize,
    it: &'a Demand,
    decided: i64,
    gone: i64,
    since: i64,
    interval: i64,
}

impl Budget {
    pub(super) fn lease(&mut self, now: i64, report: &Report, since: i64, decided: [i64; 3], gone: [i64; 3]) -> Answer {
        let (target, tick) = (self.settings.target_ms, self.settings.tick_ms);
        let apart = MILLION / self.settings.calls_per_second;
        self.next_call = self.next_call.max((now + self.gap) * 1_000);
        let waits = |it: &Demand| it.waiting > 0 || it.held > 0 || it.held_patient > 0;
        let mut interval = if since > 0 || report.demands.iter().any(waits) {
            self.next_call = (self.next_call + apart).min((now + FURTHEST_CALL_MS) * 1_000);
            self.next_call / 1_000 - now
        } else {
            self.next_start = self.next_start.max(now * 1_000) + apart;
            (self.next_start / 1_000 - now) % target
        }
        .max(1);
        let since = since.max(tick / 8).max(1);
        let is_sampler = report.producer.is_some() && self.sampler == report.producer;
        if is_sampler {
            interval = self.gap;
        }
        let mut terms = [Terms::default(); 3];
        for level in ALL {
            let it = &report.demands[level];
            let (decided, gone) = (decided[level], gone[level]);
            terms[level] = self.terms(&Asked { level, it, decided, gone, since, interval });
        }
        Answer {
            ticks: self.ticks,
            drain_mjobs_per_s: self.drain,
            budget_mjobs_per_s: self.budget,
            age_ms: self.age,
            backlog_jobs: self.backlog,
            processes: self.processes,
            spare_mjobs_per_s: self.spare,
            is_sampler,
            wait_ms: interval,
            demand_mjobs_per_s: self.demand,
            shares_ppm: self.share.map(|share| share.min(MILLION)),
            terms,
        }
    }

    fn terms(&mut self, asked: &Asked<'_>) -> Terms {
        let &Asked { level, it, gone, since, interval, .. } = asked;
        let tick = self.settings.tick_ms;
        let whole = self.share[level];
        let share = whole.min(MILLION);
        let asks = (gone * MILLION / since + it.waiting * MILLION / since.max(tick)).min(MOST_DEMAND);
        let rate = asks * whole / 1_000;
        let deals = it.waiting > 0 && rate / 1_000 * interval < it.waiting.min(4) * MILLION;
        let (share_held, share_decided) = self.shares(level, share, interval);
        let mut due = it.remainder_ppm + it.held * share_held + it.held_patient * share;
        if deals {
            let waited = it.waiting * since.min(tick) * 1_000 / tick;
            due += (gone * 1_000 + waited).min(MOST_RATE) * whole / 1_000;
        }
        let mut go = (due / MILLION).min(it.held + it.held_patient + if deals { it.waiting } else { 0 });
        if level > 0 {
            go = go.min((self.promisable() - self.promised).max(0) / 1_000);
        }
        self.promised += go * 1_000;
        self.total += go;
        self.sum_dealt = (self.sum_dealt + go).min(MOST_JOBS);
        let cap_jobs = self.cap(asked, share_decided);
        let (rate, burst_ujobs, fill) = self.line(asked, asks, rate, deals);
        let rate = self.promised_of(rate, asks, interval);
        Terms {
            share_ppm: share_decided,
            cap_jobs,
            rate_ujobs_per_s: rate,
            burst_ujobs,
            fill,
            go_jobs: go,
            remainder_ppm: due % MILLION,
        }
    }

    fn is_warm(&self) -> bool {
        self.calm >= 2 * self.settings.tick_ms
    }

    /// Returns how many jobs of callers who will not wait may go.
    fn cap(&mut self, asked: &Asked<'_>, share_decided: i64) -> i64 {
        let &Asked { level, decided, since, interval, .. } = asked;
        let mut cap = i64::from(self.is_warm() && self.share[level] < MILLION);
        let wants = (decided - 1).clamp(0, MILLION) * share_decided / 1_000 * interval / since;
        let free = (self.promisable() - self.promised).max(0);
        if wants > free {
            cap += free / 1_000;
            self.promised += free;
        } else {
            let jumps = self.sum_offers[level] * MILLION > 2 * self.demand[level] * self.gap;
            cap += if jumps { decided } else { 2 * decided * interval / since };
            self.promised += wants;
            if self.sum_since <= self.processes * self.gap {
                let each = (self.room + self.budget * self.gap / MILLION) / self.processes;
                cap += self.settings.burst_jobs.min(each) + self.room / (2 * self.processes);
            }
        }
        cap
    }

    /// Returns at which rate callers who wait may go, how many of them at once, and whether from the beginning.
    fn line(&self, asked: &Asked<'_>, asks: i64, mut rate: i64, deals: bool) -> (i64, i64, bool) {
        let &Asked { level, it, since, .. } = asked;
        let (tick, processes) = (self.settings.tick_ms, self.processes);
        if self.share[level] >= MILLION && it.waiting == 0 {
            let in_tick = self.budget * tick / MILLION;
            if asks == 0 && self.ticks > 1 {
                rate = if self.is_warm() { self.spare * 1_000 / processes } else { 0 };
            }
            let more = (self.settings.burst_jobs - 1).min(in_tick / processes).max(0);
            let fill = self.drain > 0 && (level == 0 || self.is_warm() || self.room + in_tick >= processes);
            return (rate, (1 + more + self.room / processes) * MILLION, fill);
        }
        if deals {
            return (0, MILLION, false);
        }
        let waiters = self.waiters[level];
        if it.waiting > 0 && waiters > 0 {
            let each = self.patient[level] * self.share[level] / 1_000 / waiters;
            let eighth = each * it.waiting.min(waiters) / 8;
            rate = rate - rate / 8 + eighth * tick / since.max(tick);
        }
        (rate, (2 * MILLION).max(rate * tick / 2_000), false)
    }

    /// Returns what of a rate is not promised to others, and takes note of it.
    fn promised_of(&mut self, rate: i64, asks: i64, interval: i64) -> i64 {
        let (budget, promised) = if asks > 0 {
            (self.budget * self.gap * 3 / 2_000, &mut self.promised_rate)
        } else if rate > 0 {
            (self.spare * self.gap / 1_000, &mut self.promised_spare)
        } else {
            return rate;
        };
        let left = (budget - *promised).max(0);
        let rate = rate.min(left * 1_000 / interval * 1_000);
        *promised += rate / 1_000 * interval / 1_000;
        rate
    }

    fn shares(&self, level: usize, share: i64, interval: i64) -> (i64, i64) {
        if self.share[level] >= MILLION || interval <= 2 * self.gap {
            return (share, share);
        }
        let (impatient, asked) = ((self.demand[level] - self.patient[level]).max(0), self.asked[level]);
        let fit = impatient * share / MILLION;
        if fit < asked {
            return (fit * MILLION / asked, 0);
        }
        if fit == asked || impatient <= asked {
            return (MILLION, 0);
        }
        (MILLION, MILLION.min((fit - asked) * MILLION / (impatient - asked)))
    }
}
