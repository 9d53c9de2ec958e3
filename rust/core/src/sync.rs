//! Where atomics, locks and swapped pointers come from: the standard library and `arc-swap`, or a model of both.
//!
//! With `--cfg loom` every interleaving of a few threads can be enumerated, with `--cfg shuttle` those of many be
//! drawn. `arc-swap` knows neither, so a stand-in takes its place there. See `tests/loom` and `tests/shuttle.rs`.

#[cfg(not(any(loom, shuttle)))]
pub use arc_swap::{ArcSwap, ArcSwapOption};
#[cfg(not(any(loom, shuttle)))]
pub use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
};

#[cfg(loom)]
pub use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
};

#[cfg(shuttle)]
pub use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
};

#[cfg(any(loom, shuttle))]
pub use stand_in::{ArcSwap, ArcSwapOption};

#[cfg(any(loom, shuttle))]
mod stand_in {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{AtomicU64, Ordering};

    pub type ArcSwap<T> = Swap<Arc<T>>;
    pub type ArcSwapOption<T> = Swap<Option<Arc<T>>>;

    /// A pointer swapped with acquire and release, and nothing stronger: `arc-swap` promises at least that.
    ///
    /// The pointer is an index into everything that was ever put here, so that a stale read is possible where the
    /// memory model permits one. The lock around them is the standard library's: no thread is ever switched while it is
    /// held.
    #[derive(Debug)]
    pub struct Swap<T> {
        put: Mutex<Vec<T>>,
        last: AtomicU64,
    }

    impl<T: Clone> Swap<T> {
        fn new(thing: T) -> Self {
            Self { put: Mutex::new(vec![thing]), last: AtomicU64::new(0) }
        }

        fn keep(&self, thing: T) -> u64 {
            let mut put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
            put.push(thing);
            put.len() as u64 - 1
        }

        fn at(&self, index: u64) -> T {
            let put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
            put[usize::try_from(index).expect("an index into a vector")].clone()
        }

        fn replace(&self, seen: u64, new: u64) -> Result<u64, u64> {
            self.last.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire)
        }

        pub fn load(&self) -> T {
            self.load_full()
        }

        pub fn load_full(&self) -> T {
            self.at(self.last.load(Ordering::Acquire))
        }

        pub fn swap(&self, thing: T) -> T {
            self.at(self.last.swap(self.keep(thing), Ordering::AcqRel))
        }

        pub fn rcu(&self, make: impl Fn(&T) -> T) -> T {
            let mut seen = self.last.load(Ordering::Acquire);
            loop {
                let old = self.at(seen);
                match self.replace(seen, self.keep(make(&old))) {
                    Ok(_) => return old,
                    Err(other) => seen = other,
                }
            }
        }
    }

    impl<T> ArcSwap<T> {
        pub fn from_pointee(thing: T) -> Self {
            Self::new(Arc::new(thing))
        }

        pub fn compare_and_swap(&self, current: &Arc<T>, thing: Arc<T>) -> Arc<T> {
            let new = self.keep(thing);
            let mut seen = self.last.load(Ordering::Acquire);
            loop {
                let old = self.at(seen);
                if !Arc::ptr_eq(&old, current) {
                    return old;
                }
                match self.replace(seen, new) {
                    Ok(_) => return old,
                    Err(other) => seen = other,
                }
            }
        }
    }

    impl<T> ArcSwapOption<T> {
        pub fn empty() -> Self {
            Self::new(None)
        }
    }
}
