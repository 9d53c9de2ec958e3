//! How fast the workers are, and how long a job waits therefore.

use super::{Budget, FURTHEST_APART_MS, MILLION, MOST_JOBS, MOST_RATE};

/// As many jobs as a product with a time leaves below 2^53.
const MOST_PRODUCT: i64 = 9_000_000_000_000_000;

impl Budget {
    /// Returns how many jobs were enqueued by an instant; `None` where that is forgotten.
    fn enqueued_by(&self, instant: i64, now: i64) -> Option<i64> {
        if instant >= now {
            return Some(self.total);
        }
        let (mut later, mut jobs) = (now, self.total);
        for &(earlier, fewer) in self.ring.iter().flatten() {
            if earlier <= instant {
                let span = (later - earlier).max(1);
                return Some(fewer + (jobs - fewer).min(MOST_PRODUCT / span) * (instant - earlier) / span);
            }
            (later, jobs) = (earlier, fewer);
        }
        None
    }

    pub(super) fn measure_drain(&mut self, now: i64) -> bool {
        let Some(jobs) = self.enqueued_by(self.read, now) else {
            if self.total_before < 0 {
                (self.backlog_before, self.read_before) = (self.backlog, self.read);
            }
            return false;
        };
        let (dt, mut steady) = (self.read - self.read_before, false);
        if self.total_before >= 0 && (0..=FURTHEST_APART_MS).contains(&dt) {
            if 4 * dt < 3 * self.unheard {
                return false;
            }
            steady = self.learn_drain(jobs, dt);
        }
        (self.backlog_before, self.read_before, self.total_before) = (self.backlog, self.read, jobs);
        self.lift = 0;
        steady
    }

    fn learn_drain(&mut self, jobs: i64, dt: i64) -> bool {
        let (drain, window, target) = (self.drain, self.settings.drain_window_ms, self.settings.target_ms);
        let gone = (jobs - self.total_before - (self.backlog - self.backlog_before)).max(0);
        let mut seen = (gone.min(MOST_JOBS) * MILLION / dt).min(MOST_RATE);
        if self.known && drain / 1_000 * dt >= 8_000 {
            seen = seen.min(4 * drain);
        }
        let least = self.backlog.min(self.backlog_before);
        if least >= 1 && least * 4 * MILLION >= drain * self.gap {
            let slow = window.max((20 * MILLION / drain.max(1)).min(20 * window));
            let over = if !self.known {
                slow.min(self.busy)
            } else if seen < drain {
                slow
            } else {
                slow.min(self.busy.max(window))
            };
            self.drain = drain + (seen - drain) * dt / (dt + over); // towards zero
            self.busy = (self.busy + dt).min(20 * window);
            return (seen - drain).abs() * 4 <= drain;
        }
        self.drain = if seen <= drain {
            drain - drain * dt.min(15 * target) / (60 * target)
        } else if self.is_seldom() {
            seen
        } else {
            drain + (seen - drain) / 2
        };
        self.busy -= self.busy * dt / (4 * target + dt);
        false
    }

    pub(super) fn is_dry(&self, backlog: i64) -> bool {
        backlog <= 0 || backlog * 4 * MILLION < self.drain * self.gap
    }

    pub(super) fn foresees(&self) -> bool {
        self.is_seldom() && self.total_before >= 0
    }

    fn foreseen(&mut self, now: i64) -> i64 {
        let came = (self.total - self.total_before).min(MOST_JOBS);
        let went = self.drain * (now - self.read_before).clamp(0, FURTHEST_APART_MS) / MILLION;
        let jobs = self.backlog_before + came - went;
        self.lift = self.lift.max(-jobs);
        jobs + self.lift
    }

    pub(super) fn measure_age(&mut self, now: i64, steady: bool) {
        let (target, tick, trims) = (self.settings.target_ms, self.settings.tick_ms, self.settings.trims);
        let backlog = self.backlog.max(0);
        let mut age = if self.drain > 0 {
            backlog * MILLION / self.drain
        } else if backlog > 0 {
            100 * target
        } else {
            0
        };
        let (ticks, sixteenths) = ((2 * target / tick).max(8), backlog * 16);
        if self.smoothed < 0 {
            self.smoothed = sixteenths;
        } else {
            self.smoothed += (sixteenths - self.smoothed) / ticks; // towards zero
        }
        let rests = (sixteenths - self.smoothed).abs() * 8 <= self.smoothed;
        let trusted = trims && steady && rests && self.calm >= 2 * tick;
        if trusted && self.oldest > 0 && backlog >= 10 && age > 0 {
            let told = (self.oldest * MILLION / age).clamp(MILLION / 2, 2 * MILLION);
            self.trim += (told - self.trim) / (4 * ticks); // towards zero
        }
        if self.foresees() && self.drain > 0 {
            age = self.foreseen(now) * MILLION / self.drain;
        }
        self.age = (age.min(100 * target) * self.trim / MILLION).min(100 * target);
    }
}
