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

    use crate::aside::Aside;
    use crate::guarded::Guarded;
    use crate::queue::Queue;

    /// Uses the hashes that strings keep.
    pub struct Table {
        stored: Guarded<Names<Py<Queue>>>,
        pub aside: Aside,
    }

    impl Table {
        pub fn new(_: Python<'_>) -> Self {
            Self { stored: Guarded::default(), aside: Aside::default() }
        }

        /// Looks at the queue of a name, if it has state. `look` must not call out.
        #[inline]
        pub fn look<R>(&self, name: &Bound<'_, PyString>, look: impl FnOnce(&Py<Queue>) -> R) -> PyResult<Option<R>> {
            let Ok(text) = name.to_str() else { return Ok(None) }; // holds a surrogate, which no queue's name does
            let hash = hash_of(name)?;
            Ok(self.stored.read(|table| table.get(hash, text).map(look)))
        }

        /// Stores a queue, unless its name has one. Tells whether it did.
        pub fn insert(&self, queue: &Bound<'_, Queue>) -> PyResult<bool> {
            let py = queue.py();
            let name = queue.get().name.bind(py);
            let (hash, text, queue) = (hash_of(name)?, name.to_str()?, queue.clone().unbind());
            // The names are exact strings, whose hashing neither fails nor calls out.
            let hash_again = |queue: &Py<Queue>| hash_of(queue.get().name.bind(py)).unwrap_or_default();
            Ok(self.stored.change(|table| {
                let free = table.get(hash, text).is_none();
                if free {
                    table.insert(hash, text, queue, hash_again);
                }
                free
            }))
        }

        /// Stores this queue no more, if it is the one of its name. Tells whether it was.
        pub fn remove(&self, queue: &Bound<'_, Queue>) -> PyResult<bool> {
            let name = queue.get().name.bind(queue.py());
            let (hash, text) = (hash_of(name)?, name.to_str()?);
            let removed = self.stored.change(|table| {
                let is_it = table.get(hash, text).is_some_and(|stored| stored.is(queue));
                is_it.then(|| table.remove(hash, text)).flatten()
            });
            Ok(removed.is_some()) // dropped out here, because that may free
        }

        pub fn len(&self, _: Python<'_>) -> usize {
            self.stored.read(|table| Some(table.len())).unwrap_or(0)
        }

        /// Returns all queues, in no particular order.
        pub fn all<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, Queue>> {
            let all = self.stored.read(|table| Some(table.iter().map(|queue| queue.bind(py).clone()).collect()));
            all.unwrap_or_default()
        }

        pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
            self.stored.read(|table| Some(table.iter().try_for_each(|queue| visit.call(queue)))).unwrap_or(Ok(()))?;
            self.aside.traverse(visit)
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
    use pyo3::sync::critical_section::with_critical_section;
    use pyo3::types::{PyDict, PyString};

    use crate::aside::Aside;
    use crate::queue::Queue;

    /// A dict: without the interpreter's lock, `CPython`'s own dict is what its readers never wait for.
    pub struct Table {
        stored: Py<PyDict>,
        pub aside: Aside,
    }

    impl Table {
        pub fn new(py: Python<'_>) -> Self {
            Self { stored: PyDict::new(py).unbind(), aside: Aside::default() }
        }

        /// Looks at the queue of a name, if it has state.
        #[inline]
        pub fn look<R>(&self, name: &Bound<'_, PyString>, look: impl FnOnce(&Py<Queue>) -> R) -> PyResult<Option<R>> {
            let Some(found) = self.stored.bind(name.py()).get_item(name)? else { return Ok(None) };
            Ok(Some(look(found.cast_exact()?.as_unbound())))
        }

        /// Stores a queue, unless its name has one. Tells whether it did.
        pub fn insert(&self, queue: &Bound<'_, Queue>) -> PyResult<bool> {
            let py = queue.py();
            self.stored.bind(py).set_default(queue.get().name.bind(py), queue)
        }

        /// Stores this queue no more, if it is the one of its name. Tells whether it was.
        pub fn remove(&self, queue: &Bound<'_, Queue>) -> PyResult<bool> {
            let py = queue.py();
            let (stored, name) = (self.stored.bind(py), queue.get().name.bind(py));
            // The dict's own lock: look and removal take none beside it, for which others might be let in.
            with_critical_section(stored, || {
                let is_it = stored.get_item(name)?.is_some_and(|found| found.is(queue));
                if is_it {
                    stored.del_item(name)?;
                }
                Ok(is_it)
            })
        }

        pub fn len(&self, py: Python<'_>) -> usize {
            self.stored.bind(py).len()
        }

        /// Returns all queues, in no particular order.
        pub fn all<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, Queue>> {
            self.stored.bind(py).values().iter().filter_map(|queue| queue.cast_into_exact().ok()).collect()
        }

        pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
            visit.call(&self.stored)?;
            self.aside.traverse(visit)
        }
    }
}
