//! What a budget's answer grants to the callers of one priority: as `lease` has it, in millionths of jobs.

use super::flow::{JOB, MOST, narrow, part};
use super::producers::Loops;
use crate::budget::Terms;

/// All parts of a million, and microseconds of a second.
const MILLION: i64 = 1_000_000;
/// More than that no report tells.
const MOST_TOLD: i64 = 1_000_000_000;

/// Returns whole jobs, as many as a report takes.
pub fn whole(jobs: i64) -> i64 {
    (jobs.max(0) / JOB).min(MOST_TOLD)
}

/// Returns an amount times a fraction that is not above 1.
pub fn fraction(amount: i64, of: i64, all: i64) -> i64 {
    match amount.checked_mul(of) {
        Some(product) => product / all,
        None => narrow(i128::from(amount) * i128::from(of) / i128::from(all)),
    }
}

/// What became of offers; see the Python `Passed`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    pub goes: i64,
    pub delayed: i64,
    pub refused: i64,
    pub held: i128,
}

/// Callers who will not wait: a share of them goes, up to a cap.
#[derive(Debug)]
pub struct Share {
    always: bool,
    part_ppm: i64,
    cap: i64,
    used: i64,
    /// Offers beyond the cap where all fits: they are told to the next call, and wait for its answer.
    pub held: i64,
    /// Other offers since the last call.
    pub decided: i64,
}

impl Share {
    /// Makes one without an answer.
    pub fn new(always: bool) -> Self {
        Self { always, part_ppm: 0, cap: 0, used: 0, held: 0, decided: 0 }
    }

    /// Begins without an answer.
    pub fn begin(&mut self) {
        *self = Self::new(self.always);
    }

    /// Takes new terms.
    pub fn renew(&mut self, terms: &Terms) {
        (self.part_ppm, self.cap, self.used) = (terms.share_ppm.min(MILLION), terms.cap_jobs * JOB, 0);
    }

    /// Returns the part of offers that is not to go.
    pub fn refuses_ppm(&self) -> i64 {
        if self.always { 0 } else { MILLION - self.part_ppm }
    }

    /// Tells whether with more offers so much is asked for that a call is made early.
    pub fn is_pressed(&self, more: i64) -> bool {
        self.part_ppm >= MILLION && 2 * (self.used + more) > self.cap
    }

    /// Offers jobs.
    pub fn offer(&mut self, jobs: i64) -> Passed {
        if self.always {
            self.used += jobs;
            self.decided += jobs;
            return Passed { goes: jobs, ..Passed::default() };
        }
        let goes = part(jobs, self.part_ppm).min((self.cap - self.used).max(0));
        self.used += goes;
        let left = jobs - goes;
        if self.part_ppm >= MILLION {
            self.held += left;
            self.decided += goes;
            return Passed { goes, ..Passed::default() };
        }
        self.decided += jobs;
        Passed { goes, refused: left, ..Passed::default() }
    }

    /// Returns how many jobs loops offer in a step of time, who after a refusal wait as told, or not at all.
    pub fn offers_of_loops(&self, loops: Loops, told_us: i64, step_us: i64) -> i64 {
        loops.offers(if loops.skips { 0 } else { self.refuses_ppm() * told_us / MILLION }, step_us)
    }
}

/// Callers who wait for their turn, first come, first served.
#[derive(Debug, Default)]
pub struct Line {
    /// Released less taken.
    net: i64,
    rate: i64,
    burst: i64,
    loops_waiting: i64,
    /// Jobs whose callers wait.
    pub waiting: i64,
    /// Jobs that went since the last call.
    pub gone: i64,
    /// Whether any had to wait since.
    pub had_to_wait: bool,
}

impl Line {
    /// Begins without an answer, and without anybody who waits.
    pub fn begin(&mut self) {
        *self = Self { burst: 2 * JOB, ..Self::default() };
    }

    /// Takes new terms; returns how many of those who wait go at once.
    pub fn renew(&mut self, terms: &Terms) -> i64 {
        let mut saved = self.net.min(self.burst);
        if terms.fill {
            saved = saved.max(terms.burst_ujobs);
        }
        let before = self.waiting;
        self.net = saved.min(terms.burst_ujobs);
        self.net += (terms.go_jobs * JOB).min((-self.net).max(0));
        (self.rate, self.burst) = (terms.rate_ujobs_per_s, terms.burst_ujobs);
        self.waiting = (-self.net).max(0);
        self.leave(before, before - self.waiting);
        before - self.waiting
    }

    /// Counts off loops among so many jobs that went, of all that wanted to.
    fn leave(&mut self, of: i64, jobs: i64) {
        if of > 0 {
            self.loops_waiting -= fraction(self.loops_waiting, jobs, of);
        }
    }

    fn released_in(&self, step_us: i64) -> i64 {
        fraction(self.rate, step_us, MILLION)
    }

    /// Returns how many jobs loops offer in a step of time, who do not while they wait, beside other offers.
    pub fn offers_of_loops(&self, loops: Loops, others: i64, step_us: i64) -> i64 {
        let free = loops.offers(0, step_us);
        let (released, want) = (self.net.max(0) + self.released_in(step_us), self.waiting + others + free);
        if want <= released {
            return free;
        }
        let theirs = fraction(released, (self.loops_waiting + free).min(want), want);
        let could = (loops.count * JOB - self.loops_waiting).max(0) + theirs;
        fraction(could, step_us, step_us + loops.pause_us).min(free)
    }

    /// Offers jobs, and some of loops, in a step of time.
    pub fn offer(&mut self, jobs: i64, of_loops: i64, step_us: i64) -> Passed {
        let (offers, before, begin) = (jobs + of_loops, self.waiting, self.net);
        let end = (begin + self.released_in(step_us) - offers).max(-MOST);
        self.net = end;
        self.waiting = (-end).max(0);
        let goes = before + offers - self.waiting;
        self.loops_waiting += of_loops;
        self.leave(before + offers, goes);
        self.gone += goes;
        // The line is owed `owed` at most, and as long as it is: of what is a straight course from begin to end.
        let owed = (-begin).max(0) + (-end).max(0);
        let saved = begin.max(0) + end.max(0);
        if owed == 0 {
            return Passed { goes, ..Passed::default() };
        }
        self.had_to_wait = true;
        let area = fraction(owed, owed, owed + saved);
        let held = i128::from(area) * i128::from(step_us) / 2;
        Passed { goes, delayed: fraction(offers, owed, owed + saved), refused: 0, held }
    }
}

/// Returns what of an amount falls between two instants of a span.
pub fn dealt(amount: i64, begin: i64, end: i64, span: i64) -> i64 {
    if begin == 0 && end == span {
        return amount;
    }
    fraction(amount, end, span) - fraction(amount, begin, span)
}
