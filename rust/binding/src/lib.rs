//! The extension module `backpressure._native`: this file is the list of what it exports.

mod aside;
mod bare;
mod border;
mod breaker;
mod clock;
mod crossing;
mod decision;
mod engine;
mod gate;
mod guarded;
mod hot;
mod interpreter;
mod law;
mod lease;
mod outcome;
mod plain;
mod queue;
mod replay;
mod settings;
mod shared;
mod table;
mod tenant;
mod tenants;
mod uncopied;
mod vocabulary;

/// The native engine: what `backpressure._engine.pure` is in Python.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::breaker::{Breaker, Ticket};
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::gate::Gate;
    #[pymodule_export]
    use crate::law::ThreeZoneLaw;
    #[pymodule_export]
    use crate::lease::Lease;
    #[pymodule_export]
    use crate::replay::QueueReplay;
    #[pymodule_export]
    use crate::tenants::Tenants;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::interpreter::check(module.py())?;
        module.add("__version__", backpressure_core::VERSION)?;
        module.add("DEBUG", cfg!(debug_assertions))?;
        crate::hot::install(module.py())
    }
}
