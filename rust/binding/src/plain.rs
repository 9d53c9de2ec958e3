//! The types whose values are a job's outcome, not the promise of one as a coroutine is. The host is asked once about
//! each.
//!
//! Each known type is kept alive, so that no other type gets its address.

#![expect(unsafe_code, reason = "called by the hot calls, with bare pointers")]

use backpressure_core::recent::Recent;
use pyo3::ffi::{self, PyObject};

static KNOWN: Recent<PyObject, 32> = Recent::new();

/// Tells whether a type is known to be plain.
#[inline]
pub fn is_known(kind: *mut PyObject) -> bool {
    KNOWN.has(kind)
}

/// Remembers a plain type, in the place of one that was not asked about lately.
///
/// # Safety
/// The thread is attached, and `kind` is a living type.
pub unsafe fn remember(kind: *mut PyObject) {
    // SAFETY: that is the caller's promise. What comes out of the set is held by nobody else.
    unsafe {
        ffi::Py_INCREF(kind);
        ffi::Py_XDECREF(KNOWN.put(kind));
    }
}
