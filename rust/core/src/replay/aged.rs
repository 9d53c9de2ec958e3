//! A queue whose age is held: simulated, and as it was recorded. Time goes from one call of the budget to the next.

use super::backlog::Backlog;
use super::columns::UNKNOWN;
use super::counts::Counts;
use super::flow::{Flow, JOB, MOST};
use super::grants::{Passed, dealt, fraction};
use super::interval::Interval;
use super::judge::Verdict;
use super::process::Process;
use super::producers::{Loops, Producers};
use super::row::Row;
use super::settings::{AgePolicy, BehaviourSettings, ReplaySettings};

const MEDIUM: usize = 1;
const PRIORITIES: [usize; 3] = [0, 1, 2];
/// Jobs that come later are known by the second.
const LONGEST_STEP_MS: i64 = 1_000;

/// What both have: a process, and what became of offers.
#[derive(Debug)]
struct Aged {
    sheds_medium: bool,
    process: Process,
    counts: [Counts; 3],
}

impl Aged {
    fn new(policy: &AgePolicy, observes: bool) -> Self {
        let process = Process::new(policy.clone(), observes);
        Self { sheds_medium: policy.sheds_medium, process, counts: Default::default() }
    }

    /// Counts what is not to go at once: MEDIUM is told to come later where that is its policy.
    fn count(&mut self, priority: usize, passed: &Passed) {
        let counts = &mut self.counts[priority];
        counts.delays += i128::from(passed.delayed);
        counts.held += passed.held;
        let refused = i128::from(passed.refused);
        if priority == MEDIUM && !self.sheds_medium {
            counts.delays += refused;
        } else {
            counts.sheds += refused;
        }
    }

    fn note(&mut self, step_ms: i64) {
        let process = &self.process;
        for (priority, counts) in self.counts.iter_mut().enumerate() {
            let line = process.line.as_ref().filter(|_| priority == MEDIUM);
            let refuses = line.map_or(process.shares[priority].refuses_ppm() > 0, |line| line.waiting > 0);
            let waits = priority == MEDIUM && (line.is_some() || !self.sheds_medium);
            counts.note(step_ms, process.zone, refuses && !waits, refuses);
        }
    }

    /// Returns how long nothing is decided anew.
    fn step_ms(&self, now_ms: i64, begin_ms: i64, span_ms: i64, offers: &[i64; 3]) -> i64 {
        let process = &self.process;
        let left_ms = begin_ms + span_ms - now_ms;
        let step_ms = left_ms.min((process.call_at_ms - now_ms).max(1)).min(LONGEST_STEP_MS);
        if step_ms > process.hurry_ms() {
            let begin = now_ms - begin_ms;
            let mut more = offers.map(|jobs| dealt(jobs, begin, begin + step_ms, span_ms));
            if process.line.is_some() {
                more[MEDIUM] = 0;
            }
            if process.is_pressed(more) {
                return process.hurry_ms();
            }
        }
        step_ms
    }
}

/// Offers judged at the recorded backlog, as where decisions are observed: by shares, and all go.
#[derive(Debug)]
pub struct AgedRecord(Aged);

impl AgedRecord {
    /// Makes one of which no budget knows.
    pub fn new(policy: &AgePolicy) -> Self {
        Self(Aged::new(policy, true))
    }

    /// Returns offers and what became of them.
    pub fn counts(&self) -> &[Counts; 3] {
        &self.0.counts
    }

    /// Begins anew.
    pub fn begin(&mut self, row: &Row) {
        self.0.process.begin(row.at_ms());
    }

    /// Lets the time between two rows go by.
    pub fn pass_by(&mut self, before: &Row, span_ms: i64, flow: &Flow) {
        let aged = &mut self.0;
        let (offers, begin_ms) = (flow.offers.unwrap_or_default(), before.at_ms());
        let mut now_ms = begin_ms;
        while now_ms < begin_ms + span_ms {
            if now_ms >= aged.process.call_at_ms {
                let oldest_ms = oldest(before).map(|age| age.max(0));
                let called = aged.process.call(now_ms, before.backlog() * JOB, oldest_ms, before.memory());
                for (priority, passed) in called.iter().enumerate() {
                    aged.process.enqueued -= passed.goes; // of what goes in any case
                    aged.count(priority, passed);
                }
            }
            let step_ms = aged.step_ms(now_ms, begin_ms, span_ms, &offers);
            let (begin, end) = (now_ms - begin_ms, now_ms - begin_ms + step_ms);
            for priority in PRIORITIES {
                let jobs = dealt(offers[priority], begin, end, span_ms);
                aged.counts[priority].offers += i128::from(jobs);
                let passed = aged.process.shares[priority].offer(jobs);
                aged.count(priority, &passed);
            }
            aged.process.enqueued = (aged.process.enqueued + dealt(flow.let_in, begin, end, span_ms)).min(MOST);
            aged.note(step_ms);
            now_ms += step_ms;
            aged.process.look(now_ms);
        }
    }
}

/// One answer with feedback. Jobs are whole millionths.
#[derive(Debug)]
pub struct AgedWorld {
    aged: Aged,
    producers: Option<Producers>,
    /// The queue.
    pub backlog: Backlog,
    /// How much time was simulated.
    pub simulated_ms: i64,
}

impl AgedWorld {
    /// Makes one in which nothing was before.
    pub fn new(settings: &ReplaySettings, policy: &AgePolicy, behaviour: Option<&BehaviourSettings>) -> Self {
        Self {
            aged: Aged::new(policy, false),
            producers: behaviour.map(Producers::new),
            backlog: Backlog::new(settings.trail_ms),
            simulated_ms: 0,
        }
    }

    /// Returns offers and what became of them.
    pub fn counts(&self) -> &[Counts; 3] {
        &self.aged.counts
    }

    /// Begins anew with a recorded backlog.
    pub fn begin(&mut self, row: &Row) {
        self.backlog.begin(row);
        self.aged.process.begin(row.at_ms());
        if let Some(producers) = &mut self.producers {
            producers.begin(row.at_ms());
        }
    }

    /// Lets the time between two rows go by; see [`super::World::pass_by`].
    pub fn pass_by(&mut self, interval: &Interval, in_force: Option<&[Verdict; 3]>) {
        let Interval { begin_ms, span_ms, mut offers, .. } = *interval;
        let mut loops = [Loops::default(); 3];
        if let Some(producers) = &mut self.producers {
            loops = producers.apart(&mut offers, begin_ms, span_ms, interval.sheds, in_force);
        }
        let mut now_ms = begin_ms;
        while now_ms < begin_ms + span_ms {
            let mut come = if now_ms >= self.aged.process.call_at_ms { self.call(now_ms, interval) } else { 0 };
            let step_ms = self.aged.step_ms(now_ms, begin_ms, span_ms, &offers);
            let (begin, end) = (now_ms - begin_ms, now_ms - begin_ms + step_ms);
            come += dealt(interval.others, begin, end, span_ms);
            for priority in PRIORITIES {
                let jobs = dealt(offers[priority], begin, end, span_ms);
                come += self.offer(priority, jobs, now_ms, step_ms, loops[priority]);
            }
            self.backlog.work(come, dealt(interval.capacity, begin, end, span_ms), now_ms, step_ms);
            self.aged.note(step_ms);
            now_ms += step_ms;
            self.aged.process.look(now_ms);
        }
        self.simulated_ms += span_ms;
    }

    /// Calls the budget; returns the jobs that go by its answer at once.
    fn call(&mut self, now_ms: i64, interval: &Interval) -> i64 {
        let oldest_ms = interval.knows_oldest.then(|| self.backlog.oldest_ms(now_ms));
        let called = self.aged.process.call(now_ms, self.backlog.jobs, oldest_ms, interval.memory);
        for (priority, passed) in called.iter().enumerate() {
            self.aged.count(priority, passed);
            if let Some(producers) = &mut self.producers {
                producers.shed(priority, passed.refused, self.aged.process.told_us);
            }
        }
        called.iter().map(|passed| passed.goes).sum()
    }

    /// Offers jobs of one priority; returns those that go, with others that waited for their turn.
    fn offer(&mut self, priority: usize, mut jobs: i64, now_ms: i64, step_ms: i64, loops: Loops) -> i64 {
        let (fleet, for_us) = (&mut self.aged.process, 1_000 * step_ms);
        if let Some(producers) = &mut self.producers {
            jobs = producers.with_back(priority, jobs, now_ms);
        }
        let mut of_loops = 0;
        let passed = if let Some(line) = fleet.line.as_mut().filter(|_| priority == MEDIUM) {
            if loops.count > 0 {
                of_loops = line.offers_of_loops(loops, jobs, for_us);
            }
            line.offer(jobs, of_loops, for_us)
        } else {
            let share = &mut fleet.shares[priority];
            if loops.count > 0 {
                of_loops = share.offers_of_loops(loops, fleet.told_us, for_us);
            }
            share.offer(jobs + of_loops)
        };
        fleet.enqueued += passed.goes;
        let told_us = fleet.told_us;
        self.aged.counts[priority].offers += i128::from(jobs + of_loops);
        self.aged.count(priority, &passed);
        if let Some(producers) = self.producers.as_mut().filter(|_| passed.refused > 0) {
            // Loops ask again by themselves.
            producers.shed(priority, fraction(passed.refused, jobs, jobs + of_loops), told_us);
        }
        passed.goes
    }
}

/// Returns the recorded age of the oldest job.
fn oldest(row: &Row) -> Option<i64> {
    Some(row.oldest_age_ms()).filter(|age| *age != UNKNOWN)
}
