//! One interpreter per process, the main one: what this module caches belongs to the interpreter that imported it, and
//! `PyO3` waits for the main interpreter in some places, whichever one calls.
#![expect(unsafe_code, reason = "PyO3 has no safe way to ask for the interpreter")]

use pyo3::exceptions::PyImportError;
use pyo3::{ffi, prelude::*};

/// Refuses to be imported by any other interpreter.
pub fn check(_: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached, so there is an interpreter.
    if unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() } {
        return Ok(());
    }
    // The package adds how to do without this module; CPython may refuse to load it before this line is reached.
    Err(PyImportError::new_err(
        "backpressure._native serves the main interpreter of a process alone, and this is another",
    ))
}
