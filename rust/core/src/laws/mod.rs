//! The throttle laws. This is the only list of them: a new law is a file here, a variant of [`AnyLaw`] and, if it keeps
//! something of each queue, a field of [`State`].

pub mod law;
pub mod three_zone;

use crate::laws::law::{Advice, Law};
use crate::laws::three_zone::ThreeZoneLaw;
use crate::sample::Sample;
use crate::vocabulary::Priority;

/// The law of a queue, as the settings carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyLaw {
    /// See [`three_zone`].
    ThreeZone(ThreeZoneLaw),
    /// An age is to be held: the host asks the budget that all producers share. Nothing is said of samples.
    Age,
}

/// What the laws keep of one queue. It outlives a change of the settings.
#[derive(Debug, Default)]
pub struct State {}

impl AnyLaw {
    /// Judges `sample` for a job of `priority`.
    ///
    /// # Panics
    /// For a queue whose age is to be held.
    pub fn advise(&self, sample: &Sample, priority: Priority, _: &State) -> Advice {
        match self {
            Self::ThreeZone(law) => law.advise(sample, priority, &()),
            Self::Age => panic!("the host judges for this queue"),
        }
    }

    /// Returns what [`Self::advise`] would; leaves the state alone.
    ///
    /// # Panics
    /// As [`Self::advise`].
    pub fn foresee(&self, sample: &Sample, priority: Priority, _: &State) -> Advice {
        match self {
            Self::ThreeZone(law) => law.foresee(sample, priority, &()),
            Self::Age => panic!("the host judges for this queue"),
        }
    }

    /// Returns a backlog from which on the advice is the same, whatever it is.
    pub fn steady_from(&self) -> i64 {
        match self {
            Self::ThreeZone(law) => law.steady_from(),
            Self::Age => i64::MAX,
        }
    }

    /// Tells whether an age is to be held.
    pub fn holds_age(&self) -> bool {
        matches!(self, Self::Age)
    }
}

impl From<ThreeZoneLaw> for AnyLaw {
    fn from(law: ThreeZoneLaw) -> Self {
        Self::ThreeZone(law)
    }
}
