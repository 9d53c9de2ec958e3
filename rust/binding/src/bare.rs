//! `CPython`'s bare pointers, typed.

#![expect(unsafe_code, reason = "nobody but the caller knows what a pointer points to")]

use pyo3::ffi::{PyObject, PyUnicode_GET_LENGTH};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The longest text that may be a queue's name, in code points.
const LONGEST: isize = 255;

/// Types a bare pointer.
///
/// # Safety
/// It points to a living `T`.
#[inline]
pub unsafe fn object<'a, 'py, T>(py: Python<'py>, pointer: &'a *mut PyObject) -> &'a Bound<'py, T> {
    // SAFETY: that is the caller's promise.
    unsafe { Bound::ref_from_ptr(py, pointer).cast_unchecked() }
}

/// Returns a text that can be looked up among names: an exact string, whose hashing calls nobody, and not so long that
/// hashing takes long.
#[inline]
pub fn nameable<'a, 'py>(given: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyString>> {
    let text = given.cast_exact::<PyString>().ok()?;
    // SAFETY: it is a living string.
    (unsafe { PyUnicode_GET_LENGTH(text.as_ptr()) } <= LONGEST).then_some(text)
}
