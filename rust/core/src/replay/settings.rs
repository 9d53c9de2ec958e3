//! What a replay is given; see the Python `_replay.settings`.

use crate::budget::BudgetSettings;
use crate::laws::AnyLaw;

/// Producers of one priority that wait for one job before they offer the next.
#[derive(Clone, Copy, Debug)]
pub struct LoopSettings {
    /// How many, at most a million.
    pub count: i64,
    /// Microseconds from one job's enqueueing to the next offer; `None`: as follows from the recorded offers.
    pub pause_us: Option<i64>,
    /// Whether that is the time from offer to offer, unless a job took longer.
    pub paced: bool,
    /// Whether they drop a job that is shed, and wait for nothing before the next.
    pub skips: bool,
}

/// What producers do about advice.
#[derive(Clone, Debug)]
pub struct BehaviourSettings {
    /// Part of shed jobs that come back, by priority.
    pub returns_ppm: [i64; 3],
    /// When, in microseconds; `None`: after the time that they were told.
    pub return_after_us: Option<i64>,
    /// Loops by priority.
    pub loops: [Option<LoopSettings>; 3],
}

/// What decided while the recording was made.
#[derive(Clone, Debug)]
pub struct PolicyInForce {
    /// `None`: one that cannot be replayed.
    pub law: Option<AnyLaw>,
    /// Whether what it advised was done.
    pub enforces: bool,
}

/// The policy that is tried.
#[derive(Clone, Debug)]
pub enum Tried {
    /// A law that judges samples.
    Table(AnyLaw),
    /// An age that is to be held.
    Age(AgePolicy),
}

/// How an age is held; see the Python `AgeLaw`.
#[derive(Clone, Debug)]
pub struct AgePolicy {
    /// What every producer sends with its report.
    pub budget: BudgetSettings,
    /// Whether MEDIUM is refused as LOW is, where its callers will not wait.
    pub sheds_medium: bool,
    /// Of the server's memory, when the budget begins to shrink, and when nothing of it is left.
    pub memory_permille: Option<(i64, i64)>,
}

impl AgePolicy {
    /// Returns the part of the budget that is left where the queue's server uses so much of its memory.
    pub fn limit_permille(&self, used_permille: Option<u64>) -> i64 {
        let (Some((low, high)), Some(used)) = (self.memory_permille, used_permille) else { return 1_000 };
        let left = high.saturating_sub(i64::try_from(used).unwrap_or(i64::MAX));
        left.saturating_mul(1_000).clamp(0, 1_000 * (high - low)) / (high - low)
    }
}

/// Everything that a replay of one queue goes by.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "documented where they are made")]
pub struct ReplaySettings {
    pub law: Tried,
    pub poll_ms: i64,
    pub busy_poll_ms: i64,
    pub sleep_permille: i64,
    pub gap_ms: i64,
    pub trail_ms: i64,
    pub mix_ppm: Option<[i64; 3]>,
    pub in_force: Vec<(i64, PolicyInForce)>,
    pub behaviour: Option<BehaviourSettings>,
}
