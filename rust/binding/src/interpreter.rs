//! One interpreter a process, the main one: what this module caches belongs to whoever imported it, and `PyO3` here and
//! there waits for the main interpreter, whichever calls.
#![expect(unsafe_code, reason = "PyO3 has no safe way to ask for the interpreter")]

use pyo3::exceptions::PyImportError;
use pyo3::{ffi, prelude::*};

/// Refuses to be imported by any other interpreter.
pub fn check(_: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached, so there is an interpreter.
    if unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() } {
        return Ok(());
    }
    // How to do without, the package's own error says: of other interpreters CPython itself may refuse to load anything.
    Err(PyImportError::new_err(
        "backpressure._native serves the main interpreter of a process alone, and this is another",
    ))
}
