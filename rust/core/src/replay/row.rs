//! What a recording holds of one queue at one moment; see the Python `Row`.

use super::columns::{COLUMNS, UNKNOWN};
use super::flow::{JOB, MOST};

pub const AT_MS: usize = 0;
pub const BACKLOG: usize = 1;
const OLDEST_AGE_MS: usize = 2;
const ENTERED: usize = 3;
const LEFT: usize = 4;
const MEMORY: usize = 5;
// Offers, delays and sheds of HIGH, then of MEDIUM, then of LOW.
pub const COUNTS: usize = 6;
const CIRCUIT: usize = 15;
const POLICY: usize = 16;
const OPEN: i64 = 1;

/// The numbers of one row, in the order in which they lie in the file; [`UNKNOWN`] stands for what is not known.
#[derive(Clone, Copy, Debug)]
pub struct Row(pub [i64; COLUMNS]);

impl Row {
    /// When it was so, in milliseconds of Unix time.
    pub fn at_ms(&self) -> i64 {
        if self.0[AT_MS] == UNKNOWN { 0 } else { self.0[AT_MS] }
    }

    /// Waiting jobs.
    pub fn backlog(&self) -> i64 {
        jobs(self.0[BACKLOG])
    }

    /// Since the oldest job was enqueued.
    pub fn oldest_age_ms(&self) -> i64 {
        self.0[OLDEST_AGE_MS]
    }

    /// Jobs that ever came into the queue.
    pub fn entered(&self) -> i64 {
        self.0[ENTERED]
    }

    /// Jobs that ever left it.
    pub fn left(&self) -> i64 {
        self.0[LEFT]
    }

    /// Thousandths of its memory that the queue's server uses.
    pub fn memory(&self) -> Option<u64> {
        (self.0[MEMORY] != UNKNOWN).then(|| u64::try_from(self.0[MEMORY]).unwrap_or(0))
    }

    /// Decisions since the row before, LOW first.
    pub fn offers(&self) -> [i64; 3] {
        self.counts(0)
    }

    /// Those of them that advised a delay.
    pub fn delays(&self) -> [i64; 3] {
        self.counts(1)
    }

    /// Those of them that shed the job.
    pub fn sheds(&self) -> [i64; 3] {
        self.counts(2)
    }

    fn counts(&self, kind: usize) -> [i64; 3] {
        [self.0[COUNTS + 6 + kind], self.0[COUNTS + 3 + kind], self.0[COUNTS + kind]]
    }

    /// Whether the circuit was open.
    pub fn is_open(&self) -> bool {
        self.0[CIRCUIT] == OPEN
    }

    /// Number of the policy in force.
    pub fn policy(&self) -> i64 {
        self.0[POLICY]
    }
}

/// Returns how many jobs a recorded backlog stands for.
#[inline]
pub fn jobs(backlog: i64) -> i64 {
    backlog.clamp(0, MOST / JOB)
}
