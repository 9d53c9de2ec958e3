//! How well the policy that was in force, replayed, gives the decisions that were recorded.

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
    pub(super) fn compare(
        &mut self,
        offers: [i64; 3],
        delays: [i64; 3],
        sheds: [i64; 3],
        verdicts: &[Verdict; 3],
        enforces: bool,
    ) {
        for (priority, verdict) in verdicts.iter().enumerate() {
            let offers = offers[priority];
            self.offers += i128::from(offers);
            let recorded = [delays[priority], sheds[priority]];
            let replayed = [if verdict.waits { offers } else { 0 }, if verdict.shed && enforces { offers } else { 0 }];
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
