//! What a simulated queue is given of the time between two rows.

/// Amounts are in millionths of jobs; triples are LOW, MEDIUM, HIGH.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub begin_ms: i64,
    pub span_ms: i64,
    /// Thousandths of its memory that the queue's server used.
    pub memory: Option<u64>,
    /// Whether the source of the recording tells how old the oldest job is.
    pub knows_oldest: bool,
    pub offers: [i64; 3],
    pub sheds: [i64; 3],
    /// What came without an offer.
    pub others: i64,
    pub capacity: i64,
}
