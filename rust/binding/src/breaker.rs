//! The circuit breaker's Python face: one that stands alone, or a handle on a queue's.

use backpressure_core::breaker::{self, Change, Outcome, Watched, Watcher};
use backpressure_core::queue::Place;
use backpressure_core::word::state_of;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::clock::{Clock, Ns};
use crate::crossing;
use crate::queue::{CoreQueue, Failure, Queue};
use crate::settings::CircuitSettings;
use crate::shared::Shared;
use crate::uncopied::refused;

/// Permission to do one piece of work, to be handed back with its result.
#[pyclass(frozen, name = "Ticket", module = "backpressure._native")]
pub struct Ticket(pub breaker::Ticket);

#[pymethods]
impl Ticket {
    /// Generation of the breaker that issued it.
    #[getter]
    fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// Whether it holds a half-open circuit's lease.
    #[getter]
    fn probe(&self) -> bool {
        self.0.probe()
    }

    /// Instant at which it was given out.
    #[getter]
    fn issued_ns(&self) -> i64 {
        self.0.issued_ns()
    }

    fn __reduce__(_: &Bound<'_, Self>) -> PyResult<()> {
        Err(refused("Ticket", "report the outcome in the process that got it"))
    }

    fn __repr__(&self) -> String {
        let probe = if self.0.probe() { "True" } else { "False" };
        format!("Ticket(generation={}, probe={probe})", self.0.generation())
    }
}

/// One queue's breaker. Thread-safe.
///
/// One that stands alone is that of a queue which no engine knows.
#[pyclass(frozen, name = "Breaker", module = "backpressure._native")]
pub struct Breaker {
    queue: Py<Queue>,
    surroundings: Surroundings,
}

enum Surroundings {
    None { clock: Clock, on_change: Option<Py<PyAny>> },
    Engine(Py<Shared>),
}

/// Watches a breaker during one call.
struct Ear<'a, 'py>(&'a Breaker, Python<'py>);

impl Watcher for Ear<'_, '_> {
    type Error = PyErr;

    fn now_ns(&self) -> PyResult<i64> {
        match &self.0.surroundings {
            Surroundings::None { clock, .. } => clock.now_ns(self.1),
            Surroundings::Engine(shared) => shared.get().clock.now_ns(self.1),
        }
    }

    fn circuit_changed(&self, change: Change) -> PyResult<()> {
        let Breaker { queue, surroundings } = self.0;
        match surroundings {
            Surroundings::None { on_change: None, .. } => Ok(()),
            Surroundings::None { on_change: Some(on_change), .. } => {
                crossing::call(on_change.bind(self.1), (change.old, change.new)).map(drop)
            }
            Surroundings::Engine(shared) => shared.get().circuit_changed(queue.get().name.bind(self.1), change),
        }
    }
}

impl Breaker {
    /// Makes the handle of a queue's breaker.
    pub fn of_queue(shared: Py<Shared>, queue: Py<Queue>) -> Self {
        Self { queue, surroundings: Surroundings::Engine(shared) }
    }

    fn core(&self) -> &breaker::Breaker {
        &self.queue.get().core.breaker
    }

    fn failure(&self) -> &Failure {
        &self.queue.get().last_failure
    }

    /// Calls `work` with the breaker; its watcher is told of what is done there.
    fn watched<R>(&self, py: Python<'_>, work: impl FnOnce(Watched<'_, Ear<'_, '_>>) -> PyResult<R>) -> PyResult<R> {
        work(Watched { breaker: self.core(), watcher: &Ear(self, py) })
    }
}

#[pymethods]
impl Breaker {
    #[new]
    #[pyo3(signature = (circuit, now_ns, *, origin_ns=None, on_change=None))]
    fn new(
        circuit: CircuitSettings,
        now_ns: &Bound<'_, PyAny>,
        origin_ns: Option<Ns>,
        on_change: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let (py, clock) = (now_ns.py(), Clock::of(now_ns)?);
        let origin_ns = match origin_ns {
            Some(Ns(origin_ns)) => origin_ns,
            None => clock.now_ns(py)?,
        };
        let queue = Queue::new(PyString::intern(py, ""), CoreQueue::new(circuit.0, origin_ns, origin_ns));
        Ok(Self { queue: Py::new(py, queue)?, surroundings: Surroundings::None { clock, on_change } })
    }

    /// The 64-bit word that transitions read.
    #[getter]
    fn word(&self) -> u64 {
        self.core().word()
    }

    /// What failed when the last failure counted: the class of its error, where that is known.
    #[getter]
    fn last_failure(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.failure().read(|failure| Some(failure.clone_ref(py)))
    }

    /// Instant of the last failure that counted.
    #[getter]
    fn last_failure_ns(&self) -> Option<i64> {
        self.core().last_failure_ns()
    }

    /// Instant of the last probe.
    #[getter]
    fn last_probe_ns(&self) -> Option<i64> {
        self.core().last_probe_ns()
    }

    /// Return 0 closed, 1 open, 2 half-open. An open circuit is so until its first probe, however long ago.
    ///
    /// Unless it was forced open for a time: then looking is enough to end that.
    fn state(&self, py: Python<'_>) -> PyResult<u8> {
        self.watched(py, |breaker| breaker.look().map(|word| state_of(word) as u8))
    }

    /// Return when `word`, which must not be closed, admits again; ``None`` where it is forced open without end.
    fn retry_at_ns(&self, word: u64) -> Option<i64> {
        self.core().retry_at_ns(word)
    }

    /// Admit a caller: a ticket, or ``None`` when it must not go.
    fn try_acquire(&self, py: Python<'_>) -> PyResult<Option<Ticket>> {
        self.watched(py, |breaker| breaker.try_acquire()).map(|ticket| ticket.map(Ticket))
    }

    /// Take a result into account, or drop it when it is stale.
    ///
    /// ``None`` is the outcome that says nothing: it gives a probe's lease back. `began_ns` is when the attempt began,
    /// else when its ticket was issued, else now; `failure` names what failed, for display.
    #[pyo3(signature = (ok, ticket=None, began_ns=None, failure=None))]
    pub fn record(
        &self,
        py: Python<'_>,
        ok: Option<bool>,
        ticket: Option<&Bound<'_, Ticket>>,
        began_ns: Option<Ns>,
        failure: Option<Py<PyString>>,
    ) -> PyResult<()> {
        let ticket = ticket.map(|ticket| &ticket.get().0);
        let outcome = match ok {
            Some(true) => Outcome::Success,
            Some(false) => Outcome::Failure(began_ns.map(|Ns(began_ns)| began_ns)),
            None => Outcome::Ignored,
        };
        let failed = || drop(self.failure().put(failure.map_or_else(|| py.None(), Py::into_any)));
        self.watched(py, |breaker| breaker.record(outcome, ticket, failed))
    }

    /// Let the next admission of an open circuit be its first probe, unless it is forced open.
    fn hasten(&self) {
        self.core().hasten();
    }

    /// Reject everything until `force_close`, `reset` or the instant `until_ns`.
    #[pyo3(signature = (until_ns=None))]
    fn force_open(&self, py: Python<'_>, until_ns: Option<Ns>) -> PyResult<()> {
        let until_ns = until_ns.map(|Ns(until_ns)| until_ns);
        self.watched(py, |breaker| breaker.tell(breaker.breaker.force_open(until_ns)))
    }

    /// Close now; later failures open it again.
    fn force_close(&self, py: Python<'_>) -> PyResult<()> {
        self.watched(py, |breaker| breaker.tell(breaker.breaker.force_close()))
    }

    /// Close now and forget past failures and probes.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        let change = self.core().reset();
        drop(self.failure().put(py.None()));
        self.watched(py, |breaker| breaker.tell(change))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.queue)?;
        match &self.surroundings {
            Surroundings::None { clock, on_change } => {
                clock.traverse(&visit)?;
                visit.call(on_change)
            }
            Surroundings::Engine(shared) => visit.call(shared),
        }
    }
}
