//! Reads `backpressure.settings`, attribute by attribute, into the core's own.

use std::collections::HashMap;
use std::sync::Arc;

use backpressure_core::laws::AnyLaw;
use backpressure_core::laws::three_zone::{self, Scale, ThreeZoneLaw};
use backpressure_core::settings;
use backpressure_core::zone::Window;
use pyo3::prelude::*;

use crate::vocabulary::Vocabulary;

/// `LawSettings`.
#[derive(FromPyObject)]
pub struct LawSettings {
    windows: [(i64, i64, i64); 3],
    yellow_min_ns: u64,
    yellow_max_ns: u64,
    red_max_ns: u64,
    scales: [(u64, u64); 3],
    shed_permille: u64,
    scale_yellow: bool,
}

impl From<LawSettings> for ThreeZoneLaw {
    fn from(law: LawSettings) -> Self {
        Self::new(three_zone::LawSettings {
            windows: law.windows.map(|(green_max, yellow_max, red_max)| Window { green_max, yellow_max, red_max }),
            yellow_min_ns: law.yellow_min_ns,
            yellow_max_ns: law.yellow_max_ns,
            red_max_ns: law.red_max_ns,
            scales: law.scales.map(|(num, den)| Scale { num, den }),
            shed_permille: law.shed_permille,
            scale_yellow: law.scale_yellow,
        })
    }
}

/// `CircuitSettings`.
#[derive(FromPyObject)]
pub struct CircuitSettings {
    failure_threshold: u64,
    recovery_threshold: u64,
    trip_window_ms: u64,
    recovery_timeout_ms: u64,
    probe_interval_ms: u64,
    high_attempts: bool,
}

impl From<CircuitSettings> for Arc<settings::CircuitSettings> {
    fn from(circuit: CircuitSettings) -> Self {
        Self::new(settings::CircuitSettings {
            failure_threshold: circuit.failure_threshold,
            recovery_threshold: circuit.recovery_threshold,
            trip_window_ms: circuit.trip_window_ms,
            recovery_timeout_ms: circuit.recovery_timeout_ms,
            probe_interval_ms: circuit.probe_interval_ms,
            high_attempts: circuit.high_attempts,
        })
    }
}

/// `EngineSettings`.
#[derive(FromPyObject)]
pub struct EngineSettings<'py> {
    law: LawSettings,
    circuit: CircuitSettings,
    laws: HashMap<String, LawSettings>,
    circuits: HashMap<String, CircuitSettings>,
    cache_ttl_ns: i64,
    check_after_ns: i64,
    check_every_ns: i64,
    degrade_ns: i64,
    fallback_ns: [u64; 3],
    fallback_reason: Bound<'py, PyAny>,
    polling: bool,
    observe: bool,
    max_queues: usize,
}

impl EngineSettings<'_> {
    /// Returns the core's.
    pub fn into_core(self, vocabulary: &Vocabulary) -> PyResult<Arc<settings::Settings>> {
        let law = |law: LawSettings| AnyLaw::ThreeZone(law.into());
        Ok(Arc::new(settings::Settings {
            law: law(self.law),
            circuit: self.circuit.into(),
            laws: self.laws.into_iter().map(|(name, own)| (name, law(own))).collect(),
            circuits: self.circuits.into_iter().map(|(name, circuit)| (name, circuit.into())).collect(),
            cache_ttl_ns: self.cache_ttl_ns,
            check_after_ns: self.check_after_ns,
            check_every_ns: self.check_every_ns,
            degrade_ns: self.degrade_ns,
            fallback_ns: self.fallback_ns,
            fallback_reason: vocabulary.reason(&self.fallback_reason)?,
            polling: self.polling,
            observe: self.observe,
            max_queues: self.max_queues,
        }))
    }
}
