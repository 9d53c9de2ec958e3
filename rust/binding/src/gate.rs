//! Gates: an engine's calls for one priority and queue, which is looked up once.

use backpressure_core::queue::Place;
use backpressure_core::vocabulary::Priority;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;

use crate::engine::{Asks, Engine};
use crate::guarded::Guarded;
use crate::queue::{Queue, Ready};
use crate::tenant::Tenant;

/// An engine's calls for one priority and queue. Thread-safe.
#[pyclass(frozen, subclass, name = "Gate", module = "backpressure._native")]
pub struct Gate {
    pub engine: Py<Engine>,
    priority: Priority,
    // As of the last decision. An eviction voids all ready answers, so an evicted queue gives none.
    queue: Guarded<Py<Queue>>,
    member: Py<PyAny>,
    queue_name: Py<PyAny>,
    // The host's `run_within`, with all arguments but the work filled in.
    pub run_within: Py<PyAny>,
    // As `run_within`, but for the tenant.
    pub run_for: Py<PyAny>,
}

impl Gate {
    /// As `Engine::hand_out`; returns what `take`, which must not call out, makes of queue and answer.
    #[inline]
    pub fn hand_out<'py, R>(
        &self,
        py: Python<'py>,
        accept: impl FnOnce(&Ready) -> bool,
        take: impl FnOnce(&Py<Queue>, Bound<'py, PyAny>) -> R,
    ) -> PyResult<Option<R>> {
        let engine = self.engine.get();
        if engine.clock.is_system() {
            // Nothing is called meanwhile, so the gate's own reference is enough.
            let found = self.queue.read(|queue| Some(engine.hand_out(py, queue, self.priority, accept, take)));
            found.unwrap_or(Ok(None))
        } else {
            let queue = self.queue.read(|queue| Some(queue.clone_ref(py)));
            queue.map_or(Ok(None), |queue| engine.hand_out(py, &queue, self.priority, accept, take))
        }
    }

    /// As `Engine::hand_out_for`.
    #[inline]
    pub fn hand_out_for<'py, R>(
        &self,
        py: Python<'py>,
        tenant: &Bound<'_, PyAny>,
        impatient: bool,
        take: impl FnOnce(&Py<Queue>, Bound<'py, PyAny>, bool) -> R,
    ) -> PyResult<Option<R>> {
        let engine = self.engine.get();
        let Some(tenant) = Tenant::read(tenant) else { return Ok(None) };
        if engine.clock.is_system() {
            // Nothing is called meanwhile, so the gate's own reference is enough.
            let hand_out = |queue: &Py<Queue>| engine.hand_out_for(py, queue, self.priority, &tenant, impatient, take);
            self.queue.read(|queue| Some(hand_out(queue))).unwrap_or(Ok(None))
        } else {
            let queue = self.queue.read(|queue| Some(queue.clone_ref(py)));
            queue.map_or(Ok(None), |queue| engine.hand_out_for(py, &queue, self.priority, &tenant, impatient, take))
        }
    }

    /// As `Engine::issue_by_name`, for the gate's queue and callers of the whole decision.
    pub fn issue<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let engine = self.engine.get();
        let found = if engine.clock.is_system() {
            // Nothing is called meanwhile, so the gate's own reference is enough.
            let found = self.queue.read(|queue| Some(engine.hand_out_own(py, queue, self.priority, Asks::SUGGESTS)));
            found.unwrap_or(Ok(None))?
        } else {
            let queue = self.queue.read(|queue| Some(queue.clone_ref(py)));
            queue.map_or(Ok(None), |queue| engine.hand_out_own(py, &queue, self.priority, Asks::SUGGESTS))?
        };
        engine.issue(found)
    }

    /// Looks the queue up again: it may have been made, or evicted.
    pub fn find_queue(&self, py: Python<'_>) {
        if let Ok(Some(queue)) = self.engine.get().queue(self.queue_name.bind(py))
            && let Some(previous) = self.queue.put(queue.unbind())
        {
            previous.drop_ref(py);
        }
    }
}

#[pymethods]
impl Gate {
    #[new]
    fn new(
        engine: Bound<'_, Engine>,
        host: &Bound<'_, PyAny>,
        priority: Bound<'_, PyAny>,
        queue_name: Bound<'_, PyAny>,
        max_wait: &Bound<'_, PyAny>,
        patient: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let py = engine.py();
        let run_within = host.getattr(intern!(py, "run_within"))?;
        let run_for = host.getattr(intern!(py, "run_for"))?;
        let partial = py.import(intern!(py, "functools"))?.getattr(intern!(py, "partial"))?;
        let gate = Self {
            priority: engine.get().vocabulary.priority(&priority)?,
            queue: Guarded::default(),
            run_within: partial.call1((run_within, &priority, &queue_name, max_wait, patient))?.unbind(),
            run_for: partial.call1((run_for, &priority, &queue_name, max_wait, patient))?.unbind(),
            engine: engine.unbind(),
            member: priority.unbind(),
            queue_name: queue_name.unbind(),
        };
        gate.find_queue(py);
        Ok(gate)
    }

    /// Decide and admit: the whole decision.
    fn suggest(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let decision =
            self.engine.get().ready_or_decide(self.member.bind(py), self.queue_name.bind(py), Asks::SUGGESTS)?;
        self.find_queue(py);
        Ok(decision)
    }

    /// Decide and admit on behalf of a tenant.
    #[pyo3(signature = (tenant, /))]
    fn suggest_for(&self, tenant: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = tenant.py();
        let decision = self.engine.get().suggest_for(self.member.bind(py), self.queue_name.bind(py), tenant)?;
        self.find_queue(py);
        Ok(decision)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        self.queue.read(|queue| Some(visit.call(queue))).transpose()?;
        visit.call(&self.run_for)?;
        visit.call(&self.run_within)
    }
}
