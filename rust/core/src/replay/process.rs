//! One process that stands for all producers of a queue whose age is held: it reports, and goes by the answers.

use super::flow::JOB;
use super::grants::{Line, Passed, Share, whole};
use super::settings::AgePolicy;
use crate::budget::{Answer, BacklogSeen, Budget, Demand, Report};

const LOW: usize = 0;
const MEDIUM: usize = 1;
const HIGH: usize = 2;
const LONGEST_RETRY_MS: i64 = 60_000;
const OLDEST_MS: i64 = 1_000_000_000;

/// HIGH goes at once, LOW by its share, and MEDIUM waits for its turn; where decisions are only observed, MEDIUM goes by
/// its share too. See the Python `Process`.
#[derive(Debug)]
pub struct Process {
    policy: AgePolicy,
    budget: Budget,
    pub shares: [Share; 3],
    /// `None`: decisions are only observed.
    pub line: Option<Line>,
    remainders: [i64; 3],
    called_ms: Option<i64>,
    pub call_at_ms: i64,
    pub enqueued: i64,
    pub zone: usize,
    pub told_us: i64,
}

impl Process {
    /// Makes one of a queue of which no budget knows.
    pub fn new(policy: AgePolicy, observes: bool) -> Self {
        Self {
            budget: Budget::new(policy.budget),
            shares: [false, false, true].map(Share::new),
            line: (!observes).then(Line::default),
            remainders: [500_000; 3],
            called_ms: None,
            call_at_ms: 0,
            enqueued: 0,
            zone: 0,
            told_us: 0,
            policy,
        }
    }

    /// Begins as a new process, with the budget that there is.
    pub fn begin(&mut self, now_ms: i64) {
        self.shares.iter_mut().for_each(Share::begin);
        if let Some(line) = &mut self.line {
            line.begin();
        }
        (self.called_ms, self.call_at_ms, self.enqueued, self.zone) = (None, now_ms, 0, 0);
        self.told_us = self.policy.budget.target_ms * 1_000;
    }

    /// Reports, and takes the answer; returns what becomes of those who were held or waited.
    pub fn call(&mut self, now_ms: i64, jobs: i64, oldest_ms: Option<i64>, memory: Option<u64>) -> [Passed; 3] {
        let oldest_age_ms = oldest_ms.map(|age| age.min(OLDEST_MS));
        let seen = BacklogSeen { jobs: whole(jobs), oldest_age_ms, ago_ms: 0 };
        let report = self.report(now_ms, seen, memory);
        let answer = self.budget.call(now_ms, &report);
        let passed = [LOW, MEDIUM, HIGH].map(|priority| self.take(priority, &answer));
        let (tick_ms, target_ms) = (self.policy.budget.tick_ms, self.policy.budget.target_ms);
        (self.called_ms, self.call_at_ms) = (Some(now_ms), now_ms + answer.wait_ms);
        self.zone = if 2 * answer.age_ms < target_ms { 0 } else { 1 + usize::from(answer.age_ms > target_ms) };
        self.told_us = 1_000 * answer.age_ms.max(tick_ms).min(LONGEST_RETRY_MS);
        passed
    }

    fn report(&mut self, now_ms: i64, seen: BacklogSeen, memory: Option<u64>) -> Report {
        let demands = [HIGH, MEDIUM, LOW].map(|priority| self.demand(priority));
        let enqueued = whole(self.enqueued);
        self.enqueued = (self.enqueued - enqueued * JOB).min(JOB);
        Report {
            producer: Some(0),
            since_ms: self.called_ms.map_or(0, |called_ms| (now_ms - called_ms).max(1)),
            demands,
            enqueued,
            seen: Some(seen),
            seed_drain_mjobs_per_s: 0,
            seed_processes: 1,
            limit_permille: self.policy.limit_permille(memory),
        }
    }

    fn demand(&mut self, priority: usize) -> Demand {
        let remainder_ppm = self.remainders[priority];
        if let Some(line) = self.line.as_mut().filter(|_| priority == MEDIUM) {
            let (gone, had_to_wait) = (whole(line.gone), std::mem::take(&mut line.had_to_wait));
            line.gone %= JOB;
            let waiting = whole(line.waiting).max(i64::from(had_to_wait));
            return Demand { gone, waiting, remainder_ppm, ..Demand::default() };
        }
        let share = &mut self.shares[priority];
        let decided = whole(share.decided);
        share.decided %= JOB;
        Demand { decided, held: whole(share.held), remainder_ppm, ..Demand::default() }
    }

    fn take(&mut self, priority: usize, answer: &Answer) -> Passed {
        let terms = &answer.terms[HIGH - priority];
        self.remainders[priority] = terms.remainder_ppm;
        let (mut goes, mut refused) = (0, 0);
        if let Some(line) = self.line.as_mut().filter(|_| priority == MEDIUM) {
            goes += line.renew(terms);
            line.gone += goes;
        } else {
            let share = &mut self.shares[priority];
            share.renew(terms);
            goes += terms.go_jobs.min(whole(share.held)) * JOB;
            refused += share.held - share.held % JOB - goes;
            share.held %= JOB;
        }
        self.enqueued += goes - terms.go_jobs * JOB;
        Passed { goes, refused, ..Passed::default() }
    }

    /// Tells whether with more offers the next call comes early.
    pub fn is_pressed(&self, more: [i64; 3]) -> bool {
        self.shares.iter().zip(more).any(|(share, jobs)| share.is_pressed(jobs))
    }

    /// Returns how soon after a call another one comes at the earliest.
    pub fn hurry_ms(&self) -> i64 {
        (self.policy.budget.tick_ms / 8).max(1)
    }

    /// Calls early if more is asked for than was.
    pub fn look(&mut self, now_ms: i64) {
        if let Some(called_ms) = self.called_ms
            && (self.is_pressed([0; 3]) || self.shares.iter().any(|share| share.held >= JOB))
        {
            self.call_at_ms = self.call_at_ms.min(now_ms.max(called_ms + self.hurry_ms()));
        }
    }
}
