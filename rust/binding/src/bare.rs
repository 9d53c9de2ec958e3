//! `CPython`'s bare pointers, typed.

#![expect(unsafe_code, reason = "nobody but the caller knows what a pointer points to")]

use pyo3::ffi::PyObject;
use pyo3::prelude::*;

/// Types a bare pointer.
///
/// # Safety
/// It points to a living `T`.
#[inline]
pub unsafe fn object<'a, 'py, T>(py: Python<'py>, pointer: &'a *mut PyObject) -> &'a Bound<'py, T> {
    // SAFETY: that is the caller's promise.
    unsafe { Bound::ref_from_ptr(py, pointer).cast_unchecked() }
}
