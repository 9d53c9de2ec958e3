//! What cannot leave its process, nor exist twice: it says what to do instead.

use pyo3::PyErr;
use pyo3::exceptions::PyTypeError;

/// Returns the error of an object that is to be pickled or copied, as the package's `Uncopied` raises it.
pub fn refused(name: &str, instead: &str) -> PyErr {
    PyTypeError::new_err(format!("{name} does not pickle and cannot be copied: {instead}"))
}
