//! What is counted of every (queue, priority). Exact on any number of threads; read only when metrics are scraped.
//!
//! Every operation is relaxed. A counter publishes nothing but itself, and `fetch_add` loses no count whatever its
//! ordering; a thread that learns of a decision from another thread sees it counted, since that synchronizes.

use crate::sync::{AtomicU64, Ordering::Relaxed};
use crate::vocabulary::Reason;

const MS: u64 = 1_000_000;

/// Upper bounds of the delay histogram's buckets, in nanoseconds; the last bucket is unbounded.
pub const DELAY_BUCKETS_NS: [u64; 8] =
    [MS, 10 * MS, 100 * MS, 500 * MS, 1_000 * MS, 2_500 * MS, 5_000 * MS, 10_000 * MS];

/// Reasons of refusals, which observe mode lets go.
const REFUSALS: [Reason; 5] =
    [Reason::BacklogRedShed, Reason::CircuitOpen, Reason::CircuitHalfOpen, Reason::AgeShed, Reason::Memory];

/// Where a decision is counted: by its reason, and what observe mode let go apart from what was refused.
///
/// An enumeration, so that no bounds are checked where a ready answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of reasons, and of refusals")]
pub enum Row {
    BacklogGreen,
    BacklogYellow,
    BacklogRed,
    BacklogRedShed,
    CircuitOpen,
    CircuitHalfOpen,
    ManualOverride,
    EmergencyMode,
    StatsStale,
    FallbackConservative,
    FallbackPermissive,
    FallbackCircuitOnly,
    ColdStart,
    ObserveOnly,
    Untracked,
    AgeOpen,
    AgeShare,
    AgeWait,
    AgeShed,
    AgeSafe,
    Memory,
    ShedLetGo,
    OpenLetGo,
    HalfOpenLetGo,
    AgeShedLetGo,
    MemoryLetGo,
}

impl Row {
    /// By reason, in the order of [`Reason::ALL`].
    const REASONS: [Self; Reason::ALL.len()] = [
        Self::BacklogGreen,
        Self::BacklogYellow,
        Self::BacklogRed,
        Self::BacklogRedShed,
        Self::CircuitOpen,
        Self::CircuitHalfOpen,
        Self::ManualOverride,
        Self::EmergencyMode,
        Self::StatsStale,
        Self::FallbackConservative,
        Self::FallbackPermissive,
        Self::FallbackCircuitOnly,
        Self::ColdStart,
        Self::ObserveOnly,
        Self::Untracked,
        Self::AgeOpen,
        Self::AgeShare,
        Self::AgeWait,
        Self::AgeShed,
        Self::AgeSafe,
        Self::Memory,
    ];

    /// Returns where a decision is counted; `goes` tells whether its caller may do the job all the same.
    #[inline]
    pub fn of(reason: Reason, goes: bool) -> Self {
        match reason {
            Reason::BacklogRedShed if goes => Self::ShedLetGo,
            Reason::CircuitOpen if goes => Self::OpenLetGo,
            Reason::CircuitHalfOpen if goes => Self::HalfOpenLetGo,
            Reason::AgeShed if goes => Self::AgeShedLetGo,
            Reason::Memory if goes => Self::MemoryLetGo,
            _ => Self::REASONS[reason.index()],
        }
    }
}

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
    /// How many of the decisions by `REFUSALS` observe mode let go.
    pub let_go: [u64; REFUSALS.len()],
    /// Throttled decisions that were refused because their callers would not wait so long.
    pub late: u64,
}

/// Live counts of one (queue, priority).
#[derive(Debug, Default)]
#[repr(C)] // green first, which is counted most
pub struct Counters {
    rows: [AtomicU64; Reason::ALL.len() + REFUSALS.len()],
    computed: AtomicU64,
    delays: [AtomicU64; DELAY_BUCKETS_NS.len() + 1],
    delay_sum_ns: AtomicU64,
    late: AtomicU64,
}

impl Counters {
    /// Returns what counts the decisions of a row.
    #[inline]
    pub fn of(&self, row: Row) -> &AtomicU64 {
        &self.rows[row as usize]
    }

    /// Returns how many decisions of a row were counted.
    #[inline]
    pub fn has(&self, row: Row) -> u64 {
        self.of(row).load(Relaxed)
    }

    /// Returns how many jobs a row let in, where it is that of a go or a delay. Only differences mean anything: those
    /// that came too late are taken off together, whatever their rows.
    pub fn let_in(&self, row: Row) -> i64 {
        self.has(row).cast_signed() - self.late.load(Relaxed).cast_signed()
    }

    /// Counts a throttled decision that was refused, beside its own count.
    pub fn count_late(&self) {
        self.late.fetch_add(1, Relaxed);
    }

    /// Counts one decision; `delay_ns` is 0 for a go and for a refusal.
    pub fn count(&self, row: Row, delay_ns: u64, computed: bool) {
        self.of(row).fetch_add(1, Relaxed);
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
        let mut rows = [0; Reason::ALL.len() + REFUSALS.len()];
        rows[..Reason::ALL.len()].copy_from_slice(&totals.reasons);
        rows[Reason::ALL.len()..].copy_from_slice(&totals.let_go);
        for (refusal, count) in REFUSALS.iter().zip(totals.let_go) {
            rows[refusal.index()] -= count;
        }
        for (counter, count) in self.rows.iter().zip(rows) {
            counter.fetch_add(count, Relaxed);
        }
        self.computed.fetch_add(totals.computed, Relaxed);
        for (counter, count) in self.delays.iter().zip(totals.delays) {
            counter.fetch_add(count, Relaxed);
        }
        self.delay_sum_ns.fetch_add(totals.delay_sum_ns, Relaxed);
        self.late.fetch_add(totals.late, Relaxed);
    }

    /// Returns what was counted so far.
    pub fn totals(&self) -> Totals {
        let rows = self.rows.each_ref().map(|counter| counter.load(Relaxed));
        let (mut reasons, mut let_go) = ([0; Reason::ALL.len()], [0; REFUSALS.len()]);
        reasons.copy_from_slice(&rows[..Reason::ALL.len()]);
        let_go.copy_from_slice(&rows[Reason::ALL.len()..]);
        for (refusal, count) in REFUSALS.iter().zip(let_go) {
            reasons[refusal.index()] += count;
        }
        Totals {
            reasons,
            computed: self.computed.load(Relaxed),
            delays: self.delays.each_ref().map(|counter| counter.load(Relaxed)),
            delay_sum_ns: self.delay_sum_ns.load(Relaxed),
            let_go,
            late: self.late.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{Counters, MS, REFUSALS, Row};
    use crate::vocabulary::Reason;

    #[test]
    fn a_bucket_includes_its_upper_bound() {
        let counters = Counters::default();
        for delay_ns in [1, MS, MS + 1, 10_000 * MS, 10_000 * MS + 1] {
            counters.count(Row::of(Reason::BacklogYellow, true), delay_ns, false);
        }
        let totals = counters.totals();
        assert_eq!(totals.delays, [2, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(totals.delay_sum_ns, 1 + MS + MS + 1 + 20_000 * MS + 1);
    }

    #[test]
    fn a_go_and_a_refusal_are_no_delays() {
        let counters = Counters::default();
        counters.count(Row::of(Reason::BacklogGreen, true), 0, true);
        counters.count(Row::of(Reason::BacklogGreen, true), 0, false);
        let totals = counters.totals();
        assert_eq!(totals.reasons[Reason::BacklogGreen.index()], 2);
        assert_eq!((totals.computed, totals.delay_sum_ns), (1, 0));
        assert_eq!(totals.delays, [0; 9]);
    }

    #[test]
    fn totals_add_up() {
        let (one, other) = (Counters::default(), Counters::default());
        one.count(Row::of(Reason::StatsStale, true), 3 * MS, false);
        other.count(Row::of(Reason::BacklogRed, true), 700 * MS, true);
        one.add(&other.totals());
        let totals = one.totals();
        assert_eq!(totals.delay_sum_ns, 703 * MS);
        assert_eq!(totals.computed, 1);
        assert_eq!(totals.reasons.iter().sum::<u64>(), 2);
        assert_eq!(totals.delays.iter().sum::<u64>(), 2);
    }

    #[test]
    fn rows_are_in_the_order_of_reasons_and_refusals() {
        for (reason, _) in Reason::ALL {
            assert_eq!(Row::of(reason, false) as usize, reason.index());
        }
        for (place, refusal) in REFUSALS.into_iter().enumerate() {
            assert_eq!(Row::of(refusal, true) as usize, Reason::ALL.len() + place);
        }
    }

    #[test]
    fn what_observe_mode_let_go_is_told_apart() {
        let (one, other) = (Counters::default(), Counters::default());
        for goes in [false, true, true] {
            one.count(Row::of(Reason::CircuitOpen, goes), 0, false);
        }
        one.count_late();
        other.count(Row::of(Reason::CircuitOpen, false), 0, false);
        other.add(&one.totals());
        let totals = other.totals();
        assert_eq!((totals.reasons[Reason::CircuitOpen.index()], totals.let_go, totals.late), (4, [0, 2, 0, 0, 0], 1));
    }

    #[test]
    fn threads_lose_no_count() {
        let counters = Counters::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counters.count(Row::of(Reason::BacklogRed, true), 5, true)));
            }
        });
        let totals = counters.totals();
        assert_eq!((totals.reasons[2], totals.computed, totals.delay_sum_ns), (40_000, 40_000, 200_000));
    }
}
