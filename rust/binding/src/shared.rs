//! What an engine and the handles of its breakers share: the clock and the host.

use backpressure_core::breaker::Change;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::clock::Clock;
use crate::crossing;

/// Calls a method of the host's: `ask!(shared, py, method(arguments))`.
macro_rules! ask {
    ($shared:expr, $py:expr, $method:ident($($argument:expr),*)) => {
        $shared.ask($py, pyo3::intern!($py, stringify!($method)), &[
            $(pyo3::IntoPyObjectExt::into_bound_py_any($argument, $py)?),*
        ])
    };
}
pub(crate) use ask;

/// Clock and host of one engine. Never seen outside.
#[pyclass(frozen, name = "Shared", module = "backpressure._native")]
pub struct Shared {
    pub clock: Clock,
    pub host: Py<PyAny>,
}

impl Shared {
    /// See `ask!`.
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
        ask!(self, py, circuit_changed(name, change.old, change.new)).map(drop)
    }
}

#[pymethods]
impl Shared {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.clock.traverse(&visit)?;
        visit.call(&self.host)
    }
}
