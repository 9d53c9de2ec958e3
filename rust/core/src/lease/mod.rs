//! One priority's lease: who may go until the next call to the store, by the share or by a ticket.
//!
//! It mirrors `Lease` in `python/backpressure/_age/lease.py` bit by bit, for many threads at once. Callers who will not
//! wait go by the share's word, those who will by the line's; see `words.rs`. Instants are monotonic microseconds.
//!
//! # Memory orderings
//!
//! Terms lie at one of two places, the even or the odd one by their number. They are put there first; the line's word
//! then takes their number, in the same step in which it is seen that no ticket was taken and no place left since they
//! were computed. That step releases them, and who reads the word acquires: so it finds at the word's place these
//! terms, or those that come two later. In the latter case it reads the word again, which then is a later one, as the
//! place's swap carries it. A ticket that was taken before a renewal is therefore in its terms, and one taken after is
//! not.
//!
//! What the terms say of the share is a word of its own, put down after the line's, by which nothing else is reached: it
//! is relaxed. The share's word is read, with acquire, before it, and stepped with release by who read it before: so
//! what is found of the terms is never older than what the share's word belongs to, and a word of other terms than those
//! found is of earlier ones, of which nothing counts any more but the carry. An offer is one compare-and-swap on it. A
//! renewal steps it before it ends, or one that nobody steps for long would seem to belong to terms whose number ends
//! in the same bits.
//!
//! Only renewals wait, for each other.

mod dealing;
mod tenants;
mod terms;
#[cfg(test)]
mod tests;
mod words;

pub use tenants::{MOST_CLASSES, Tenants};
pub use terms::{Granted, NEVER_US, Terms};
pub use words::{LineWord, MILLION, MOST_LEFT, MOST_USED, ShareTerms, ShareWord};

use std::sync::{Arc, PoisonError};

use once_cell::race::OnceBox;

use crate::sync::{ArcSwap, AtomicU64, Mutex, Ordering};

/// One priority's terms, and what was used of them. Thread-safe; offers and tickets are lock-free and allocate nothing.
#[derive(Debug)]
pub struct Lease {
    share: AtomicU64,
    share_terms: AtomicU64,
    line: AtomicU64,
    granted: [ArcSwap<Granted>; 2],
    renewing: Mutex<()>,
    // Jobs that went by `take_share` and `take_saved`, and those refused by `refuse_share`, until they are fetched.
    // Relaxed: they count, and order nothing.
    shared: AtomicU64,
    gone: AtomicU64,
    refused: AtomicU64,
    /// Among whom the share is dealt, once one of them came.
    tenants: OnceBox<Arc<Tenants>>,
}

impl Lease {
    /// Makes one that grants nothing, and begins at a random part of a job: else the first jobs of all processes would
    /// go at one instant.
    pub fn new(phase_ppm: u64) -> Self {
        let carry_ppm = phase_ppm.min(MILLION - 1);
        let share = ShareWord { carry_ppm, used: 0, stale: false, renewal: 0 };
        let share_terms = ShareTerms { share_ppm: 0, cap_jobs: 0, renewal: 0 };
        Self {
            share: AtomicU64::new(share.pack()),
            share_terms: AtomicU64::new(share_terms.pack()),
            line: AtomicU64::new(0),
            granted: [(); 2].map(|()| ArcSwap::from_pointee(Granted::nothing(carry_ppm))),
            renewing: Mutex::new(()),
            shared: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            tenants: OnceBox::new(),
        }
    }

    /// Takes new terms. Who waits keeps the place; what was released and not taken is kept up to a burst.
    pub fn renew(&self, now_us: i64, terms: Terms) {
        let _alone = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let share_terms = loop {
            let seen = self.line.load(Ordering::Acquire);
            let line = LineWord::unpack(seen);
            let new = self.place(line.renewal).load().renewed(line, now_us, terms);
            let (number, share_terms) = (new.number, ShareTerms::of(&new.terms, new.number));
            self.place(number).swap(Arc::new(new));
            let word = line.to(number).pack();
            // Release: who sees the number finds its terms.
            if self.line.compare_exchange(seen, word, Ordering::Release, Ordering::Relaxed).is_ok() {
                break share_terms;
            }
        };
        self.share_terms.store(share_terms.pack(), Ordering::Relaxed);
        self.step_share(|word, _| (word, ()));
        if let Some(tenants) = self.tenants.get() {
            tenants.renew(share_terms.share_ppm);
        }
    }

    // Callers who will not wait.

    /// Tells whether the next offer may go: the share's part of them, evenly, without chance or time.
    pub fn offer(&self) -> bool {
        self.step_share(offered)
    }

    /// Takes what [`Self::offer`] would let go, and tells so; else nothing has happened, and the offer is to be decided.
    ///
    /// Of terms by which all fits half of the cap is left: whoever decides by that tells that more is asked for.
    pub fn take_share(&self) -> bool {
        let goes = self.step_share(|word, terms| {
            let (next, goes) = offered(word, terms);
            let leaves = terms.share_ppm >= MILLION && 2 * next.used > cap(word, terms);
            if goes && !leaves { (next, true) } else { (word, false) }
        });
        if goes {
            self.shared.fetch_add(1, Ordering::Relaxed);
        }
        goes
    }

    /// Takes the refusal that [`Self::offer`] would give under terms with this [`Self::renewal`], and tells so; else
    /// nothing has happened, and the offer is to be decided.
    ///
    /// Of terms by which all fits no offer is refused here: whoever decides has it wait for an answer.
    pub fn refuse_share(&self, renewal: u32) -> bool {
        let refuses = self.step_share(|word, terms| {
            let (next, goes) = offered(word, terms);
            let refuses = !goes && terms.share_ppm < MILLION && terms.renewal == u64::from(renewal);
            if refuses { (next, true) } else { (word, false) }
        });
        if refuses {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        refuses
    }

    /// Returns how many jobs went by [`Self::take_share`] and [`Self::take_saved`], and how many were refused by
    /// [`Self::refuse_share`], since this was last asked.
    pub fn take_counts(&self) -> (u64, u64, u64) {
        let [shared, gone, refused] =
            [&self.shared, &self.gone, &self.refused].map(|count| count.swap(0, Ordering::Relaxed));
        (shared, gone, refused)
    }

    /// Tells whether an offer may go that nobody answers in time: by old terms, of which one job is left.
    ///
    /// `aged` says that the terms are too old, not used up: then that one counts anew.
    pub fn offer_stale(&self, aged: bool) -> bool {
        self.step_share(|word, terms| offered(stale(word, terms, aged), terms))
    }

    /// Lets the last terms go on, with nothing used of them.
    pub fn prolong(&self) {
        self.step_share(|word, _| (ShareWord { used: 0, ..word }, ()));
    }

    /// Tells whether all that was asked for fits, and more is asked for now.
    pub fn is_used_up(&self) -> bool {
        let (share, terms) = self.share_under(self.share.load(Ordering::Acquire));
        terms.share_ppm >= MILLION && share.used >= cap(share, terms)
    }

    // Callers who will.

    /// Returns a place in the line.
    pub fn take_ticket(&self) -> u32 {
        // Relaxed, as in `take_saved`; who asks when the ticket is due reads the word again.
        LineWord::unpack(self.line.fetch_add(words::ONE_TICKET, Ordering::Relaxed)).taken.wrapping_add(1)
    }

    /// Takes a ticket only if its job may go now, and tells so.
    pub fn take_saved(&self, now_us: i64) -> bool {
        loop {
            let (seen, is_due) =
                self.seen(|line, granted| (line.pack(), granted.is_due(line, line.taken.wrapping_add(1), now_us)));
            if !is_due {
                return false;
            }
            let word = seen.wrapping_add(words::ONE_TICKET);
            // Relaxed: only the line changes, and the release of its renewal goes on through this step.
            if self.line.compare_exchange(seen, word, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.gone.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        }
    }

    /// Returns how long the line takes until this place; 0: its job may go now.
    pub fn due_in_us(&self, ticket: u32, now_us: i64) -> u64 {
        self.seen(|line, granted| granted.due_in_us(line, ticket, now_us))
    }

    /// Returns how long a ticket taken now would have to wait.
    pub fn foresee_us(&self, now_us: i64) -> u64 {
        self.seen(|line, granted| granted.due_in_us(line, line.taken.wrapping_add(1), now_us))
    }

    /// Gives the places of callers who went otherwise, or gave up, to those behind.
    ///
    /// Under the same terms [`MOST_LEFT`] at most; further ones are lost, and those behind wait the longer.
    pub fn leave_places(&self, places: u64) {
        let mut seen = self.line.load(Ordering::Relaxed);
        loop {
            let line = LineWord::unpack(seen);
            let word = LineWord { left: line.left.saturating_add(places).min(MOST_LEFT), ..line }.pack();
            // Relaxed, as in `take_saved`.
            match self.line.compare_exchange_weak(seen, word, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    // To look at.

    /// Returns the share's word as it is under the terms that hold.
    pub fn share(&self) -> ShareWord {
        self.share_under(self.share.load(Ordering::Acquire)).0
    }

    /// Returns how many jobs may go by the share.
    pub fn cap_jobs(&self) -> u64 {
        let (share, terms) = self.share_under(self.share.load(Ordering::Acquire));
        cap(share, terms)
    }

    /// Returns the last bits of the number of the terms that hold of the share.
    pub fn renewal(&self) -> u32 {
        let terms = ShareTerms::unpack(self.share_terms.load(Ordering::Relaxed));
        u32::try_from(terms.renewal).unwrap_or(u32::MAX) // 22 bits fit
    }

    /// Returns the line's word.
    pub fn line(&self) -> LineWord {
        LineWord::unpack(self.line.load(Ordering::Acquire))
    }

    /// Returns the terms that hold, and where the line was when they came.
    pub fn granted(&self) -> Arc<Granted> {
        loop {
            let line = self.line();
            let granted = self.place(line.renewal).load_full();
            if line.is_under(granted.number) {
                return granted;
            }
        }
    }

    fn place(&self, number: u64) -> &ArcSwap<Granted> {
        &self.granted[usize::from(number & 1 == 1)]
    }

    /// Calls `look` with the line's word and the terms that it belongs to.
    fn seen<T>(&self, look: impl Fn(LineWord, &Granted) -> T) -> T {
        loop {
            let line = self.line();
            let granted = self.place(line.renewal).load();
            if line.is_under(granted.number) {
                return look(line, &granted);
            }
        }
    }

    /// Returns the share's word, which was just read, under the terms that hold, and what these say of the share.
    fn share_under(&self, seen: u64) -> (ShareWord, ShareTerms) {
        let terms = ShareTerms::unpack(self.share_terms.load(Ordering::Relaxed));
        (ShareWord::unpack(seen).under(terms.renewal), terms)
    }

    /// Replaces the share's word, under the terms that hold, by what `step` makes of it; returns what else it gave.
    fn step_share<T>(&self, step: impl Fn(ShareWord, ShareTerms) -> (ShareWord, T)) -> T {
        let mut seen = self.share.load(Ordering::Acquire);
        loop {
            let (word, terms) = self.share_under(seen);
            let (word, gave) = step(word, terms);
            let word = word.pack();
            if word == seen {
                return gave;
            }
            match self.share.compare_exchange_weak(seen, word, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return gave,
                Err(other) => seen = other,
            }
        }
    }
}

/// Returns how many jobs may go under the terms.
fn cap(word: ShareWord, terms: ShareTerms) -> u64 {
    if word.stale { 1 } else { terms.cap_jobs }
}

/// Returns the word under terms that are old, of which one job is left; if they are `aged` that one counts anew.
fn stale(word: ShareWord, terms: ShareTerms, aged: bool) -> ShareWord {
    let used = if aged && cap(word, terms) != 1 { 0 } else { word.used };
    ShareWord { used, stale: true, ..word }
}

/// Returns the word after an offer, and whether it may go.
fn offered(word: ShareWord, terms: ShareTerms) -> (ShareWord, bool) {
    if word.used >= cap(word, terms) {
        return (word, false);
    }
    let carry_ppm = word.carry_ppm + terms.share_ppm;
    if carry_ppm < MILLION {
        return (ShareWord { carry_ppm, ..word }, false);
    }
    (ShareWord { carry_ppm: carry_ppm - MILLION, used: word.used + 1, ..word }, true)
}
