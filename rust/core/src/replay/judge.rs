//! Asks a law what it says of a backlog, and asks again only when that is another one.

use super::flow::JOB;
use crate::laws::{AnyLaw, State};
use crate::sample::Sample;
use crate::vocabulary::Priority;

/// As many jobs as nobody offers between two reads.
const UNBOUNDED: i64 = 1_000_000_000_000;

/// What a law says of jobs of one priority.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict {
    /// Whether they are refused.
    pub shed: bool,
    /// Whether they are to wait.
    pub waits: bool,
    /// Microseconds that they are to wait, or, where they are refused, until another attempt.
    pub told_us: i64,
    /// How long they wait, as producers sleep.
    pub held_us: i64,
    /// Place of the zone among all.
    pub zone: usize,
    /// Jobs that may be let in before the queue is read before its time.
    pub room: i64,
}

/// A law with its latest verdicts, LOW first.
#[derive(Debug)]
pub struct Judge {
    law: AnyLaw,
    /// From this backlog on it says the same.
    steady: i64,
    state: State,
    sleep_permille: i64,
    sample: Option<(i64, Option<u64>)>,
    /// The latest.
    pub verdicts: [Verdict; 3],
    /// How many more jobs than `sample` has would be green too, and how many of them there are.
    green: i64,
    more: i64,
}

impl Judge {
    /// Makes the judge of a law.
    pub fn new(law: AnyLaw, sleep_permille: i64) -> Self {
        Self {
            steady: law.steady_from(),
            law,
            state: State::default(),
            sleep_permille,
            sample: None,
            verdicts: [Verdict::default(); 3],
            green: 0,
            more: 0,
        }
    }

    /// Returns what the law says of so many waiting jobs.
    #[inline]
    pub fn judge(&mut self, backlog: i64, memory_permille: Option<u64>) -> &[Verdict; 3] {
        if !self.knows(backlog, memory_permille) {
            self.ask(backlog, memory_permille);
        }
        &self.verdicts
    }

    /// Tells whether the latest verdicts are those of so many waiting jobs, too.
    #[inline]
    pub fn knows(&mut self, backlog: i64, memory_permille: Option<u64>) -> bool {
        let Some((last, memory)) = self.sample else { return false };
        self.more = backlog.min(self.steady) - last;
        memory == memory_permille && (0..=self.green).contains(&self.more)
    }

    /// Asks the law.
    #[inline(never)]
    pub fn ask(&mut self, backlog: i64, memory_permille: Option<u64>) {
        let backlog = backlog.min(self.steady);
        self.sample = Some((backlog, memory_permille));
        let sample = Sample { number: 0, backlog, oldest_age_ns: None, memory_permille, as_of_ns: 0 };
        self.verdicts = Priority::ALL.map(|priority| self.verdict(&sample, priority));
        self.more = 0;
        self.green = if self.is_busy() { 0 } else { self.least_room() };
    }

    fn least_room(&self) -> i64 {
        self.verdicts.iter().map(|verdict| verdict.room).min().unwrap_or(0)
    }

    /// Returns how many millionths of jobs may be let in before the latest verdicts are likely to be others.
    pub fn room(&self) -> i64 {
        (self.least_room() - self.more) * JOB
    }

    /// Tells whether the latest zones are not all green, so that the queue is read more often.
    pub fn is_busy(&self) -> bool {
        self.verdicts.iter().any(|verdict| verdict.zone != 0)
    }

    fn verdict(&self, sample: &Sample, priority: Priority) -> Verdict {
        let advice = self.law.advise(sample, priority, &self.state);
        let told_us = i64::try_from(advice.delay_ns / 1_000).expect("a 1000th of 64 bits fits in 63");
        let waits = advice.delay_ns > 0 && !advice.shed;
        let held_us = if waits { stretched(told_us, self.sleep_permille) } else { 0 };
        let room = advice.room.and_then(|room| i64::try_from(room).ok()).map_or(UNBOUNDED, |room| room.min(UNBOUNDED));
        Verdict { shed: advice.shed, waits, told_us, held_us, zone: advice.zone.index(), room }
    }
}

fn stretched(told_us: i64, permille: i64) -> i64 {
    match told_us.checked_mul(permille) {
        Some(product) => product / 1_000,
        None => i64::try_from(i128::from(told_us) * i128::from(permille) / 1_000).unwrap_or(i64::MAX),
    }
}
