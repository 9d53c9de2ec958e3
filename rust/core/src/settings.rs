//! Everything an engine decides by, in integers.

use std::collections::HashMap;
use std::sync::Arc;

use crate::laws::AnyLaw;
use crate::vocabulary::Reason;

/// One queue's breaker settings; durations in milliseconds, rounded up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Consecutive failures that open it.
    pub failure_threshold: u64,
    /// Successful probes that close it.
    pub recovery_threshold: u64,
    /// Longest time without an attempt between two of those failures.
    pub trip_window_ms: u64,
    /// Time from opening to the first probe.
    pub recovery_timeout_ms: u64,
    /// Time from one probe to the next, if the first never reports.
    pub probe_interval_ms: u64,
    /// Whether HIGH goes through all the same, without a ticket.
    pub high_attempts: bool,
}

/// Everything an engine decides by; see the Python `EngineSettings` for what each field means.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "documented where they are made")]
pub struct Settings {
    pub law: AnyLaw,
    pub circuit: Arc<CircuitSettings>,
    pub laws: HashMap<String, AnyLaw>,
    pub circuits: HashMap<String, Arc<CircuitSettings>>,
    pub cache_ttl_ns: i64,
    pub check_after_ns: i64,
    pub check_every_ns: i64,
    pub degrade_ns: i64,
    pub fallback_ns: [u64; 3],
    pub fallback_reason: Reason,
    pub polling: bool,
    pub observe: bool,
    pub max_queues: usize,
}

impl Settings {
    /// Returns the law that holds for a queue.
    pub fn law_of(&self, queue_name: &str) -> &AnyLaw {
        self.laws.get(queue_name).unwrap_or(&self.law)
    }

    /// Returns the breaker settings that hold for a queue.
    pub fn circuit_of(&self, queue_name: &str) -> &Arc<CircuitSettings> {
        self.circuits.get(queue_name).unwrap_or(&self.circuit)
    }
}
