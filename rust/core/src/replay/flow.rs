//! What came into a queue and left it between two rows, as far as they tell.

use super::columns::UNKNOWN;
use super::judge::Verdict;
use super::later::Later;
use super::row::Row;

/// One job, in its millionths.
pub const JOB: i64 = 1_000_000;
/// As many jobs as a queue has: more is a mistake of the source.
pub const MOST: i64 = 1_000_000_000_000 * JOB;
/// As many as come or go between two rows.
pub const FLOW: i64 = 1_000_000_000 * JOB;
const MOST_FLOW_JOBS: i64 = FLOW / JOB;
/// The capacity of workers that have nothing to do is their latest when they had, over some milliseconds.
const SMOOTHED_MS: i64 = 60_000;

/// Returns so many millionths of jobs.
#[inline]
pub fn part(jobs: i64, ppm: i64) -> i64 {
    if ppm == 0 {
        return 0;
    }
    match jobs.checked_mul(ppm) {
        Some(product) => product / JOB,
        None => narrow(i128::from(jobs) * i128::from(ppm) / i128::from(JOB)),
    }
}

/// Narrows what its bounds keep within 64 bits.
pub fn narrow(wide: i128) -> i64 {
    i64::try_from(wide).expect("flows are bounded")
}

/// Millionths of jobs between two rows; triples are LOW, MEDIUM, HIGH. See the Python `Flow`.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub offers: Option<[i64; 3]>,
    pub delays: [i64; 3],
    pub sheds: [i64; 3],
    pub told: bool,
    pub refused: i64,
    pub let_in: i64,
    pub others: i64,
    pub capacity: i64,
    pub drains: bool,
    pub busy: bool,
}

/// Reads the flow off row after row, and remembers how fast workers are.
#[derive(Debug)]
pub struct Flows {
    mix_ppm: Option<[i64; 3]>,
    /// A second; `None`: they were never seen busy.
    rate: Option<i64>,
    /// Jobs that came in less those whose offers were let in.
    balance: i64,
    /// Offers that were delayed while the recording was made.
    late: Later,
}

impl Flows {
    /// Knows nothing yet.
    pub fn new(mix_ppm: Option<[i64; 3]>) -> Self {
        Self { mix_ppm, rate: None, balance: 0, late: Later::default() }
    }

    /// Forgets what is to come, before a gap.
    pub fn forget(&mut self) {
        self.late.clear(0);
    }

    /// Returns what came and went in the time before a row.
    ///
    /// `in_force` is what producers were told then, and did; `None`: nothing, or it is not known.
    pub fn between(&mut self, before: &Row, row: &Row, span_ms: i64, in_force: Option<&[Verdict; 3]>) -> Flow {
        let told = row.offers().iter().any(|count| *count != UNKNOWN);
        let mut offers = row.offers().map(flow);
        let mut sheds = row.sheds().map(flow);
        for (shed, offered) in sheds.iter_mut().zip(offers) {
            *shed = offered.min(*shed);
        }
        let mut delays = row.delays().map(flow);
        let mut refused = 0;
        if before.is_open() && row.is_open() {
            refused = offers.iter().sum();
            (offers, sheds, delays) = ([0; 3], [0; 3], [0; 3]);
        }
        let mut own = self.late.take(before.at_ms()) + offers.iter().sum::<i64>() - sheds.iter().sum::<i64>();
        if let Some(verdicts) = in_force {
            for priority in 0..3 {
                let delayed = delays[priority].min(offers[priority] - sheds[priority]);
                own -= self.delay(delayed, verdicts[priority].held_us, 1_000 * span_ms);
            }
        }
        let mut own = own.min(FLOW);
        let growth = (row.backlog() - before.backlog()) * JOB;
        let (entered, told_left) = (since(before.entered(), row.entered()), since(before.left(), row.left()));
        let drains = entered.is_some() || told_left.is_some();
        let inflow = match (entered, told_left) {
            (Some(entered), _) => entered,
            (None, Some(left)) => (left + growth).clamp(0, FLOW),
            (None, None) => own,
        };
        let left = match told_left {
            None => inflow - growth,
            Some(left) => left + (inflow - left - growth).min(0), // what vanished
        };
        let left = left.max(0);
        let mut others = (growth - (inflow - left)).max(0); // what came from nowhere: others offer too
        let left = left.min(FLOW);
        let mix_ppm = self.mix_ppm.filter(|_| drains && !told);
        if let Some(mix_ppm) = mix_ppm {
            offers = mix_ppm.map(|ppm| part(inflow, ppm));
            own = inflow;
        } else if drains {
            self.balance = (self.balance + inflow - own).max(-MOST);
            let more = self.balance.max(0);
            self.balance -= more;
            others += more;
        }
        let known = told || mix_ppm.is_some();
        let (capacity, busy) =
            if known { self.capacity(before.backlog().min(row.backlog()), left, span_ms) } else { (0, false) };
        let offers = known.then_some(offers);
        Flow { offers, delays, sheds, told, refused, let_in: own, others: others.min(FLOW), capacity, drains, busy }
    }

    /// Tells whether nothing is to come of offers that were delayed.
    pub fn is_settled(&self) -> bool {
        self.late.is_empty()
    }

    /// Returns what came from nowhere, what workers could take, and whether they took it, where that is settled and only
    /// offers tell what came; as [`Self::between`] does.
    #[inline]
    pub fn quiet(&mut self, own: i64, before: i64, backlog: i64, span_ms: i64) -> (i64, i64, bool) {
        let (own, growth) = (own.min(FLOW), (backlog - before) * JOB);
        let (capacity, busy) = self.capacity(before.min(backlog), (own - growth).clamp(0, FLOW), span_ms);
        ((growth - own).clamp(0, FLOW), capacity, busy)
    }

    /// Has delayed jobs come in later; returns those of them that do not come before the row.
    fn delay(&mut self, jobs: i64, held_us: i64, span_us: i64) -> i64 {
        let within_us = (span_us - held_us).max(0);
        let late = jobs - scaled(jobs, within_us, span_us);
        self.late.put_later(late, held_us.max(span_us));
        late
    }

    /// Returns what workers could take, and whether they took it.
    ///
    /// They did if there were always jobs for a quarter of the time; `least` is how many there were at both ends.
    #[inline]
    fn capacity(&mut self, least: i64, left: i64, span_ms: i64) -> (i64, bool) {
        if least >= 1 && 4 * least * JOB >= left {
            let rate = if span_ms == 1_000 { left } else { left * 1_000 / span_ms }; // FLOW × 1 000 fits
            self.rate = Some(match self.rate {
                None => rate,
                Some(old) => old + scaled(rate - old, span_ms, span_ms + SMOOTHED_MS),
            });
            return (left, true);
        }
        let could = self.rate.map_or(0, |rate| if span_ms == 1_000 { rate } else { scaled(rate, span_ms, 1_000) });
        (left.max(could).min(FLOW), false)
    }
}

/// Returns a number times a fraction, towards nought.
fn scaled(number: i64, by: i64, of: i64) -> i64 {
    match number.checked_mul(by) {
        Some(product) => product / of,
        None => i64::try_from(i128::from(number) * i128::from(by) / i128::from(of)).unwrap_or(i64::MAX),
    }
}

/// Returns jobs in their millionths; what is not known is none.
#[inline]
pub fn flow(jobs: i64) -> i64 {
    jobs.clamp(0, MOST_FLOW_JOBS) * JOB
}

/// Returns how far a count has gone on; `None` where that is not known, or it began anew.
fn since(before: i64, now: i64) -> Option<i64> {
    if before == UNKNOWN || now == UNKNOWN || now < before {
        return None;
    }
    Some(now.saturating_sub(before).min(MOST_FLOW_JOBS) * JOB)
}
