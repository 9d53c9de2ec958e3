//! What the engine shares with the package's Python side: enum members, the checks of its input, and its totals.

use backpressure_core::counters::Totals;
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::zone::Zone;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};

use crate::bare::nameable;
use crate::crossing;

const SPELLINGS: [&str; 3] = ["low", "medium", "high"];

static VOCABULARY: PyOnceLock<Vocabulary> = PyOnceLock::new();

/// Members are singletons, so identity tells them apart.
pub struct Vocabulary {
    priorities: [Py<PyAny>; 3],
    // As literals come: interned.
    spellings: [Py<PyString>; 3],
    zones: [Py<PyAny>; 3],
    reasons: [Py<PyAny>; Reason::ALL.len()],
    parse_priority: Py<PyAny>,
    validate_queue_name: Py<PyAny>,
    totals: Py<PyAny>,
    answer: Py<PyType>,
}

impl Vocabulary {
    /// Returns the only one, made at the first call.
    pub fn get(py: Python<'_>) -> PyResult<&'static Self> {
        VOCABULARY.get_or_try_init(py, || Self::load(py))
    }

    fn load(py: Python<'_>) -> PyResult<Self> {
        let words = py.import("backpressure._model.vocabulary")?;
        let (priority, zone, reason) = (words.getattr("Priority")?, words.getattr("Zone")?, words.getattr("Reason")?);
        let arguments = py.import("backpressure._model.arguments")?;
        Ok(Self {
            priorities: each(["LOW", "MEDIUM", "HIGH"], |name| Ok(priority.getattr(name)?.unbind()))?,
            spellings: SPELLINGS.map(|name| PyString::intern(py, name).unbind()),
            zones: each(Zone::ALL, |(_, name)| Ok(zone.call1((name,))?.unbind()))?,
            reasons: each(Reason::ALL, |(_, name)| Ok(reason.call1((name,))?.unbind()))?,
            parse_priority: arguments.getattr("parse_priority")?.unbind(),
            validate_queue_name: arguments.getattr("validate_queue_name")?.unbind(),
            totals: py.import("backpressure._engine.totals")?.getattr("Totals")?.unbind(),
            answer: py.import("backpressure._engine.border")?.getattr("Answer")?.cast_into()?.unbind(),
        })
    }

    /// Returns a priority given as a member or by name. Identity comes first: nearly all are members or literals.
    #[inline]
    pub fn known_priority(&self, given: &Bound<'_, PyAny>) -> Option<Priority> {
        let same = |known: &Py<PyAny>| given.is(known);
        let literal = |known: &Py<PyString>| given.is(known);
        let index = self.priorities.iter().position(same).or_else(|| self.spellings.iter().position(literal));
        index.map(|index| Priority::ALL[index]).or_else(|| spelled(given))
    }

    /// Returns a priority however it is given, or raises `InvalidPriorityError`.
    pub fn priority(&self, given: &Bound<'_, PyAny>) -> PyResult<Priority> {
        if let Some(priority) = self.known_priority(given) {
            return Ok(priority);
        }
        let member = crossing::call(self.parse_priority.bind(given.py()), (given,))?;
        Ok(self.known_priority(&member).expect("parse_priority returns a member"))
    }

    /// Returns the member of a priority.
    pub fn priority_member<'py>(&self, py: Python<'py>, priority: Priority) -> &Bound<'py, PyAny> {
        self.priorities[priority.index()].bind(py)
    }

    /// Returns a zone's member.
    pub fn zone_member<'py>(&self, py: Python<'py>, zone: Zone) -> &Bound<'py, PyAny> {
        self.zones[zone.index()].bind(py)
    }

    /// Returns a reason's member.
    pub fn reason_member<'py>(&self, py: Python<'py>, reason: Reason) -> &Bound<'py, PyAny> {
        self.reasons[reason.index()].bind(py)
    }

    /// Returns the reason that a member stands for.
    pub fn reason(&self, member: &Bound<'_, PyAny>) -> PyResult<Reason> {
        let index = self.reasons.iter().position(|reason| member.is(reason));
        index
            .map(|index| Reason::ALL[index].0)
            .ok_or_else(|| PyTypeError::new_err(format!("expected a member of Reason, got {member:?}")))
    }

    /// Returns a legal queue name as an exact `str`, or raises `InvalidQueueError`.
    pub fn queue_name<'py>(&self, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
        Ok(crossing::call(self.validate_queue_name.bind(given.py()), (given,))?.cast_into()?)
    }

    /// Builds the package's `Answer` of its fields.
    pub fn answer<'py>(&self, fields: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        crossing::named_tuple(self.answer.bind(fields.py()), fields)
    }

    /// Builds the package's `Totals`.
    pub fn totals<'py>(&self, py: Python<'py>, totals: &Totals) -> PyResult<Bound<'py, PyAny>> {
        let reasons = PyTuple::new(py, totals.reasons)?;
        let delays = PyTuple::new(py, totals.delays)?;
        let let_go = PyTuple::new(py, totals.let_go)?;
        let numbers = (reasons, totals.computed, delays, totals.delay_sum_ns, let_go, totals.late);
        crossing::call(self.totals.bind(py), numbers)
    }
}

#[cold]
fn spelled(given: &Bound<'_, PyAny>) -> Option<Priority> {
    let text = nameable(given)?.to_str().ok()?;
    SPELLINGS.iter().position(|spelling| *spelling == text).map(|index| Priority::ALL[index])
}

fn each<T, U, const N: usize>(items: [T; N], make: impl Fn(T) -> PyResult<U>) -> PyResult<[U; N]> {
    let list = items.into_iter().map(make).collect::<PyResult<Vec<U>>>()?;
    Ok(list.try_into().unwrap_or_else(|_| unreachable!("as many were made as there are items")))
}
