//! What an engine and the handles of its breakers share: the clock and the host.

use backpressure_core::breaker::Change;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

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
    pub fn ask<'py, A>(&self, py: Python<'py>, method: &Bound<'py, PyString>, args: A) -> PyResult<Bound<'py, PyAny>>
    where
        A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
    {
        crossing::call_method(self.host.bind(py), method, args)
    }

    /// Tells the host of a change of a queue's breaker that is news.
    pub fn circuit_changed(&self, name: &Bound<'_, PyString>, change: Change) -> PyResult<()> {
        let py = name.py();
        self.ask(py, intern!(py, "circuit_changed"), (name, change.old, change.new)).map(drop)
    }
}

#[pymethods]
impl Shared {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.clock.traverse(&visit)?;
        visit.call(&self.host)
    }
}
