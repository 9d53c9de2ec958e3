//! The budget that all producers of a queue share, as the script on their server computes it, for simulations.
//!
//! It mirrors `python/backpressure/_age/budget.py`, where a test holds it against the script, in every number. Operands
//! are not negative, and products below 2^53, unless it says otherwise.

mod demand;
mod drain;
mod grant;
mod terms;
mod told;

pub use told::{Answer, BacklogSeen, BudgetSettings, Demand, Report, Terms};

const MILLION: i64 = 1_000_000;
const MOST_JOBS: i64 = 1_000_000_000;
const MOST_RATE: i64 = 1_000_000_000;
const MOST_DEMAND: i64 = 2 * MOST_RATE;
const FURTHEST_CALL_MS: i64 = 1_000_000;
const FURTHEST_APART_MS: i64 = 600_000;
const RING: usize = 12;
const ALL: [usize; 3] = [0, 1, 2];

/// The state of one queue's key. [`Budget::call`] is the script; names are those of the Python twin.
#[derive(Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "it has the word of the script")]
pub struct Budget {
    settings: BudgetSettings,
    exists: bool,
    sampler: Option<u64>,
    ticked: i64,
    ticks: i64,
    drain: i64,
    trim: i64,
    budget: i64,
    age: i64,
    smoothed: i64,
    gap: i64,
    sum_offers: [i64; 3],
    sum_asked: [i64; 3],
    sum_gone: [i64; 3],
    sum_waited: [i64; 3],
    sum_waiting: [i64; 3],
    sum_since: i64,
    total: i64,
    sum_leased: i64,
    sum_dealt: i64,
    demand: [i64; 3],
    patient: [i64; 3],
    waiters: [i64; 3],
    asked: [i64; 3],
    processes: i64,
    backlog: i64,
    oldest: i64,
    read: i64,
    backlog_before: i64,
    read_before: i64,
    total_before: i64,
    share: [i64; 3],
    spare: i64,
    room: i64,
    sampled_at: i64,
    promised: i64,
    promised_rate: i64,
    promised_spare: i64,
    next_call: i64,
    next_start: i64,
    delay: i64,
    unheard: i64,
    busy: i64,
    calm: i64,
    known: bool,
    /// Instants and totals, the newest first; unused places hold none.
    ring: [Option<(i64, i64)>; RING],
    apart: i64,
    far: i64,
    lift: i64,
    held: i64,
}

impl Budget {
    /// Makes one of which nothing is known.
    pub fn new(settings: BudgetSettings) -> Self {
        Self { exists: false, ..Self::begun(settings, 0, 0, MILLION) }
    }

    fn begun(settings: BudgetSettings, now: i64, drain: i64, trim: i64) -> Self {
        let tick = settings.tick_ms;
        Self {
            settings,
            exists: true,
            sampler: None,
            ticked: now,
            ticks: 0,
            drain,
            trim,
            budget: 0,
            age: 0,
            smoothed: -1,
            gap: if drain > 0 { tick } else { (tick / 8).max(1) },
            sum_offers: [0; 3],
            sum_asked: [0; 3],
            sum_gone: [0; 3],
            sum_waited: [0; 3],
            sum_waiting: [0; 3],
            sum_since: 0,
            total: 0,
            sum_leased: 0,
            sum_dealt: 0,
            demand: [0; 3],
            patient: [0; 3],
            waiters: [0; 3],
            asked: [0; 3],
            processes: 1,
            backlog: -1,
            oldest: -1,
            read: -1,
            backlog_before: -1,
            read_before: -1,
            total_before: -1,
            share: [4 * MILLION; 3],
            spare: 0,
            room: 0,
            sampled_at: -MOST_JOBS,
            promised: 0,
            promised_rate: 0,
            promised_spare: 0,
            next_call: 0,
            next_start: 0,
            delay: 0,
            unheard: 0,
            busy: 0,
            calm: if drain > 0 { 2 * tick } else { 0 },
            known: drain > 0,
            ring: [None; RING],
            apart: 0,
            far: 0,
            lift: 0,
            held: 0,
        }
    }

    /// Takes a report at a millisecond of the server's clock; returns the lease.
    pub fn call(&mut self, now: i64, report: &Report) -> Answer {
        let tick = self.settings.tick_ms;
        if !self.exists || now < self.ticked - 2_000 {
            *self = Self::begun(self.settings, now, report.seed_drain_mjobs_per_s, MILLION);
        } else if now - self.ticked > 60 * self.settings.target_ms {
            *self = Self::begun(self.settings, now, self.drain, self.trim);
        }
        let (mut since, mut enqueued) = (report.since_ms, report.enqueued);
        let mut decided = report.demands.map(|demand| demand.decided);
        let mut gone = report.demands.map(|demand| demand.gone);
        let interval = tick.max(self.next_call / 1_000 - now);
        if since > 3 * interval {
            decided = decided.map(|jobs| jobs * interval / since);
            gone = gone.map(|jobs| jobs * interval / since);
            enqueued = enqueued * interval / since;
            since = interval;
        }
        let was_sampler = report.producer.is_some() && self.sampler == report.producer;
        self.choose_sampler(now, report, since, decided.iter().sum::<i64>() + gone.iter().sum::<i64>());
        self.add(report, since, decided, gone, enqueued);
        let (elapsed, first) = (now - self.ticked, self.ticks == 0);
        if elapsed > 5 * tick {
            (self.total_before, self.ring) = (-1, [None; RING]);
        }
        if let Some(seen) = &report.seen {
            (self.backlog, self.oldest) = (seen.jobs, seen.oldest_age_ms.unwrap_or(-1));
            let read = now - seen.ago_ms;
            if self.read >= 0 && elapsed <= 5 * tick && 2 * (read - self.read) >= self.gap {
                self.apart = (read - self.read).min(FURTHEST_APART_MS);
                self.far = (now - self.read).min(FURTHEST_APART_MS);
            }
            self.read = read;
        }
        let used_up = !first && self.spare > 0 && self.promised >= self.promisable() && 8 * elapsed >= tick;
        if used_up {
            self.calm = 0;
        }
        let due =
            if report.seen.is_some() { 2 * elapsed >= self.gap } else { was_sampler && 4 * elapsed >= 3 * self.gap };
        if first || used_up || due || elapsed >= 2 * self.gap {
            self.tick(now, elapsed, report);
        }
        self.lease(now, report, since, decided, gone)
    }

    fn choose_sampler(&mut self, now: i64, report: &Report, since: i64, went: i64) {
        let demand: i64 = self.demand.iter().sum();
        let brought = went + report.demands.iter().map(|it| it.waiting).sum::<i64>();
        let heavy = since > 0 && demand > 0 && brought * MILLION / since * 5 > 3 * demand;
        let gap = self.gap;
        if report.producer.is_some()
            && (self.sampler == report.producer || heavy || now - self.sampled_at > 2 * gap + gap / 2)
        {
            (self.sampler, self.sampled_at) = (report.producer, now);
        }
    }

    fn add(&mut self, report: &Report, since: i64, decided: [i64; 3], gone: [i64; 3], enqueued: i64) {
        let tick = self.settings.tick_ms;
        for level in ALL {
            let it = &report.demands[level];
            self.sum_offers[level] = (self.sum_offers[level] + decided[level] + it.held).min(MOST_JOBS);
            self.sum_asked[level] = (self.sum_asked[level] + it.held).min(MOST_JOBS);
            self.sum_gone[level] = (self.sum_gone[level] + gone[level] + it.held_patient).min(MOST_JOBS);
            let waited = (it.waiting * since.min(tick)).min(MOST_RATE);
            self.sum_waited[level] = (self.sum_waited[level] + waited).min(100 * MOST_RATE);
            self.sum_waiting[level] = (self.sum_waiting[level] + it.waiting).min(MOST_JOBS);
        }
        self.total += enqueued;
        self.sum_leased = (self.sum_leased + enqueued).min(MOST_JOBS);
        self.sum_since += if since > 0 { since } else { tick };
    }

    fn promisable(&self) -> i64 {
        self.budget * self.gap * 3 / 2_000 + self.room * 1_000
    }

    fn is_seldom(&self) -> bool {
        2 * self.apart > 3 * self.settings.tick_ms
    }

    fn tick(&mut self, now: i64, elapsed: i64, report: &Report) {
        let (tick, first) = (self.settings.tick_ms, self.ticks == 0);
        let dt = if first { tick } else { elapsed.clamp(1, 5 * tick) };
        let many = if first { report.seed_processes.max(1) } else { 1 };
        self.measure_demand(dt, many, first);
        self.measure_delay(now, dt);
        let sampled = report.seen.is_some() || (self.is_seldom() && self.read != self.read_before);
        let (read_before, was_dry) = (self.read_before, self.is_dry(self.backlog_before));
        let apart = (self.read - read_before).max(0);
        let steady = sampled && self.measure_drain(now);
        if self.ring[0].is_none_or(|(at, _)| 11 * (now - at) >= self.far) {
            self.ring.rotate_right(1);
            self.ring[0] = Some((now, self.total));
        }
        self.measure_age(now, steady);
        let old = if sampled { (now - self.read).max(0) } else { 0 };
        if self.read_before != read_before {
            self.explore(apart.min(self.apart), old, was_dry);
        }
        self.set_budget(now, dt.min(apart), old, report.limit_permille, sampled);
        self.set_gap(dt, old, first);
        self.set_shares(report.limit_permille);
        self.ticks += 1;
        self.ticked = now;
    }
}
