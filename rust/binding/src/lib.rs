//! The extension module `backpressure._native`: this file is the list of what it exports.

/// The native engine.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", backpressure_core::VERSION)?;
        module.add("DEBUG", cfg!(debug_assertions))
    }
}
