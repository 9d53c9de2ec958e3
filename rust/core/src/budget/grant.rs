//! How many jobs all producers may enqueue, and which part of each priority that is.

use super::{ALL, Budget, MILLION, MOST_DEMAND};

impl Budget {
    pub(super) fn set_budget(&mut self, now: i64, dt: i64, old: i64, limit: i64, sampled: bool) {
        let settings = &self.settings;
        let (target, tick, gap, drain) = (settings.target_ms, settings.tick_ms, self.gap, self.drain);
        let wanted: i64 = self.demand.iter().sum();
        let foresees = self.foresees();
        let late = self.delay + if foresees { self.far / 4 } else { old };
        let gain = settings.gain_most_permille.min(1_000 * target / (2 * late + 3 * gap));
        let lack = ((target - self.age.min(20 * target)) * gain / target).min(1_500); // towards zero
        let mut budget = (drain * settings.least_budget_permille / 1_000).max(drain + drain * lack / 1_000);
        let (unseen, seldom) = (now - self.read, self.is_seldom());
        let mut most = drain;
        if self.is_dry(self.backlog) {
            let least = if drain > 0 { 1 } else { 10 } * MILLION / tick;
            if self.read >= 0 {
                most = drain.max(least);
            }
            let up = if seldom {
                if unseen <= 2 * self.far {
                    most = most.max(self.held);
                }
                self.held
            } else if sampled {
                self.budget + self.budget * dt.min(gap) / (old + self.delay + gap)
            } else {
                self.budget
            };
            budget = budget.max(up.min(2 * wanted)).max(least);
        }
        if (seldom || !sampled) && unseen > if foresees { 2 * self.far } else { 3 * tick } {
            budget = budget.min(most);
        }
        self.budget = (budget * limit / 1_000).min(MOST_DEMAND);
    }

    pub(super) fn explore(&mut self, apart: i64, old: i64, was_dry: bool) {
        let dry = was_dry && self.is_dry(self.backlog);
        let up = self.budget * apart / (old + self.delay + apart).max(1);
        self.held = if dry { (self.budget + up).min(2 * self.demand.iter().sum::<i64>()) } else { 0 };
    }

    pub(super) fn set_gap(&mut self, dt: i64, old: i64, first: bool) {
        let tick = self.settings.tick_ms;
        let fits = self.budget >= self.demand.iter().sum::<i64>() && self.ticks > 16;
        if !first && (self.busy > 0 || fits) {
            self.calm += dt;
        }
        self.calm = self.calm.min(2 * tick);
        if self.calm >= 2 * tick {
            (self.known, self.gap) = (true, tick);
        } else {
            let apart = if self.is_seldom() { self.apart } else { 0 };
            self.gap = tick.min((tick / 8).max(old).max(apart).max(1));
        }
    }

    pub(super) fn set_shares(&mut self, limit: i64) {
        let (settings, demand) = (&self.settings, self.demand);
        let kept = [
            0,
            demand[1] * settings.medium_floor_permille / 1_000 * limit / 1_000,
            demand[2] * settings.low_floor_permille / 1_000 * limit / 1_000,
        ];
        let mut left = self.budget;
        for level in ALL {
            let has = if level == 1 { left - kept[2] } else { left }.max(kept[level]).max(0);
            self.share[level] = if has >= 4 * demand[level] { 4 * MILLION } else { has * MILLION / demand[level] };
            left = (left - demand[level]).max(0);
        }
        self.spare = left;
        self.room = self.drain * (settings.target_ms - self.age).max(0) / (2 * MILLION) * limit / 1_000;
        (self.promised, self.promised_rate, self.promised_spare) = (0, 0, 0);
    }
}
