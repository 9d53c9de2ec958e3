//! One priority's lease, as Python's side of the law of ages renews it and the engine's hot calls use it.

use std::sync::Arc;

use backpressure_core::lease::{self as core, Terms};
use pyo3::intern;
use pyo3::prelude::*;

use crate::tenants::Tenants;

/// What `backpressure._age.lease.Lease` is in Python. Thread-safe.
#[pyclass(frozen, name = "Lease", module = "backpressure._native")]
pub struct Lease(pub Arc<core::Lease>);

#[pymethods]
impl Lease {
    #[new]
    #[pyo3(signature = (phase_ppm, _lock=None))]
    fn new(phase_ppm: u64, _lock: Option<Py<PyAny>>) -> Self {
        Self(Arc::new(core::Lease::new(phase_ppm)))
    }

    /// Part of the offers that may go, in millionths.
    #[getter]
    fn share_ppm(&self) -> u64 {
        self.0.granted().terms.share_ppm
    }

    /// How many of them may go at most.
    #[getter]
    fn cap_jobs(&self) -> u64 {
        self.0.cap_jobs()
    }

    /// How many went.
    #[getter]
    fn used(&self) -> u64 {
        self.0.share().used
    }

    /// At which rate callers who wait may go, in millionths of a job a second.
    #[getter]
    fn rate_ujobs_per_s(&self) -> u64 {
        self.0.granted().terms.rate_ujobs_per_s
    }

    /// Tells terms from those before and after them.
    #[getter]
    fn renewal(&self) -> u32 {
        self.0.renewal()
    }

    /// For the next report.
    #[getter]
    fn remainder_ppm(&self) -> u64 {
        self.0.granted().terms.remainder_ppm
    }

    /// Take new terms. Who waits keeps the place; what was released and not taken is kept up to a burst.
    fn renew(&self, now_us: i64, terms: &Bound<'_, PyAny>) -> PyResult<()> {
        let number = |name| terms.getattr(name)?.extract::<u64>();
        let py = terms.py();
        self.0.renew(
            now_us,
            Terms {
                share_ppm: number(intern!(py, "share_ppm"))?,
                cap_jobs: number(intern!(py, "cap_jobs"))?,
                rate_ujobs_per_s: number(intern!(py, "rate_ujobs_per_s"))?,
                burst_ujobs: number(intern!(py, "burst_ujobs"))?,
                fill: number(intern!(py, "fill"))? != 0,
                remainder_ppm: number(intern!(py, "remainder_ppm"))?,
            },
        );
        Ok(())
    }

    /// Let the last terms go on, with nothing used of them.
    fn prolong(&self) {
        self.0.prolong();
    }

    /// Tell whether the next offer may go.
    fn offer(&self) -> bool {
        self.0.offer()
    }

    /// Tell whether an offer may go that nobody answers in time.
    #[pyo3(signature = (*, aged))]
    fn offer_stale(&self, aged: bool) -> bool {
        self.0.offer_stale(aged)
    }

    /// Tell whether all that was asked for fits, and more is asked for now.
    fn is_used_up(&self) -> bool {
        self.0.is_used_up()
    }

    /// Return a place in the line.
    fn take_ticket(&self) -> u32 {
        self.0.take_ticket()
    }

    /// Return how long the line takes until this place, in microseconds; 0: its job may go now.
    fn due_in_us(&self, ticket: u32, now_us: i64) -> u64 {
        self.0.due_in_us(ticket, now_us)
    }

    /// Return how long a ticket taken now would have to wait.
    fn foresee_us(&self, now_us: i64) -> u64 {
        self.0.foresee_us(now_us)
    }

    /// Give the places of callers who went otherwise, or gave up, to those behind.
    fn leave_places(&self, places: u64) {
        self.0.leave_places(places);
    }

    /// Take what `offer` would let go, and tell so; else nothing has happened, and the offer is to be decided.
    fn take_share(&self) -> bool {
        self.0.take_share()
    }

    /// Take a ticket only if its job may go now, and tell so.
    fn take_saved(&self, now_us: i64) -> bool {
        self.0.take_saved(now_us)
    }

    /// Take the refusal that `offer` would give by the terms of this renewal, and tell so; else nothing has happened.
    fn refuse_share(&self, renewal: u32) -> bool {
        self.0.refuse_share(renewal)
    }

    /// Begin to deal the share among tenants, unless that was begun; every renewal sets their level.
    fn deal(&self, salt: u64) -> Tenants {
        Tenants(Arc::clone(self.0.deal(salt)))
    }

    /// Return among whom the share is dealt, once that has begun.
    fn tenants(&self) -> Option<Tenants> {
        self.0.tenants().cloned().map(Tenants)
    }

    /// As `offer`, of a tenant.
    fn offer_for(&self, place: u32) -> bool {
        self.0.offer_for(place)
    }

    /// As `offer_stale`, of a tenant.
    #[pyo3(signature = (place, *, aged))]
    fn offer_stale_for(&self, place: u32, aged: bool) -> bool {
        self.0.offer_stale_for(place, aged)
    }

    /// As `take_share` and, for who refuses, `refuse_share`, of a tenant: tell whether it goes; ``None``: nothing has
    /// happened.
    #[pyo3(signature = (place, renewal, *, refuses))]
    fn decide_for(&self, place: u32, renewal: u32, refuses: bool) -> Option<bool> {
        self.0.decide_for(place, renewal, refuses)
    }

    /// Return how many jobs went by `take_share` and by `take_saved`, and were refused by `refuse_share`, since this was
    /// last asked.
    fn take_counts(&self) -> (u64, u64, u64) {
        self.0.take_counts()
    }
}
