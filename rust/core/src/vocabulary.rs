//! The words that engine and host share: how much a job matters, and why a decision is what it is.

/// The name that stands for all queues without counts of their own.
pub const OTHER_QUEUES: &str = "__other__";

/// How much a job matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// May be shed when a queue is full.
    Low,
    /// The ordinary case.
    Medium,
    /// Waits least.
    High,
}

impl Priority {
    /// All of them; every triple in this crate is in this order.
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// Their public names, in the same order.
    pub const NAMES: [&str; 3] = ["low", "medium", "high"];

    /// Returns the priority of a public name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().position(|known| *known == name).map(|index| Self::ALL[index])
    }

    /// Its place in such a triple.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Why a decision is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all there is to say")]
pub enum Reason {
    BacklogGreen,
    BacklogYellow,
    BacklogRed,
    BacklogRedShed,
    CircuitOpen,
    CircuitHalfOpen,
    ManualOverride,
    EmergencyMode,
    StatsStale,
    FallbackConservative,
    FallbackPermissive,
    FallbackCircuitOnly,
    ColdStart,
    ObserveOnly,
    Untracked,
    AgeOpen,
    AgeShare,
    AgeWait,
    AgeShed,
    AgeSafe,
    Memory,
}

impl Reason {
    /// All of them, with their public names, in the order that Python shares.
    pub const ALL: [(Self, &str); 21] = [
        (Self::BacklogGreen, "backlog_green"),
        (Self::BacklogYellow, "backlog_yellow"),
        (Self::BacklogRed, "backlog_red"),
        (Self::BacklogRedShed, "backlog_red_shed"),
        (Self::CircuitOpen, "circuit_open"),
        (Self::CircuitHalfOpen, "circuit_half_open"),
        (Self::ManualOverride, "manual_override"),
        (Self::EmergencyMode, "emergency_mode"),
        (Self::StatsStale, "stats_stale"),
        (Self::FallbackConservative, "fallback_conservative"),
        (Self::FallbackPermissive, "fallback_permissive"),
        (Self::FallbackCircuitOnly, "fallback_circuit_only"),
        (Self::ColdStart, "cold_start"),
        (Self::ObserveOnly, "observe_only"),
        (Self::Untracked, "untracked"),
        (Self::AgeOpen, "age_open"),
        (Self::AgeShare, "age_share"),
        (Self::AgeWait, "age_wait"),
        (Self::AgeShed, "age_shed"),
        (Self::AgeSafe, "age_safe"),
        (Self::Memory, "memory"),
    ];

    /// Its place in that order.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{Priority, Reason};

    #[test]
    fn every_value_is_listed_at_its_own_index() {
        for (index, (reason, _)) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
        for (index, priority) in Priority::ALL.iter().enumerate() {
            assert_eq!(priority.index(), index);
            assert_eq!(Priority::named(Priority::NAMES[index]), Some(*priority));
        }
        assert_eq!(Priority::named("LOW"), None);
    }
}
