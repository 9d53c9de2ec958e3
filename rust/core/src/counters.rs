//! What is counted of every (queue, priority): exact on any number of threads, read only at scrape.
//!
//! Every operation is relaxed. A counter publishes nothing but itself, and `fetch_add` loses no count whatever its
//! ordering; a reader that is told of a decision by other means sees it counted, since that telling synchronizes.

use crate::Reason;
use crate::sync::{AtomicU64, Ordering::Relaxed};

const MS: u64 = 1_000_000;

/// Upper bounds of the delay histogram's buckets, in nanoseconds; the last bucket is unbounded.
pub const DELAY_BUCKETS_NS: [u64; 8] =
    [MS, 10 * MS, 100 * MS, 500 * MS, 1_000 * MS, 2_500 * MS, 5_000 * MS, 10_000 * MS];

/// The counts of one (queue, priority) at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Decisions by reason.
    pub reasons: [u64; Reason::ALL.len()],
    /// Decisions that the law had to compute; the other answers of the law were cache hits.
    pub computed: u64,
    /// Throttled decisions by bucket of [`DELAY_BUCKETS_NS`], not cumulated.
    pub delays: [u64; DELAY_BUCKETS_NS.len() + 1],
    /// The sum of their delays.
    pub delay_sum_ns: u64,
}

/// Live counts of one (queue, priority).
#[derive(Debug, Default)]
#[repr(C)] // green first, which is counted most
pub struct Counters {
    reasons: [AtomicU64; Reason::ALL.len()],
    computed: AtomicU64,
    delays: [AtomicU64; DELAY_BUCKETS_NS.len() + 1],
    delay_sum_ns: AtomicU64,
}

impl Counters {
    /// Returns what counts the decisions of a reason.
    #[inline]
    pub fn of(&self, reason: Reason) -> &AtomicU64 {
        &self.reasons[reason.index()]
    }

    /// Counts one decision; `delay_ns` is 0 for a go and for a refusal.
    pub fn count(&self, reason: Reason, delay_ns: u64, computed: bool) {
        self.of(reason).fetch_add(1, Relaxed);
        if computed {
            self.computed.fetch_add(1, Relaxed);
        }
        if delay_ns > 0 {
            let bucket = DELAY_BUCKETS_NS.partition_point(|bound| *bound < delay_ns);
            self.delays[bucket].fetch_add(1, Relaxed);
            self.delay_sum_ns.fetch_add(delay_ns, Relaxed);
        }
    }

    /// Adds what was counted elsewhere.
    pub fn add(&self, totals: &Totals) {
        for (counter, count) in self.reasons.iter().zip(totals.reasons) {
            counter.fetch_add(count, Relaxed);
        }
        self.computed.fetch_add(totals.computed, Relaxed);
        for (counter, count) in self.delays.iter().zip(totals.delays) {
            counter.fetch_add(count, Relaxed);
        }
        self.delay_sum_ns.fetch_add(totals.delay_sum_ns, Relaxed);
    }

    /// Returns what was counted so far.
    pub fn totals(&self) -> Totals {
        Totals {
            reasons: self.reasons.each_ref().map(|counter| counter.load(Relaxed)),
            computed: self.computed.load(Relaxed),
            delays: self.delays.each_ref().map(|counter| counter.load(Relaxed)),
            delay_sum_ns: self.delay_sum_ns.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{Counters, MS};
    use crate::Reason;

    #[test]
    fn a_bucket_includes_its_upper_bound() {
        let counters = Counters::default();
        for delay_ns in [1, MS, MS + 1, 10_000 * MS, 10_000 * MS + 1] {
            counters.count(Reason::BacklogYellow, delay_ns, false);
        }
        let totals = counters.totals();
        assert_eq!(totals.delays, [2, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(totals.delay_sum_ns, 1 + MS + MS + 1 + 20_000 * MS + 1);
    }

    #[test]
    fn a_go_and_a_refusal_are_no_delays() {
        let counters = Counters::default();
        counters.count(Reason::BacklogGreen, 0, true);
        counters.count(Reason::BacklogGreen, 0, false);
        let totals = counters.totals();
        assert_eq!(totals.reasons[Reason::BacklogGreen.index()], 2);
        assert_eq!((totals.computed, totals.delay_sum_ns), (1, 0));
        assert_eq!(totals.delays, [0; 9]);
    }

    #[test]
    fn totals_add_up() {
        let (one, other) = (Counters::default(), Counters::default());
        one.count(Reason::StatsStale, 3 * MS, false);
        other.count(Reason::BacklogRed, 700 * MS, true);
        one.add(&other.totals());
        let totals = one.totals();
        assert_eq!(totals.delay_sum_ns, 703 * MS);
        assert_eq!(totals.computed, 1);
        assert_eq!(totals.reasons.iter().sum::<u64>(), 2);
        assert_eq!(totals.delays.iter().sum::<u64>(), 2);
    }

    #[test]
    fn threads_lose_no_count() {
        let counters = Counters::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counters.count(Reason::BacklogRed, 5, true)));
            }
        });
        let totals = counters.totals();
        assert_eq!((totals.reasons[2], totals.computed, totals.delay_sum_ns), (40_000, 40_000, 200_000));
    }
}
