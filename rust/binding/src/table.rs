//! The table of an engine's queues, by name.

#[cfg(Py_GIL_DISABLED)]
pub use of_cpython::Table;
#[cfg(not(Py_GIL_DISABLED))]
pub use own::Table;

#[cfg(not(Py_GIL_DISABLED))]
mod own {
    use backpressure_core::names::Names;
    use backpressure_core::queue::Place;
    use pyo3::gc::{PyTraverseError, PyVisit};
    use pyo3::prelude::*;
    use pyo3::types::PyString;

    use crate::guarded::Guarded;
    use crate::queue::Queue;

    /// Uses the hashes that strings keep.
    pub struct Table(Guarded<Names<Py<Queue>>>);

    impl Table {
        pub fn new(_: Python<'_>) -> Self {
            Self(Guarded::default())
        }

        /// Looks at the queue of a name, if it has state. `look` must not call out.
        #[inline]
        pub fn look<R>(&self, name: &Bound<'_, PyString>, look: impl FnOnce(&Py<Queue>) -> R) -> PyResult<Option<R>> {
            let Ok(text) = name.to_str() else { return Ok(None) }; // holds a surrogate, which no queue's name does
            let hash = hash_of(name)?;
            Ok(self.0.read(|table| table.get(hash, text).map(look)))
        }

        pub fn insert(&self, queue: &Bound<'_, Queue>) -> PyResult<()> {
            let py = queue.py();
            let name = queue.get().name.bind(py);
            let (hash, text, queue) = (hash_of(name)?, name.to_str()?, queue.clone().unbind());
            // The names are exact strings, whose hashing neither fails nor calls out.
            let hash_again = |queue: &Py<Queue>| hash_of(queue.get().name.bind(py)).unwrap_or_default();
            self.0.change(|table| table.insert(hash, text, queue, hash_again));
            Ok(())
        }

        pub fn remove(&self, name: &Bound<'_, PyString>) -> PyResult<()> {
            let (hash, text) = (hash_of(name)?, name.to_str()?);
            drop(self.0.change(|table| table.remove(hash, text))); // out here, because it may free
            Ok(())
        }

        pub fn len(&self, _: Python<'_>) -> usize {
            self.0.read(|table| Some(table.len())).unwrap_or(0)
        }

        /// Returns all queues, in no particular order.
        pub fn all<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, Queue>> {
            let all = self.0.read(|table| Some(table.iter().map(|queue| queue.bind(py).clone()).collect()));
            all.unwrap_or_default()
        }

        pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
            self.0.read(|table| Some(table.iter().try_for_each(|queue| visit.call(queue)))).unwrap_or(Ok(()))
        }
    }

    /// Returns the hash that an exact string keeps once it was asked for it.
    #[inline]
    fn hash_of(name: &Bound<'_, PyString>) -> PyResult<u64> {
        name.hash().map(isize::cast_unsigned).map(|hash| hash as u64)
    }
}

#[cfg(Py_GIL_DISABLED)]
mod of_cpython {
    use pyo3::gc::{PyTraverseError, PyVisit};
    use pyo3::prelude::*;
    use pyo3::types::{PyDict, PyString};

    use crate::queue::Queue;

    /// A dict: without the interpreter's lock, `CPython`'s own dict is what its readers never wait for.
    pub struct Table(Py<PyDict>);

    impl Table {
        pub fn new(py: Python<'_>) -> Self {
            Self(PyDict::new(py).unbind())
        }

        /// Looks at the queue of a name, if it has state.
        #[inline]
        pub fn look<R>(&self, name: &Bound<'_, PyString>, look: impl FnOnce(&Py<Queue>) -> R) -> PyResult<Option<R>> {
            let Some(found) = self.0.bind(name.py()).get_item(name)? else { return Ok(None) };
            Ok(Some(look(found.cast_exact()?.as_unbound())))
        }

        pub fn insert(&self, queue: &Bound<'_, Queue>) -> PyResult<()> {
            let py = queue.py();
            self.0.bind(py).set_item(queue.get().name.bind(py), queue)
        }

        pub fn remove(&self, name: &Bound<'_, PyString>) -> PyResult<()> {
            self.0.bind(name.py()).del_item(name)
        }

        pub fn len(&self, py: Python<'_>) -> usize {
            self.0.bind(py).len()
        }

        /// Returns all queues, in no particular order.
        pub fn all<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, Queue>> {
            self.0.bind(py).values().iter().filter_map(|queue| queue.cast_into_exact().ok()).collect()
        }

        pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
            visit.call(&self.0)
        }
    }
}
