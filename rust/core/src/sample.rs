//! What a law judges: everything that was read of a queue at one moment.

/// The instant of a sample that was dropped. No clock that began in this machine's lifetime shows it.
pub const FORGOTTEN: i64 = i64::MIN;

/// What was read of a queue, and the monotonic instant at which it was true.
#[derive(Debug)]
pub struct Sample {
    /// Snapshot number, 1 for the queue's first.
    pub number: u64,
    /// Waiting jobs.
    pub backlog: i64,
    /// How long the oldest of them had waited, if the queue can tell.
    pub oldest_age_ns: Option<i64>,
    /// Thousandths of its limit of memory that the queue's server used, if it has one and can tell.
    pub memory_permille: Option<u64>,
    /// When that was true; [`FORGOTTEN`] if it was dropped. A dropped sample stays, so that its number is not used
    /// again.
    pub as_of_ns: i64,
}

impl Sample {
    /// Returns how old the sample is.
    pub fn age_ns(&self, now_ns: i64) -> i64 {
        now_ns.saturating_sub(self.as_of_ns).max(0)
    }
}
