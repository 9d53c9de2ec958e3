//! What the engine shares with the package's Python side: enum members, the checks of its input, and its totals.

use backpressure_core::counters::Totals;
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::zone::Zone;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple};

use crate::bare::nameable;
use crate::crossing;

static VOCABULARY: PyOnceLock<Vocabulary> = PyOnceLock::new();

/// What is imported once.
pub struct Vocabulary {
    priorities: Members<3>,
    // As literals come: interned.
    literals: Members<3>,
    zones: Members<3>,
    reasons: Members<{ Reason::ALL.len() }>,
    parse_priority: Py<PyAny>,
    validate_queue_name: Py<PyAny>,
    totals: Py<PyAny>,
}

impl Vocabulary {
    /// Returns the only one, made at the first call.
    pub fn get(py: Python<'_>) -> PyResult<&'static Self> {
        VOCABULARY.get_or_try_init(py, || Self::load(py))
    }

    fn load(py: Python<'_>) -> PyResult<Self> {
        let words = py.import("backpressure._model.vocabulary")?;
        let [priority, zone, reason] = ["Priority", "Zone", "Reason"].map(|name| words.getattr(name));
        let (zones, reasons) = (Zone::ALL.map(|(_, name)| name), Reason::ALL.map(|(_, name)| name));
        let arguments = py.import("backpressure._model.arguments")?;
        Ok(Self {
            priorities: Members::of(&priority?, Priority::NAMES)?,
            literals: Members(Priority::NAMES.map(|name| PyString::intern(py, name).into_any().unbind())),
            zones: Members::of(&zone?, zones)?,
            reasons: Members::of(&reason?, reasons)?,
            parse_priority: arguments.getattr("parse_priority")?.unbind(),
            validate_queue_name: arguments.getattr("validate_queue_name")?.unbind(),
            totals: py.import("backpressure._engine.totals")?.getattr("Totals")?.unbind(),
        })
    }

    /// Returns a priority given as a member or by name. Identity comes first: nearly all are members or literals.
    #[inline]
    pub fn known_priority(&self, given: &Bound<'_, PyAny>) -> Option<Priority> {
        let index = self.priorities.place_of(given).or_else(|| self.literals.place_of(given));
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
        self.priorities.0[priority.index()].bind(py)
    }

    /// Returns a zone's member.
    pub fn zone_member<'py>(&self, py: Python<'py>, zone: Zone) -> &Bound<'py, PyAny> {
        self.zones.0[zone.index()].bind(py)
    }

    /// Returns the zone that a member stands for; `None` for Python's.
    pub fn zone(&self, member: &Bound<'_, PyAny>) -> Option<Zone> {
        self.zones.place_of(member).map(|index| Zone::ALL[index].0)
    }

    /// Returns a reason's member.
    pub fn reason_member<'py>(&self, py: Python<'py>, reason: Reason) -> &Bound<'py, PyAny> {
        self.reasons.0[reason.index()].bind(py)
    }

    /// Returns the reason that a member stands for.
    pub fn reason(&self, member: &Bound<'_, PyAny>) -> PyResult<Reason> {
        match self.reasons.place_of(member) {
            Some(index) => Ok(Reason::ALL[index].0),
            None => Err(PyTypeError::new_err(format!("expected a member of Reason, got {member:?}"))),
        }
    }

    /// Returns a legal queue name as an exact `str`, or raises `InvalidQueueError`.
    pub fn queue_name<'py>(&self, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
        Ok(crossing::call(self.validate_queue_name.bind(given.py()), (given,))?.cast_into()?)
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
    Priority::named(nameable(given)?.to_str().ok()?)
}

/// The members of an enumeration, in the core's order. They are singletons, so identity tells them apart.
struct Members<const N: usize>([Py<PyAny>; N]);

impl<const N: usize> Members<N> {
    /// Looks them up by their public names.
    fn of(enumeration: &Bound<'_, PyAny>, names: [&str; N]) -> PyResult<Self> {
        let members = names.iter().map(|name| enumeration.getattr(name.to_uppercase()).map(Bound::unbind));
        let members = members.collect::<PyResult<Vec<_>>>()?;
        Ok(Self(members.try_into().unwrap_or_else(|_| unreachable!("as many were found as there are names"))))
    }

    #[inline]
    fn place_of(&self, given: &Bound<'_, PyAny>) -> Option<usize> {
        self.0.iter().position(|member| given.is(member))
    }
}
