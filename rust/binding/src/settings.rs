//! Reads `backpressure._engine.settings`, attribute by attribute, into the core's own.

use std::collections::HashMap;
use std::sync::Arc;

use backpressure_core::laws::AnyLaw;
use backpressure_core::laws::three_zone::{self, Scale, ThreeZoneLaw};
use backpressure_core::settings;
use backpressure_core::zone::Window;
use pyo3::exceptions::PyNotImplementedError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::vocabulary::Vocabulary;

/// Makes a struct of the attributes of the same names, and of the values given for the other fields.
macro_rules! read {
    ($given:ident, $($kind:ident)::+ { $($field:ident,)* } $($other:ident: $value:expr,)*) => {
        $($kind)::+ {
            $($field: $given.getattr(intern!($given.py(), stringify!($field)))?.extract()?,)*
            $($other: $value,)*
        }
    };
}

/// Any law, told by the name of its class in Python: a law that is written there alone runs on the pure engine only.
pub struct Law(pub AnyLaw);

impl<'py> FromPyObject<'_, 'py> for Law {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match given.get_type().name()?.to_str()? {
            "ThreeZoneLaw" => Ok(Self(AnyLaw::ThreeZone(given.extract::<LawSettings>()?.0))),
            "AgeLaw" => Ok(Self(AnyLaw::Age)),
            unknown => Err(PyNotImplementedError::new_err(format!(
                "the native engine has no {unknown}: set BACKPRESSURE_ENGINE=pure before backpressure is imported"
            ))),
        }
    }
}

/// `LawSettings`.
pub struct LawSettings(pub ThreeZoneLaw);

impl<'py> FromPyObject<'_, 'py> for LawSettings {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let windows: [(i64, i64, i64); 3] = given.getattr(intern!(given.py(), "windows"))?.extract()?;
        let scales: [(u64, u64); 3] = given.getattr(intern!(given.py(), "scales"))?.extract()?;
        let settings = read! {
            given,
            three_zone::LawSettings { yellow_min_ns, yellow_max_ns, red_max_ns, shed_permille, scale_yellow, memory_permille, }
            windows: windows.map(|(green_max, yellow_max, red_max)| Window { green_max, yellow_max, red_max }),
            scales: scales.map(|(num, den)| Scale { num, den }),
        };
        Ok(Self(ThreeZoneLaw::new(settings)))
    }
}

/// `CircuitSettings`.
pub struct CircuitSettings(pub Arc<settings::CircuitSettings>);

impl<'py> FromPyObject<'_, 'py> for CircuitSettings {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Arc::new(read! {
            given,
            settings::CircuitSettings {
                failure_threshold,
                recovery_threshold,
                trip_window_ms,
                recovery_timeout_ms,
                probe_interval_ms,
                high_attempts,
            }
        })))
    }
}

/// `PatternSettings`.
struct PatternSettings(settings::PatternSettings);

impl<'py> FromPyObject<'_, 'py> for PatternSettings {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let law: Option<Law> = given.getattr(intern!(given.py(), "law"))?.extract()?;
        let circuit: Option<CircuitSettings> = given.getattr(intern!(given.py(), "circuit"))?.extract()?;
        Ok(Self(read! {
            given,
            settings::PatternSettings { pattern, observe, }
            law: law.map(|law| law.0),
            circuit: circuit.map(|circuit| circuit.0),
        }))
    }
}

/// Reads `EngineSettings`.
pub fn engine_settings(given: &Bound<'_, PyAny>, vocabulary: &Vocabulary) -> PyResult<Arc<settings::Settings>> {
    let attribute = |name| given.getattr(name);
    let laws: HashMap<String, Law> = attribute("laws")?.extract()?;
    let circuits: HashMap<String, CircuitSettings> = attribute("circuits")?.extract()?;
    let patterns: Vec<PatternSettings> = attribute("patterns")?.extract()?;
    Ok(Arc::new(read! {
        given,
        settings::Settings {
            cache_ttl_ns,
            check_after_ns,
            check_every_ns,
            degrade_ns,
            fallback_ns,
            polling,
            observe,
            observed,
            one_mode,
            holds_ages,
            max_queues,
        }
        law: attribute("law")?.extract::<Law>()?.0,
        laws: laws.into_iter().map(|(name, law)| (name, law.0)).collect(),
        circuit: attribute("circuit")?.extract::<CircuitSettings>()?.0,
        circuits: circuits.into_iter().map(|(name, circuit)| (name, circuit.0)).collect(),
        patterns: patterns.into_iter().map(|pattern| pattern.0).collect(),
        fallback_reason: vocabulary.reason(&attribute("fallback_reason")?)?,
    }))
}
