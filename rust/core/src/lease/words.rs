//! The two words of a lease that change with a decision, in 64 bits each: the share's, and the line's.
//!
//! The share's, from the highest bit: carry 20, used 21, stale 1, renewal 22. The carry is what the offers so far left
//! over, in millionths of a job; `used` counts the jobs that went since the terms came; `stale` says that only one may
//! go, as the terms are old. The renewal tells which terms the word belongs to: under later ones nothing is used yet.
//!
//! What the share's word is held against, the share and the cap of the terms, is a word too, so that an offer reaches
//! nothing through a pointer. From the highest bit: unused 1, share 20, cap 21, renewal 22.
//!
//! The line's, from the highest bit: tickets taken 32, places left 24, renewal 8. Tickets are counted around: only the
//! distance of two of them tells anything, and no process has as many callers as half of them. The places are those of
//! callers who gave up since the terms came.

use super::terms::Terms;

/// Parts of a job.
pub const MILLION: u64 = 1_000_000;
/// Jobs that the share's word counts under the same terms.
pub const MOST_USED: u64 = (1 << 21) - 1;
/// Places that the line's word counts under the same terms.
pub const MOST_LEFT: u64 = (1 << 24) - 1;
const RENEWALS_OF_SHARE: u64 = (1 << 22) - 1;
const RENEWALS_OF_LINE: u64 = (1 << 8) - 1;
/// One ticket more; the last one is followed by the first, since what is carried falls off.
pub(super) const ONE_TICKET: u64 = 1 << 32;

/// The share's word, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareWord {
    /// What the offers so far left over, below a million.
    pub carry_ppm: u64,
    /// Jobs that went under these terms.
    pub used: u64,
    /// Whether only one may go, since the terms are old.
    pub stale: bool,
    /// Last bits of the terms' number.
    pub renewal: u64,
}

impl ShareWord {
    /// Returns the 64-bit integer.
    pub fn pack(self) -> u64 {
        self.carry_ppm << 44 | self.used << 23 | u64::from(self.stale) << 22 | self.renewal
    }

    /// Reads a 64-bit integer.
    pub fn unpack(word: u64) -> Self {
        Self {
            carry_ppm: word >> 44,
            used: word >> 23 & MOST_USED,
            stale: word >> 22 & 1 == 1,
            renewal: word & RENEWALS_OF_SHARE,
        }
    }

    /// Returns the word under the terms of this number: as it is, or with nothing used of them.
    #[must_use]
    pub(super) fn under(self, number: u64) -> Self {
        let renewal = number & RENEWALS_OF_SHARE;
        if self.renewal == renewal { self } else { Self { used: 0, stale: false, renewal, ..self } }
    }
}

/// What terms say of the share, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareTerms {
    /// Part of the offers that may go, a million at most.
    pub share_ppm: u64,
    /// How many of these may go, [`MOST_USED`] at most.
    pub cap_jobs: u64,
    /// Last bits of the terms' number.
    pub renewal: u64,
}

impl ShareTerms {
    /// Returns what the terms of this number say.
    pub(super) fn of(terms: &Terms, number: u64) -> Self {
        Self { share_ppm: terms.share_ppm, cap_jobs: terms.cap_jobs, renewal: number & RENEWALS_OF_SHARE }
    }

    /// Returns the 64-bit integer.
    pub fn pack(self) -> u64 {
        self.share_ppm << 43 | self.cap_jobs << 22 | self.renewal
    }

    /// Reads a 64-bit integer.
    pub fn unpack(word: u64) -> Self {
        Self { share_ppm: word >> 43, cap_jobs: word >> 22 & MOST_USED, renewal: word & RENEWALS_OF_SHARE }
    }
}

/// The line's word, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineWord {
    /// Tickets taken, counted around.
    pub taken: u32,
    /// Places that callers left who gave up under these terms.
    pub left: u64,
    /// Last bits of the terms' number.
    pub renewal: u64,
}

impl LineWord {
    /// Returns the 64-bit integer.
    pub fn pack(self) -> u64 {
        u64::from(self.taken) << 32 | self.left << 8 | self.renewal
    }

    /// Reads a 64-bit integer.
    pub fn unpack(word: u64) -> Self {
        let taken = u32::try_from(word >> 32).unwrap_or(u32::MAX); // half of the bits fit
        Self { taken, left: word >> 8 & MOST_LEFT, renewal: word & RENEWALS_OF_LINE }
    }

    /// Tells whether the word belongs to the terms of this number.
    pub(super) fn is_under(self, number: u64) -> bool {
        self.renewal == number & RENEWALS_OF_LINE
    }

    /// Returns the word after the terms of this number came: what was left is in them.
    #[must_use]
    pub(super) fn to(self, number: u64) -> Self {
        Self { left: 0, renewal: number & RENEWALS_OF_LINE, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LineWord, MOST_LEFT, MOST_USED, ONE_TICKET, ShareTerms, ShareWord};

    proptest! {
        #[test]
        fn a_share_survives_packing(
            carry_ppm in 0..1_000_000u64, used in 0..=MOST_USED, stale: bool, renewal in 0..1u64 << 22,
        ) {
            let word = ShareWord { carry_ppm, used, stale, renewal };
            prop_assert_eq!(ShareWord::unpack(word.pack()), word);
        }

        #[test]
        fn what_terms_say_of_the_share_survives_packing(
            share_ppm in 0..=1_000_000u64, cap_jobs in 0..=MOST_USED, renewal in 0..1u64 << 22,
        ) {
            let terms = ShareTerms { share_ppm, cap_jobs, renewal };
            prop_assert_eq!(ShareTerms::unpack(terms.pack()), terms);
        }

        #[test]
        fn a_line_survives_packing(taken: u32, left in 0..=MOST_LEFT, renewal in 0..256u64) {
            let word = LineWord { taken, left, renewal };
            prop_assert_eq!(LineWord::unpack(word.pack()), word);
            let next = LineWord { taken: taken.wrapping_add(1), ..word };
            prop_assert_eq!(LineWord::unpack(word.pack().wrapping_add(ONE_TICKET)), next);
        }

        #[test]
        fn packed_words_survive_unpacking(word: u64) {
            prop_assert_eq!(ShareWord::unpack(word).pack(), word);
            prop_assert_eq!(LineWord::unpack(word).pack(), word);
            prop_assert_eq!(ShareTerms::unpack(word).pack(), word);
        }
    }
}
