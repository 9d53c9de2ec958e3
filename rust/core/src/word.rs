//! The breaker's word: all that its transitions read, in 64 bits.
//!
//! From the highest bit: state 2, forced 1, lease outstanding 1, count 10, generation 10, milliseconds 40. The count is
//! that of consecutive failures when closed, of successful probes when half-open. The milliseconds count from the
//! engine's first clock reading: end of the last failure of a run, opening, or issue of the last probe's lease; while
//! forced open they tell when that ends. All ones are no instant: the next probe may go at once, or, while forced open,
//! there is no end. Stamps and durations are rounded up, the instants compared with them down: so nothing happens too
//! early, and everything at most 2 ms late.
//!
//! The milliseconds last for 34 years. The last stamp stands for all later instants too; readings go on. So from then on
//! a run of failures never ends by idling, and an open circuit admits probes as if it had opened back then: one that
//! never did would refuse all jobs for ever.

pub(crate) const MS: i64 = 1_000_000;
pub(crate) const MAX_MS: u64 = (1 << 40) - 1;
/// The last stamp that is an instant: this one, or any later one.
pub(crate) const LAST: u64 = MAX_MS - 1;
const MAX_COUNT: u64 = (1 << 10) - 1;
const MAX_GENERATION: u64 = (1 << 10) - 1;
/// The bits that are 0 in the word of a closed circuit without failures: all but the generation.
const PRISTINE: u64 = !(MAX_GENERATION << 40);
/// The stamp of a word whose next probe may go at once.
pub(crate) const DUE: u64 = MAX_MS;
/// The stamp of a word that is forced open without an end.
pub(crate) const UNENDING: u64 = MAX_MS;

/// State of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything goes.
    Closed,
    /// Nothing goes, until the first probe.
    Open,
    /// Probes go, one at a time.
    HalfOpen,
}

/// The breaker's word, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// State of the circuit.
    pub state: State,
    /// Held open by hand.
    pub forced: bool,
    /// A probe's result is awaited.
    pub leased: bool,
    /// Consecutive failures, or successful probes.
    pub count: u64,
    /// Grows by one with each transition.
    pub generation: u64,
    /// See the head of this file.
    pub stamp_ms: u64,
}

impl Word {
    /// Returns the 64-bit integer.
    pub fn pack(self) -> u64 {
        (self.state as u64) << 62
            | u64::from(self.forced) << 61
            | u64::from(self.leased) << 60
            | self.count << 50
            | self.generation << 40
            | self.stamp_ms
    }

    /// Reads a 64-bit integer.
    pub fn unpack(word: u64) -> Self {
        Self {
            state: state_of(word),
            forced: is_forced(word),
            leased: is_leased(word),
            count: count_of(word),
            generation: generation_of(word),
            stamp_ms: stamp_ms_of(word),
        }
    }

    /// Returns the word after a transition: a new generation, counting from zero.
    #[must_use]
    pub fn to(self, state: State) -> Self {
        let generation = (self.generation + 1) & MAX_GENERATION;
        Self { state, forced: false, leased: false, count: 0, generation, stamp_ms: 0 }
    }
}

/// Returns the state in a packed word.
pub fn state_of(word: u64) -> State {
    match word >> 62 {
        0 => State::Closed,
        1 => State::Open,
        _ => State::HalfOpen,
    }
}

/// Tells whether a packed word is closed and has counted no failures.
pub fn is_pristine(word: u64) -> bool {
    word & PRISTINE == 0
}

/// Tells whether a packed word is held open by hand.
pub fn is_forced(word: u64) -> bool {
    word >> 61 & 1 == 1
}

/// Returns the generation in a packed word.
pub fn generation_of(word: u64) -> u64 {
    word >> 40 & MAX_GENERATION
}

/// Tells whether a packed word waits for a probe's result.
pub fn is_leased(word: u64) -> bool {
    word >> 60 & 1 == 1
}

/// Returns the count of failures or successful probes in a packed word.
pub fn count_of(word: u64) -> u64 {
    word >> 50 & MAX_COUNT
}

/// Returns the milliseconds in a packed word.
pub fn stamp_ms_of(word: u64) -> u64 {
    word & MAX_MS
}

/// Rounds a reading down to whole milliseconds.
pub fn floor_ms(elapsed_ns: i64) -> u64 {
    (elapsed_ns.max(0) / MS).unsigned_abs()
}

/// Rounds a stamp up to whole milliseconds, saturating at the last one.
pub fn stamp_ms(elapsed_ns: i64) -> u64 {
    elapsed_ns.max(0).unsigned_abs().div_ceil(MS.unsigned_abs()).min(LAST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{DUE, LAST, MAX_MS, State, Word, floor_ms, stamp_ms};

    proptest! {
        #[test]
        fn a_word_survives_packing(
            state in prop::sample::select(vec![State::Closed, State::Open, State::HalfOpen]),
            forced: bool, leased: bool, count in 0..1_024u64, generation in 0..1_024u64, stamp_ms in 0..=MAX_MS,
        ) {
            let word = Word { state, forced, leased, count, generation, stamp_ms };
            prop_assert_eq!(Word::unpack(word.pack()), word);
        }

        #[test]
        fn a_packed_word_survives_unpacking(word in 0..(3u64 << 62)) {
            prop_assert_eq!(Word::unpack(word).pack(), word);
        }

        #[test]
        fn stamps_round_up_and_readings_down(elapsed_ns: i64) {
            let (floor, stamp) = (floor_ms(elapsed_ns), stamp_ms(elapsed_ns));
            prop_assert!(floor.min(LAST) <= stamp && stamp < DUE && stamp.saturating_sub(floor) <= 1);
            if elapsed_ns >= 0 && stamp < LAST {
                let ns = elapsed_ns.unsigned_abs();
                prop_assert!(floor * 1_000_000 <= ns && ns <= stamp * 1_000_000);
            }
        }
    }
}
