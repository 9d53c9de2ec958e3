//! The hot calls, as `CPython` makes them: no arguments are packed and nothing is set up that they do not need.
//!
//! What stands here serves the case where an answer lies ready. In every other case `suggest_throttle` and `suggest` are
//! passed on to the ordinary methods of those names, and `run` to the host, with the arguments as they came.
//!
//! A job may run, or sleep, until the interpreter ends. Before Python 3.14 a daemon thread is then ended by unwinding its
//! stack from the place where it next asks for the interpreter. So between `run` and the job there is no function that
//! may not be unwound, `PyO3`'s included, and nothing that would be dropped, which takes an interpreter.

#![expect(unsafe_code, reason = "entered by CPython with bare pointers; an ordinary method costs a third more")]

use std::ffi::{CStr, c_int};
use std::hint::black_box;
use std::{mem, ptr};

use backpressure_core::Priority;
use backpressure_core::breaker::is_pristine;
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

use crate::engine::{Engine, Queue};
use crate::gate::Gate;

type Arguments = *const *mut PyObject;
type Ordinary = PyOnceLock<Py<PyAny>>;

static SUGGEST_THROTTLE: Ordinary = PyOnceLock::new();
static GATE_SUGGEST: Ordinary = PyOnceLock::new();

/// Puts the hot calls before the ordinary methods of the same names.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let (engine, gate) = (py.get_type::<Engine>(), py.get_type::<Gate>());
    precede(
        &engine,
        Some(&SUGGEST_THROTTLE),
        c"suggest_throttle",
        fast(suggest_throttle),
        c"\
suggest_throttle($self, priority, queue_name)\n--\n\nDecide and admit: the whole decision.",
    )?;
    precede(
        &engine,
        None,
        c"run",
        unwound(run),
        c"\
run($self, priority, queue_name, work, /, *args, max_wait=None, **kwargs)\n--\n\n\
Run a job: at once where a go lies ready, else as the host does.",
    )?;
    precede(
        &gate,
        Some(&GATE_SUGGEST),
        c"suggest",
        bare(gate_suggest),
        c"\
suggest($self)\n--\n\nDecide and admit: the whole decision.",
    )?;
    precede(
        &gate,
        None,
        c"run",
        unwound(gate_run),
        c"\
run($self, work, /, *args, **kwargs)\n--\n\n\
Run a job: at once where a go lies ready, else as the host does. All keyword arguments are for the work.",
    )
}

type Entry = (ffi::PyMethodDefPointer, c_int);

fn fast(function: ffi::PyCFunctionFastWithKeywords) -> Entry {
    (ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function }, ffi::METH_FASTCALL | ffi::METH_KEYWORDS)
}

type MayUnwind = unsafe extern "C-unwind" fn(*mut PyObject, Arguments, Py_ssize_t, *mut PyObject) -> *mut PyObject;

fn unwound(function: MayUnwind) -> Entry {
    // SAFETY: the two differ in what may come out besides a value, and CPython's own functions let that pass.
    fast(unsafe { mem::transmute::<MayUnwind, ffi::PyCFunctionFastWithKeywords>(function) })
}

fn bare(function: ffi::PyCFunction) -> Entry {
    (ffi::PyMethodDefPointer { PyCFunction: function }, ffi::METH_NOARGS)
}

fn precede(
    class: &Bound<'_, PyType>,
    ordinary: Option<&Ordinary>,
    name: &'static CStr,
    (ml_meth, ml_flags): Entry,
    doc: &'static CStr,
) -> PyResult<()> {
    let py = class.py();
    let attribute = PyString::new(py, &name.to_string_lossy());
    if let Some(ordinary) = ordinary {
        ordinary.get_or_try_init(py, || class.getattr(&attribute).map(Bound::unbind))?;
    }
    // CPython keeps the pointer for as long as the class lives, which is for ever.
    let definition =
        Box::leak(Box::new(ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth, ml_flags, ml_doc: doc.as_ptr() }));
    // SAFETY: `class` is a type, the definition is of a function with the flags' signature and is never freed.
    let method = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), definition))? };
    class.setattr(attribute, method)
}

// SAFETY, for all entries: CPython calls them with the thread attached, an instance of the class that they belong to as
// `slf`, and `nargs` positional arguments at `args`, followed by one for each of `names`; all outlive the call.

unsafe extern "C" fn suggest_throttle(
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    if nargs == 2 && names.is_null() {
        // SAFETY: see above; there are two arguments.
        let (py, engine, [priority, name]) = unsafe {
            let py = Python::assume_attached();
            (py, object::<Engine>(py, &slf).get(), [object(py, &*args), object(py, &*args.add(1))])
        };
        if let Some((name, priority)) = known(engine, name, priority) {
            match engine.hand_out_by_name(name, priority, |_| true, |_, decision| decision) {
                Ok(Some(decision)) => return decision.into_ptr(),
                Ok(None) => {}
                Err(error) => return raise(py, error),
            }
        }
    }
    // SAFETY: see above.
    unsafe { pass_on(&SUGGEST_THROTTLE, slf, args, nargs, names) }
}

unsafe extern "C-unwind" fn run(
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see above.
    if nargs >= 3 && !unsafe { has_max_wait(names) } {
        // SAFETY: see above; there are at least two arguments.
        let (py, engine, [priority, name]) = unsafe {
            let py = Python::assume_attached();
            (py, object::<Engine>(py, &slf).get(), [object(py, &*args), object(py, &*args.add(1))])
        };
        if let Some((name, priority)) = known(engine, name, priority) {
            let take = |queue: &Py<Queue>, decision| (queue.bind(py).clone(), decision);
            match engine.hand_out_by_name(name, priority, |ready| ready.goes, take) {
                // SAFETY: see above; the third argument is the work, and what follows is for the work.
                Ok(Some((queue, decision))) => unsafe {
                    return perform(engine, queue, decision, args.add(2), nargs - 2, names);
                },
                Ok(None) => {}
                Err(error) => return raise(py, error),
            }
        }
    }
    // SAFETY: see above.
    unsafe {
        let py = Python::assume_attached();
        match object::<Engine>(py, &slf).get().host.bind(py).getattr(intern!(py, "run")) {
            Ok(method) => call(method.into_ptr(), args, nargs, names),
            Err(error) => raise(py, error),
        }
    }
}

unsafe extern "C" fn gate_suggest(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see above.
    let (py, gate) = unsafe {
        let py = Python::assume_attached();
        (py, object::<Gate>(py, &slf).get())
    };
    match gate.hand_out(py, |_| true, |_, decision| decision) {
        Ok(Some(decision)) => return decision.into_ptr(),
        Ok(None) => {}
        Err(error) => return raise(py, error),
    }
    // SAFETY: see above.
    unsafe { pass_on(&GATE_SUGGEST, slf, ptr::null(), 0, ptr::null_mut()) }
}

unsafe extern "C-unwind" fn gate_run(
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see above.
    let (py, gate) = unsafe {
        let py = Python::assume_attached();
        (py, object::<Gate>(py, &slf).get())
    };
    if nargs >= 1 {
        let take = |queue: &Py<Queue>, decision| (queue.bind(py).clone(), decision);
        match gate.hand_out(py, |ready| ready.goes, take) {
            // SAFETY: see above; the first argument is the work, and what follows is for the work.
            Ok(Some((queue, decision))) => unsafe {
                return perform(gate.engine.get(), queue, decision, args, nargs, names);
            },
            Ok(None) => {}
            Err(error) => return raise(py, error),
        }
    }
    // SAFETY: see above.
    let value = unsafe { call(gate.run_within.clone_ref(py).into_ptr(), args, nargs, names) };
    if !value.is_null()
        && let Err(error) = gate.find_queue(py)
    {
        // SAFETY: the value is ours.
        unsafe { ffi::Py_DECREF(value) };
        return raise(py, error);
    }
    value
}

#[cold]
fn raise(py: Python<'_>, error: PyErr) -> *mut PyObject {
    error.restore(py);
    ptr::null_mut()
}

/// Types a bare pointer.
///
/// # Safety
/// It points to a living `T`.
#[inline]
unsafe fn object<'a, 'py, T>(py: Python<'py>, pointer: &'a *mut PyObject) -> &'a Bound<'py, T> {
    // SAFETY: that is the caller's promise.
    unsafe { Bound::ref_from_ptr(py, pointer).cast_unchecked() }
}

/// Returns name and priority of a call, where looking them up calls nothing of Python's.
#[inline]
fn known<'a, 'py>(
    engine: &Engine,
    name: &'a Bound<'py, PyAny>,
    priority: &Bound<'py, PyAny>,
) -> Option<(&'a Bound<'py, PyString>, Priority)> {
    Some((name.cast_exact().ok()?, engine.vocabulary.known_priority(priority)?))
}

/// Tells whether `max_wait` is among the names of the keyword arguments.
///
/// # Safety
/// `names` is null or a tuple of strings.
#[inline]
unsafe fn has_max_wait(names: *mut PyObject) -> bool {
    if names.is_null() {
        return false;
    }
    // SAFETY: that is the caller's promise.
    unsafe {
        (0..ffi::PyTuple_GET_SIZE(names)).any(|index| {
            ffi::PyUnicode_CompareWithASCIIString(ffi::PyTuple_GET_ITEM(names, index), c"max_wait".as_ptr()) == 0
        })
    }
}

/// Does the work of an admitted job and reports its outcome.
///
/// # Safety
/// `args` holds the work, then its `nargs - 1` positional arguments, then one for each of `names`.
#[inline]
unsafe fn perform(
    engine: &Engine,
    queue: Bound<'_, Queue>,
    decision: Bound<'_, PyAny>,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // Where there was no failure to forget, any that is found later came meanwhile.
    let began_ns = if is_pristine(queue.get().core.breaker.word()) {
        engine.origin_ns()
    } else {
        match engine.clock.now_ns(queue.py()) {
            Ok(now_ns) => now_ns,
            Err(error) => return raise(queue.py(), error),
        }
    };
    let (queue, decision) = (queue.into_ptr(), decision.into_ptr()); // not to be dropped by unwinding
    // SAFETY: that is the caller's promise.
    let value = unsafe { vectorcall()(*args, args.add(1), nargs.cast_unsigned() - 1, names) };
    // SAFETY: the thread is attached again; both pointers are ours.
    let (queue, decision) = unsafe {
        let py = Python::assume_attached();
        (Bound::from_owned_ptr(py, queue).cast_into_unchecked::<Queue>(), Bound::from_owned_ptr(py, decision))
    };
    // SAFETY: a value that is not null is a living object.
    let plain = !value.is_null() && unsafe { ffi::Py_TYPE(value) != &raw mut ffi::PyCoro_Type };
    if plain && is_pristine(queue.get().core.breaker.word()) {
        return value; // into a pristine circuit a success need not be reported
    }
    // Attached anew, for PyO3 to know: what follows makes and drops objects.
    Python::attach(|py| {
        // SAFETY: the value is ours, or null with an exception set.
        let outcome = unsafe { Bound::from_owned_ptr_or_err(py, value) };
        match report(engine, &decision, outcome, began_ns) {
            Ok(value) => value.into_ptr(),
            Err(error) => raise(py, error),
        }
    })
}

type Never = unsafe extern "C" fn(*mut PyObject, Arguments, usize, *mut PyObject) -> *mut PyObject;
type Maybe = unsafe extern "C-unwind" fn(*mut PyObject, Arguments, usize, *mut PyObject) -> *mut PyObject;

/// Returns `PyObject_Vectorcall`, of which `PyO3` tells the compiler that it never unwinds: it must not recognize it.
#[inline]
fn vectorcall() -> Maybe {
    // SAFETY: the two differ in what may come out besides a value, which is what this is for.
    black_box(unsafe { mem::transmute::<Never, Maybe>(ffi::PyObject_Vectorcall) })
}

/// Calls a function of the host's, and gives up the reference to it.
///
/// # Safety
/// As for the entries; `function` is ours.
#[cold]
unsafe fn call(function: *mut PyObject, args: Arguments, nargs: Py_ssize_t, names: *mut PyObject) -> *mut PyObject {
    // SAFETY: that is the caller's promise.
    unsafe {
        let value = vectorcall()(function, args, nargs.cast_unsigned(), names);
        ffi::Py_DECREF(function);
        value
    }
}

fn report<'py>(
    engine: &Engine,
    decision: &Bound<'_, PyAny>,
    outcome: PyResult<Bound<'py, PyAny>>,
    began_ns: i64,
) -> PyResult<Bound<'py, PyAny>> {
    let py = decision.py();
    match &outcome {
        Ok(value) => engine.host.call_method1(py, intern!(py, "report_success"), (decision, value))?,
        Err(error) => {
            engine.host.call_method1(py, intern!(py, "report_error"), (decision, error.value(py), began_ns))?
        }
    };
    outcome
}

/// Calls the ordinary method.
///
/// # Safety
/// As for the entries.
#[cold]
unsafe fn pass_on(
    ordinary: &Ordinary,
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for the entries. The ordinary method was stored before any entry could be called.
    unsafe {
        let py = Python::assume_attached();
        let keywords = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names) };
        let given = (0..(nargs + keywords).cast_unsigned()).map(|index| *args.add(index));
        let with_self: Vec<_> = std::iter::once(slf).chain(given).collect();
        let method = ordinary.get(py).map_or(ptr::null_mut(), Py::as_ptr);
        ffi::PyObject_Vectorcall(method, with_self.as_ptr(), nargs.cast_unsigned() + 1, names)
    }
}
