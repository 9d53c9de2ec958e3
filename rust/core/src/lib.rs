//! The decision engine, free of Python: zones, the throttle law, the breaker, the decision cache and counters.
//!
//! It mirrors the reference engine (`python/backpressure/_pure`) file by file and word by word. It never reads a
//! clock: every instant comes in, in monotonic nanoseconds. No call waits for another.

#![forbid(unsafe_code)]

pub mod breaker;
pub mod counters;
pub mod engine;
pub mod laws;
pub mod queue;
mod sync;
pub mod vocabulary;
pub mod zone;

/// The version of the package, as the Python side states it too.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
