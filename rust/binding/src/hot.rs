//! The hot calls, as `CPython` makes them: no arguments are packed, and nothing is set up that they do not need.
//!
//! This file is for the case that an answer lies ready, or a delay of which each caller gets its own decision, or the
//! refusal of a lease. In every other case `suggest_throttle` and `suggest` are passed on to the ordinary methods of those names, and `run` to the
//! host, with the arguments as they came.
//!
//! A job may run, or sleep, until the interpreter ends. Before Python 3.14 a daemon thread is then ended by unwinding
//! its stack from the place where it next asks for the interpreter. So between `run` and the job there is no function
//! that must not be unwound, such as `PyO3`'s, and nothing to be dropped, for which the interpreter would be needed.
//!
//! A job may also run while the interpreter ends, from a finalizer. Then nobody may attach to the interpreter any more,
//! and nobody needs to: who is called here is attached. `PyO3` does not know that, so its ways to attach are not used
//! here.

#![expect(unsafe_code, reason = "entered by CPython with bare pointers; an ordinary method costs a third more")]

use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{mem, ptr};

use backpressure_core::vocabulary::Priority;
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

use crate::bare::{nameable, object};
use crate::crossing::vectorcall;
use crate::engine::{Asks, Engine};
use crate::gate::Gate;
use crate::outcome::{Go, settle};
use crate::queue::{Queue, Ready};
use crate::tenant::Tenant;

type Arguments = *const *mut PyObject;
type Ordinary = PyOnceLock<Py<PyAny>>;

static SUGGEST_THROTTLE: Ordinary = PyOnceLock::new();
static GATE_SUGGEST: Ordinary = PyOnceLock::new();
static GATE_SUGGEST_FOR: Ordinary = PyOnceLock::new();

/// Replaces the ordinary methods by the hot calls of the same names, which call them in turn.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let (engine, gate) = (py.get_type::<Engine>(), py.get_type::<Gate>());
    precede(
        &engine,
        Some(&SUGGEST_THROTTLE),
        c"suggest_throttle",
        fast(suggest_throttle),
        c"\
suggest_throttle($self, priority, queue_name, *, tenant=None)\n--\n\nDecide and admit: the whole decision.",
    )?;
    precede(
        &engine,
        None,
        c"run",
        unwound(run),
        c"\
run($self, priority, queue_name, work, /, *args, max_wait=None, patient=False, tenant=None, **kwargs)\n--\n\n\
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
    )?;
    precede(
        &gate,
        Some(&GATE_SUGGEST_FOR),
        c"suggest_for",
        of_one(gate_suggest_for),
        c"\
suggest_for($self, tenant, /)\n--\n\nDecide and admit on behalf of a tenant.",
    )?;
    precede(
        &gate,
        None,
        c"run_for",
        unwound(gate_run_for),
        c"\
run_for($self, tenant, work, /, *args, **kwargs)\n--\n\nRun a job as `run` does, on behalf of a tenant.",
    )
}

type Entry = (ffi::PyMethodDefPointer, c_int);

fn fast(function: ffi::PyCFunctionFastWithKeywords) -> Entry {
    (ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function }, ffi::METH_FASTCALL | ffi::METH_KEYWORDS)
}

type MayUnwind = unsafe extern "C-unwind" fn(*mut PyObject, Arguments, Py_ssize_t, *mut PyObject) -> *mut PyObject;

fn unwound(function: MayUnwind) -> Entry {
    // SAFETY: the two types differ in whether the function may unwind; CPython's own functions can be unwound.
    fast(unsafe { mem::transmute::<MayUnwind, ffi::PyCFunctionFastWithKeywords>(function) })
}

fn bare(function: ffi::PyCFunction) -> Entry {
    (ffi::PyMethodDefPointer { PyCFunction: function }, ffi::METH_NOARGS)
}

fn of_one(function: ffi::PyCFunction) -> Entry {
    (ffi::PyMethodDefPointer { PyCFunction: function }, ffi::METH_O)
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
    // SAFETY: see above; where a decision is looked for there are two arguments.
    unsafe {
        if nargs == 2
            && names.is_null()
            && let Some(decision) = ready_by_name(slf, args, is_whole, |_, decision| decision.into_ptr())
                .or_else(|| issue_by_name(slf, args))
        {
            return decision;
        }
        if nargs == 2
            && let Some(tenant) = only_tenant(args, nargs, names)
            && let Some(decision) = ready_for(slf, args, tenant)
        {
            return decision;
        }
        pass_on(&SUGGEST_THROTTLE, slf, args, nargs, names)
    }
}

unsafe extern "C-unwind" fn run(
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see above; the third argument is the work, and what follows is for the work.
    unsafe {
        if nargs >= 3
            && (names.is_null() || !has_own(names))
            && let Some(go) = find_go(slf, args)
        {
            return perform(slf, go, args.add(2), nargs - 2, names);
        }
        if nargs >= 3
            && let Some(tenant) = only_tenant(args, nargs, names)
            && let Some(go) = find_go_for(slf, args, tenant)
        {
            return perform(slf, go, args.add(2), nargs - 2, ptr::null_mut());
        }
        run_at_host(slf, args, nargs, names)
    }
}

unsafe extern "C" fn gate_suggest(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        ready_at_gate(slf, is_whole, |_, decision| decision.into_ptr())
            .or_else(|| issue_at_gate(slf))
            .unwrap_or_else(|| pass_on(&GATE_SUGGEST, slf, ptr::null(), 0, ptr::null_mut()))
    }
}

unsafe extern "C-unwind" fn gate_run(
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see above; the first argument is the work, and what follows is for the work.
    unsafe {
        if nargs >= 1
            && let Some(go) = find_go_at_gate(slf)
        {
            let engine = object::<Gate>(Python::assume_attached(), &slf).get().engine.as_ptr();
            return perform(engine, go, args, nargs, names);
        }
        gate_run_at_host(slf, args, nargs, names, false)
    }
}

unsafe extern "C" fn gate_suggest_for(slf: *mut PyObject, tenant: *mut PyObject) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        guarded(|| {
            let py = Python::assume_attached();
            let gate = object::<Gate>(py, &slf).get();
            let found = gate.hand_out_for(py, object(py, &tenant), true, |_, decision, _| decision);
            found.unwrap_or_else(|error| raise(py, error)).map(Bound::into_ptr)
        })
        .unwrap_or_else(|| pass_on(&GATE_SUGGEST_FOR, slf, &raw const tenant, 1, ptr::null_mut()))
    }
}

unsafe extern "C-unwind" fn gate_run_for(
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see above; the first argument is the tenant, the second the work, and what follows is for the work.
    unsafe {
        if nargs >= 2
            && let Some(go) = find_go_at_gate_for(slf, *args)
        {
            let engine = object::<Gate>(Python::assume_attached(), &slf).get().engine.as_ptr();
            return perform(engine, go, args.add(1), nargs - 1, names);
        }
        gate_run_at_host(slf, args, nargs, names, true)
    }
}

// Functions of their own, so that what they need is off the stack while the work runs.

#[inline(never)]
unsafe fn find_go(slf: *mut PyObject, args: Arguments) -> Option<Go> {
    // SAFETY: as for the entries.
    unsafe { ready_by_name(slf, args, |ready| ready.kind.goes(), go) }
}

#[inline(never)]
unsafe fn find_go_at_gate(slf: *mut PyObject) -> Option<Go> {
    // SAFETY: as for the entries.
    unsafe { ready_at_gate(slf, |ready| ready.kind.goes(), go) }
}

#[inline(never)]
unsafe fn find_go_for(slf: *mut PyObject, args: Arguments, tenant: *mut PyObject) -> Option<Go> {
    // SAFETY: as for the entries.
    unsafe { ready_by_name_for(slf, args, tenant, false, |queue, decision, _| go(queue, decision)) }
}

#[inline(never)]
unsafe fn find_go_at_gate_for(slf: *mut PyObject, tenant: *mut PyObject) -> Option<Go> {
    guarded(|| {
        // SAFETY: as for the entries.
        let (py, gate) = unsafe {
            let py = Python::assume_attached();
            (py, object::<Gate>(py, &slf).get())
        };
        // SAFETY: likewise.
        let tenant = unsafe { object(py, &tenant) };
        let found = gate.hand_out_for(py, tenant, false, |queue, decision, _| go(queue, decision));
        found.unwrap_or_else(|error| raise(py, error))
    })
}

#[inline(never)]
unsafe fn ready_for(slf: *mut PyObject, args: Arguments, tenant: *mut PyObject) -> Option<*mut PyObject> {
    // SAFETY: as for the entries.
    unsafe { ready_by_name_for(slf, args, tenant, true, |_, decision, _| decision.into_ptr()) }
}

/// Returns what `take` makes of the answer that lies ready for the priority and the name at `args`, and a tenant. Where there
/// is none an exception may be set: an injected clock's.
#[inline]
unsafe fn ready_by_name_for<R>(
    slf: *mut PyObject,
    args: Arguments,
    tenant: *mut PyObject,
    impatient: bool,
    take: impl FnOnce(&Py<Queue>, Bound<'_, PyAny>, bool) -> R,
) -> Option<R> {
    guarded(|| {
        none_raised()?;
        // SAFETY: as for the entries; there are two arguments.
        let (py, engine, [priority, name, tenant]) = unsafe {
            let py = Python::assume_attached();
            let given = [object(py, &*args), object(py, &*args.add(1)), object(py, &tenant)];
            (py, object::<Engine>(py, &slf).get(), given)
        };
        let (name, priority) = known(engine, name, priority)?;
        let tenant = Tenant::read(tenant)?;
        let found = engine.hand_out_for_by_name(name, priority, &tenant, impatient, take);
        found.unwrap_or_else(|error| raise(py, error))
    })
}

/// Returns the tenant, if it is all that is given by name.
///
/// # Safety
/// As for the entries.
#[inline(never)]
unsafe fn only_tenant(args: Arguments, nargs: Py_ssize_t, names: *mut PyObject) -> Option<*mut PyObject> {
    // SAFETY: that is the caller's promise.
    unsafe {
        if names.is_null() || ffi::PyTuple_GET_SIZE(names) != 1 {
            return None;
        }
        let name = ffi::PyTuple_GET_ITEM(names, 0);
        let given =
            (ffi::PyUnicode_CompareWithASCIIString(name, c"tenant".as_ptr()) == 0).then(|| *args.offset(nargs))?;
        (given != ffi::Py_None()).then_some(given)
    }
}

fn go(queue: &Py<Queue>, decision: Bound<'_, PyAny>) -> Go {
    Go::new(queue.bind(decision.py()).clone(), decision)
}

/// Returns what `take` makes of the answer that lies ready for the priority and the name at `args`. Where there is none
/// an exception may be set: an injected clock's.
#[inline]
unsafe fn ready_by_name<R>(
    slf: *mut PyObject,
    args: Arguments,
    accept: impl FnOnce(&Ready) -> bool,
    take: impl FnOnce(&Py<Queue>, Bound<'_, PyAny>) -> R,
) -> Option<R> {
    guarded(|| {
        // SAFETY: as for the entries; there are two arguments.
        let (py, engine, [priority, name]) = unsafe {
            let py = Python::assume_attached();
            (py, object::<Engine>(py, &slf).get(), [object(py, &*args), object(py, &*args.add(1))])
        };
        let (name, priority) = known(engine, name, priority)?;
        engine.hand_out_by_name(name, priority, accept, take).unwrap_or_else(|error| raise(py, error))
    })
}

/// As `ready_by_name`, for a gate.
#[inline]
unsafe fn ready_at_gate<R>(
    slf: *mut PyObject,
    accept: impl FnOnce(&Ready) -> bool,
    take: impl FnOnce(&Py<Queue>, Bound<'_, PyAny>) -> R,
) -> Option<R> {
    guarded(|| {
        // SAFETY: as for the entries.
        let (py, gate) = unsafe {
            let py = Python::assume_attached();
            (py, object::<Gate>(py, &slf).get())
        };
        gate.hand_out(py, accept, take).unwrap_or_else(|error| raise(py, error))
    })
}

/// Tells whether callers get the decision that lies there, not one of their own.
#[inline]
fn is_whole(ready: &Ready) -> bool {
    !ready.kind.is_delay()
}

/// Returns the decision of the delay, or of the lease's refusal, that lies ready for the priority and the name at `args`.
/// Where there is none an exception may be set.
#[inline(never)]
unsafe fn issue_by_name(slf: *mut PyObject, args: Arguments) -> Option<*mut PyObject> {
    guarded(|| {
        none_raised()?;
        // SAFETY: as for the entries; there are two arguments.
        let (py, engine, [priority, name]) = unsafe {
            let py = Python::assume_attached();
            (py, object::<Engine>(py, &slf).get(), [object(py, &*args), object(py, &*args.add(1))])
        };
        let (name, priority) = known(engine, name, priority)?;
        engine
            .issue_by_name(name, priority, Asks::SUGGESTS)
            .unwrap_or_else(|error| raise(py, error))
            .map(Bound::into_ptr)
    })
}

/// As `issue_by_name`, for a gate.
#[inline(never)]
unsafe fn issue_at_gate(slf: *mut PyObject) -> Option<*mut PyObject> {
    guarded(|| {
        none_raised()?;
        // SAFETY: as for the entries.
        let (py, gate) = unsafe {
            let py = Python::assume_attached();
            (py, object::<Gate>(py, &slf).get())
        };
        gate.issue(py).unwrap_or_else(|error| raise(py, error)).map(Bound::into_ptr)
    })
}

/// Returns `None` where an exception is set: an injected clock's.
fn none_raised() -> Option<()> {
    // SAFETY: who is called here is attached.
    unsafe { ffi::PyErr_Occurred().is_null() }.then_some(())
}

/// Lets no panic into `CPython`'s frames: an answer that cannot be looked at counts as not ready, and the ordinary
/// method tells why. The unwinding that ends a thread, which nobody may catch, never gets here: see `crossing.rs`.
#[inline]
fn guarded<R>(look: impl FnOnce() -> Option<R>) -> Option<R> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or(None)
}

#[cold]
fn raise<T>(py: Python<'_>, error: PyErr) -> Option<T> {
    error.restore(py);
    None
}

/// Returns name and priority of a call, where looking them up calls nothing of Python's.
#[inline]
fn known<'a, 'py>(
    engine: &Engine,
    name: &'a Bound<'py, PyAny>,
    priority: &Bound<'py, PyAny>,
) -> Option<(&'a Bound<'py, PyString>, Priority)> {
    Some((nameable(name)?, engine.vocabulary.known_priority(priority)?))
}

/// Tells whether the keyword arguments are not for the work alone: `max_wait`, `patient` or `tenant` is among their names.
///
/// # Safety
/// `names` is a tuple of strings.
#[inline(never)]
unsafe fn has_own(names: *mut PyObject) -> bool {
    // SAFETY: that is the caller's promise.
    unsafe {
        (0..ffi::PyTuple_GET_SIZE(names)).any(|index| {
            let name = ffi::PyTuple_GET_ITEM(names, index);
            let is = |own: &CStr| ffi::PyUnicode_CompareWithASCIIString(name, own.as_ptr()) == 0;
            match ffi::PyUnicode_GET_LENGTH(name) {
                6 => is(c"tenant"),
                7 => is(c"patient"),
                8 => is(c"max_wait"),
                _ => false,
            }
        })
    }
}

/// Does the work of an admitted job and has its outcome reported.
///
/// # Safety
/// As for the entries; `engine` is one, and `args` holds the work, then its `nargs - 1` positional arguments, then one
/// for each of `names`.
#[expect(clippy::inline_always, reason = "two callers, both hot, and a frame each on the stack of the work")]
#[inline(always)]
unsafe fn perform(
    engine: *mut PyObject,
    go: Go,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: that is the caller's promise.
    unsafe {
        let Some(began_ns) = go.begin(engine) else {
            go.give_up();
            return ptr::null_mut();
        };
        // CPython counts no calls of functions like these, which may lead back here without end.
        let value = if ffi::Py_EnterRecursiveCall(c" in a job".as_ptr()) == 0 {
            let value = vectorcall()(*args, args.add(1), nargs.cast_unsigned() - 1, names);
            ffi::Py_LeaveRecursiveCall();
            value
        } else {
            ptr::null_mut()
        };
        settle(engine, go, began_ns, value)
    }
}

// What is called when no answer lies ready. SAFETY, for these: as for the entries.

#[cold]
unsafe fn run_at_host(slf: *mut PyObject, args: Arguments, nargs: Py_ssize_t, names: *mut PyObject) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let py = Python::assume_attached();
        let host = object::<Engine>(py, &slf).get().shared.get().host.as_ptr();
        call(ffi::PyObject_GetAttr(host, intern!(py, "run").as_ptr()), args, nargs, names)
    }
}

#[cold]
unsafe fn gate_run_at_host(
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
    for_tenant: bool,
) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        let py = Python::assume_attached();
        let gate = object::<Gate>(py, &slf).get();
        let run = if for_tenant { &gate.run_for } else { &gate.run_within };
        let value = call(run.clone_ref(py).into_ptr(), args, nargs, names);
        if !value.is_null() {
            guarded(|| {
                gate.find_queue(py);
                Some(())
            });
        }
        value
    }
}

/// Calls a function of the host's, and gives up the reference to it. Null stands for an exception.
unsafe fn call(function: *mut PyObject, args: Arguments, nargs: Py_ssize_t, names: *mut PyObject) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        if function.is_null() {
            return function;
        }
        let value = vectorcall()(function, args, nargs.cast_unsigned(), names);
        ffi::Py_DECREF(function);
        value
    }
}

/// Calls the ordinary method.
#[cold]
unsafe fn pass_on(
    ordinary: &Ordinary,
    slf: *mut PyObject,
    args: Arguments,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see above.
    unsafe {
        if !ffi::PyErr_Occurred().is_null() {
            return ptr::null_mut();
        }
        // It was stored before any entry could be called. Methods of classes are bound by this slot.
        let method = ordinary.get(Python::assume_attached()).map_or(ptr::null_mut(), Py::as_ptr);
        let bind = (*ffi::Py_TYPE(method)).tp_descr_get;
        let bound = bind.map_or(ptr::null_mut(), |bind| bind(method, slf, ffi::Py_TYPE(slf).cast()));
        call(bound, args, nargs, names)
    }
}
