//! Fair shares within one priority of a queue: one tenant's flood does not take the others' part of what may go.
//!
//! It mirrors `Tenants` in `python/backpressure/_age/tenants.py` bit by bit, for many threads at once; the law is told
//! there. What offers change of a bucket is one word, from the highest bit: carry 20, asked 22, went 22. The carry is
//! what the offers so far left over, in millionths of a job; the others count offers since the last renewal, and those
//! of them that went by this bucket.
//!
//! # Memory orderings
//!
//! All is relaxed: a word is all that belongs together, and nothing is reached by it. A renewal takes the counts out of
//! each word in one step, so none is lost or taken twice. An offer beside it goes by the old share or by the new one.
//! Only renewals wait, for each other.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use once_cell::race::OnceBox;

use super::words::MILLION;
use crate::sync::{ArcSwap, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering};

/// Classes of weights, beside the one of tenants who have none.
pub const MOST_CLASSES: usize = 16;
// A model of all interleavings bears few buckets.
const ROW_BITS: u32 = if cfg!(loom) { 1 } else { 8 };
const ROW: usize = 1 << ROW_BITS;
const MOST_COUNTED: u64 = (1 << 22) - 1;
const ONE: u64 = 1 << 16;
/// Offers are smoothed over 2 to the power of so many renewals: the more, the fewer of them a bucket gets in one.
const SHIFTS: (u32, u32) = (2, 6);
/// 2 to the power of so many offers of a bucket are to be in what is smoothed.
const OFFERS_BITS: u32 = 5;

/// The buckets of one priority of a queue. Thread-safe; offers are lock-free, and allocate only for the first of a class.
///
/// A *place* is a tenant's class of weights with its two buckets, as one number. Class 0 is that of tenants without one.
#[derive(Debug)]
pub struct Tenants {
    salt: AtomicU64,
    /// Share of who did not ask yet.
    new_ppm: AtomicU32,
    classes: [OnceBox<Class>; MOST_CLASSES + 1],
    /// Names of the classes, from class 1 on.
    names: ArcSwap<Vec<String>>,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Class {
    words: [AtomicU64; 2 * ROW],
    shares_ppm: [AtomicU32; 2 * ROW],
}

/// What renewals alone read and change.
#[derive(Debug)]
struct Level {
    weights: [u64; MOST_CLASSES + 1],
    /// Offers between two renewals, smoothed, in 65536ths: of each class and bucket.
    asks: [Option<Box<[u64; 2 * ROW]>>; MOST_CLASSES + 1],
    share_ppm: u64,
    /// By how much more went than the share, in 65536ths of a job.
    over: i64,
    renewals: u32,
}

/// A bucket's word, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    carry_ppm: u64,
    asked: u64,
    went: u64,
}

impl Word {
    /// Each bucket begins at another part of a job: else who asks seldom would go at the same offer in all processes.
    fn first(salt: u64, index: usize) -> Self {
        let carry = salt.wrapping_mul(2 * index as u64 + 1) >> 32;
        Self { carry_ppm: (carry * MILLION) >> 32, asked: 0, went: 0 }
    }

    fn pack(self) -> u64 {
        self.carry_ppm << 44 | self.asked << 22 | self.went
    }

    fn unpack(word: u64) -> Self {
        Self { carry_ppm: word >> 44, asked: word >> 22 & MOST_COUNTED, went: word & MOST_COUNTED }
    }

    /// Counts an offer, as far as there is room.
    fn count(self, goes: bool) -> Self {
        if self.asked < MOST_COUNTED {
            Self { asked: self.asked + 1, went: self.went + u64::from(goes), ..self }
        } else {
            self
        }
    }

    /// Returns the word after an offer to a bucket with this share, and whether it goes.
    fn offered(self, share_ppm: u64) -> (Self, bool) {
        let carry_ppm = self.carry_ppm + share_ppm;
        let goes = carry_ppm >= MILLION;
        let carry_ppm = if goes { carry_ppm - MILLION } else { carry_ppm };
        (Self { carry_ppm, ..self }.count(goes), goes)
    }
}

/// The two buckets of a place, by their indexes.
fn buckets_of(place: u32) -> [usize; 2] {
    let bits = usize::try_from(place).expect("a place is small");
    [bits >> ROW_BITS & (ROW - 1), ROW + (bits & (ROW - 1))]
}

fn class_of(place: u32) -> usize {
    usize::try_from(place >> (2 * ROW_BITS)).expect("a class is small")
}

fn ppm(share_ppm: u64) -> u32 {
    u32::try_from(share_ppm.min(MILLION)).expect("a million is small")
}

impl Class {
    fn new(salt: u64, share_ppm: u32) -> Self {
        Self {
            words: std::array::from_fn(|index| AtomicU64::new(Word::first(salt, index).pack())),
            shares_ppm: std::array::from_fn(|_| AtomicU32::new(share_ppm)),
        }
    }

    /// Takes an offer, if what becomes of it is `wanted`: steps the word of the bucket that grants more, and counts it in
    /// the other one. Tells whether it was taken and whether it goes.
    fn step(&self, place: u32, wanted: impl Fn(bool) -> bool) -> (bool, bool) {
        let [first, second] = buckets_of(place);
        let shares = [first, second].map(|index| self.shares_ppm[index].load(Ordering::Relaxed));
        let (mine, other, share_ppm) =
            if shares[1] > shares[0] { (second, first, shares[1]) } else { (first, second, shares[0]) };
        let word = &self.words[mine];
        let mut seen = word.load(Ordering::Relaxed);
        let goes = loop {
            let (next, goes) = Word::unpack(seen).offered(u64::from(share_ppm));
            if !wanted(goes) {
                return (false, goes);
            }
            match word.compare_exchange_weak(seen, next.pack(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break goes,
                Err(newer) => seen = newer,
            }
        };
        self.count(other);
        (true, goes)
    }

    fn count(&self, index: usize) {
        let word = &self.words[index];
        let mut seen = word.load(Ordering::Relaxed);
        while let Err(newer) = word.compare_exchange_weak(
            seen,
            Word::unpack(seen).count(false).pack(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            seen = newer;
        }
    }

    /// Takes the counts out of a bucket's word.
    fn take_counts(&self, index: usize) -> Word {
        let carry = Word { carry_ppm: (1 << 20) - 1, asked: 0, went: 0 }.pack();
        Word::unpack(self.words[index].fetch_and(carry, Ordering::Relaxed))
    }
}

impl Tenants {
    /// Begins with the same share for all.
    ///
    /// The salt is 64 bits that nobody outside knows; see [`Self::rekey`].
    pub fn new(salt: u64, share_ppm: u64) -> Self {
        Self {
            salt: AtomicU64::new(salt),
            new_ppm: AtomicU32::new(ppm(share_ppm)),
            classes: std::array::from_fn(|_| OnceBox::new()),
            names: ArcSwap::from_pointee(Vec::new()),
            level: Mutex::new(Level {
                weights: [1; MOST_CLASSES + 1],
                asks: std::array::from_fn(|_| None),
                share_ppm: u64::from(ppm(share_ppm)),
                over: 0,
                renewals: 0,
            }),
        }
    }

    /// Returns the place of a tenant: the high bits of a product are its buckets.
    ///
    /// That is multiplicative hashing: Dietzfelbinger, Hagerup, Katajainen and Penttonen, "A reliable randomized
    /// algorithm for the closest-pair problem", Journal of Algorithms 25, 1997.
    pub fn place_of(&self, tenant_hash: u64, weight_class: u32) -> u32 {
        let product = tenant_hash.wrapping_mul(self.salt.load(Ordering::Relaxed) | 1);
        let buckets = u32::try_from(product >> (64 - 2 * ROW_BITS)).unwrap_or(u32::MAX); // few bits are left
        weight_class << (2 * ROW_BITS) | buckets
    }

    /// Tells whether the next offer of a tenant may go: its part of them, evenly, without chance or time.
    pub fn offer(&self, place: u32) -> bool {
        self.class(place).step(place, |_| true).1
    }

    /// Takes what [`Self::offer`] would let go, and tells so; else nothing has happened, and the offer is to be decided.
    pub fn take(&self, place: u32) -> bool {
        self.class(place).step(place, |goes| goes).0
    }

    /// Takes the refusal that [`Self::offer`] would give, and tells so; else nothing has happened.
    pub fn refuse(&self, place: u32) -> bool {
        self.class(place).step(place, |goes| !goes).0
    }

    /// Sets the water level anew, so that this part of what is asked for goes from now on.
    pub fn renew(&self, share_ppm: u64) {
        let mut level = self.level();
        level.renewals = level.renewals.saturating_add(1);
        let most = level.renewals.ilog2();
        self.fetch_counts(&mut level, most, Class::take_counts);
        level.share_ppm = share_ppm.min(MILLION);
        self.set_level(&mut level, most);
    }

    /// Draws others into each bucket. Until it is known what tenants ask for, all have the same share.
    pub fn rekey(&self, salt: u64) {
        let mut level = self.level();
        let share_ppm = ppm(level.share_ppm);
        self.new_ppm.store(share_ppm, Ordering::Relaxed);
        self.salt.store(salt, Ordering::Relaxed);
        self.fetch_counts(&mut level, 0, |class, index| {
            class.shares_ppm[index].store(share_ppm, Ordering::Relaxed);
            Word::unpack(class.words[index].swap(Word::first(salt, index).pack(), Ordering::Relaxed))
        });
        level.asks = std::array::from_fn(|_| None);
        level.renewals = 0;
    }

    /// Says what classes weigh, [`MOST_CLASSES`] at most; others weigh 1. It holds from the next renewal.
    pub fn weigh(&self, weights: impl IntoIterator<Item = (String, u64)>) {
        let (names, weights): (Vec<String>, Vec<u64>) = weights.into_iter().take(MOST_CLASSES).unzip();
        let mut level = self.level();
        level.weights = [1; MOST_CLASSES + 1];
        for (own, weight) in level.weights.iter_mut().skip(1).zip(weights) {
            *own = weight.max(1);
        }
        self.names.swap(Arc::new(names));
    }

    /// Returns the number of a class; 0 for one that is not known.
    pub fn class_of(&self, name: &str) -> u32 {
        let names = self.names.load();
        let index = names.iter().position(|known| known == name);
        index.and_then(|index| u32::try_from(index + 1).ok()).unwrap_or(0)
    }

    /// Returns which part of a tenant's offers may go, in millionths.
    pub fn share_ppm(&self, place: u32) -> u64 {
        let shares = self.classes[class_of(place)].get().map(|class| {
            buckets_of(place).map(|index| class.shares_ppm[index].load(Ordering::Relaxed)).into_iter().max()
        });
        u64::from(shares.flatten().unwrap_or_else(|| self.new_ppm.load(Ordering::Relaxed)))
    }

    /// Returns how many offers a tenant makes between two renewals, smoothed, in 65536ths; not less than it does.
    pub fn ask(&self, place: u32) -> u64 {
        let [first, second] = self.asks(place);
        first.min(second)
    }

    /// Returns the same of both of its buckets, which others may share.
    pub fn asks(&self, place: u32) -> [u64; 2] {
        let level = self.level();
        level.asks[class_of(place)].as_ref().map_or([0; 2], |asks| buckets_of(place).map(|index| asks[index]))
    }

    fn level(&self) -> MutexGuard<'_, Level> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn class(&self, place: u32) -> &Class {
        self.classes[class_of(place)].get_or_init(|| {
            let (salt, new_ppm) = (self.salt.load(Ordering::Relaxed), self.new_ppm.load(Ordering::Relaxed));
            Box::new(Class::new(salt, new_ppm))
        })
    }

    /// Smooths what was asked for since the last renewal, and notes by how much more went than the share of it.
    fn fetch_counts(&self, level: &mut Level, most: u32, take: impl Fn(&Class, usize) -> Word) {
        let (mut asked, mut went) = (0, 0);
        for (class, asks) in self.classes.iter().zip(&mut level.asks) {
            let Some(class) = class.get() else { continue };
            let asks = asks.get_or_insert_with(|| Box::new([0; 2 * ROW]));
            for (index, ask) in asks.iter_mut().enumerate() {
                let word = take(class, index);
                asked += if index < ROW { 0 } else { word.asked }; // every offer is counted in both rows
                went += word.went;
                *ask = smoothed(*ask, word.asked * ONE, shift_of(*ask).min(most));
            }
        }
        let due = u128::from(asked * ONE) * u128::from(level.share_ppm) / u128::from(MILLION);
        level.over += signed(went * ONE) - i64::try_from(due).expect("a part of what was asked for");
    }

    fn set_level(&self, level: &mut Level, most: u32) {
        let firsts = level.asks.iter().flatten().flat_map(|asks| &asks[..ROW]).filter(|&&ask| ask > 0);
        let (total, many) = firsts.fold((0, 0), |(total, many), ask| (total + ask, many + 1));
        // What went beyond the share is taken off again sooner than offers are smoothed, as far as that can be.
        let shift = shift_of(total / many.max(1)).min(most).saturating_sub(3).max(1);
        let bound = signed(total) << shift;
        level.over = if level.share_ppm >= MILLION { 0 } else { level.over.clamp(-bound, bound) };
        let due = u128::from(total) * u128::from(level.share_ppm) / u128::from(MILLION);
        let left = i64::try_from(due).expect("a part of what is asked for") - (level.over >> shift);
        let new_ppm = ppm(if total > 0 { MILLION } else { level.share_ppm });
        self.new_ppm.store(new_ppm, Ordering::Relaxed);
        for row in [0..ROW, ROW..2 * ROW] {
            self.fill(level, row, left.max(0).unsigned_abs(), new_ppm);
        }
    }

    /// Pours what may go into a row: it is used up at the level, which those get who ask for more.
    fn fill(&self, level: &Level, row: Range<usize>, mut left: u64, new_ppm: u32) {
        let mut asking = Vec::new();
        for (own, (class, asks)) in level.weights.iter().zip(self.classes.iter().zip(&level.asks)) {
            let (Some(class), Some(asks)) = (class.get(), asks) else { continue };
            for index in row.clone() {
                if asks[index] > 0 {
                    asking.push((asks[index] * ONE / own, asks[index], *own, &class.shares_ppm[index]));
                } else {
                    class.shares_ppm[index].store(new_ppm, Ordering::Relaxed);
                }
            }
        }
        asking.sort_by_key(|&(need, ..)| need);
        let mut weight: u64 = asking.iter().map(|&(_, _, own, _)| own).sum();
        let mut under = true;
        for (_, ask, own, share) in asking {
            let (wanted, level) = (u128::from(ask) * u128::from(weight), u128::from(left) * u128::from(own));
            under = under && wanted <= level;
            if under {
                left -= ask;
                weight -= own;
            }
            let share_ppm = if under { MILLION } else { part(level, wanted) };
            share.store(ppm(share_ppm), Ordering::Relaxed);
        }
    }
}

/// Returns how many millionths of what is wanted the level gives.
fn part(level: u128, wanted: u128) -> u64 {
    u64::try_from(level * u128::from(MILLION) / wanted).unwrap_or(MILLION)
}

/// Returns over how many renewals the offers of a bucket are smoothed that asks so much, as a power of 2.
fn shift_of(ask: u64) -> u32 {
    (OFFERS_BITS + 17).saturating_sub(u64::BITS - ask.leading_zeros()).clamp(SHIFTS.0, SHIFTS.1)
}

/// Follows a number by a part of the difference, rounded down.
fn smoothed(ask: u64, asked: u64, shift: u32) -> u64 {
    ask.saturating_add_signed((signed(asked) - signed(ask)) >> shift)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("few offers come between two renewals")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MILLION, MOST_COUNTED, ONE, ROW, Tenants, Word};

    const SALT: u64 = 0x9E37_79B9_7F4A_7C15;
    const THIRD: u64 = MILLION / 3;

    proptest! {
        #[test]
        fn a_word_survives_packing(carry_ppm in 0..MILLION, asked in 0..=MOST_COUNTED, went in 0..=MOST_COUNTED) {
            let word = Word { carry_ppm, asked, went };
            prop_assert_eq!(Word::unpack(word.pack()), word);
        }

        #[test]
        fn a_class_does_not_move_the_buckets(hash: u64, salt: u64, class in 0..=16u32) {
            let tenants = Tenants::new(salt, 0);
            prop_assert_eq!(tenants.place_of(hash, class) - tenants.place_of(hash, 0), class << 16);
        }
    }

    #[test]
    fn counts_end_where_there_is_no_room() {
        let full = Word { carry_ppm: 1, asked: MOST_COUNTED, went: MOST_COUNTED };
        assert_eq!(full.count(true), full);
        assert_eq!(full.offered(MILLION), (full, true));
    }

    #[test]
    fn threads_lose_no_count() {
        let tenants = Tenants::new(SALT, MILLION);
        let place = tenants.place_of(SALT, 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| assert!(tenants.take(place))));
            }
        });
        tenants.renew(MILLION);
        assert_eq!(tenants.ask(place), 40_000 * ONE);
    }

    #[test]
    fn together_they_get_the_share_and_the_level_divides_them() {
        let tenants = Tenants::new(SALT, THIRD);
        // Each in buckets of its own: one asks for 300 jobs between two renewals, the others for 10 each.
        let places: Vec<u32> = (0..30).map(|index| index << 8 | index).collect();
        let mut went = [0_u64; 30];
        for round in 0..40 {
            for turn in 0..300 {
                for (index, &place) in places.iter().enumerate() {
                    let asks = index == 0 || turn % 30 == 0;
                    went[index] += u64::from(asks && tenants.offer(place) && round >= 20);
                }
            }
            tenants.renew(THIRD);
        }
        let (all, hog) = (went.iter().sum::<u64>(), went[0]);
        assert!((20_u64 * 590 / 3).abs_diff(all) <= 20, "{all}");
        assert!((all / 30).abs_diff(hog) <= 5, "{hog} of {all}");
        assert!(ROW >= places.len());
    }
}
