//! Offers of callers who name a tenant: they go by its part, in the place of the share, and under the same cap.
//!
//! A job of the cap is reserved first and given back if the tenant's part lets none go: so no terms let more go than
//! their cap, however many threads ask at once.

use std::sync::Arc;

use super::words::{MILLION, ShareTerms, ShareWord};
use super::{Lease, Tenants, cap, stale};
use crate::sync::Ordering;

impl Lease {
    /// Begins to deal the share among tenants, unless that was begun; every renewal sets their level.
    pub fn deal(&self, salt: u64) -> &Arc<Tenants> {
        self.tenants.get_or_init(|| {
            let share_ppm = self.share_under(self.share.load(Ordering::Acquire)).1.share_ppm;
            Box::new(Arc::new(Tenants::new(salt, share_ppm)))
        })
    }

    /// Returns among whom the share is dealt, once that has begun.
    pub fn tenants(&self) -> Option<&Arc<Tenants>> {
        self.tenants.get()
    }

    /// As [`Self::offer`], of a tenant.
    pub fn offer_for(&self, place: u32) -> bool {
        self.reserve(reserved).is_some_and(|renewal| self.keep_if(renewal, |tenants| tenants.offer(place)))
    }

    /// As [`Self::offer_stale`], of a tenant.
    pub fn offer_stale_for(&self, place: u32, aged: bool) -> bool {
        let reserved = self.reserve(|word, terms| reserved(stale(word, terms, aged), terms));
        reserved.is_some_and(|renewal| self.keep_if(renewal, |tenants| tenants.offer(place)))
    }

    /// As [`Self::take_share`] and, for who `refuses`, [`Self::refuse_share`], of a tenant and under terms with this
    /// [`Self::renewal`]: tells whether it goes; `None`: nothing has happened, and the offer is to be decided.
    pub fn decide_for(&self, place: u32, renewal: u32, refuses: bool) -> Option<bool> {
        let renewal = u64::from(renewal);
        let (share, terms) = self.share_under(self.share.load(Ordering::Acquire));
        let refuses = refuses && terms.share_ppm < MILLION;
        if terms.renewal != renewal {
            return None;
        }
        let reserved = self.reserve(|word, terms| {
            let leaves = terms.share_ppm >= MILLION && 2 * (word.used + 1) > cap(word, terms);
            if leaves || terms.renewal != renewal { (word, false) } else { reserved(word, terms) }
        });
        let goes = reserved.is_some_and(|renewal| self.keep_if(renewal, |tenants| tenants.take(place)));
        if goes {
            self.shared.fetch_add(1, Ordering::Relaxed);
            return Some(true);
        }
        let is_refused = |tenants: &Arc<Tenants>| share.used >= cap(share, terms) || tenants.refuse(place);
        if !(refuses && self.tenants.get().is_some_and(is_refused)) {
            return None;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Some(false)
    }

    /// Reserves a job by `step`; returns the renewal that it is of.
    fn reserve(&self, step: impl Fn(ShareWord, ShareTerms) -> (ShareWord, bool)) -> Option<u64> {
        self.step_share(|word, terms| {
            let (next, goes) = step(word, terms);
            (next, goes.then_some(next.renewal))
        })
    }

    /// Gives a reserved job back, unless `goes`.
    fn keep_if(&self, renewal: u64, goes: impl FnOnce(&Tenants) -> bool) -> bool {
        let goes = self.tenants.get().is_some_and(|tenants| goes(tenants));
        if !goes {
            self.step_share(|word, _| {
                let used = if word.renewal == renewal { word.used.saturating_sub(1) } else { word.used };
                (ShareWord { used, ..word }, ())
            });
        }
        goes
    }
}

/// Returns the word with a job of the cap reserved, and whether there was one.
fn reserved(word: ShareWord, terms: ShareTerms) -> (ShareWord, bool) {
    let goes = word.used < cap(word, terms);
    (ShareWord { used: word.used + u64::from(goes), ..word }, goes)
}
