//! A simulated backlog: fed by what is offered and let in, emptied by workers, read and judged as by producers.

use std::collections::VecDeque;

use super::counts::Counts;
use super::flow::{FLOW, Flow, JOB, MOST, narrow, part};
use super::judge::{Judge, Verdict};
use super::later::Later;
use super::row::Row;
use super::settings::{BehaviourSettings, LoopSettings, ReplaySettings};
use super::trail::Trail;

const LONGEST_PAUSE_US: i64 = 1_000_000_000_000_000;
const PRIORITIES: [usize; 3] = [0, 1, 2];

/// Who offers again by themselves: how many, and how long after their last job.
#[derive(Clone, Copy, Default)]
struct Loops {
    count: i64,
    pause_us: i64,
}

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

/// What producers do, and the jobs that come back by it.
#[derive(Debug)]
struct Behaviour {
    settings: BehaviourSettings,
    back: [Later; 3],
    /// Those of jobs that were shed while the recording was made: they are among its offers.
    recorded_back: [Later; 3],
}

/// One answer with feedback. Jobs are whole millionths; time goes in steps of about a second.
#[derive(Debug)]
pub struct World {
    judge: Judge,
    poll_ms: i64,
    busy_poll_ms: i64,
    behaviour: Option<Behaviour>,
    late: Later,
    verdicts: [Verdict; 3],
    /// Whether they were read since it began.
    is_told: bool,
    due_ms: i64,
    judged_ms: i64,
    /// Jobs that were let in since the queue was read, and how many may be.
    let_in: i64,
    room: i64,
    backlog: i64,
    /// Jobs that wait, by when they came.
    waiting: VecDeque<(i64, i64)>,
    /// Offers and what became of them, LOW first.
    pub counts: [Counts; 3],
    /// How much time was simulated.
    pub simulated_ms: i64,
    /// Age of the oldest job that ever waited.
    pub longest_wait_ms: i64,
    /// The backlog over time.
    pub trail: Trail,
}

impl World {
    /// Makes one in which nothing was before.
    pub fn new(settings: &ReplaySettings, behaviour: Option<&BehaviourSettings>) -> Self {
        Self {
            judge: Judge::new(settings.law.clone(), settings.sleep_permille),
            poll_ms: settings.poll_ms,
            busy_poll_ms: settings.busy_poll_ms,
            behaviour: behaviour.map(|settings| Behaviour {
                settings: settings.clone(),
                back: Default::default(),
                recorded_back: Default::default(),
            }),
            late: Later::default(),
            verdicts: Default::default(),
            is_told: false,
            due_ms: 0,
            judged_ms: 0,
            let_in: 0,
            room: 0,
            backlog: 0,
            waiting: VecDeque::new(),
            counts: Default::default(),
            simulated_ms: 0,
            longest_wait_ms: 0,
            trail: Trail::new(settings.trail_ms),
        }
    }

    /// Begins anew with a recorded backlog.
    pub fn begin(&mut self, row: &Row) {
        self.backlog = row.backlog() * JOB;
        self.late.clear(row.at_ms());
        if let Some(behaviour) = &mut self.behaviour {
            behaviour.back.iter_mut().chain(&mut behaviour.recorded_back).for_each(|later| later.clear(row.at_ms()));
        }
        (self.due_ms, self.judged_ms) = (row.at_ms(), row.at_ms());
        (self.let_in, self.room) = (0, 0);
        self.is_told = false;
        self.waiting.clear();
        if self.backlog > 0 {
            self.waiting.push_back((self.backlog, row.at_ms() - row.oldest_age_ms().clamp(0, row.at_ms())));
        }
        self.trail.note(row.at_ms(), self.backlog);
    }

    /// Lets the time between two rows go by.
    ///
    /// `in_force` is what producers were told then, and did; `None`: nothing, or it is not known.
    #[inline]
    pub fn pass_by(&mut self, before: &Row, span_ms: i64, flow: &Flow, in_force: Option<&[Verdict; 3]>) {
        let mut offers = flow.offers.unwrap_or_default();
        let mut loops = [Loops::default(); 3];
        if let Some(behaviour) = &mut self.behaviour {
            behaviour.apart(&mut offers, &mut loops, before.at_ms(), span_ms, flow, in_force);
        }
        self.simulated_ms += span_ms;
        let (memory, steps) = (before.memory(), ((span_ms + 499) / 1_000).max(1));
        if steps == 1 {
            self.step(before.at_ms(), span_ms, memory, &offers, &loops, flow.others, flow.capacity);
            return;
        }
        let span = Dealt::among(span_ms, steps);
        let dealt = offers.map(|jobs| Dealt::among(jobs, steps));
        let (others, capacity) = (Dealt::among(flow.others, steps), Dealt::among(flow.capacity, steps));
        let mut now_ms = before.at_ms();
        for step in 0..steps {
            let step_ms = span.at(step);
            let offers = dealt.map(|jobs| jobs.at(step));
            self.step(now_ms, step_ms, memory, &offers, &loops, others.at(step), capacity.at(step));
            now_ms += step_ms;
        }
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "a struct of them would be made anew for each step")]
    fn step(
        &mut self,
        now_ms: i64,
        step_ms: i64,
        memory: Option<u64>,
        offers: &[i64; 3],
        loops: &[Loops; 3],
        others: i64,
        capacity: i64,
    ) {
        if now_ms >= self.due_ms || self.let_in > self.room {
            self.read(now_ms, memory);
        }
        let mut come = others + self.late.take(now_ms);
        for priority in PRIORITIES {
            come += self.offer(priority, offers[priority], now_ms, step_ms, loops[priority]);
        }
        self.work(come, capacity, now_ms, step_ms);
    }

    /// Counts to an instant, after which nothing is known.
    pub fn end(&mut self, now_ms: i64) {
        self.settle(now_ms);
        self.is_told = false;
    }

    /// Reads the backlog as producers do, and judges it.
    fn read(&mut self, now_ms: i64, memory: Option<u64>) {
        self.settle(now_ms);
        self.verdicts = *self.judge.judge(self.backlog / JOB, memory);
        self.is_told = true;
        self.due_ms = now_ms + if self.judge.is_busy() { self.busy_poll_ms } else { self.poll_ms };
        (self.let_in, self.room) = (0, self.judge.room());
    }

    fn settle(&mut self, now_ms: i64) {
        if self.is_told {
            for (counts, verdict) in self.counts.iter_mut().zip(&self.verdicts) {
                counts.last(now_ms - self.judged_ms, verdict);
            }
        }
        self.judged_ms = now_ms;
    }

    /// Offers jobs of one priority; returns those that are let in at once.
    #[inline]
    fn offer(&mut self, priority: usize, mut jobs: i64, now_ms: i64, step_ms: i64, loops: Loops) -> i64 {
        let verdict = &self.verdicts[priority];
        if let Some(behaviour) = &mut self.behaviour {
            jobs = behaviour.offer(priority, jobs, now_ms, step_ms, loops, verdict);
        }
        self.counts[priority].judge(jobs, verdict);
        if verdict.shed {
            return 0;
        }
        self.let_in = self.let_in.saturating_add(jobs);
        if verdict.waits { self.late.put(jobs, verdict.held_us) } else { jobs }
    }

    /// Lets jobs in, and workers take what they can.
    #[inline]
    fn work(&mut self, come: i64, capacity: i64, now_ms: i64, step_ms: i64) {
        let have = (self.backlog + come).min(MOST);
        let come = have - self.backlog;
        let mut out = have.min(capacity);
        self.backlog = have - out;
        if self.backlog == 0 {
            self.waiting.clear();
        } else {
            if come > 0 {
                self.waiting.push_back((come, now_ms));
            }
            while let Some((jobs, since_ms)) = self.waiting.front_mut() {
                if out < *jobs {
                    *jobs -= out;
                    self.longest_wait_ms = self.longest_wait_ms.max(now_ms + step_ms - *since_ms);
                    break;
                }
                out -= *jobs;
                self.waiting.pop_front();
            }
        }
        self.trail.note(now_ms + step_ms, self.backlog);
    }
}

impl Behaviour {
    /// Returns the offers of a step, with those of who comes back and of loops.
    fn offer(&mut self, priority: usize, jobs: i64, now_ms: i64, step_ms: i64, loops: Loops, verdict: &Verdict) -> i64 {
        let back = &mut self.back[priority];
        let jobs = (jobs + back.take(now_ms)).min(FLOW);
        if verdict.shed {
            let after_us = self.settings.return_after_us.unwrap_or(verdict.told_us);
            back.put_later(part(jobs, self.settings.returns_ppm[priority]), after_us);
        }
        if loops.count == 0 {
            return jobs;
        }
        let Some(settings) = self.settings.loops[priority] else { return jobs };
        let cycle_us = settings.cycle_us(loops.pause_us, settings.waits_us(verdict));
        jobs + (loops.count * JOB * step_ms * 1_000 / cycle_us).min(FLOW)
    }

    /// Leaves those offers that come whatever is advised, and tells how many loops offer, with which pause.
    ///
    /// Recorded offers are both, and those of jobs that had been shed and came back.
    fn apart(
        &mut self,
        offers: &mut [i64; 3],
        loops: &mut [Loops; 3],
        now_ms: i64,
        span_ms: i64,
        flow: &Flow,
        in_force: Option<&[Verdict; 3]>,
    ) {
        for priority in PRIORITIES {
            let verdict = in_force.map(|verdicts| &verdicts[priority]);
            let back = &mut self.recorded_back[priority];
            offers[priority] = (offers[priority] - back.take(now_ms)).max(0);
            let mut theirs = 0;
            if let Some(settings) = self.settings.loops[priority] {
                let waited_us = verdict.map_or(0, |it| settings.waits_us(it));
                (loops[priority], theirs) = loops_of(settings, offers[priority], span_ms, waited_us);
                offers[priority] -= theirs;
            }
            if let Some(verdict) = verdict {
                let shed = (flow.sheds[priority] - theirs).max(0); // loops ask again by themselves
                let after_us = self.settings.return_after_us.unwrap_or(verdict.told_us);
                back.put_later(part(shed, self.settings.returns_ppm[priority]), after_us);
            }
        }
    }
}

/// Returns how many loops offer, with which pause, and how many of the recorded offers were theirs.
fn loops_of(settings: LoopSettings, offers: i64, span_ms: i64, waited_us: i64) -> (Loops, i64) {
    let count = settings.count;
    let time_us = i128::from(count * JOB) * i128::from(span_ms * 1_000);
    if let Some(pause_us) = settings.pause_us {
        let theirs = time_us / i128::from(settings.cycle_us(pause_us, waited_us));
        return (Loops { count, pause_us }, narrow(theirs.min(i128::from(offers))));
    }
    if offers == 0 {
        return (Loops::default(), 0);
    }
    let waited_us = if settings.paced { 0 } else { i128::from(waited_us) };
    let pause_us = (time_us / i128::from(offers) - waited_us).clamp(0, i128::from(LONGEST_PAUSE_US));
    (Loops { count, pause_us: narrow(pause_us) }, offers)
}
