//! The decision engine, free of Python: laws, breaker, queues, counters, and the whole decision.
//!
//! It mirrors the reference engine (`python/backpressure/_engine/pure`) file by file and word by word. It never reads a
//! clock: every instant comes in, in monotonic nanoseconds. No call waits for another.
//!
//! `clock`, `names` and `recent` are no part of the engine but tools for its host, which have nothing to do with Python;
//! `replay` asks its laws what they would have done.

#![forbid(unsafe_code)]

pub mod breaker;
pub mod budget;
pub mod call;
pub mod clock;
pub mod counters;
pub mod engine;
pub mod host;
pub mod laws;
pub mod lease;
pub mod mode;
pub mod names;
pub mod queue;
pub mod recent;
pub mod replay;
pub mod sample;
pub mod settings;
mod sync;
pub mod table;
pub mod vocabulary;
pub mod word;
pub mod zone;

#[cfg(test)]
mod tests;

/// The version of the package, as the Python side states it too.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
