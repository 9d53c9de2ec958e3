//! A simulated queue under a law that judges samples: read and judged as by producers.

use super::backlog::Backlog;
use super::counts::Tally;
use super::flow::JOB;
use super::interval::Interval;
use super::judge::{Judge, Verdict};
use super::later::Later;
use super::producers::{Loops, Producers};
use super::row::Row;
use super::settings::{BehaviourSettings, ReplaySettings};
use crate::laws::AnyLaw;

/// An amount that is dealt among steps: each gets as much, and the first of them one more.
#[derive(Clone, Copy)]
struct Dealt {
    each: i64,
    more: i64,
}

impl Dealt {
    #[inline]
    fn among(amount: i64, steps: i64) -> Self {
        Self { each: amount / steps, more: amount % steps }
    }

    #[inline]
    fn at(self, step: i64) -> i64 {
        self.each + i64::from(step < self.more)
    }
}

/// One answer with feedback. Jobs are whole millionths; time goes in steps of about a second.
#[derive(Debug)]
pub struct World {
    judge: Judge,
    poll_ms: i64,
    busy_poll_ms: i64,
    producers: Option<Producers>,
    late: Later,
    due_ms: i64,
    /// Jobs that were let in since the queue was read, and how many may be.
    let_in: i64,
    room: i64,
    /// The queue.
    pub backlog: Backlog,
    /// Offers and what became of them, LOW first.
    pub tally: Tally,
    /// How much time was simulated.
    pub simulated_ms: i64,
}

impl World {
    /// Makes one in which nothing was before.
    pub fn new(settings: &ReplaySettings, law: &AnyLaw, behaviour: Option<&BehaviourSettings>) -> Self {
        Self {
            judge: Judge::new(law.clone(), settings.sleep_permille),
            poll_ms: settings.poll_ms,
            busy_poll_ms: settings.busy_poll_ms,
            producers: behaviour.map(Producers::new),
            late: Later::default(),
            due_ms: 0,
            let_in: 0,
            room: 0,
            backlog: Backlog::new(settings.trail_ms),
            tally: Tally::default(),
            simulated_ms: 0,
        }
    }

    /// Begins anew with a recorded backlog.
    pub fn begin(&mut self, row: &Row) {
        self.backlog.begin(row);
        self.late.clear(row.at_ms());
        if let Some(producers) = &mut self.producers {
            producers.begin(row.at_ms());
        }
        (self.due_ms, self.let_in, self.room) = (row.at_ms(), 0, 0);
    }

    /// Lets the time between two rows go by.
    ///
    /// `in_force` is what producers were told then, and did; `None`: nothing, or it is not known.
    #[inline]
    pub fn pass_by(&mut self, interval: &Interval, in_force: Option<&[Verdict; 3]>) {
        let Interval { begin_ms, span_ms, mut offers, .. } = *interval;
        let mut loops = [Loops::default(); 3];
        if let Some(producers) = &mut self.producers {
            loops = producers.apart(&mut offers, begin_ms, span_ms, interval.sheds, in_force);
        }
        self.simulated_ms += span_ms;
        match ((span_ms + 499) / 1_000).max(1) {
            1 => self.step(interval, &offers, &loops),
            steps => self.step_by_step(interval, offers, &loops, steps),
        }
    }

    #[inline(never)]
    fn step_by_step(&mut self, whole: &Interval, offers: [i64; 3], loops: &[Loops; 3], steps: i64) {
        let span = Dealt::among(whole.span_ms, steps);
        let dealt = offers.map(|jobs| Dealt::among(jobs, steps));
        let (others, capacity) = (Dealt::among(whole.others, steps), Dealt::among(whole.capacity, steps));
        let mut begin_ms = whole.begin_ms;
        for number in 0..steps {
            let step = Interval {
                begin_ms,
                span_ms: span.at(number),
                others: others.at(number),
                capacity: capacity.at(number),
                ..*whole
            };
            self.step(&step, &dealt.map(|jobs| jobs.at(number)), loops);
            begin_ms += step.span_ms;
        }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "else each step is written to memory and read again")]
    fn step(&mut self, step: &Interval, offers: &[i64; 3], loops: &[Loops; 3]) {
        let (now_ms, span_ms) = (step.begin_ms, step.span_ms);
        if now_ms >= self.due_ms || self.let_in > self.room {
            self.read(now_ms, step.memory);
        }
        self.tally.last(span_ms);
        let mut come = step.others + self.late.take(now_ms);
        let mut let_in = 0;
        for (priority, verdict) in self.judge.verdicts.iter().enumerate() {
            let mut jobs = offers[priority];
            if let Some(producers) = &mut self.producers {
                jobs = producers.with_back(priority, jobs, now_ms);
                if verdict.shed {
                    producers.shed(priority, jobs, verdict.told_us);
                }
                let loops = loops[priority];
                if loops.count > 0 {
                    jobs += loops.offers(loops.waits_us(verdict), 1_000 * span_ms);
                }
            }
            self.tally.judge(priority, jobs, verdict);
            if !verdict.shed {
                let_in += jobs;
                come += if verdict.waits { self.late.put(jobs, verdict.held_us) } else { jobs };
            }
        }
        self.let_in = self.let_in.saturating_add(let_in);
        self.backlog.work(come, step.capacity, now_ms, span_ms);
    }

    /// Counts all that came, before a time of which nothing is known.
    pub fn end(&mut self) {
        self.tally.settle(&self.judge.verdicts);
    }

    /// Reads the backlog as producers do, and judges it.
    #[inline]
    fn read(&mut self, now_ms: i64, memory: Option<u64>) {
        self.tally.ask(&mut self.judge, self.backlog.jobs / JOB, memory);
        self.due_ms = now_ms + if self.judge.is_busy() { self.busy_poll_ms } else { self.poll_ms };
        (self.let_in, self.room) = (0, self.judge.room());
    }
}
