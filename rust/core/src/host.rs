//! What an engine asks of its surroundings, and the answer that a decision is made of.

use std::sync::Arc;

use crate::breaker::{Change, Ticket};
use crate::lease::Lease;
use crate::queue::{Computed, Place, Queue, Ready};
use crate::vocabulary::{Priority, Reason};
use crate::zone::Zone;

/// What was decided for one job, with where it came from.
#[derive(Debug)]
pub struct Answer<P> {
    /// Priority of the job.
    pub priority: Priority,
    /// Why.
    pub reason: Reason,
    /// Nanoseconds to wait; where the job is refused by load, those it would have waited.
    pub delay_ns: u64,
    /// Whether the job is refused.
    pub shed: bool,
    /// Zone of the sample it was made from.
    pub zone: Option<Zone>,
    /// Backlog of that sample.
    pub backlog: Option<i64>,
    /// The computation that it was taken from.
    pub source: Option<Arc<Computed<P>>>,
    /// Whether that computation was made for it.
    pub computed: bool,
    /// The breaker's permission, where there is one.
    pub ticket: Option<Ticket>,
    /// When it was made.
    pub issued_ns: i64,
    /// When the circuit that refuses may be probed, if that is known.
    pub retry_at_ns: Option<i64>,
    /// How long it stays true, if that is known.
    pub until_ns: Option<i64>,
    /// The count of its priority's like answers up to which it stays true, if there is one.
    pub until_count: Option<u64>,
    /// Whether it is the refusal of a circuit held open by hand, which observe mode keeps to.
    pub forced: bool,
    /// What further jobs may go by until `until_ns`.
    pub lent: Option<Lent>,
}

/// What the budget of a queue whose age is held says of one job; see `backpressure._engine.laws.age`.
#[derive(Debug)]
pub struct Judged {
    /// What its caller is told.
    pub told: Told,
    /// What further jobs may go by.
    pub lent: Option<Lent>,
}

/// What a job is told by the budget of its queue.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Zone of the age, if it is known.
    pub zone: Option<Zone>,
    /// Nanoseconds to wait; where the job is refused, those until another attempt makes sense.
    pub delay_ns: u64,
    /// Whether the job is refused.
    pub shed: bool,
    /// Why.
    pub reason: Reason,
}

/// What further jobs of a priority may go by without asking the budget.
#[derive(Debug)]
pub struct Lent {
    /// Whose words they step.
    pub lease: Arc<Lease>,
    /// Whether they go by the line's word, not by the share's.
    pub by_line: bool,
    /// Last instant at which they may.
    pub until_ns: i64,
    /// [`Lease::renewal`] of the terms by which the job was judged.
    pub renewal: u32,
    /// What those are told by these terms whom the share's word does not treat as that job: a refusal beside a go, a go
    /// beside a refusal.
    pub other: Option<Told>,
}

impl<P> Answer<P> {
    /// Makes the answer that lets a job go at once.
    pub fn go(priority: Priority, reason: Reason, issued_ns: i64) -> Self {
        Self::wait(priority, reason, 0, issued_ns)
    }

    /// Makes the answer that has a job wait.
    pub fn wait(priority: Priority, reason: Reason, delay_ns: u64, issued_ns: i64) -> Self {
        Self {
            priority,
            reason,
            delay_ns,
            shed: false,
            zone: None,
            backlog: None,
            source: None,
            computed: false,
            ticket: None,
            issued_ns,
            retry_at_ns: None,
            until_ns: None,
            until_count: None,
            forced: false,
            lent: None,
        }
    }

    /// Makes the answer of what a budget tells.
    pub fn told(priority: Priority, told: Told, backlog: Option<i64>, issued_ns: i64) -> Self {
        let Told { zone, delay_ns, shed, reason } = told;
        Self { shed, zone, backlog, ..Self::wait(priority, reason, delay_ns, issued_ns) }
    }

    /// Returns what decisions are made of: that of the computation, else the host makes it. `observed` tells whether it
    /// is what observe mode makes of the answer.
    ///
    /// # Errors
    /// Those of the host.
    pub fn finished<H: Host<Object = P>>(&self, host: &H, name: &H::Name, observed: bool) -> Result<P, H::Error> {
        if let Some(source) = &self.source {
            return Ok(host.share(&source.finished));
        }
        let finished = host.answer(name, self)?;
        if observed { host.observed(finished) } else { Ok(finished) }
    }

    /// Has a job wait that is shed by a table. This is for its caller alone.
    pub fn spare(&mut self) {
        (self.shed, self.reason) = (false, Reason::BacklogRed);
        (self.source, self.until_ns, self.until_count) = (None, None, None);
    }

    /// Takes out what is the own of the decision that is made of it.
    pub fn issue(&mut self) -> Issue {
        Issue { issued_ns: self.issued_ns, ticket: self.ticket.take(), computed: self.computed }
    }
}

/// What is a decision's own, beside what it is made of.
#[derive(Debug)]
pub struct Issue {
    /// When it was made.
    pub issued_ns: i64,
    /// The breaker's permission, where there is one.
    pub ticket: Option<Ticket>,
    /// Whether the law was computed for it.
    pub computed: bool,
}

/// A host's queue.
pub type QueueOf<H> = Queue<<H as Host>::Object, <H as Host>::Place>;

/// What an engine asks of its surroundings: `backpressure._engine.Host`, as the core sees it.
pub trait Host {
    /// What callers see: decisions, and what they are made of.
    type Object;
    /// The error of its methods.
    type Error;
    /// A queue's name.
    type Name: ?Sized;
    /// Where ready answers lie.
    type Place: Place<Ready<Self::Object>>;

    /// Returns the present instant.
    ///
    /// # Errors
    /// The host's own, as of every method here.
    fn now_ns(&self) -> Result<i64, Self::Error>;

    /// Returns a name's text.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn text<'a>(&self, name: &'a Self::Name) -> Result<&'a str, Self::Error>;

    /// Returns the error for a call on an engine that is not running.
    fn not_running(&self) -> Self::Error;

    /// Is told that the time of the manual override is up.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn override_ended(&self) -> Result<(), Self::Error>;

    /// Looks after the poller: samples have not been renewed in time. Tells whether the caller is to read first.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn check_poller(&self) -> Result<bool, Self::Error>;

    /// Is told that more jobs were let in since a queue's sample than its advice is good for: it is to be read soon.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn hurry(&self, name: &Self::Name) -> Result<(), Self::Error>;

    /// Has a queue read on the caller's path; returns the reason to answer with, if there is still no sample.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn read(&self, name: &Self::Name, wait: bool) -> Result<Option<Reason>, Self::Error>;

    /// Asks the budget of a queue whose age is held for one job. It may fail, for its caller to wait and ask again.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn judge(&self, name: &Self::Name, priority: Priority) -> Result<Judged, Self::Error>;

    /// Tells what [`Self::judge`] would say of a caller that does not wait, without any effect.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn foresee(&self, name: &Self::Name, priority: Priority) -> Result<Judged, Self::Error>;

    /// Is told of a change of a queue's breaker that is news.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn circuit_changed(&self, name: &Self::Name, change: Change) -> Result<(), Self::Error>;

    /// Is told that a queue's backlog lies in another zone of a priority's window; before the first look it was green.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn zone_changed(&self, name: &Self::Name, priority: Priority, old: Zone, new: Zone) -> Result<(), Self::Error>;

    /// Builds what decisions are made of: the public value of an answer, which all of them share. Its time is now.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn answer(&self, name: &Self::Name, answer: &Answer<Self::Object>) -> Result<Self::Object, Self::Error>;

    /// Builds what observe mode makes of such a value: that of a go, with the real one beside it.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn observed(&self, finished: Self::Object) -> Result<Self::Object, Self::Error>;

    /// Makes a decision for one caller.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn issue(&self, finished: Self::Object, issue: Issue) -> Result<Self::Object, Self::Error>;

    /// Makes the decision of an answer for a caller that only looks: nothing is noted of it. `observed` tells whether
    /// it is what observe mode makes of it.
    ///
    /// # Errors
    /// See [`Self::now_ns`].
    fn peeked(
        &self,
        name: &Self::Name,
        answer: &Answer<Self::Object>,
        observed: bool,
    ) -> Result<Self::Object, Self::Error>;

    /// Returns another reference to the same object.
    fn share(&self, object: &Self::Object) -> Self::Object;
}
