//! How well the policy that was in force, replayed, gives the decisions that were recorded.

use super::flow::Flow;
use super::judge::Verdict;

/// How far the policy that was in force, replayed at the recorded backlog, is from what was decided.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parity {
    /// Offers that were compared, in millionths of jobs, as all here.
    pub offers: i128,
    /// Differences between two rows, added up.
    pub off: i128,
    /// Delays and sheds of LOW, MEDIUM, HIGH.
    pub recorded: [i128; 6],
    /// The same as replayed.
    pub replayed: [i128; 6],
}

impl Parity {
    /// Compares what was decided between two rows.
    #[inline]
    pub(super) fn compare(&mut self, flow: Flow, verdicts: &[Verdict; 3], enforces: bool) {
        let offered = flow.offers.unwrap_or_default();
        if flow.delays == [0; 3] && flow.sheds == [0; 3] && verdicts.iter().all(|it| !it.waits && !it.shed) {
            self.offers += i128::from(offered.iter().sum::<i64>());
            return;
        }
        for (priority, verdict) in verdicts.iter().enumerate() {
            let offers = offered[priority];
            let recorded = [flow.delays[priority], flow.sheds[priority]];
            let replayed = [if verdict.waits { offers } else { 0 }, if verdict.shed && enforces { offers } else { 0 }];
            self.offers += i128::from(offers);
            for kind in 0..2 {
                if (recorded[kind], replayed[kind]) == (0, 0) {
                    continue;
                }
                self.recorded[2 * priority + kind] += i128::from(recorded[kind]);
                self.replayed[2 * priority + kind] += i128::from(replayed[kind]);
                self.off += i128::from(recorded[kind].abs_diff(replayed[kind]));
            }
        }
    }
}
