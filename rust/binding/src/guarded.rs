//! A place that the interpreter's lock guards. In a free-threaded interpreter it has a lock of its own.

#[cfg(Py_GIL_DISABLED)]
pub use backpressure_core::queue::Slot as Guarded;
#[cfg(not(Py_GIL_DISABLED))]
pub use with_gil::Guarded;

#[cfg(not(Py_GIL_DISABLED))]
#[expect(unsafe_code, reason = "a lock inside the interpreter's costs a third of a whole decision")]
mod with_gil {
    use std::cell::UnsafeCell;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use backpressure_core::queue::Place;

    /// Holds one thing, for threads that are attached to the interpreter.
    pub struct Guarded<T>(UnsafeCell<Option<T>>);

    // SAFETY: This crate never detaches from the interpreter, so every call into it holds the global lock from its
    // beginning to its end, but for calls out into Python. What is below makes none: `read` and `change` hand the thing
    // to a closure that must not call out, and `put` moves without dropping. So no two of them ever overlap.
    unsafe impl<T: Send> Sync for Guarded<T> {}

    impl<T> Default for Guarded<T> {
        fn default() -> Self {
            Self(UnsafeCell::new(None))
        }
    }

    impl<T: Default> Guarded<T> {
        /// Changes the thing, first made if need be. `change` must not call out.
        pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
            // SAFETY: see `Sync`; nobody reads or writes meanwhile.
            change(unsafe { &mut *self.0.get() }.get_or_insert_default())
        }
    }

    impl<T> Place<T> for Guarded<T> {
        #[inline]
        fn read<R>(&self, read: impl FnOnce(&T) -> Option<R>) -> Option<R> {
            // SAFETY: see `Sync`; nobody writes meanwhile.
            unsafe { &*self.0.get() }.as_ref().and_then(read)
        }

        #[inline]
        fn put(&self, thing: T) -> Option<T> {
            // SAFETY: see `Sync`; nobody reads or writes meanwhile.
            unsafe { &mut *self.0.get() }.replace(thing)
        }

        /// Without an atomic addition, which costs as much as the rest of a look at a place. All threads that count
        /// hold the interpreter's lock, see `Sync`, so no other count comes between load and store.
        #[inline]
        fn add_one(counter: &AtomicU64) {
            counter.store(counter.load(Relaxed) + 1, Relaxed);
        }
    }
}
