//! What a law is: it turns a sample of a queue into advice for jobs of one priority.

use crate::sample::Sample;
use crate::vocabulary::{Priority, Reason};
use crate::zone::Zone;

/// What a law says of one sample for one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Zone of the backlog.
    pub zone: Zone,
    /// Delay in nanoseconds, also where shedding is advised.
    pub delay_ns: u64,
    /// Whether the job should be refused.
    pub shed: bool,
    /// Why, as the decision and its count tell.
    pub reason: Reason,
    /// Jobs that may come before the advice is of another kind; `None` if more jobs make no difference.
    pub room: Option<u64>,
}

/// Turns a sample into advice, on any thread.
pub trait Law: Send + Sync {
    /// What the law keeps of each queue: atomics or swapped pointers, since many threads use it at once. `()` for a law
    /// that keeps nothing: then the same sample always gives the same advice.
    type State: Default + Send + Sync;

    /// Judges `sample` for a job of `priority`.
    fn advise(&self, sample: &Sample, priority: Priority, state: &Self::State) -> Advice;

    /// Returns what [`Self::advise`] would; leaves the state alone.
    fn foresee(&self, sample: &Sample, priority: Priority, state: &Self::State) -> Advice;
}

/// Narrows a delay. The configuration keeps delays below six weeks, so no delay is ever cut.
pub(crate) fn saturated(delay_ns: u128) -> u64 {
    u64::try_from(delay_ns).unwrap_or(u64::MAX)
}
