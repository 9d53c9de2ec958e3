//! The fair shares of one priority's tenants, as Python's side of the law of ages looks at them.

use std::sync::Arc;

use backpressure_core::lease as core;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::tenant::Tenant;

/// What `backpressure._age.tenants.Tenants` is in Python. Thread-safe.
#[pyclass(frozen, name = "Tenants", module = "backpressure._native")]
pub struct Tenants(pub Arc<core::Tenants>);

#[pymethods]
impl Tenants {
    #[new]
    #[pyo3(signature = (salt, share_ppm, _lock=None))]
    fn new(salt: u64, share_ppm: u64, _lock: Option<Py<PyAny>>) -> Self {
        Self(Arc::new(core::Tenants::new(salt, share_ppm)))
    }

    /// Return the place of a tenant; ``None`` if that is none.
    fn place(&self, tenant: &Bound<'_, PyAny>) -> Option<u32> {
        Tenant::read(tenant).map(|tenant| tenant.place(&self.0))
    }

    /// Return the place of a tenant, by the hash of its name and its class of weights.
    fn place_of(&self, tenant_hash: i64, weight_class: u32) -> PyResult<u32> {
        if usize::try_from(weight_class).is_ok_and(|class| class <= core::MOST_CLASSES) {
            Ok(self.0.place_of(tenant_hash.cast_unsigned(), weight_class))
        } else {
            Err(PyValueError::new_err(format!(
                "weight_class is {weight_class}: give one of 0 to {}",
                core::MOST_CLASSES
            )))
        }
    }

    /// Tell whether the next offer of a tenant may go.
    fn offer(&self, place: u32) -> bool {
        self.0.offer(place)
    }

    /// Take what `offer` would let go, and tell so; else nothing has happened, and the offer is to be decided.
    fn take(&self, place: u32) -> bool {
        self.0.take(place)
    }

    /// Take the refusal that `offer` would give, and tell so; else nothing has happened.
    fn refuse(&self, place: u32) -> bool {
        self.0.refuse(place)
    }

    /// Set the water level anew, so that this part of what is asked for goes from now on.
    fn renew(&self, share_ppm: u64) {
        self.0.renew(share_ppm);
    }

    /// Draw others into each bucket.
    fn rekey(&self, salt: u64) {
        self.0.rekey(salt);
    }

    /// Say what classes weigh, by their names; others weigh 1.
    fn weigh(&self, weights: &Bound<'_, PyDict>) -> PyResult<()> {
        let weights: PyResult<Vec<(String, u64)>> =
            weights.iter().map(|(name, weight)| Ok((name.extract()?, weight.extract()?))).collect();
        self.0.weigh(weights?);
        Ok(())
    }

    /// Return the number of a class; 0 for one that is not known.
    fn class_of(&self, name: &str) -> u32 {
        self.0.class_of(name)
    }

    /// Return which part of a tenant's offers may go, in millionths.
    fn share_ppm(&self, place: u32) -> u64 {
        self.0.share_ppm(place)
    }

    /// Return how many offers a tenant makes between two renewals, smoothed, in 65536ths; not less than it does.
    fn ask(&self, place: u32) -> u64 {
        self.0.ask(place)
    }
}
