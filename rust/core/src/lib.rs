//! The decision engine, free of Python: zones, the throttle law, the breaker, the decision cache and counters.

#![forbid(unsafe_code)]

/// The version of the package, as the Python side states it too.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
