//! The evicted queues of an engine, kept for calls that found one of them before.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::queue::Queue;

/// A list with a lock that nobody waits for: who holds it calls nothing of Python's, so no fork and no collection of
/// garbage finds it held.
#[derive(Default)]
pub struct Aside(Mutex<Vec<Py<Queue>>>);

impl Aside {
    pub fn add(&self, queue: Bound<'_, Queue>) {
        self.queues().push(queue.unbind());
    }

    pub fn all<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, Queue>> {
        self.queues().iter().map(|queue| queue.bind(py).clone()).collect()
    }

    /// Lets go of a queue; tells whether it was here.
    pub fn remove(&self, queue: &Bound<'_, Queue>) -> bool {
        let mut queues = self.queues();
        let place = queues.iter().position(|other| other.is(queue));
        let removed = place.map(|place| queues.swap_remove(place));
        drop(queues);
        removed.is_some() // dropped out here, because that may free
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.queues().iter().try_for_each(|queue| visit.call(queue))
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Py<Queue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
