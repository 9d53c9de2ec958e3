//! The package's decisions, made without calling Python: an answer that many share, and beside it what is a caller's own.
//!
//! `ThrottleDecision` is a class of Python's, so that there is one class whatever the engine. Its slots are filled in
//! here as their descriptors would do it, where these say that they are.

#![expect(unsafe_code, reason = "Python's own way to fill slots, call by call, takes ten times as long")]

use backpressure_core::host::Issue;
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};
use pyo3::{ffi, intern};

use crate::breaker::Ticket;
use crate::crossing;

static DECISIONS: PyOnceLock<Decisions> = PyOnceLock::new();

/// The class, and where in its objects each slot lies, in bytes.
pub struct Decisions {
    class: Py<PyType>,
    answer: isize,
    issued_ns: isize,
    ticket: isize,
    computed: isize,
}

/// What a decision is made of, and what is its own.
pub struct Parts<'py> {
    pub answer: Bound<'py, PyAny>,
    pub issued_ns: Bound<'py, PyAny>,
    pub ticket: Bound<'py, PyAny>,
    pub computed: Bound<'py, PyAny>,
}

impl Decisions {
    /// Returns the only one, made at the first call.
    pub fn get(py: Python<'_>) -> PyResult<&'static Self> {
        DECISIONS.get_or_try_init(py, || Self::load(py))
    }

    fn load(py: Python<'_>) -> PyResult<Self> {
        let class = py.import("backpressure._model.decision")?.getattr("ThrottleDecision")?.cast_into::<PyType>()?;
        let place = |name| place_of(&class, name);
        Ok(Self {
            answer: place("_answer")?,
            issued_ns: place("_issued_ns")?,
            ticket: place("_ticket")?,
            computed: place("_computed")?,
            class: class.unbind(),
        })
    }

    /// Makes a decision of an answer.
    pub fn issue<'py>(&self, answer: Bound<'py, PyAny>, issue: Issue) -> PyResult<Bound<'py, PyAny>> {
        let py = answer.py();
        let issued_ns = issue.issued_ns.into_pyobject(py)?.into_any();
        let ticket = match issue.ticket {
            Some(ticket) => Bound::new(py, Ticket(ticket))?.into_any(),
            None => py.None().into_bound(py),
        };
        let computed = issue.computed.into_pyobject(py)?.to_owned().into_any();
        self.make(Parts { answer, issued_ns, ticket, computed })
    }

    /// Makes the decision of a caller that only looks.
    pub fn peek<'py>(&self, answer: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (none, computed) = (answer.py().None().into_bound(answer.py()), false.into_pyobject(answer.py())?);
        self.make(Parts { answer, issued_ns: none.clone(), ticket: none, computed: computed.to_owned().into_any() })
    }

    /// Makes a decision of its parts.
    pub fn make<'py>(&self, parts: Parts<'py>) -> PyResult<Bound<'py, PyAny>> {
        let decision = crossing::allocate(self.class.bind(parts.answer.py()))?;
        // SAFETY: the object is ours, its slots are empty, and lie where the descriptors of its class say.
        unsafe {
            let fill = |place, value: Bound<'_, PyAny>| {
                decision.as_ptr().byte_offset(place).cast::<*mut ffi::PyObject>().write(value.into_ptr());
            };
            fill(self.answer, parts.answer);
            fill(self.issued_ns, parts.issued_ns);
            fill(self.ticket, parts.ticket);
            fill(self.computed, parts.computed);
        }
        Ok(decision)
    }
}

/// Returns the parts of a decision. Nothing of Python's is called, where it is one.
pub fn parts<'py>(decision: &Bound<'py, PyAny>) -> PyResult<Parts<'py>> {
    let py = decision.py();
    Ok(Parts {
        answer: answer_of(decision)?,
        issued_ns: decision.getattr(intern!(py, "_issued_ns"))?,
        ticket: ticket_of(decision)?,
        computed: decision.getattr(intern!(py, "_computed"))?,
    })
}

/// Returns the answer of a decision.
pub fn answer_of<'py>(decision: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    decision.getattr(intern!(decision.py(), "_answer"))
}

/// Returns the ticket of a decision, or `None` of Python's.
pub fn ticket_of<'py>(decision: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    decision.getattr(intern!(decision.py(), "_ticket"))
}

/// Returns where a slot lies in objects of a class.
fn place_of(class: &Bound<'_, PyType>, name: &str) -> PyResult<isize> {
    let name = PyString::intern(class.py(), name);
    let descriptor = class.getattr(&name)?;
    // SAFETY: what a type object's address is compared with need not be read; a member's descriptor, which it is then,
    // keeps its class and the definition of the member alive.
    let found = unsafe {
        if ffi::Py_TYPE(descriptor.as_ptr()) == &raw mut ffi::PyMemberDescr_Type {
            let member = descriptor.as_ptr().cast::<ffi::PyMemberDescrObject>();
            let (definition, owner) = (&*(*member).d_member, (*member).d_common.d_type);
            (definition.type_code == ffi::Py_T_OBJECT_EX && owner == class.as_type_ptr()).then_some(definition.offset)
        } else {
            None
        }
    };
    found.ok_or_else(|| PyImportError::new_err(format!("{class} has no slot {name}: reinstall producer-backpressure")))
}
