//! One queue, as Python stores it.

use backpressure_core::queue::{self, Place};
use backpressure_core::vocabulary::Priority;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::guarded::Guarded;

/// An answer that lies ready.
pub type Ready = queue::Ready<Py<PyAny>>;

/// The core's queue.
pub type CoreQueue = queue::Queue<Py<PyAny>, Guarded<Ready>>;

/// The class of the last error that counted, by name, or `None` of Python's. For display; no transition reads it.
pub type Failure = Guarded<Py<PyAny>>;

/// One queue's state. Never seen outside.
#[pyclass(frozen, name = "Queue", module = "backpressure._native")]
#[repr(C)]
pub struct Queue {
    pub core: CoreQueue,
    pub name: Py<PyString>,
    pub last_failure: Failure,
}

impl Queue {
    /// Makes the queue of a name, which is an exact `str`.
    pub fn new(name: Bound<'_, PyString>, core: CoreQueue) -> Self {
        Self { core, name: name.unbind(), last_failure: Failure::default() }
    }
}

#[pymethods]
impl Queue {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let seen = Priority::ALL.into_iter().filter_map(|priority| self.core.seen(priority));
        for asked in seen {
            asked.ready.read(|ready| Some(visit.call(&ready.decision))).transpose()?;
            let refusal = |ready: &Ready| ready.refusal.as_ref().map(|refusal| visit.call(&refusal.decision));
            asked.ready.read(refusal).transpose()?;
            asked.computed.load().as_ref().map(|computed| visit.call(&computed.finished)).transpose()?;
        }
        Ok(())
    }
}
