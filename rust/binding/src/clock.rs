//! Where the time comes from: the system's monotonic clock, or a callable of the host's.

use backpressure_core::clock::System;
use pyo3::exceptions::PyOverflowError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;

use crate::crossing;

/// A monotonic instant in nanoseconds. Larger integers of Python's become the largest here, year 292.
#[derive(Clone, Copy)]
pub struct Ns(pub i64);

impl<'py> FromPyObject<'_, 'py> for Ns {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        given.extract().map(Self).or_else(|error| {
            if !error.is_instance_of::<PyOverflowError>(given.py()) {
                return Err(error);
            }
            Ok(Self(if given.lt(0)? { i64::MIN } else { i64::MAX }))
        })
    }
}

/// A source of monotonic nanoseconds. Thread-safe.
pub enum Clock {
    /// The clock behind `time.monotonic_ns()`, read without leaving Rust.
    System(System),
    /// A Python callable.
    Injected(Py<PyAny>),
}

impl Clock {
    /// Makes the clock that `now_ns` asks for; `None` is the system's.
    pub fn of(now_ns: &Bound<'_, PyAny>) -> PyResult<Self> {
        if now_ns.is_none() {
            let py = now_ns.py();
            let time = py.import(intern!(py, "backpressure._model.clock"))?.getattr(intern!(py, "own_time"))?;
            let read = || time.call_method0(intern!(py, "monotonic_ns"))?.extract();
            return System::set_by(read).map(Self::System);
        }
        Ok(Self::Injected(now_ns.clone().unbind()))
    }

    /// Returns the same clock.
    pub fn share(&self, py: Python<'_>) -> Self {
        match self {
            Self::System(system) => Self::System(system.clone()),
            Self::Injected(now_ns) => Self::Injected(now_ns.clone_ref(py)),
        }
    }

    /// Tells whether reading it calls nothing of Python's.
    #[inline]
    pub fn is_system(&self) -> bool {
        matches!(self, Self::System(_))
    }

    /// Reads it.
    #[inline]
    pub fn now_ns(&self, py: Python<'_>) -> PyResult<i64> {
        match self {
            Self::System(system) => Ok(system.now_ns()),
            Self::Injected(now_ns) => crossing::call(now_ns.bind(py), ())?.extract().map(|Ns(now_ns)| now_ns),
        }
    }

    /// Tells whether `until_ns` is not past yet.
    #[expect(clippy::inline_always, reason = "on the way of every ready answer, where a call costs a twentieth")]
    #[inline(always)]
    pub fn within(&self, py: Python<'_>, until_ns: i64) -> PyResult<bool> {
        match self {
            Self::System(system) => Ok(system.within(until_ns)),
            Self::Injected(_) => Ok(self.now_ns(py)? <= until_ns),
        }
    }

    /// Tells what `holds` makes of the present instant, where that holds at every instant after one at which it does.
    pub fn at_now(&self, py: Python<'_>, holds: &dyn Fn(i64) -> bool) -> PyResult<bool> {
        match self {
            Self::System(system) => Ok(system.at_now(holds)),
            Self::Injected(_) => self.now_ns(py).map(holds),
        }
    }

    /// Shows the collector what is held.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::System(_) => Ok(()),
            Self::Injected(now_ns) => visit.call(now_ns),
        }
    }
}
