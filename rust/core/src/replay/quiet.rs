//! Hours in which nothing changes but backlog and offers, as most are: their rows are taken together for as long as the
//! law says the same of them.

use std::borrow::Cow;

use super::columns::{Block, UNKNOWN};
use super::flow::{JOB, MOST, flow};
use super::interval::Interval;
use super::row::{AT_MS, BACKLOG, COUNTS, Row, jobs};
use super::{LAST_MS, QueueReplay, Told};

/// The rows of such a block: nothing was delayed or shed, no circuit was open, and only offers tell what came.
pub struct Quiet<'a> {
    at_ms: &'a [i64],
    backlog: Cow<'a, [i64]>,
    /// LOW first.
    offers: [Cow<'a, [i64]>; 3],
}

impl<'a> Quiet<'a> {
    /// Returns the rows of a block, if it is one.
    pub fn of(block: &'a Block) -> Option<Self> {
        let constants = &block.constants;
        let idle = [constants.delays(), constants.sheds()].iter().flatten().all(|count| *count <= 0);
        let silent = constants.entered() == UNKNOWN && constants.left() == UNKNOWN;
        let offers = [COUNTS + 6, COUNTS + 3, COUNTS];
        let may_change = |column| column == AT_MS || column == BACKLOG || offers.contains(&column);
        let (Cow::Borrowed(at_ms), true) = (block.column(AT_MS), idle && silent && !constants.is_open()) else {
            return None; // of two rows at one instant, one would be skipped
        };
        block.changing().all(may_change).then(|| Self {
            at_ms,
            backlog: block.column(BACKLOG),
            offers: offers.map(|column| block.column(column)),
        })
    }
}

impl QueueReplay {
    /// Takes rows of a quiet block, from a place on, for as long as the law says the same; returns the next place.
    ///
    /// `before` is the row before, and of the same block. What is done is what [`Self::take`] does, less what is known
    /// beforehand.
    pub(super) fn take_alike(&mut self, rows: &Quiet<'_>, before: &Row, from: usize) -> usize {
        let Some(judge) = self.judge.as_mut().filter(|_| self.begun && self.flows.is_settled()) else { return from };
        let (mut other, mut is_known, mut enforces) = (None, false, false);
        if let Some(policy) = self.in_force.iter_mut().find(|it| it.number == before.policy()) {
            enforces = policy.enforces;
            match &mut policy.told {
                Told::Unknown => {}
                Told::Same => is_known = true,
                Told::Other(judge) => (is_known, other) = (true, Some(judge)),
            }
        }
        let memory = before.memory();
        let (mut begin_ms, mut backlog, mut place) = (before.at_ms(), before.backlog(), from);
        let (mut sums, mut sum, mut span, mut busy, mut others) = ([0; 3], 0, 0, 0, 0);
        let count = rows.at_ms.len();
        let [low, medium, high] = rows.offers.each_ref().map(|column| &column[..count]);
        let backlogs = &rows.backlog[..count];
        while place < count && sum <= MOST {
            let (at_ms, told) = (rows.at_ms[place], [low[place], medium[place], high[place]]);
            let span_ms = at_ms - begin_ms;
            let alike = judge.knows(backlog, memory) && other.as_mut().is_none_or(|it| it.knows(backlog, memory));
            if !alike || told == [UNKNOWN; 3] || !(1..=self.gap_ms).contains(&span_ms) || at_ms >= LAST_MS {
                break;
            }
            let next = jobs(backlogs[place]);
            let offers = told.map(flow);
            let own = offers.iter().sum();
            let (from_nowhere, capacity, is_busy) = self.flows.quiet(own, backlog, next, span_ms);
            let interval = Interval {
                begin_ms,
                span_ms,
                memory,
                knows_oldest: before.oldest_age_ms() != UNKNOWN,
                offers,
                sheds: [0; 3],
                others: from_nowhere,
                capacity,
            };
            for world in &mut self.worlds {
                let in_force = other.as_ref().map_or(&judge.verdicts, |it| &it.verdicts);
                world.pass_by(&interval, (is_known && enforces).then_some(in_force));
            }
            self.trail.note(at_ms, next * JOB);
            for (sum, jobs) in sums.iter_mut().zip(offers) {
                *sum += jobs;
            }
            sum += own;
            span += span_ms;
            busy += if is_busy { span_ms } else { 0 };
            others += i128::from(from_nowhere);
            (begin_ms, backlog, place) = (at_ms, next, place + 1);
        }
        self.tally.last(span);
        for (priority, verdict) in judge.verdicts.iter().enumerate() {
            self.tally.judge(priority, sums[priority], verdict);
        }
        if is_known {
            let in_force = other.as_ref().map_or(&judge.verdicts, |it| &it.verdicts);
            self.parity.compare(sums, [0; 3], [0; 3], in_force, enforces);
        }
        let basis = &mut self.basis;
        basis.rows += u64::try_from(place - from).unwrap_or_default();
        basis.judged_ms += span;
        basis.offers_ms += span;
        basis.busy_ms += busy;
        basis.others += others;
        place
    }
}
