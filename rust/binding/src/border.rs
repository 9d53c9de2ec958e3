//! The core's host: what an engine asks of its surroundings, asked of Python.

use std::sync::Arc;

use backpressure_core::breaker::Change;
use backpressure_core::host::{Answer, Host, Issue, Judged, Lent, QueueOf, Told};
use backpressure_core::table::Table as CoreTable;
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::zone::Zone;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::PyString;

use crate::clock::Ns;
use crate::decision::Decisions;
use crate::guarded::Guarded;
use crate::lease::Lease;
use crate::queue::{CoreQueue, Queue, Ready};
use crate::shared::{Shared, ask};
use crate::table::Table;
use crate::vocabulary::Vocabulary;

/// The fields of the package's `Judged`: what the caller is told, what is lent, and what others are told beside it.
type JudgedParts<'py> = (
    Bound<'py, PyAny>,
    u64,
    bool,
    Bound<'py, PyAny>,
    Option<Bound<'py, Lease>>,
    bool,
    Ns,
    u32,
    Option<Bound<'py, PyAny>>,
);

/// An engine's surroundings during one call.
pub struct Border<'a, 'py> {
    pub py: Python<'py>,
    pub shared: &'a Shared,
    pub table: &'a Table,
    // An object whose critical section guards changes and sums of the table.
    pub changing: &'a Py<PyAny>,
    pub vocabulary: &'static Vocabulary,
    pub decisions: &'static Decisions,
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

    fn text<'a>(&self, name: &'a Self::Name) -> PyResult<&'a str> {
        name.to_str()
    }

    fn not_running(&self) -> PyErr {
        ask!(self.shared, self.py, not_running()).map_or_else(|error| error, PyErr::from_value)
    }

    fn override_ended(&self) -> PyResult<()> {
        ask!(self.shared, self.py, override_ended()).map(drop)
    }

    fn check_poller(&self) -> PyResult<bool> {
        ask!(self.shared, self.py, check_poller())?.is_truthy()
    }

    fn hurry(&self, name: &Self::Name) -> PyResult<()> {
        ask!(self.shared, self.py, hurry(name)).map(drop)
    }

    fn read(&self, name: &Self::Name, wait: bool) -> PyResult<Option<Reason>> {
        let cold = ask!(self.shared, self.py, read(name, wait))?;
        if cold.is_none() { Ok(None) } else { self.vocabulary.reason(&cold).map(Some) }
    }

    fn judge(&self, name: &Self::Name, priority: Priority) -> PyResult<Judged> {
        let member = self.vocabulary.priority_member(self.py, priority);
        self.judged(&ask!(self.shared, self.py, judge(name, member))?)
    }

    fn foresee(&self, name: &Self::Name, priority: Priority) -> PyResult<Judged> {
        let member = self.vocabulary.priority_member(self.py, priority);
        self.judged(&ask!(self.shared, self.py, foresee(name, member))?)
    }

    fn circuit_changed(&self, name: &Self::Name, change: Change) -> PyResult<()> {
        self.shared.circuit_changed(name, change)
    }

    fn zone_changed(&self, name: &Self::Name, priority: Priority, old: Zone, new: Zone) -> PyResult<()> {
        let priority = self.vocabulary.priority_member(self.py, priority);
        let [old, new] = [old, new].map(|zone| self.vocabulary.zone_member(self.py, zone));
        ask!(self.shared, self.py, zone_changed(name, priority, old, new)).map(drop)
    }

    fn answer(&self, name: &Self::Name, answer: &Answer<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        self.finished(intern!(self.py, "answer"), name, answer)
    }

    fn observed(&self, finished: Py<PyAny>) -> PyResult<Py<PyAny>> {
        ask!(self.shared, self.py, observed(finished)).map(Bound::unbind)
    }

    fn issue(&self, finished: Py<PyAny>, issue: Issue) -> PyResult<Py<PyAny>> {
        self.decisions.issue(finished.into_bound(self.py), issue).map(Bound::unbind)
    }

    fn peeked(&self, name: &Self::Name, answer: &Answer<Py<PyAny>>, observed: bool) -> PyResult<Py<PyAny>> {
        if self.outlines {
            return self.outlined(answer);
        }
        let finished = if let Some(source) = &answer.source {
            source.finished.clone_ref(self.py)
        } else {
            let finished = self.finished(intern!(self.py, "peeked"), name, answer)?;
            if observed { self.observed(finished)? } else { finished }
        };
        self.decisions.peek(finished.into_bound(self.py)).map(Bound::unbind)
    }

    fn share(&self, object: &Py<PyAny>) -> Py<PyAny> {
        object.clone_ref(self.py)
    }
}

impl<'py> Border<'_, 'py> {
    /// Reads the package's `Judged`, by place as a tuple.
    fn judged(&self, judged: &Bound<'py, PyAny>) -> PyResult<Judged> {
        let (zone, delay_ns, shed, reason, lease, by_line, Ns(until_ns), renewal, other): JudgedParts<'py> =
            judged.extract()?;
        let told = Told { zone: self.vocabulary.zone(&zone), delay_ns, shed, reason: self.vocabulary.reason(&reason)? };
        let Some(lease) = lease else { return Ok(Judged { told, lent: None }) };
        let other = other.map(|other| self.judged(&other)).transpose()?.map(|other| other.told);
        let lent = Lent { lease: Arc::clone(&lease.get().0), by_line, until_ns, renewal, other };
        Ok(Judged { told, lent: Some(lent) })
    }

    /// Has the host put an answer into words.
    fn outlined(&self, answer: &Answer<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let (py, vocabulary) = (self.py, self.vocabulary);
        let zone = answer.zone.map(|zone| vocabulary.zone_member(py, zone).clone());
        let reason = vocabulary.reason_member(py, answer.reason).clone();
        let probe_ns = answer.retry_at_ns.map(|retry_at_ns| (retry_at_ns - answer.issued_ns).max(0));
        ask!(self.shared, py, outlined(zone, answer.delay_ns, answer.shed, reason, probe_ns)).map(Bound::unbind)
    }

    /// Has a method of the host's make the package's `Answer`.
    fn finished(
        &self,
        method: &Bound<'py, PyString>,
        name: &Bound<'py, PyString>,
        answer: &Answer<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let (py, vocabulary) = (self.py, self.vocabulary);
        let fields: [Bound<'_, PyAny>; 8] = [
            vocabulary.priority_member(py, answer.priority).clone(),
            name.clone().into_any(),
            answer.delay_ns.into_pyobject(py)?.into_any(),
            answer.shed.into_pyobject(py)?.to_owned().into_any(),
            vocabulary.reason_member(py, answer.reason).clone(),
            answer.backlog.into_pyobject(py)?,
            answer.zone.map(|zone| vocabulary.zone_member(py, zone).clone()).into_pyobject(py)?,
            answer.retry_at_ns.into_pyobject(py)?,
        ];
        self.shared.ask(py, method, &fields).map(Bound::unbind)
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
        Bound::new(self.py, Queue::new(name.clone(), core))
    }

    fn find(&self, name: &Self::Name) -> PyResult<Option<Self::Stored>> {
        self.table.look(name, |queue| queue.bind(self.py).clone())
    }

    fn insert(&self, stored: &Self::Stored) -> PyResult<bool> {
        self.table.insert(stored)
    }

    fn remove(&self, stored: &Self::Stored) -> PyResult<bool> {
        self.table.remove(stored)
    }

    fn lay_aside(&self, stored: Self::Stored) -> PyResult<()> {
        self.table.aside.add(stored);
        Ok(())
    }

    fn aside(&self) -> Vec<Self::Stored> {
        self.table.aside.all(self.py)
    }

    fn let_go(&self, stored: &Self::Stored) -> PyResult<bool> {
        Ok(self.table.aside.remove(stored))
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
        ask!(self.shared, self.py, evicted(name)).map(drop)
    }
}
