//! The types whose values are a job's outcome, not the promise of one as a coroutine is. The host is asked once about
//! each.
//!
//! Each known type is kept alive, so that no other type gets its address. The places are relaxed: an address is
//! compared, and nothing is reached through it.

#![expect(unsafe_code, reason = "called by the hot calls, with bare pointers")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pyo3::ffi::{self, PyObject};

const SETS: usize = 32;

type Place = AtomicPtr<PyObject>;

static KNOWN: [[Place; 2]; SETS] =
    [const { [const { Place::new(ptr::null_mut()) }, const { Place::new(ptr::null_mut()) }] }; SETS];

/// Tells whether a type is known to be plain.
#[inline]
pub fn is_known(kind: *mut PyObject) -> bool {
    let [recent, older] = places(kind);
    recent.load(Relaxed) == kind || older.load(Relaxed) == kind
}

/// Remembers a plain type, in the place of one that was not asked about lately.
///
/// # Safety
/// The thread is attached, and `kind` is a living type.
pub unsafe fn remember(kind: *mut PyObject) {
    let [recent, older] = places(kind);
    // SAFETY: that is the caller's promise. What comes out of a place is held by nobody else.
    unsafe {
        ffi::Py_INCREF(kind);
        let displaced = recent.swap(kind, Relaxed);
        ffi::Py_XDECREF(older.swap(displaced, Relaxed));
    }
}

fn places(kind: *mut PyObject) -> &'static [Place; 2] {
    // Fibonacci hashing: addresses of types are multiples of 16, and often of more.
    let mixed = (kind.addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    &KNOWN[usize::try_from(mixed >> (u64::BITS - SETS.trailing_zeros())).unwrap_or(0)]
}
