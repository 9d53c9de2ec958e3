//! Where the time comes from: the system's monotonic clock, or a callable of the host's.

use pyo3::exceptions::PyOverflowError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use self::system::System;
use crate::crossing;

/// A monotonic instant in nanoseconds. Larger integers of Python's become the largest here, year 292.
#[derive(Clone, Copy)]
pub struct Ns(pub i64);

impl<'py> FromPyObject<'_, 'py> for Ns {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        given.extract().map(Self).or_else(|error| {
            if !error.is_instance_of::<PyOverflowError>(given.py()) {
                return Err(error);
            }
            Ok(Self(if given.lt(0)? { i64::MIN } else { i64::MAX }))
        })
    }
}

/// A source of monotonic nanoseconds. Thread-safe.
pub enum Clock {
    /// The clock behind `time.monotonic_ns()`, read without leaving Rust.
    System(System),
    /// A Python callable.
    Injected(Py<PyAny>),
}

impl Clock {
    /// Makes the clock that `now_ns` asks for; `None` is the system's.
    pub fn of(now_ns: &Bound<'_, PyAny>) -> PyResult<Self> {
        if now_ns.is_none() {
            return Ok(Self::System(System::new(now_ns.py())?));
        }
        Ok(Self::Injected(now_ns.clone().unbind()))
    }

    /// Returns the same clock.
    pub fn share(&self, py: Python<'_>) -> Self {
        match self {
            Self::System(system) => Self::System(system.clone()),
            Self::Injected(now_ns) => Self::Injected(now_ns.clone_ref(py)),
        }
    }

    /// Tells whether reading it calls nothing of Python's.
    #[inline]
    pub fn is_system(&self) -> bool {
        matches!(self, Self::System(_))
    }

    /// Reads it.
    #[inline]
    pub fn now_ns(&self, py: Python<'_>) -> PyResult<i64> {
        match self {
            Self::System(system) => Ok(system.now_ns()),
            Self::Injected(now_ns) => crossing::call(now_ns.bind(py), ())?.extract().map(|Ns(now_ns)| now_ns),
        }
    }

    /// Tells whether `until_ns` is not past yet.
    #[expect(clippy::inline_always, reason = "on the way of every ready answer, where a call costs a twentieth")]
    #[inline(always)]
    pub fn within(&self, py: Python<'_>, until_ns: i64) -> PyResult<bool> {
        match self {
            Self::System(system) => Ok(system.surely_within(until_ns) || system.now_ns() <= until_ns),
            Self::Injected(_) => Ok(self.now_ns(py)? <= until_ns),
        }
    }

    /// Shows the collector what is held.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::System(_) => Ok(()),
            Self::Injected(now_ns) => visit.call(now_ns),
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use pyo3::prelude::*;
    use rustix::time::{ClockId, clock_gettime};

    /// More than the coarse clock's lag: it moves once a tick, at worst every 10 ms.
    const LAG_NS: i64 = 20_000_000;

    /// `CLOCK_MONOTONIC`, as Python reads it.
    #[derive(Clone)]
    pub struct System;

    impl System {
        #[expect(clippy::unnecessary_wraps, reason = "elsewhere it asks Python, which may fail")]
        pub fn new(_: Python<'_>) -> PyResult<Self> {
            Ok(Self)
        }

        #[inline]
        #[expect(clippy::unused_self, reason = "elsewhere it has an anchor")]
        pub fn now_ns(&self) -> i64 {
            read(ClockId::Monotonic)
        }

        /// Tells whether `until_ns` is surely ahead, at a tenth of the precise clock's cost. The last moments before it
        /// are left to the precise clock, so that everything happens when that clock alone would have it happen.
        #[inline]
        #[expect(clippy::unused_self, reason = "elsewhere it has an anchor")]
        pub fn surely_within(&self, until_ns: i64) -> bool {
            read(ClockId::MonotonicCoarse) <= until_ns.saturating_sub(LAG_NS)
        }
    }

    #[inline]
    fn read(clock: ClockId) -> i64 {
        let now = clock_gettime(clock);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::Instant;

    use pyo3::intern;
    use pyo3::prelude::*;

    /// Rust's monotonic clock, set by Python's.
    #[derive(Clone)]
    pub struct System {
        anchor: Instant,
        anchor_ns: i64,
    }

    impl System {
        pub fn new(py: Python<'_>) -> PyResult<Self> {
            let time = py.import(intern!(py, "backpressure._model.clock"))?.getattr(intern!(py, "own_time"))?;
            let read = time.getattr(intern!(py, "monotonic_ns"))?;
            // The first call is slow; the second follows its anchor at once.
            read.call0()?;
            let anchor = Instant::now();
            Ok(Self { anchor, anchor_ns: read.call0()?.extract()? })
        }

        #[inline]
        pub fn now_ns(&self) -> i64 {
            let elapsed_ns = i64::try_from(self.anchor.elapsed().as_nanos()).unwrap_or(i64::MAX);
            self.anchor_ns.saturating_add(elapsed_ns)
        }

        /// There is no cheaper clock to ask first.
        #[inline]
        #[expect(clippy::unused_self, reason = "on Linux there is one")]
        pub fn surely_within(&self, _: i64) -> bool {
            false
        }
    }
}
