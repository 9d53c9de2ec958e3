//! The law of three zones by itself, for tests that compare both engines with the same vectors.

use backpressure_core::laws::law::Law;
use backpressure_core::laws::three_zone;
use backpressure_core::sample::Sample;
use backpressure_core::vocabulary::Priority;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;

use crate::settings::LawSettings;

/// Piecewise linear delay: none in green, a light slope in yellow, a steep one in red, capped.
#[pyclass(frozen, name = "ThreeZoneLaw", module = "backpressure._native")]
pub struct ThreeZoneLaw(three_zone::ThreeZoneLaw);

#[pymethods]
impl ThreeZoneLaw {
    #[new]
    fn new(settings: LawSettings) -> Self {
        Self(settings.0)
    }

    /// Judge `backlog` waiting jobs for `priority` (0 low, 1 medium, 2 high): zone, delay in nanoseconds, shed.
    #[pyo3(signature = (priority, backlog, memory_permille=None))]
    fn advise(&self, priority: usize, backlog: i64, memory_permille: Option<u64>) -> PyResult<(usize, u64, bool)> {
        let priority = Priority::ALL.get(priority).ok_or_else(|| PyIndexError::new_err("tuple index out of range"))?;
        let sample = Sample { number: 0, backlog, oldest_age_ns: None, memory_permille, as_of_ns: 0 };
        let advice = self.0.advise(&sample, *priority, &());
        Ok((advice.zone.index(), advice.delay_ns, advice.shed))
    }
}
