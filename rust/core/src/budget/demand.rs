//! What is asked for, by how many, and how far their calls lie apart.

use super::{ALL, Budget, MILLION, MOST_DEMAND, MOST_JOBS};

impl Budget {
    pub(super) fn measure_demand(&mut self, dt: i64, many: i64, first: bool) {
        let tick = self.settings.tick_ms;
        let rate = |jobs: i64| (jobs * many).min(MOST_JOBS) * MILLION / dt;
        for level in ALL {
            let waiting = if first {
                (self.sum_waiting[level] * many).min(MOST_JOBS) * MILLION / tick
            } else {
                self.sum_waited[level] * 1_000 / tick * 1_000 / dt
            };
            let patient = (rate(self.sum_gone[level]) + waiting).min(MOST_DEMAND);
            let wanted = (patient + rate(self.sum_offers[level])).min(MOST_DEMAND);
            if first || wanted > 2 * self.demand[level] {
                (self.demand[level], self.patient[level]) = (wanted, patient);
            } else {
                self.demand[level] = i64::midpoint(self.demand[level], wanted);
                self.patient[level] = i64::midpoint(self.patient[level], patient);
            }
            self.asked[level] = i64::midpoint(self.asked[level], rate(self.sum_asked[level]).min(MOST_DEMAND));
            let waiters = if first { self.sum_waiting[level] * many } else { self.sum_waited[level] / dt };
            self.waiters[level] = if self.sum_waiting[level] > 0 { waiters.max(1) } else { 0 };
        }
        self.sum_offers = [0; 3];
        self.sum_asked = [0; 3];
        self.sum_gone = [0; 3];
        self.sum_waited = [0; 3];
        self.sum_waiting = [0; 3];
        self.processes = if first {
            many
        } else {
            let heard = (2 * self.sum_since + dt) / (2 * dt);
            if self.ticks > 16 { (self.processes + heard + 1) / 2 } else { heard }.max(1)
        };
    }

    pub(super) fn measure_delay(&mut self, now: i64, dt: i64) {
        let delay = (self.next_call / 1_000 - now - self.gap).max(0);
        let known = self.sum_leased + self.sum_dealt;
        self.delay = if self.sum_leased > 0 { delay * self.sum_leased / known } else { 0 };
        self.unheard = (self.unheard - dt).max(self.delay + self.gap).min(4 * self.settings.tick_ms);
        (self.sum_since, self.sum_leased, self.sum_dealt) = (0, 0, 0);
    }
}
