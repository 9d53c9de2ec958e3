//! What an engine and the handles of its breakers share: the clock and the host.

use backpressure_core::breaker::Change;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{IntoPyObjectExt, intern};

use crate::clock::Clock;
use crate::crossing;

/// Clock and host of one engine. Never seen outside.
#[pyclass(frozen, name = "Shared", module = "backpressure._native")]
pub struct Shared {
    pub clock: Clock,
    pub host: Py<PyAny>,
}

impl Shared {
    /// Calls a method of the host's.
    pub fn ask<'py, const N: usize>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyString>,
        args: &[Bound<'py, PyAny>; N],
    ) -> PyResult<Bound<'py, PyAny>> {
        crossing::call_method(self.host.bind(py), method, args)
    }

    /// Tells the host of a change of a queue's breaker that is news.
    pub fn circuit_changed(&self, name: &Bound<'_, PyString>, change: Change) -> PyResult<()> {
        let py = name.py();
        let [old, new] = [change.old, change.new].map(|word| word.into_bound_py_any(py));
        self.ask(py, intern!(py, "circuit_changed"), &[name.clone().into_any(), old?, new?]).map(drop)
    }
}

#[pymethods]
impl Shared {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.clock.traverse(&visit)?;
        visit.call(&self.host)
    }
}
