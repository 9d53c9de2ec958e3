//! Methods that do nothing, called as the engine's are: the cost of a call before any work is done.

/// The least possible engine.
#[pyo3::pymodule(gil_used = false)]
mod floor {
    use pyo3::prelude::*;

    /// An object like the engine, without an engine in it.
    #[pyclass(frozen)]
    pub struct Floor {
        answer: Py<PyAny>,
    }

    #[pymethods]
    impl Floor {
        #[new]
        fn new(answer: Py<PyAny>) -> Self {
            Self { answer }
        }

        /// As `suggest_throttle` is called: two arguments in, a ready object out.
        fn two(&self, py: Python<'_>, _one: &Bound<'_, PyAny>, _two: &Bound<'_, PyAny>) -> Py<PyAny> {
            self.answer.clone_ref(py)
        }

        /// As a bound handle is called: no arguments.
        fn none(&self, py: Python<'_>) -> Py<PyAny> {
            self.answer.clone_ref(py)
        }
    }
}
