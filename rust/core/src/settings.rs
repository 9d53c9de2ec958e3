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

/// What the queues have of their own that a pattern matches; `None` is what holds for all.
#[derive(Clone, Debug)]
pub struct PatternSettings {
    /// A queue's name, in which `*` stands for any text.
    pub pattern: String,
    /// Their law.
    pub law: Option<AnyLaw>,
    /// Their breaker settings.
    pub circuit: Option<Arc<CircuitSettings>>,
    /// Whether what is decided for them is only observed.
    pub observe: Option<bool>,
}

impl PatternSettings {
    /// Tells whether the pattern matches a name, as the Python `matches` does.
    fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.pattern.split_once('*') else { return self.pattern == name };
        let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(mut left) = name.strip_prefix(first).and_then(|left| left.strip_suffix(last)) else { return false };
        between.split('*').all(|part| left.split_once(part).map(|(_, after)| left = after).is_some())
    }
}

/// Everything an engine decides by; see the Python `EngineSettings` for what each field means.
#[derive(Clone, Debug)]
#[expect(missing_docs, clippy::struct_excessive_bools, reason = "documented where they are made; each is a setting")]
pub struct Settings {
    pub law: AnyLaw,
    pub circuit: Arc<CircuitSettings>,
    pub laws: HashMap<String, AnyLaw>,
    pub circuits: HashMap<String, Arc<CircuitSettings>>,
    pub observed: HashMap<String, bool>,
    pub patterns: Vec<PatternSettings>,
    pub one_mode: bool,
    pub holds_ages: bool,
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
        match self.laws.get(queue_name) {
            Some(own) => own,
            None if self.patterns.is_empty() => &self.law,
            None => self.pattern_of(queue_name).and_then(|of| of.law.as_ref()).unwrap_or(&self.law),
        }
    }

    /// Returns the breaker settings that hold for a queue.
    pub fn circuit_of(&self, queue_name: &str) -> &Arc<CircuitSettings> {
        let own = self.circuits.get(queue_name).or_else(|| self.pattern_of(queue_name)?.circuit.as_ref());
        own.unwrap_or(&self.circuit)
    }

    /// Tells whether what is decided for a queue is only observed; `name` is called if queues have modes of their own.
    ///
    /// # Errors
    /// Those of `name`.
    pub fn observes<'a, E>(&self, name: impl FnOnce() -> Result<&'a str, E>) -> Result<bool, E> {
        if self.one_mode { Ok(self.observe) } else { name().map(|name| self.own_mode(name)) }
    }

    #[cold]
    fn own_mode(&self, queue_name: &str) -> bool {
        let own = self.observed.get(queue_name).copied().or_else(|| self.pattern_of(queue_name)?.observe);
        own.unwrap_or(self.observe)
    }

    /// Returns the first pattern that matches: what less specific ones say is in it already.
    #[cold]
    fn pattern_of(&self, queue_name: &str) -> Option<&PatternSettings> {
        self.patterns.iter().find(|of| of.matches(queue_name))
    }
}
