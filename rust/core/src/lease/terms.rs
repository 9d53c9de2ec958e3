//! The terms of a lease: what an answer grants one process for one priority, and what the line releases under them.

use super::words::{LineWord, MILLION, MOST_USED};

/// Longer than anybody waits: the rate is nothing.
pub const NEVER_US: u64 = 1 << 40;
/// Beyond any rate, burst or debt that an answer leaves. Products with it stay within the integers here.
const MOST_UJOBS: u64 = 1 << 62;
const UJOBS: i128 = MILLION as i128;

/// What one process may do for one priority until its next call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Part of the offers of callers who will not wait that may go; a million at most.
    pub share_ppm: u64,
    /// How many of these may go at most.
    pub cap_jobs: u64,
    /// At which rate callers who wait may go, in millionths of a job a second.
    pub rate_ujobs_per_s: u64,
    /// How many of these may go at once after a pause.
    pub burst_ujobs: u64,
    /// Whether that burst is there from the beginning.
    pub fill: bool,
    /// For the next report.
    pub remainder_ppm: u64,
}

/// Terms that came, and where the line was then. Replaced whole.
#[derive(Debug)]
pub struct Granted {
    /// 0 for what there is before the first answer, then one more with each.
    pub number: u64,
    /// The terms, within their bounds.
    pub terms: Terms,
    /// When they came, in monotonic microseconds.
    pub since_us: i64,
    /// Tickets taken then.
    pub taken: u32,
    /// What was released then and not taken, in millionths of a job. Below 0: who waits is owed to the line.
    pub saved_ujobs: i64,
}

impl Granted {
    /// Returns what a process begins with: nothing but a part of a job.
    pub(super) fn nothing(phase_ppm: u64) -> Self {
        let terms = Terms { burst_ujobs: 2 * MILLION, remainder_ppm: phase_ppm, ..Terms::default() };
        let saved_ujobs = i64::try_from(phase_ppm).expect("a part of a job");
        Self { number: 0, terms, since_us: 0, taken: 0, saved_ujobs }
    }

    /// Returns what new terms make of this. What was released and not taken is kept up to a burst, and so is a debt.
    pub(super) fn renewed(&self, line: LineWord, now_us: i64, terms: Terms) -> Self {
        let terms = Terms {
            share_ppm: terms.share_ppm.min(MILLION),
            cap_jobs: terms.cap_jobs.min(MOST_USED),
            rate_ujobs_per_s: terms.rate_ujobs_per_s.min(MOST_UJOBS),
            burst_ujobs: terms.burst_ujobs.min(MOST_UJOBS),
            ..terms
        };
        let (old_burst, burst) = (i128::from(self.terms.burst_ujobs), i128::from(terms.burst_ujobs));
        let mut saved = (-self.lack_ujobs(line, line.taken, now_us)).min(old_burst);
        if terms.fill {
            saved = saved.max(burst);
        }
        let saved = saved.min(burst).max(-i128::from(MOST_UJOBS));
        let saved_ujobs = i64::try_from(saved).expect("it lies between the bounds above");
        Self { number: self.number + 1, terms, since_us: now_us, taken: line.taken, saved_ujobs }
    }

    /// Returns a million times what was released by the rate.
    fn by_rate(&self, now_us: i64) -> i128 {
        i128::from(self.terms.rate_ujobs_per_s) * i128::from(now_us.saturating_sub(self.since_us))
    }

    /// Returns how much is to be released by the rate until a ticket may go.
    fn wanted_ujobs(&self, line: LineWord, ticket: u32) -> i128 {
        let behind = ticket.wrapping_sub(self.taken).cast_signed();
        (i128::from(behind) - i128::from(line.left)) * UJOBS - i128::from(self.saved_ujobs)
    }

    /// Returns how much is lacking until a ticket may go; below 0, how much is left over.
    fn lack_ujobs(&self, line: LineWord, ticket: u32, now_us: i64) -> i128 {
        self.wanted_ujobs(line, ticket) - self.by_rate(now_us).div_euclid(UJOBS)
    }

    /// Tells whether a ticket may go now; takes no division.
    pub(super) fn is_due(&self, line: LineWord, ticket: u32, now_us: i64) -> bool {
        self.wanted_ujobs(line, ticket) * UJOBS <= self.by_rate(now_us)
    }

    /// Returns how long the line takes until a ticket may go; 0: now.
    pub(super) fn due_in_us(&self, line: LineWord, ticket: u32, now_us: i64) -> u64 {
        if self.is_due(line, ticket, now_us) {
            return 0;
        }
        let rate = i128::from(self.terms.rate_ujobs_per_s);
        if rate == 0 {
            return NEVER_US;
        }
        let due_us = (self.lack_ujobs(line, ticket, now_us) * UJOBS + rate - 1) / rate;
        u64::try_from(due_us).map_or(NEVER_US, |due_us| due_us.min(NEVER_US))
    }
}
