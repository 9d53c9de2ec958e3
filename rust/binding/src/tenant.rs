//! Tenants as callers give them: a name, or a pair of a name and a class of weights.

use backpressure_core::lease::Tenants;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::bare::nameable;

/// The longest name, in bytes.
const LONGEST: usize = 255;

/// On whose behalf a job is enqueued.
pub struct Tenant<'a> {
    hash: u64,
    weight_class: &'a str,
}

impl<'a> Tenant<'a> {
    /// Reads what a caller gave, where that calls nothing of Python's; `None` for anything else.
    #[inline]
    pub fn read(given: &'a Bound<'_, PyAny>) -> Option<Self> {
        if let Some(name) = nameable(given) {
            return Self::new(name, "");
        }
        let pair = given.cast::<PyTuple>().ok()?.as_slice();
        let [name, weight_class] = pair else { return None };
        let weight_class = nameable(weight_class)?.to_str().ok().filter(|name| name.len() <= LONGEST)?;
        Self::new(nameable(name)?, weight_class)
    }

    fn new(name: &Bound<'_, PyString>, weight_class: &'a str) -> Option<Self> {
        let length = name.to_str().ok()?.len();
        let hash = name.hash().ok()?;
        (1..=LONGEST).contains(&length).then_some(Self { hash: (hash as i64).cast_unsigned(), weight_class })
    }

    /// Returns its place.
    #[inline]
    pub fn place(&self, tenants: &Tenants) -> u32 {
        let weight_class = if self.weight_class.is_empty() { 0 } else { tenants.class_of(self.weight_class) };
        tenants.place_of(self.hash, weight_class)
    }
}
