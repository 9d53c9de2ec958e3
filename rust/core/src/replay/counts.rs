//! What became of the offers of one priority.

use super::flow::MOST;
use super::judge::{Judge, Verdict};

/// Millionths of jobs, and for how many milliseconds it was so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that were judged.
    pub offers: i128,
    /// Those that were to wait.
    pub delays: i128,
    /// Those that were refused.
    pub sheds: i128,
    /// How long they waited, in millionths of job-microseconds.
    pub held: i128,
    /// Time in each zone.
    pub zones_ms: [i64; 3],
    /// Time in which they were to wait.
    pub waits_ms: i64,
    /// Time in which they were refused.
    pub shed_ms: i64,
}

/// Counts by priority, LOW first, with what is not yet in them: what came since the verdicts are what they are.
#[derive(Debug, Default)]
pub struct Tally {
    /// What came before that.
    pub counts: [Counts; 3],
    jobs: [i64; 3],
    span_ms: i64,
}

impl Tally {
    /// Lets time go by under the same verdicts.
    #[inline]
    pub fn last(&mut self, span_ms: i64) {
        self.span_ms += span_ms;
    }

    /// Notes offers of one priority, and what is said of them.
    #[inline]
    pub fn judge(&mut self, priority: usize, jobs: i64, verdict: &Verdict) {
        self.jobs[priority] += jobs;
        if self.jobs[priority] > MOST {
            self.counts[priority].judge(std::mem::take(&mut self.jobs[priority]), verdict);
        }
    }

    /// Has the backlog judged; if that may give other verdicts, counts what came under the latest ones before.
    #[inline]
    pub fn ask(&mut self, judge: &mut Judge, backlog: i64, memory_permille: Option<u64>) {
        if !judge.knows(backlog, memory_permille) {
            self.settle(&judge.verdicts);
            judge.ask(backlog, memory_permille);
        }
    }

    /// Counts all that came, before there are other verdicts.
    pub fn settle(&mut self, verdicts: &[Verdict; 3]) {
        let span_ms = std::mem::take(&mut self.span_ms);
        for ((counts, jobs), verdict) in self.counts.iter_mut().zip(&mut self.jobs).zip(verdicts) {
            counts.judge(std::mem::take(jobs), verdict);
            counts.note(span_ms, verdict.zone, verdict.shed, verdict.waits);
        }
    }
}

impl Counts {
    /// Counts offers that were judged alike.
    pub fn judge(&mut self, jobs: i64, verdict: &Verdict) {
        self.offers += i128::from(jobs);
        if verdict.shed {
            self.sheds += i128::from(jobs);
        } else if verdict.waits {
            self.delays += i128::from(jobs);
            self.held += i128::from(jobs) * i128::from(verdict.held_us);
        }
    }

    /// Counts for how long the zone was this one, and the advice to shed or to wait.
    #[inline]
    pub fn note(&mut self, span_ms: i64, zone: usize, sheds: bool, waits: bool) {
        self.zones_ms[zone] += span_ms;
        if sheds {
            self.shed_ms += span_ms;
        } else if waits {
            self.waits_ms += span_ms;
        }
    }
}
