//! The mode: configuration and manual switches at one moment, replaced whole.
//!
//! # Memory orderings
//!
//! The mode is published as a sample is (see `queue.rs`): the pointer first, then the epoch with release, read with
//! acquire. A thread that sees an epoch finds its mode or a later one.

use std::cell::Cell;
use std::sync::Arc;

use crate::settings::Settings;
use crate::sync::{ArcSwap, AtomicU64, Ordering};
use crate::vocabulary::Reason;

/// An instant that never comes.
pub const NEVER: i64 = i64::MAX;

/// Configuration and switches at one moment. Replaced whole: a new one is a new epoch, voiding all answers that lie
/// ready.
#[derive(Clone, Debug)]
pub struct Mode {
    /// Grows with every replacement.
    pub epoch: u64,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Whether decisions are made at all.
    pub running: bool,
    /// When the manual override ends; `None` while it is off.
    pub override_until_ns: Option<i64>,
    /// When emergency mode ends; `None` while it is off.
    pub emergency_until_ns: Option<i64>,
}

impl Mode {
    /// Returns the reason to let everything pass, if one of the manual switches is on.
    pub fn switch(&self) -> Option<Reason> {
        match (self.override_until_ns, self.emergency_until_ns) {
            (Some(_), _) => Some(Reason::ManualOverride),
            (None, Some(_)) => Some(Reason::EmergencyMode),
            (None, None) => None,
        }
    }

    /// Tells whether the time of a switch is up.
    fn ends_at(&self, now_ns: i64) -> bool {
        [self.override_until_ns, self.emergency_until_ns].into_iter().flatten().any(|until_ns| until_ns <= now_ns)
    }

    /// Returns the same without the switches whose time is up.
    fn at(&self, now_ns: i64) -> Self {
        let lasts = |until_ns: &i64| *until_ns > now_ns;
        Self {
            override_until_ns: self.override_until_ns.filter(lasts),
            emergency_until_ns: self.emergency_until_ns.filter(lasts),
            ..self.clone()
        }
    }
}

/// Tells whether a switch is on; asks for the present instant where it ends at one.
fn is_on<E>(until_ns: Option<i64>, now_ns: impl FnOnce() -> Result<i64, E>) -> Result<bool, E> {
    match until_ns {
        Some(NEVER) => Ok(true),
        Some(until_ns) => Ok(now_ns()? < until_ns),
        None => Ok(false),
    }
}

/// Where the mode is looked up and replaced. Thread-safe.
#[derive(Debug)]
pub struct Switches {
    mode: ArcSwap<Mode>,
    epoch: AtomicU64,
}

impl Switches {
    /// Makes those of an engine that is not running yet.
    pub fn new(settings: Arc<Settings>) -> Self {
        let mode = Mode { epoch: 0, settings, running: false, override_until_ns: None, emergency_until_ns: None };
        Self { mode: ArcSwap::from_pointee(mode), epoch: AtomicU64::new(0) }
    }

    /// Returns the mode that holds; the time of its switches may be up.
    pub fn mode(&self) -> Arc<Mode> {
        self.mode.load_full()
    }

    /// Returns the epoch of a mode that holds. What was made in that epoch is current.
    pub fn epoch(&self) -> u64 {
        // Acquire pairs with the release in `change`: who sees an epoch sees its mode.
        self.epoch.load(Ordering::Acquire)
    }

    /// Returns the mode that holds at `now_ns`, and whether this call ended an override whose time was up.
    pub fn mode_at(&self, now_ns: i64) -> (Arc<Mode>, bool) {
        let mode = self.mode();
        if !mode.ends_at(now_ns) {
            return (mode, false);
        }
        let overridden = Cell::new(false);
        let (mode, ended) = self.change(|mode| {
            overridden.set(mode.override_until_ns.is_some_and(|until_ns| until_ns <= now_ns));
            mode.ends_at(now_ns).then(|| mode.at(now_ns))
        });
        (mode, ended && overridden.get())
    }

    /// Returns the mode that [`Self::mode_at`] would leave, without ending a switch.
    pub fn mode_due(&self, now_ns: i64) -> Arc<Mode> {
        let mode = self.mode();
        if mode.ends_at(now_ns) { Arc::new(mode.at(now_ns)) } else { mode }
    }

    /// Tells whether the override is on; asks for the present instant where it ends at one.
    ///
    /// # Errors
    /// Those of `now_ns`.
    pub fn is_overridden<E>(&self, now_ns: impl FnOnce() -> Result<i64, E>) -> Result<bool, E> {
        is_on(self.mode().override_until_ns, now_ns)
    }

    /// As [`Self::is_overridden`], for emergency mode.
    ///
    /// # Errors
    /// Those of `now_ns`.
    pub fn is_emergency<E>(&self, now_ns: impl FnOnce() -> Result<i64, E>) -> Result<bool, E> {
        is_on(self.mode().emergency_until_ns, now_ns)
    }

    /// Swaps the configuration.
    pub fn configure(&self, settings: &Arc<Settings>) {
        self.change(|mode| Some(Mode { settings: Arc::clone(settings), ..mode.clone() }));
    }

    /// Starts or stops answering.
    pub fn set_running(&self, running: bool) {
        self.change(|mode| Some(Mode { running, ..mode.clone() }));
    }

    /// Turns the override on until an instant ([`NEVER`]: until it is turned off), or off with `None`.
    pub fn set_override(&self, override_until_ns: Option<i64>) {
        self.change(|mode| Some(Mode { override_until_ns, ..mode.clone() }));
    }

    /// As [`Self::set_override`], for emergency mode.
    pub fn set_emergency(&self, emergency_until_ns: Option<i64>) {
        self.change(|mode| Some(Mode { emergency_until_ns, ..mode.clone() }));
    }

    /// Voids all ready answers, also those of queues that are no longer in the table.
    pub fn void_ready(&self) {
        self.change(|mode| Some(mode.clone()));
    }

    /// Replaces the mode by what `change` makes of it, unless that is `None`. Returns the mode that holds then, and
    /// whether it was replaced.
    fn change(&self, change: impl Fn(&Mode) -> Option<Mode>) -> (Arc<Mode>, bool) {
        let mut seen = self.mode();
        let new = loop {
            let Some(changed) = change(&seen) else { return (seen, false) };
            let new = Arc::new(Mode { epoch: seen.epoch + 1, ..changed });
            let previous = self.mode.compare_and_swap(&seen, Arc::clone(&new));
            if Arc::ptr_eq(&previous, &seen) {
                break new;
            }
            seen = Arc::clone(&previous);
        };
        // The largest, not the last: of two threads, the one with the older mode may come here second.
        self.epoch.fetch_max(new.epoch, Ordering::Release);
        (new, true)
    }
}
