//! What a recording holds of one queue at one moment; see the Python `Row`.

use super::columns::{COLUMNS, UNKNOWN};
use super::flow::{JOB, MOST};

/// One row. Triples are LOW, MEDIUM, HIGH; [`UNKNOWN`] stands for what is not known.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub at_ms: i64,
    pub backlog: i64,
    pub oldest_age_ms: i64,
    pub entered: i64,
    pub left: i64,
    pub memory_permille: i64,
    pub offers: [i64; 3],
    pub delays: [i64; 3],
    pub sheds: [i64; 3],
    pub circuit: i64,
    pub policy: i64,
}

impl Row {
    /// Makes a row of its numbers, in the order in which they lie in the file.
    #[inline]
    pub fn of(numbers: [i64; COLUMNS]) -> Self {
        let [at_ms, backlog, oldest_age_ms, entered, left, memory_permille, counts @ .., circuit, policy] = numbers;
        let [high_offers, high_delays, high_sheds, medium_offers, medium_delays, medium_sheds, ..] = counts;
        let [.., low_offers, low_delays, low_sheds] = counts;
        Self {
            at_ms: if at_ms == UNKNOWN { 0 } else { at_ms },
            backlog: backlog.clamp(0, MOST / JOB),
            oldest_age_ms,
            entered,
            left,
            memory_permille,
            offers: [low_offers, medium_offers, high_offers],
            delays: [low_delays, medium_delays, high_delays],
            sheds: [low_sheds, medium_sheds, high_sheds],
            circuit,
            policy,
        }
    }

    /// Returns how much of its memory the queue's server used.
    pub fn memory(&self) -> Option<u64> {
        (self.memory_permille != UNKNOWN).then(|| u64::try_from(self.memory_permille).unwrap_or(0))
    }
}
