//! The outcome of a job that the engine ran: its value or exception, told to the host where there is something to tell.
//!
//! The threads of hot calls may be unwound (see `hot.rs`), so all is bare pointers, and nothing is to be dropped.
//! `PyO3` is shown no exception: it would panic at one that stands for a panic.

#![expect(unsafe_code, reason = "PyO3's own ways attach, drop on unwinding, and panic")]

use std::ptr::{self, NonNull};

use backpressure_core::word::is_pristine;
use pyo3::ffi::{self, PyObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::bare::object;
use crate::crossing::vectorcall_method;
use crate::engine::Engine;
use crate::plain;
use crate::queue::Queue;

/// The beginning of a job whose circuit had counted no failure: any failure that is found later came after it.
const BEFORE_ANY_FAILURE: i64 = i64::MIN;

/// The permission of one job: a decision, and its queue. Bare pointers, so that unwinding drops nothing.
pub struct Go {
    pub queue: NonNull<PyObject>,
    pub decision: NonNull<PyObject>,
}

impl Go {
    /// Takes over two references.
    pub fn new(queue: Bound<'_, Queue>, decision: Bound<'_, PyAny>) -> Self {
        // SAFETY: references are not null.
        unsafe {
            Self {
                queue: NonNull::new_unchecked(queue.into_ptr()),
                decision: NonNull::new_unchecked(decision.into_ptr()),
            }
        }
    }

    // SAFETY, for all: the thread is attached, nobody else gives the references up, and `engine` is one.

    /// Returns when the job begins; `None` with an exception set, an injected clock's.
    #[inline]
    pub unsafe fn begin(&self, engine: *mut PyObject) -> Option<i64> {
        // SAFETY: see above.
        unsafe { if self.is_pristine() { Some(BEFORE_ANY_FAILURE) } else { now_ns(engine) } }
    }

    unsafe fn is_pristine(&self) -> bool {
        // SAFETY: see above.
        unsafe {
            is_pristine(object::<Queue>(Python::assume_attached(), &self.queue.as_ptr()).get().core.breaker.word())
        }
    }

    pub unsafe fn give_up(self) {
        // SAFETY: see above.
        unsafe {
            ffi::Py_DECREF(self.queue.as_ptr());
            ffi::Py_DECREF(self.decision.as_ptr());
        }
    }
}

// SAFETY, for what follows: the thread is attached, `engine` is one, and `value` is the caller's own, or null with an
// exception set.

/// Takes what the work returned or raised; returns what the job does.
#[inline]
pub unsafe fn settle(engine: *mut PyObject, go: Go, began_ns: i64, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        if !value.is_null() && (value == ffi::Py_None() || plain::is_known(kind_of(value))) && go.is_pristine() {
            go.give_up(); // into a pristine circuit a success need not be reported
            return value;
        }
        settle_long(engine, go, began_ns, value)
    }
}

#[cold]
unsafe fn settle_long(engine: *mut PyObject, go: Go, began_ns: i64, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        let py = Python::assume_attached();
        let engine = object::<Engine>(py, &engine).get();
        let host = engine.shared.get().host.as_ptr();
        let began_ns = if began_ns == BEFORE_ANY_FAILURE { engine.origin_ns() } else { began_ns };
        let settled =
            if value.is_null() { tell_error(host, &go, began_ns, py) } else { tell_value(host, &go, value, py) };
        go.give_up();
        settled
    }
}

unsafe fn tell_value(host: *mut PyObject, go: &Go, value: *mut PyObject, py: Python<'_>) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        let settled = if go.is_pristine() { ask_if_plain(host, kind_of(value), py) } else { Some(false) };
        let told = match settled {
            Some(true) => return value,
            Some(false) => tell(intern!(py, "report_success"), [host, go.decision.as_ptr(), value]),
            None => false,
        };
        if told {
            return value;
        }
        ffi::Py_DECREF(value);
        ptr::null_mut()
    }
}

#[cold]
unsafe fn now_ns(engine: *mut PyObject) -> Option<i64> {
    // SAFETY: see above.
    unsafe {
        let py = Python::assume_attached();
        object::<Engine>(py, &engine).get().clock.now_ns(py).map_err(|error| error.restore(py)).ok()
    }
}

/// Returns ``None`` with an exception set.
unsafe fn ask_if_plain(host: *mut PyObject, kind: *mut PyObject, py: Python<'_>) -> Option<bool> {
    // SAFETY: see above.
    unsafe {
        let answer = vectorcall_method()(intern!(py, "is_plain").as_ptr(), [host, kind].as_ptr(), 2, ptr::null_mut());
        if answer.is_null() {
            return None;
        }
        let plain = answer == ffi::Py_True();
        ffi::Py_DECREF(answer);
        if plain {
            plain::remember(kind);
        }
        Some(plain)
    }
}

unsafe fn tell_error(host: *mut PyObject, go: &Go, began_ns: i64, py: Python<'_>) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        let error = take_raised();
        let began_ns = ffi::PyLong_FromLongLong(began_ns);
        let told =
            !began_ns.is_null() && tell(intern!(py, "report_error"), [host, go.decision.as_ptr(), error, began_ns]);
        ffi::Py_XDECREF(began_ns);
        if told {
            raise_again(error);
        } else {
            let newer = take_raised();
            let context = ffi::PyException_GetContext(newer);
            if context.is_null() && newer != error {
                ffi::PyException_SetContext(newer, error); // takes it over
            } else {
                ffi::Py_XDECREF(context);
                ffi::Py_DECREF(error);
            }
            raise_again(newer);
        }
        ptr::null_mut()
    }
}

/// Calls a method of the host's; returns ``false`` with an exception set.
unsafe fn tell<const N: usize>(method: &Bound<'_, PyString>, args: [*mut PyObject; N]) -> bool {
    // SAFETY: see above.
    unsafe {
        let told = vectorcall_method()(method.as_ptr(), args.as_ptr(), args.len(), ptr::null_mut());
        ffi::Py_XDECREF(told);
        !told.is_null()
    }
}

unsafe fn kind_of(value: *mut PyObject) -> *mut PyObject {
    // SAFETY: see above.
    unsafe { ffi::Py_TYPE(value).cast() }
}

#[cfg(Py_3_12)]
unsafe fn take_raised() -> *mut PyObject {
    // SAFETY: see above.
    unsafe { ffi::PyErr_GetRaisedException() }
}

#[cfg(Py_3_12)]
unsafe fn raise_again(error: *mut PyObject) {
    // SAFETY: see above.
    unsafe { ffi::PyErr_SetRaisedException(error) };
}

#[cfg(not(Py_3_12))]
unsafe fn take_raised() -> *mut PyObject {
    let (mut kind, mut error, mut traceback) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: see above.
    unsafe {
        ffi::PyErr_Fetch(&raw mut kind, &raw mut error, &raw mut traceback);
        ffi::PyErr_NormalizeException(&raw mut kind, &raw mut error, &raw mut traceback);
        if !traceback.is_null() {
            ffi::PyException_SetTraceback(error, traceback);
        }
        ffi::Py_XDECREF(kind);
        ffi::Py_XDECREF(traceback);
    }
    error
}

#[cfg(not(Py_3_12))]
unsafe fn raise_again(error: *mut PyObject) {
    // SAFETY: see above.
    unsafe {
        let kind = kind_of(error);
        ffi::Py_INCREF(kind);
        ffi::PyErr_Restore(kind, error, ffi::PyException_GetTraceback(error));
    }
}
