//! One interpreter a process: what this module caches belongs to the one that imported it first.
#![expect(unsafe_code, reason = "PyO3 has no safe way to ask for the interpreter's number")]

use std::sync::atomic::{AtomicI64, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::{ffi, prelude::*};

/// Interpreters count from 0.
const NONE: i64 = -1;

static OWNER: AtomicI64 = AtomicI64::new(NONE);

/// Makes the importing interpreter the owner, or refuses it.
pub fn claim(_: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached, so there is an interpreter, and it has a number.
    let importer = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    // Relaxed: the number stands for itself.
    match OWNER.compare_exchange(NONE, importer, Ordering::Relaxed, Ordering::Relaxed) {
        Err(owner) if owner != importer => Err(PyImportError::new_err(
            "backpressure._native serves one interpreter a process, and another one has imported it: \
             set BACKPRESSURE_ENGINE=pure",
        )),
        _ => Ok(()),
    }
}
