//! What was seen lately, by address: a small set that forgets, and in which nobody waits.
//!
//! The places are relaxed: an address is compared, and nothing is reached through it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Up to two addresses in each row. Who puts one in has to see to it that nothing else gets that address meanwhile.
#[derive(Debug)]
pub struct Recent<T, const ROWS: usize>([[AtomicPtr<T>; 2]; ROWS]);

impl<T, const ROWS: usize> Default for Recent<T, ROWS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const ROWS: usize> Recent<T, ROWS> {
    /// Makes an empty set.
    pub const fn new() -> Self {
        const { assert!(ROWS.is_power_of_two() && ROWS > 1) };
        Self([const { [const { AtomicPtr::new(ptr::null_mut()) }, const { AtomicPtr::new(ptr::null_mut()) }] }; ROWS])
    }

    /// Tells whether an address is in the set.
    #[inline]
    pub fn has(&self, address: *mut T) -> bool {
        let [recent, older] = self.row_of(address);
        recent.load(Relaxed) == address || older.load(Relaxed) == address
    }

    /// Puts an address in. Returns the one that is out now, null if there is none.
    pub fn put(&self, address: *mut T) -> *mut T {
        let [recent, older] = self.row_of(address);
        older.swap(recent.swap(address, Relaxed), Relaxed)
    }

    #[inline]
    fn row_of(&self, address: *mut T) -> &[AtomicPtr<T>; 2] {
        // Fibonacci hashing: addresses are multiples of 16, and often of more.
        let mixed = (address.addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.0[usize::try_from(mixed >> (u64::BITS - ROWS.trailing_zeros())).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ptr;
    use std::thread;

    use super::Recent;

    /// Returns an address; nothing lies there.
    fn at(address: usize) -> *mut u8 {
        ptr::without_provenance_mut(address)
    }

    #[test]
    fn a_row_keeps_the_last_two() {
        let recent = Recent::<u8, 2>::new();
        let same_row: Vec<usize> =
            (1..100).map(|step| step * 16).filter(|&address| row(&recent, address) == 0).collect();
        let [first, second, third] = same_row[..3] else { panic!("half of them are in each row") };
        assert!([first, second, third].iter().all(|&address| !recent.has(at(address))));
        assert!(recent.put(at(first)).is_null());
        assert!(recent.put(at(second)).is_null());
        assert!(recent.has(at(first)) && recent.has(at(second)));
        assert_eq!(recent.put(at(third)), at(first));
        assert!(!recent.has(at(first)) && recent.has(at(second)) && recent.has(at(third)));
    }

    fn row(recent: &Recent<u8, 2>, address: usize) -> usize {
        usize::from(!ptr::eq(recent.row_of(at(address)), &raw const recent.0[0]))
    }

    #[test]
    fn addresses_spread_over_the_rows() {
        let recent = Recent::<u8, 32>::new();
        // Types lie far apart.
        for stride in [64, 1_072, 4_096] {
            let rows = (1..=64).map(|step| ptr::from_ref(recent.row_of(at(step * stride))));
            assert!(rows.collect::<BTreeSet<_>>().len() > 20);
        }
    }

    #[test]
    fn of_racing_threads_each_address_is_in_or_handed_back_once() {
        let recent = Recent::<u8, 2>::new();
        let addresses = |of: usize| (1..=1_000).map(move |step| at((step * 4 + of) * 16));
        let mut all: Vec<usize> = thread::scope(|scope| {
            let put = |of| addresses(of).map(|address| recent.put(address).addr()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|of| scope.spawn(move || put(of))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.extend((0..4).flat_map(addresses).filter(|&address| recent.has(address)).map(<*mut u8>::addr));
        all.retain(|&address| address != 0);
        all.sort_unstable();
        assert_eq!(all, (4..4_004).map(|step| step * 16).collect::<Vec<_>>());
    }
}
