//! What a producer tells the budget, and what it is answered; see the Python `_age.protocol`. Triples: HIGH first.

/// The settings of one queue's budget; see the Python `BudgetSettings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented where they are made")]
pub struct BudgetSettings {
    pub target_ms: i64,
    pub tick_ms: i64,
    pub gain_most_permille: i64,
    pub drain_window_ms: i64,
    pub trims: bool,
    pub least_budget_permille: i64,
    pub medium_floor_permille: i64,
    pub low_floor_permille: i64,
    pub burst_jobs: i64,
    pub calls_per_second: i64,
}

/// One priority's part of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Offers since the last call whose callers would not wait.
    pub decided: i64,
    /// Jobs since the last call whose callers would wait, let go.
    pub gone: i64,
    /// Callers who wait now for their turn.
    pub waiting: i64,
    /// Offers that are held for this answer, and whose callers will not wait beyond it.
    pub held: i64,
    /// Held offers whose callers will.
    pub held_patient: i64,
    /// What the last answer's dealing left, in millionths of a job.
    pub remainder_ppm: i64,
}

/// What the sampler read of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogSeen {
    /// That wait in the queue.
    pub jobs: i64,
    /// Since when the oldest of them waits; `None` where the queue cannot tell.
    pub oldest_age_ms: Option<i64>,
    /// How long ago that was true.
    pub ago_ms: i64,
}

/// What one producer tells of one queue.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// A number for each; `None` from who cannot read the queue.
    pub producer: Option<u64>,
    /// Since its last call; 0 from a new one.
    pub since_ms: i64,
    /// Of HIGH, MEDIUM, LOW.
    pub demands: [Demand; 3],
    /// Jobs enqueued by the lease since the last call.
    pub enqueued: i64,
    /// From the sampler.
    pub seen: Option<BacklogSeen>,
    /// Of its last answer, from which a lost state begins again.
    pub seed_drain_mjobs_per_s: i64,
    /// Likewise.
    pub seed_processes: i64,
    /// Part of the budget that the memory of the queue's server leaves.
    pub limit_permille: i64,
}

/// What one process may do for one priority until its next call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Part of the offers of callers who will not wait that may go.
    pub share_ppm: i64,
    /// How many of these may go at most.
    pub cap_jobs: i64,
    /// At which rate callers who wait may go.
    pub rate_ujobs_per_s: i64,
    /// How many of these may go at once after a pause.
    pub burst_ujobs: i64,
    /// Whether that burst is there from the beginning.
    pub fill: bool,
    /// Jobs that may go at once, of those held and waiting.
    pub go_jobs: i64,
    /// For the next report.
    pub remainder_ppm: i64,
}

/// What one producer is answered; see the Python `Answer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented in Python")]
pub struct Answer {
    pub ticks: i64,
    pub drain_mjobs_per_s: i64,
    pub budget_mjobs_per_s: i64,
    pub age_ms: i64,
    pub backlog_jobs: i64,
    pub processes: i64,
    pub spare_mjobs_per_s: i64,
    pub is_sampler: bool,
    pub wait_ms: i64,
    pub demand_mjobs_per_s: [i64; 3],
    pub shares_ppm: [i64; 3],
    pub terms: [Terms; 3],
}
