//! Calls out into Python, from which a thread may never come back.
//!
//! Before Python 3.14 a daemon thread that asks for an interpreter which is ending is ended itself: its stack is
//! unwound. `PyO3`'s frames abort the process then. So code that has such frames below it calls Python through this
//! file, where unwinding ends: the thread waits until the process is gone, as in later Pythons.

#![expect(unsafe_code, reason = "PyO3 tells the compiler of every call into Python that it never unwinds")]

use std::hint::black_box;
use std::{mem, ptr, thread};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

const MOST: usize = 8;

type Never = unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject;
type Vectorcall =
    unsafe extern "C-unwind" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject;
type NeverOfTuple = unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
type NeverAllocates = unsafe extern "C" fn(*mut ffi::PyTypeObject, ffi::Py_ssize_t) -> *mut PyObject;
type Allocate = unsafe extern "C-unwind" fn(*mut ffi::PyTypeObject, ffi::Py_ssize_t) -> *mut PyObject;
type CallOfTuple = unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;

// SAFETY, for all of these: the two types differ only in whether the function may unwind. `black_box` keeps the
// compiler from recognizing the functions, which it believes not to unwind.

/// Returns `PyObject_Vectorcall`, for callers that may be unwound together with all below them: they have nothing to
/// drop.
#[inline]
pub fn vectorcall() -> Vectorcall {
    // SAFETY: see above.
    black_box(unsafe { mem::transmute::<Never, Vectorcall>(ffi::PyObject_Vectorcall) })
}

/// Returns `PyObject_VectorcallMethod`, likewise.
pub fn vectorcall_method() -> Vectorcall {
    // SAFETY: see above.
    black_box(unsafe { mem::transmute::<Never, Vectorcall>(ffi::PyObject_VectorcallMethod) })
}

/// Calls a function.
pub fn call<'py, A>(function: &Bound<'py, PyAny>, args: A) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
{
    let py = function.py();
    let args = args.into_pyobject(py).map_err(Into::into)?;
    // SAFETY: see above.
    let call = black_box(unsafe { mem::transmute::<NeverOfTuple, CallOfTuple>(ffi::PyObject_Call) });
    let end = EndOfUnwinding;
    // SAFETY: the thread is attached, and both objects live.
    let value = unsafe { call(function.as_ptr(), args.as_ptr(), ptr::null_mut()) };
    mem::forget(end);
    // SAFETY: the value is ours, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, value) }
}

/// Calls a method with arguments in a row, of which there are at most `MOST`.
pub fn call_method<'py, const N: usize>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    args: &[Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    const { assert!(N <= MOST) };
    let mut given = [ptr::null_mut(); MOST + 1];
    given[0] = object.as_ptr();
    for (place, argument) in given[1..].iter_mut().zip(args) {
        *place = argument.as_ptr();
    }
    let call = vectorcall_method();
    let end = EndOfUnwinding;
    // SAFETY: the thread is attached, and all objects live.
    let value = unsafe { call(name.as_ptr(), given.as_ptr(), N + 1, ptr::null_mut()) };
    mem::forget(end);
    // SAFETY: the value is ours, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), value) }
}

/// Makes an object of a class of Python's, its slots empty. A collection that is due may run here.
#[inline]
pub fn allocate<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: see above.
    let allocate = black_box(unsafe { mem::transmute::<NeverAllocates, Allocate>(ffi::PyType_GenericAlloc) });
    let end = EndOfUnwinding;
    // SAFETY: the thread is attached, and the class lives.
    let object = unsafe { allocate(class.as_type_ptr(), 0) };
    mem::forget(end);
    // SAFETY: the object is ours, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(class.py(), object) }
}

struct EndOfUnwinding;

impl Drop for EndOfUnwinding {
    fn drop(&mut self) {
        loop {
            thread::park();
        }
    }
}
