//! The replay of one queue: what a policy would have done with what was recorded. See the Python `_replay`.
//!
//! It takes blocks of rows, and tells three answers and what they rest on: at the recorded backlog, at a backlog that
//! feels what is refused and delayed, and at one that feels what producers do about that.

mod aged;
mod backlog;
mod columns;
mod counts;
mod flow;
mod grants;
mod interval;
mod judge;
mod later;
mod parity;
mod process;
mod producers;
mod quiet;
mod row;
pub mod settings;
mod simulated;
mod trail;
mod world;

pub use columns::{Block, COLUMNS, Damage, UNKNOWN};
pub use counts::Counts;
use counts::Tally;
pub use parity::Parity;
pub use simulated::Simulated;
pub use trail::Trail;

use std::ops::Range;

use aged::AgedRecord;
use flow::{Flows, JOB};
use interval::Interval;
use judge::{Judge, Verdict};
use quiet::Quiet;
use row::Row;
use settings::{ReplaySettings, Tried};

/// Unix time of no row, in the year 3084.
const LAST_MS: i64 = 1 << 45;

/// What the answers rest on; milliseconds, and millionths of jobs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Basis {
    /// Rows that were taken.
    pub rows: u64,
    /// Rows that were not, as they were not later than the one before.
    pub skipped: u64,
    /// When the first one was.
    pub first_ms: i64,
    /// When the last one was.
    pub last_ms: i64,
    /// Time without gaps.
    pub judged_ms: i64,
    /// Time in gaps.
    pub gaps_ms: i64,
    /// Time of which offers are known.
    pub offers_ms: i64,
    /// Time of which it is known what left.
    pub drains_ms: i64,
    /// Time in which workers had jobs all along.
    pub busy_ms: i64,
    /// Offers in gaps.
    pub unjudged: i128,
    /// Offers that an open circuit refused.
    pub refused: i128,
    /// Jobs that came past any policy.
    pub others: i128,
    /// Whether it is known how full the server's memory was.
    pub knows_memory: bool,
    /// Age of the oldest job that was recorded.
    pub oldest_ms: Option<i64>,
}

struct InForce {
    number: i64,
    told: Told,
    enforces: bool,
}

/// By what a policy in force judged.
enum Told {
    /// That is not known.
    Unknown,
    /// The law that is tried.
    Same,
    /// Another one.
    Other(Box<Judge>),
}

/// Replays one queue.
pub struct QueueReplay {
    gap_ms: i64,
    /// Judges at the recorded backlog; `None`: an age is to be held.
    judge: Option<Judge>,
    tally: Tally,
    aged: Option<Box<AgedRecord>>,
    in_force: Vec<InForce>,
    flows: Flows,
    block: Block,
    before: Option<Row>,
    begun: bool,
    /// What the answers rest on.
    pub basis: Basis,
    /// The recorded backlog.
    pub trail: Trail,
    /// The answers with feedback: without, and if that is given with behaviour.
    pub worlds: Vec<Simulated>,
    /// How well the policy in force is replayed.
    pub parity: Parity,
}

impl QueueReplay {
    /// Makes one of settings.
    pub fn new(settings: &ReplaySettings) -> Self {
        let judge = |law: &crate::laws::AnyLaw| Judge::new(law.clone(), settings.sleep_permille);
        let mut worlds = vec![Simulated::new(settings, None)];
        worlds.extend(settings.behaviour.as_ref().map(|behaviour| Simulated::new(settings, Some(behaviour))));
        let in_force = settings.in_force.iter().map(|(number, policy)| InForce {
            number: *number,
            told: match &policy.law {
                None => Told::Unknown,
                Some(law) if matches!(&settings.law, Tried::Table(tried) if tried == law) => Told::Same,
                Some(law) => Told::Other(Box::new(judge(law))),
            },
            enforces: policy.enforces,
        });
        Self {
            gap_ms: settings.gap_ms,
            judge: match &settings.law {
                Tried::Table(law) => Some(judge(law)),
                Tried::Age(_) => None,
            },
            tally: Tally::default(),
            aged: match &settings.law {
                Tried::Table(_) => None,
                Tried::Age(policy) => Some(Box::new(AgedRecord::new(policy))),
            },
            in_force: in_force.collect(),
            flows: Flows::new(settings.mix_ppm),
            block: Block::default(),
            before: None,
            begun: false,
            basis: Basis::default(),
            trail: Trail::new(settings.trail_ms),
            worlds,
            parity: Parity::default(),
        }
    }

    /// Takes the rows of a block; blocks come in the order of their time.
    ///
    /// # Errors
    /// The bytes are damaged, or of other columns. Nothing was taken.
    pub fn feed(&mut self, content: &[u8], rows: usize) -> Result<(), Damage> {
        let mut block = std::mem::take(&mut self.block);
        let result = block.read(content, rows);
        if result.is_ok() {
            self.take_block(&block);
        }
        self.block = block;
        result
    }

    fn take_block(&mut self, block: &Block) {
        let Some(quiet) = Quiet::of(block) else { return self.take_rows(block, 0..block.count) };
        let mut place = 0;
        while place < block.count {
            let taken = self.basis.rows;
            self.take_rows(block, place..place + 1);
            place += 1;
            let Some(mut row) = self.before.filter(|_| self.basis.rows > taken) else { continue };
            let next = self.take_alike(&quiet, &row, place);
            if next > place {
                block.fill(next - 1, &mut row);
                (self.before, place) = (Some(row), next);
            }
        }
    }

    /// Takes rows, each of which is made where the one before the last lay.
    fn take_rows(&mut self, block: &Block, numbers: Range<usize>) {
        let mut rows = [self.before.unwrap_or(block.constants), block.constants];
        let (mut has_before, mut has_both, mut place) = (self.before.is_some(), false, 1);
        for number in numbers {
            block.fill(number, &mut rows[place]);
            let [one, other] = &rows;
            let (before, row) = if place == 1 { (one, other) } else { (other, one) };
            if self.take(has_before.then_some(before), row) {
                place = 1 - place;
                if !has_both {
                    rows[place] = block.constants;
                }
                (has_before, has_both) = (true, true);
            }
        }
        self.before = has_before.then_some(rows[1 - place]);
    }

    /// Returns what became of offers at the recorded backlog.
    pub fn counts(&self) -> &[Counts; 3] {
        self.aged.as_ref().map_or(&self.tally.counts, |aged| aged.counts())
    }

    /// Ends the replay: nothing is known of the time after the last row.
    pub fn end(&mut self) {
        if let Some(last) = self.before {
            self.basis.last_ms = last.at_ms();
            self.worlds.iter_mut().for_each(Simulated::end);
            self.begun = false;
            if let Some(judge) = &self.judge {
                self.tally.settle(&judge.verdicts);
            }
        }
    }

    /// Takes a row, unless it is not later than the one before; tells whether it did.
    fn take(&mut self, before: Option<&Row>, row: &Row) -> bool {
        let at_ms = row.at_ms();
        if at_ms <= before.map_or(-1, Row::at_ms) || at_ms >= LAST_MS {
            self.basis.skipped += 1;
            return false;
        }
        self.basis.rows += 1;
        if before.is_none() {
            self.basis.first_ms = at_ms;
            self.trail.begin(at_ms);
            self.worlds.iter_mut().for_each(|world| world.backlog().trail.begin(at_ms));
        }
        self.trail.note(at_ms, row.backlog() * JOB);
        self.basis.knows_memory |= row.memory().is_some();
        if row.oldest_age_ms() != UNKNOWN {
            self.basis.oldest_ms = Some(self.basis.oldest_ms.unwrap_or(0).max(row.oldest_age_ms()));
        }
        let Some(before) = before else { return true };
        let span_ms = at_ms - before.at_ms();
        if span_ms > self.gap_ms {
            self.basis.gaps_ms += span_ms;
            self.basis.unjudged +=
                row.offers().iter().map(|count| i128::from((*count).max(0)) * i128::from(JOB)).sum::<i128>();
            self.stop();
        } else {
            self.pass_by(before, row, span_ms);
        }
        true
    }

    fn pass_by(&mut self, before: &Row, row: &Row, span_ms: i64) {
        let tried = self.judge.as_mut().map(|judge| {
            self.tally.ask(judge, before.backlog(), before.memory());
            &judge.verdicts
        });
        self.tally.last(span_ms);
        let (in_force, enforces) = told_then(&mut self.in_force, tried, before, row);
        let flow = self.flows.between(before, row, span_ms, in_force.filter(|_| enforces));
        let basis = &mut self.basis;
        basis.judged_ms += span_ms;
        basis.offers_ms += if flow.told { span_ms } else { 0 };
        basis.drains_ms += if flow.drains { span_ms } else { 0 };
        basis.busy_ms += if flow.busy { span_ms } else { 0 };
        basis.refused += i128::from(flow.refused);
        let Some(offers) = flow.offers else {
            self.stop();
            return;
        };
        basis.others += i128::from(flow.others);
        for (priority, verdict) in tried.into_iter().flatten().enumerate() {
            self.tally.judge(priority, offers[priority], verdict);
        }
        if let Some(aged) = &mut self.aged {
            if !self.begun {
                aged.begin(before);
            }
            aged.pass_by(before, span_ms, &flow);
        }
        if let Some(verdicts) = in_force.filter(|_| flow.told) {
            self.parity.compare(offers, flow.delays, flow.sheds, verdicts, enforces);
        }
        let interval = Interval {
            begin_ms: before.at_ms(),
            span_ms,
            memory: before.memory(),
            knows_oldest: before.oldest_age_ms() != UNKNOWN,
            offers,
            sheds: flow.sheds,
            others: flow.others,
            capacity: flow.capacity,
        };
        for world in &mut self.worlds {
            if !self.begun {
                world.begin(before);
            }
            world.pass_by(&interval, in_force.filter(|_| enforces));
        }
        self.begun = true;
    }

    fn stop(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.worlds.iter_mut().for_each(Simulated::end);
        }
        self.flows.forget();
    }
}

/// Returns what the policy in force said, and whether that was done; `tried` is what the policy says that is tried.
#[inline]
fn told_then<'a>(
    known: &'a mut [InForce],
    tried: Option<&'a [Verdict; 3]>,
    before: &Row,
    row: &Row,
) -> (Option<&'a [Verdict; 3]>, bool) {
    if row.policy() == UNKNOWN || row.policy() != before.policy() {
        return (None, false);
    }
    match known.iter_mut().find(|policy| policy.number == row.policy()) {
        Some(InForce { told: Told::Same, enforces, .. }) => (tried, *enforces),
        Some(InForce { told: Told::Other(judge), enforces, .. }) => {
            (Some(judge.judge(before.backlog(), before.memory())), *enforces)
        }
        _ => (None, false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::settings::{AgePolicy, BehaviourSettings, LoopSettings, PolicyInForce, ReplaySettings, Tried};
    use super::{COLUMNS, QueueReplay, Row, UNKNOWN};
    use crate::budget::BudgetSettings;
    use crate::laws::AnyLaw;
    use crate::laws::three_zone::{LawSettings, Scale, ThreeZoneLaw};
    use crate::zone::Window;

    const HOUR_NS: u64 = 3_600_000_000_000;

    fn law(red_max_ns: u64) -> AnyLaw {
        let window = Window { green_max: 100, yellow_max: 500, red_max: 1_000 };
        let settings = LawSettings {
            windows: [window; 3],
            yellow_min_ns: 0,
            yellow_max_ns: 500_000_000.min(red_max_ns),
            red_max_ns,
            scales: [Scale { num: 1_000, den: 1 }, Scale { num: 1, den: 1 }, Scale { num: 1, den: 2 }],
            shed_permille: 800,
            scale_yellow: true,
            memory_permille: Some((850, 900)),
        };
        AnyLaw::ThreeZone(ThreeZoneLaw::new(settings))
    }

    fn settings(red_max_ns: u64, pause_us: Option<i64>, mix_ppm: Option<[i64; 3]>) -> ReplaySettings {
        let loops = Some(LoopSettings { count: 1_000_000, pause_us, paced: false, skips: false });
        let policy = PolicyInForce { law: Some(law(red_max_ns)), enforces: true };
        ReplaySettings {
            law: Tried::Table(law(red_max_ns)),
            poll_ms: 5_000,
            busy_poll_ms: 50,
            sleep_permille: 1_500,
            gap_ms: 7_200_000,
            trail_ms: 1_000,
            mix_ppm,
            in_force: vec![(1, policy)],
            behaviour: Some(BehaviourSettings {
                returns_ppm: [1_000_000; 3],
                return_after_us: None,
                loops: [loops, None, loops],
            }),
        }
    }

    fn age(target_ms: i64) -> Tried {
        let tick_ms = (target_ms / 5).clamp(100, 1_000);
        let budget = BudgetSettings {
            target_ms,
            tick_ms,
            gain_most_permille: 9_000,
            drain_window_ms: 6_000,
            trims: true,
            least_budget_permille: 50,
            medium_floor_permille: 0,
            low_floor_permille: 5,
            burst_jobs: 5,
            calls_per_second: 2_000,
        };
        Tried::Age(AgePolicy { budget, sheds_medium: false, memory_permille: Some((850, 900)) })
    }

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![Just(UNKNOWN), 0..2_000_i64, any::<i64>(), Just(i64::MAX), Just(-i64::MAX)]
    }

    proptest! {
        // Tests are built so that what overflows panics.
        #[test]
        fn no_number_is_too_much(
            rows in prop::collection::vec((prop::array::uniform16(number()), 0..8_000_000_i64), 0..12),
            red_max_ns in prop_oneof![0..10_u64, Just(HOUR_NS)],
            pause_us in prop_oneof![Just(None), Just(Some(0)), Just(Some(86_400_000_000))],
            mixed: bool,
            target_ms in prop_oneof![Just(None), Just(Some(60_000)), Just(Some(3_600_000))],
        ) {
            let mut given = settings(red_max_ns, pause_us, mixed.then_some([500_000, 500_000, 0]));
            if let Some(target_ms) = target_ms {
                given.law = age(target_ms);
            }
            let mut replay = QueueReplay::new(&given);
            let (mut at_ms, mut before) = (0, None);
            let made: Vec<Row> = rows.iter().map(|(others, span_ms)| {
                let mut numbers = [0; COLUMNS];
                numbers[1..].copy_from_slice(others);
                // A budget ticks each second: hours of it take long.
                at_ms += if target_ms.is_some() { span_ms % 100_000 } else { *span_ms };
                numbers[0] = at_ms;
                numbers[COLUMNS - 1] = 1;
                Row(numbers)
            }).collect();
            for row in &made {
                if replay.take(before, row) {
                    before = Some(row);
                }
            }
            replay.before = before.copied();
            replay.end();
            prop_assert_eq!(replay.basis.rows + replay.basis.skipped, made.len() as u64);
        }
    }
}
