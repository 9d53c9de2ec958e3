//! The throttle laws.

pub mod three_zone;
