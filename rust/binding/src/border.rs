//! The core's host: what an engine asks of its surroundings, asked of Python.

use backpressure_core::breaker::Change;
use backpressure_core::host::{Answer, Host, QueueOf};
use backpressure_core::table::Table as CoreTable;
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::zone::Zone;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyString, PyTuple};
use pyo3::{IntoPyObjectExt, intern};

use crate::breaker::Ticket;
use crate::guarded::Guarded;
use crate::queue::{CoreQueue, Failure, Queue, Ready};
use crate::shared::Shared;
use crate::table::Table;
use crate::vocabulary::Vocabulary;

/// An engine's surroundings during one call.
pub struct Border<'a, 'py> {
    pub py: Python<'py>,
    pub shared: &'a Shared,
    pub table: &'a Table,
    // An object whose critical section guards changes and sums of the table.
    pub changing: &'a Py<PyAny>,
    pub vocabulary: &'static Vocabulary,
    // Whether what is seen by a peek is put into words, not made a decision.
    pub outlines: bool,
}

impl<'py> Host for Border<'_, 'py> {
    type Object = Py<PyAny>;
    type Error = PyErr;
    type Name = Bound<'py, PyString>;
    type Place = Guarded<Ready>;

    fn now_ns(&self) -> PyResult<i64> {
        self.shared.clock.now_ns(self.py)
    }

    fn utc_now(&self) -> PyResult<Py<PyAny>> {
        self.shared.ask(self.py, intern!(self.py, "utc_now"), &[]).map(Bound::unbind)
    }

    fn not_running(&self) -> PyErr {
        self.shared.ask(self.py, intern!(self.py, "not_running"), &[]).map_or_else(|error| error, PyErr::from_value)
    }

    fn override_ended(&self) -> PyResult<()> {
        self.shared.ask(self.py, intern!(self.py, "override_ended"), &[]).map(drop)
    }

    fn check_poller(&self) -> PyResult<bool> {
        self.shared.ask(self.py, intern!(self.py, "check_poller"), &[])?.is_truthy()
    }

    fn read(&self, name: &Self::Name, wait: bool) -> PyResult<Option<Reason>> {
        let cold = self.shared.ask(
            self.py,
            intern!(self.py, "read"),
            &[name.clone().into_any(), wait.into_bound_py_any(self.py)?],
        )?;
        if cold.is_none() { Ok(None) } else { self.vocabulary.reason(&cold).map(Some) }
    }

    fn circuit_changed(&self, name: &Self::Name, change: Change) -> PyResult<()> {
        self.shared.circuit_changed(name, change)
    }

    fn zone_changed(&self, name: &Self::Name, priority: Priority, old: Zone, new: Zone) -> PyResult<()> {
        let priority = self.vocabulary.priority_member(self.py, priority);
        let [old, new] = [old, new].map(|zone| self.vocabulary.zone_member(self.py, zone).clone());
        let args = [name.clone().into_any(), priority.clone(), old, new];
        self.shared.ask(self.py, intern!(self.py, "zone_changed"), &args).map(drop)
    }

    fn decision(&self, name: &Self::Name, answer: &mut Answer<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        self.ask_about(intern!(self.py, "decision"), name, answer)
    }

    fn peeked(&self, name: &Self::Name, answer: &mut Answer<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        if self.outlines { self.outlined(answer) } else { self.ask_about(intern!(self.py, "peeked"), name, answer) }
    }

    fn observed(&self, decision: Py<PyAny>) -> PyResult<Py<PyAny>> {
        if self.outlines {
            return Ok(decision);
        }
        self.shared.ask(self.py, intern!(self.py, "observed"), &[decision.into_bound(self.py)]).map(Bound::unbind)
    }

    fn share(&self, decision: &Py<PyAny>) -> Py<PyAny> {
        decision.clone_ref(self.py)
    }
}

impl<'py> Border<'_, 'py> {
    /// Has the host put an answer into words.
    fn outlined(&self, answer: &Answer<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let (py, vocabulary) = (self.py, self.vocabulary);
        let fields = [
            answer.zone.map(|zone| vocabulary.zone_member(py, zone).clone()).into_pyobject(py)?,
            answer.delay_ns.into_bound_py_any(py)?,
            answer.shed.into_bound_py_any(py)?,
            vocabulary.reason_member(py, answer.reason).clone(),
            answer.retry_at_ns.map(|retry_at_ns| (retry_at_ns - answer.issued_ns).max(0)).into_bound_py_any(py)?,
        ];
        self.shared.ask(py, intern!(py, "outlined"), &fields).map(Bound::unbind)
    }

    /// Has the host make a decision of an answer, by one of its methods.
    fn ask_about(
        &self,
        method: &Bound<'py, PyString>,
        name: &Bound<'py, PyString>,
        answer: &mut Answer<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let (py, vocabulary) = (self.py, self.vocabulary);
        let timestamp = match &answer.source {
            Some(source) => source.timestamp.clone_ref(py),
            None => self.utc_now()?,
        };
        let fields: [Bound<'_, PyAny>; 12] = [
            vocabulary.priority_member(py, answer.priority).clone(),
            name.clone().into_any(),
            answer.delay_ns.into_pyobject(py)?.into_any(),
            answer.shed.into_pyobject(py)?.to_owned().into_any(),
            vocabulary.reason_member(py, answer.reason).clone(),
            timestamp.into_bound(py),
            answer.backlog.into_pyobject(py)?,
            answer.zone.map(|zone| vocabulary.zone_member(py, zone).clone()).into_pyobject(py)?,
            answer.ticket.take().map(Ticket).into_pyobject(py)?,
            answer.issued_ns.into_pyobject(py)?.into_any(),
            answer.retry_at_ns.into_pyobject(py)?,
            answer.computed.into_pyobject(py)?.to_owned().into_any(),
        ];
        let answer = vocabulary.answer(PyTuple::new(py, fields)?)?;
        self.shared.ask(py, method, &[answer]).map(Bound::unbind)
    }
}

impl<'py> CoreTable for Border<'_, 'py> {
    type Stored = Bound<'py, Queue>;

    fn queue<'a>(&self, stored: &'a Self::Stored) -> &'a QueueOf<Self> {
        &stored.get().core
    }

    fn name<'a>(&self, stored: &'a Self::Stored) -> &'a Self::Name {
        stored.get().name.bind(self.py)
    }

    fn make(&self, name: &Self::Name, core: CoreQueue) -> PyResult<Self::Stored> {
        Bound::new(self.py, Queue { core, name: name.clone().unbind(), last_failure: Failure::default() })
    }

    fn text<'a>(&self, name: &'a Self::Name) -> PyResult<&'a str> {
        name.to_str()
    }

    fn find(&self, name: &Self::Name) -> PyResult<Option<Self::Stored>> {
        self.table.look(name, |queue| queue.bind(self.py).clone())
    }

    fn insert(&self, stored: &Self::Stored) -> PyResult<()> {
        self.table.insert(stored)
    }

    fn remove(&self, stored: &Self::Stored) -> PyResult<()> {
        self.table.remove(self.name(stored))
    }

    fn size(&self) -> usize {
        self.table.len(self.py)
    }

    fn all(&self) -> Vec<Self::Stored> {
        self.table.all(self.py)
    }

    fn alone<R>(&self, work: impl FnOnce() -> R) -> R {
        with_critical_section(self.changing.bind(self.py), work)
    }

    fn evicted(&self, name: &Self::Name) -> PyResult<()> {
        self.shared.ask(self.py, intern!(self.py, "evicted"), &[name.clone().into_any()]).map(drop)
    }
}
