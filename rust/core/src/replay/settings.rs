//! What a replay is given; see the Python `_replay.settings`.

use super::judge::Verdict;
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

impl LoopSettings {
    /// Returns how long one waits for a job, in microseconds.
    pub fn waits_us(self, verdict: &Verdict) -> i64 {
        match (verdict.shed, self.skips) {
            (true, true) => 0,
            (true, false) => verdict.told_us,
            (false, _) => verdict.held_us,
        }
    }

    /// Returns the time from offer to offer, in microseconds.
    pub fn cycle_us(self, pause_us: i64, waits_us: i64) -> i64 {
        if self.paced { pause_us.max(waits_us).max(1) } else { (pause_us + waits_us).max(1) }
    }
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

/// Everything that a replay of one queue goes by.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "documented where they are made")]
pub struct ReplaySettings {
    pub law: AnyLaw,
    pub poll_ms: i64,
    pub busy_poll_ms: i64,
    pub sleep_permille: i64,
    pub gap_ms: i64,
    pub trail_ms: i64,
    pub mix_ppm: Option<[i64; 3]>,
    pub in_force: Vec<(i64, PolicyInForce)>,
    pub behaviour: Option<BehaviourSettings>,
}
