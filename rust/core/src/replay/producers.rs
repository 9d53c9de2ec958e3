//! What producers do about what they are told: whose jobs come back, and who waits for one before the next.

use super::flow::{FLOW, JOB, narrow, part};
use super::judge::Verdict;
use super::later::Later;
use super::settings::{BehaviourSettings, LoopSettings};

const LONGEST_PAUSE_US: i64 = 1_000_000_000_000_000;
/// So many pauses are as long as the time from one job to the next at most.
const LEAST_PAUSE: i128 = 10;

/// Who offers again by themselves: how many, and how long after their last job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loops {
    pub count: i64,
    pub pause_us: i64,
    /// Whether that is the time from offer to offer, unless a job took longer.
    pub paced: bool,
    /// Whether they wait for nothing after a job that is shed.
    pub skips: bool,
}

impl Loops {
    /// Returns how long one waits for a job.
    pub fn waits_us(self, verdict: &Verdict) -> i64 {
        match (verdict.shed, self.skips) {
            (true, true) => 0,
            (true, false) => verdict.told_us,
            (false, _) => verdict.held_us,
        }
    }

    /// Returns the time from offer to offer of who waits so long for each job.
    pub fn cycle_us(self, waits_us: i64) -> i64 {
        if self.paced { self.pause_us.max(waits_us).max(1) } else { (self.pause_us + waits_us).max(1) }
    }

    /// Returns how many jobs they offer in a step of time.
    pub fn offers(self, waits_us: i64, step_us: i64) -> i64 {
        (self.count * JOB * step_us / self.cycle_us(waits_us)).min(FLOW)
    }
}

/// Millionths of jobs; triples are LOW, MEDIUM, HIGH.
#[derive(Debug)]
pub struct Producers {
    behaviour: BehaviourSettings,
    back: [Later; 3],
    /// Those of jobs that were shed while the recording was made: they are among its offers.
    recorded_back: [Later; 3],
}

impl Producers {
    /// Makes those that behave so.
    pub fn new(behaviour: &BehaviourSettings) -> Self {
        Self { behaviour: behaviour.clone(), back: Default::default(), recorded_back: Default::default() }
    }

    /// Begins anew: nobody comes back.
    pub fn begin(&mut self, now_ms: i64) {
        self.back.iter_mut().chain(&mut self.recorded_back).for_each(|later| later.clear(now_ms));
    }

    /// Returns offers with those of who comes back by now.
    #[inline]
    pub fn with_back(&mut self, priority: usize, jobs: i64, now_ms: i64) -> i64 {
        (jobs + self.back[priority].take(now_ms)).min(FLOW)
    }

    /// Has some of shed jobs come back.
    #[inline]
    pub fn shed(&mut self, priority: usize, jobs: i64, told_us: i64) {
        let after_us = self.behaviour.return_after_us.unwrap_or(told_us);
        self.back[priority].put_later(part(jobs, self.behaviour.returns_ppm[priority]), after_us);
    }

    /// Leaves those offers that come whatever is advised; returns how many loops offer, with which pause.
    ///
    /// Recorded offers are both, and those of jobs that had been shed and came back.
    pub fn apart(
        &mut self,
        offers: &mut [i64; 3],
        now_ms: i64,
        span_ms: i64,
        sheds: [i64; 3],
        in_force: Option<&[Verdict; 3]>,
    ) -> [Loops; 3] {
        let mut loops = [Loops::default(); 3];
        for priority in 0..3 {
            let verdict = in_force.map(|verdicts| &verdicts[priority]);
            let back = &mut self.recorded_back[priority];
            offers[priority] = (offers[priority] - back.take(now_ms)).max(0);
            let mut theirs = 0;
            if let Some(settings) = self.behaviour.loops[priority] {
                (loops[priority], theirs) = loops_of(settings, offers[priority], span_ms, verdict);
                offers[priority] -= theirs;
            }
            if let Some(verdict) = verdict {
                let shed = (sheds[priority] - theirs).max(0); // loops ask again by themselves
                let after_us = self.behaviour.return_after_us.unwrap_or(verdict.told_us);
                back.put_later(part(shed, self.behaviour.returns_ppm[priority]), after_us);
            }
        }
        loops
    }
}

/// Returns who offers by themselves, and how many of the recorded offers were theirs.
fn loops_of(given: LoopSettings, offers: i64, span_ms: i64, verdict: Option<&Verdict>) -> (Loops, i64) {
    let LoopSettings { count, pause_us, paced, skips } = given;
    let loops = Loops { count, pause_us: pause_us.unwrap_or(0), paced, skips };
    let waited_us = verdict.map_or(0, |it| loops.waits_us(it));
    let time_us = i128::from(count * JOB) * i128::from(span_ms * 1_000);
    if pause_us.is_some() {
        let theirs = time_us / i128::from(loops.cycle_us(waited_us));
        return (loops, narrow(theirs.min(i128::from(offers))));
    }
    if offers == 0 {
        return (Loops::default(), 0);
    }
    let cycle_us = time_us / i128::from(offers);
    // Who waited for all of that are not so many: without a pause there would be no end of their offers.
    let pause_us = if paced { cycle_us } else { (cycle_us - i128::from(waited_us)).max(cycle_us / LEAST_PAUSE) };
    (Loops { pause_us: narrow(pause_us.min(i128::from(LONGEST_PAUSE_US))), ..loops }, offers)
}
