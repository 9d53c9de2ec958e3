//! The answers with feedback: of a law that judges samples, or of an age that is to be held.

use super::Counts;
use super::aged::AgedWorld;
use super::backlog::Backlog;
use super::interval::Interval;
use super::judge::Verdict;
use super::row::Row;
use super::settings::{BehaviourSettings, ReplaySettings, Tried};
use super::trail::Trail;
use super::world::World;

/// An answer with feedback.
pub enum Simulated {
    /// Of a law that judges samples.
    Table(Box<World>),
    /// Of a queue whose age is held.
    Aged(Box<AgedWorld>),
}

impl Simulated {
    /// Makes one of what is tried.
    pub(super) fn new(settings: &ReplaySettings, behaviour: Option<&BehaviourSettings>) -> Self {
        match &settings.law {
            Tried::Table(law) => Self::Table(Box::new(World::new(settings, law, behaviour))),
            Tried::Age(policy) => Self::Aged(Box::new(AgedWorld::new(settings, policy, behaviour))),
        }
    }

    /// Offers and what became of them, LOW first.
    pub fn counts(&self) -> &[Counts; 3] {
        match self {
            Self::Table(world) => &world.tally.counts,
            Self::Aged(world) => world.counts(),
        }
    }

    /// The backlog over time.
    pub fn trail(&self) -> &Trail {
        match self {
            Self::Table(world) => &world.backlog.trail,
            Self::Aged(world) => &world.backlog.trail,
        }
    }

    /// Age of the oldest job that ever waited.
    pub fn longest_wait_ms(&self) -> i64 {
        match self {
            Self::Table(world) => world.backlog.longest_wait_ms,
            Self::Aged(world) => world.backlog.longest_wait_ms,
        }
    }

    /// How much time was simulated.
    pub fn simulated_ms(&self) -> i64 {
        match self {
            Self::Table(world) => world.simulated_ms,
            Self::Aged(world) => world.simulated_ms,
        }
    }

    /// The queue.
    pub(super) fn backlog(&mut self) -> &mut Backlog {
        match self {
            Self::Table(world) => &mut world.backlog,
            Self::Aged(world) => &mut world.backlog,
        }
    }

    /// Begins anew with a recorded backlog.
    pub(super) fn begin(&mut self, row: &Row) {
        match self {
            Self::Table(world) => world.begin(row),
            Self::Aged(world) => world.begin(row),
        }
    }

    /// Lets the time between two rows go by.
    #[inline]
    pub(super) fn pass_by(&mut self, interval: &Interval, in_force: Option<&[Verdict; 3]>) {
        match self {
            Self::Table(world) => world.pass_by(interval, in_force),
            Self::Aged(world) => world.pass_by(interval, in_force),
        }
    }

    /// Counts all that came, before a time of which nothing is known.
    pub(super) fn end(&mut self) {
        if let Self::Table(world) = self {
            world.end();
        }
    }
}
